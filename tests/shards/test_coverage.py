"""Slots and pieces: a bijection in every pass, and every source its share."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.coverage import Coverage, Pool, UnfitError
from shards.fitting import cut
from shards.places import WINDOW
from shards.view_counts import Schedule, in_even_order, view_counts

SEED = np.array([7], np.uint64)


def schedule(images: int, views: tuple[int, int], scenes: int, singles: int = 0) -> Schedule:
    counts = view_counts(images, scenes, views, np.random.default_rng(0).random((64, scenes)))
    return Schedule(np.pad(in_even_order(counts), ((0, 0), (0, singles)), constant_values=1))


def pool(frames, weight: float = 1.0, first: int = 0, *, single: bool = False) -> Pool:
    frames = np.asarray(frames)
    rows = np.arange(first, first + len(frames))
    return Pool(name=f"from {first}", weight=weight, rows=rows, frames=frames, single=single)


@given(st.dictionaries(st.integers(2, 96), st.integers(1, 50), min_size=1), st.integers(0, 2**32))
@settings(max_examples=50, deadline=None)
def test_cutting_puts_every_frame_into_one_piece_and_no_slot_is_used_twice(chunks, seed: int) -> None:
    rng = np.random.default_rng(seed)
    slots = {size: int(n) for size, n in zip(range(2, 25), rng.integers(0, 40, 23), strict=True)}
    types, uncovered = cut(chunks, slots, 2)
    used, found = Counter(), Counter()
    for kind in types:
        found[kind.frames] += kind.count
        assert sum(own for own, _ in kind.pieces) + kind.left == kind.frames
        assert all(0 < own <= size <= kind.frames for own, size in kind.pieces)
        for _, size in kind.pieces:
            used[size] += kind.count
    assert found == Counter(chunks)
    assert all(used[size] <= slots[size] for size in used)
    assert sum(kind.count * kind.left for kind in types) == uncovered


def visits(coverage: Coverage, steps) -> Counter:
    """(pool, pass, row, piece) -> how often it is shown; extra visits are counted as piece -1."""
    seen: Counter = Counter()
    for step in steps:
        for lane in range(coverage.lanes):
            slots = coverage.at(step, lane)
            number = [len(cuts) - 1 for cuts in slots.cuts]
            seen.update(
                zip(slots.pools.tolist(), slots.passes.tolist(), slots.rows.tolist(), number, strict=True)
            )
            for size, cuts, extra in zip(slots.sizes, slots.cuts, slots.extras, strict=True):
                assert cuts[-1] <= size if cuts else extra >= 0
    return seen


@given(
    st.data(), st.sampled_from([(96, (2, 24), 7), (48, (2, 12), 7), (24, (6, 6), 4)]), st.integers(0, 10**6)
)
@settings(max_examples=20, deadline=None)
def test_chunks_of_any_size_never_clog_and_every_piece_is_shown_once(data, shape, epoch: int) -> None:
    """The trap of pools that keep what no step can use: with up to 24 views and any chunks, every epoch ends."""
    images, views, scenes = shape
    frames = data.draw(st.lists(st.integers(views[0], 96), min_size=1, max_size=40))
    lanes = data.draw(st.integers(1, 4))
    coverage = Coverage([pool([*frames, views[1]])], schedule(images, views, scenes), lanes=lanes, seed=SEED)
    steps = coverage.steps_per_epoch
    seen = visits(coverage, range(epoch * steps, (epoch + 1) * steps))
    assert {key[1] for key in seen} == {epoch}
    pieces = {key: n for key, n in seen.items() if key[3] >= 0}
    assert set(pieces.values()) == {1}
    covered = Counter(key[2] for key in pieces)
    assert set(covered) == set(range(len(frames) + 1))
    shown = steps * lanes * images
    assert coverage.repeats[0] == pytest.approx(shown / (sum(frames) + views[1]) - 1)


@given(st.lists(st.floats(0.05, 1), min_size=2, max_size=4), st.integers(0, 2000), st.integers(1, 40))
@settings(max_examples=25, deadline=None)
def test_a_source_has_its_share_of_any_steps_to_within_a_slot_of_each_size(weights, first, steps) -> None:
    pools, rows = [], 0
    for number, weight in enumerate(weights):
        pools.append(pool(np.random.default_rng(number).integers(24, 97, 30 + 50 * number), weight, rows))
        rows += len(pools[-1].rows)
    plan = schedule(48, (2, 12), 7)
    coverage = Coverage(pools, plan, lanes=2, seed=SEED)
    # Within an epoch; at its end all begins again, so a window over the border adds as much once more.
    first %= max(1, coverage.steps_per_epoch - steps)
    steps = min(steps, coverage.steps_per_epoch)
    got = Counter()
    for key, n in visits(coverage, range(first, first + steps)).items():
        got[key[0]] += n
    for number, weight in enumerate(weights):
        expected = steps * 2 * 7 * weight / sum(weights)
        assert abs(got[number] - expected) <= len(weights) * len(plan.sizes)
        assert abs(got[number] - expected) <= 3 + 3 * len(plan.sizes) ** 0.5  # and what it is in practice


def test_shares_of_an_epoch_are_exact_to_within_a_scene_of_each_size() -> None:
    pools = [pool([96] * 100, 3.0), pool([50] * 100, 1.0, 100), pool([24] * 500, 1.0, 200)]
    plan = schedule(96, (2, 24), 7)
    coverage = Coverage(pools, plan, lanes=8, seed=SEED)
    total = coverage.steps_per_epoch * 8 * 7
    for share, weight in zip(coverage.share, (0.6, 0.2, 0.2), strict=True):
        assert abs(share - weight) * total <= len(plan.sizes)
    # Passed first is what has most weight for its frames: 0.6 for 9,600, then 0.2 for 5,000.
    assert coverage.steps_per_pass[0] == coverage.steps_per_epoch
    assert coverage.steps_per_pass[1] == pytest.approx(coverage.steps_per_epoch * 25 / 16, rel=0.1)


def test_every_source_is_passed_wholly_whatever_the_epoch() -> None:
    pools = [pool([40] * 20, 1.0), pool([60] * 35, 1.0, 20)]
    coverage = Coverage(pools, schedule(24, (2, 12), 4), lanes=2, seed=SEED)
    seen = visits(coverage, range(5 * max(coverage.steps_per_pass)))
    for number, one in enumerate(pools):
        for turn in range(3):
            mine = Counter({k[2:]: n for k, n in seen.items() if k[:2] == (number, turn) and k[3] >= 0})
            assert set(mine.values()) == {1}
            assert {row for row, _ in mine} == set(one.rows.tolist())


def test_single_photographs_have_slots_of_their_own() -> None:
    pools = [pool([30] * 40), pool([1] * 200, first=40, single=True)]
    coverage = Coverage(pools, schedule(24, (2, 12), 4, singles=3), lanes=2, seed=SEED)
    for step in range(30):
        slots = coverage.at(step, step % 2)
        assert slots.sizes.tolist().count(1) == 3
        assert ((slots.sizes == 1) == (slots.pools == 1)).all()
    # 6 a step: 200 in 33.3, which the second epoch of 25 shuffles among its own
    seen = visits(coverage, range(2 * coverage.steps_per_epoch))
    first = {key: n for key, n in seen.items() if key[:2] == (1, 0) and key[3] >= 0}
    assert set(first.values()) == {1}
    assert len(first) == 200


def test_a_source_of_small_scenes_gets_its_share_in_small_sets() -> None:
    pools = [pool([60] * 300), pool([8] * 200, 0.5, 300)]
    plan = schedule(96, (2, 24), 7)
    coverage = Coverage(pools, plan, lanes=2, seed=SEED)
    most = plan.of_step[:, plan.sizes <= 8].sum() / plan.of_step.sum()
    assert most < 1 / 3  # all that a source of 8 frames can take, and less than its weight
    assert coverage.share[1] == pytest.approx(most, abs=0.04)
    for step in range(20):
        slots = coverage.at(step, 0)
        assert (slots.sizes[slots.pools == 1] <= 8).all()


def test_a_source_that_fits_no_slot_is_named() -> None:
    with pytest.raises(UnfitError, match="from 5"):
        Coverage([pool([40] * 5), pool([5] * 9, 1.0, 5)], schedule(24, (6, 6), 4), lanes=1, seed=SEED)


def test_a_chunk_stays_with_a_lane_and_a_window_as_a_rule() -> None:
    lanes, plan = 4, schedule(96, (2, 24), 7)
    frames = np.random.default_rng(0).integers(24, 97, 16000)
    coverage = Coverage([pool(frames)], plan, lanes=lanes, seed=SEED)
    steps = coverage.steps_per_epoch
    assert steps > 2 * WINDOW
    visited, places = Counter(), set()
    for step in range(steps, 2 * steps):
        for lane in range(lanes):
            rows = coverage.at(step, lane).rows.tolist()
            visited.update(rows)
            places |= {(row, lane, (step - steps) // WINDOW) for row in rows}
    assert np.mean(list(visited.values())) > 4  # each visit would be another download, were they anywhere
    assert len(places) / len(visited) < 1.5
