"""Drawing views: connected within the band, fair, and sensible where little is known."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.draw import Rule, grow, overlap_of, stand_ins
from shards.format import UNKNOWN


def symmetric(rng: np.random.Generator, count: int) -> np.ndarray:
    """Random overlap, a third of the pairs apart and some unknown."""
    matrix = rng.integers(0, 255, (count, count))
    matrix[rng.random((count, count)) < 0.3] = 0
    matrix[rng.random((count, count)) < 0.1] = UNKNOWN
    matrix = np.triu(matrix, 1)
    return (matrix + matrix.T + 254 * np.eye(count, dtype=int)).astype(np.uint8)


def keys(first: int, count: int) -> np.ndarray:
    return np.arange(first, first + count, dtype=np.uint64)


def draw(overlap: np.ndarray, count: int, seed: int, *, begun: list[int] | None = None, **rule) -> list[int]:
    """One set, begun with these frames or a random one."""
    before = None if begun is None else [np.array(begun)]
    drawn = grow([overlap], [(count - len(begun or ()),)], keys(seed, 1), Rule(**rule), begun=before)
    return [*(begun or ()), *drawn[0].tolist()]


@given(st.integers(2, 30), st.data(), st.integers(0, 2**32))
@settings(max_examples=80, deadline=None)
def test_every_frame_is_in_the_band_whenever_one_could_be(count: int, data, seed: int) -> None:
    overlap = symmetric(np.random.default_rng(seed), count)
    wanted = data.draw(st.integers(1, count))
    begun = data.draw(st.lists(st.integers(0, count - 1), max_size=wanted, unique=True))
    frames = draw(overlap, wanted, seed, begun=begun, band=(0.2, 0.7))
    assert len(set(frames)) == wanted
    known = np.where(overlap == UNKNOWN, 0, overlap) / 254
    inside = lambda share: (share >= 0.2) & (share <= 0.7)  # noqa: E731
    for i in range(max(1, len(begun)), wanted):
        rest = np.setdiff1d(np.arange(count), frames[:i])
        best = known[:, frames[:i]].max(1)
        if len(rest[inside(best[rest])]):
            assert inside(best[frames[i]])


@given(st.integers(0, 2**32), st.sampled_from(["connected", "window", "anchor_topk", "uniform"]))
@settings(max_examples=40, deadline=None)
def test_sets_divide_the_frames_and_no_chunk_changes_another(seed: int, drawing: str) -> None:
    rng = np.random.default_rng(seed)
    overlaps = [symmetric(rng, int(n)) for n in rng.integers(6, 40, 4)]
    cuts = [(int(len(o) // 2), 2, int(len(o) - len(o) // 2 - 2)) for o in overlaps]
    together = grow(overlaps, cuts, keys(seed, 4), Rule(drawing=drawing))
    for row, (overlap, sizes, frames) in enumerate(zip(overlaps, cuts, together, strict=True)):
        assert sorted(frames.tolist()) == list(range(len(overlap)))
        (alone,) = grow([overlap], [sizes], keys(seed + row, 1), Rule(drawing=drawing))
        assert np.array_equal(alone, frames)
        (first,) = grow([overlap], [sizes[:1]], keys(seed + row, 1), Rule(drawing=drawing))
        assert np.array_equal(first, frames[: sizes[0]])


def test_outside_the_band_the_nearest_tenth_comes_first_and_strangers_last() -> None:
    overlap = np.full((5, 5), 0, np.uint8)
    overlap[0] = overlap[:, 0] = [254, 250, 229, 13, 0]  # shares 1, .98, .9, .05, 0
    orders = {tuple(draw(overlap, 5, i, begun=[0], band=(0.3, 0.85))) for i in range(50)}
    assert orders == {(0, 2, 1, 3, 4)}


def test_a_chunk_of_unknown_overlap_is_drawn_uniformly() -> None:
    overlap = np.full((6, 6), UNKNOWN, np.uint8)
    seen = Counter()
    for seed in range(2000):
        seen.update(draw(overlap, 3, seed, begun=[0])[1:])
    assert sum((seen[i] - 800) ** 2 / 800 for i in range(1, 6)) < 20
    assert np.isnan(overlap_of(overlap, np.array([0, 1, 2]), (0.1, 0.8))).all()


def test_within_the_band_chance_is_proportional_to_overlap() -> None:
    overlap = np.zeros((3, 3), np.uint8)
    overlap[0, 1] = overlap[1, 0] = 60
    overlap[0, 2] = overlap[2, 0] = 180
    seconds = Counter(draw(overlap, 2, i, begun=[0])[1] for i in range(4000))
    assert abs(seconds[2] / 4000 - 0.75) < 0.03


def test_uniform_knows_no_overlap() -> None:
    overlap = np.full((5, 5), 0, np.uint8)
    overlap[0, 1] = overlap[1, 0] = 254
    pairs = Counter(tuple(sorted(draw(overlap, 2, i, drawing="uniform"))) for i in range(3000))
    assert sum((n - 300) ** 2 / 300 for n in pairs.values()) < 25
    assert len(pairs) == 10


def test_a_window_holds_its_views_and_is_widened_at_the_ends_of_what_is_left() -> None:
    overlap = np.full((60, 60), UNKNOWN, np.uint8)
    apart = [np.ptp(draw(overlap, 4, i, drawing="window", window=1.5)) for i in range(200)]
    assert max(apart) <= 12
    assert max(apart) > 9
    begun = draw(overlap, 6, 0, begun=[59, 58, 57, 56], drawing="window", window=0.5)
    assert max(abs(59 - f) for f in begun) <= 6


def test_anchor_topk_draws_evenly_among_the_best_partners_of_one_view() -> None:
    overlap = np.zeros((8, 8), np.uint8)
    overlap[0, 1:] = overlap[1:, 0] = [200, 10, 150, 180, 20, 5, 90]
    seen = Counter()
    for i in range(900):
        seen.update(draw(overlap, 3, i, begun=[0], drawing="anchor_topk", topk=4)[1:])
    assert set(seen) == {1, 3, 4, 7}
    assert sum((n - 450) ** 2 / 450 for n in seen.values()) < 16
    assert set(draw(overlap, 6, 0, begun=[0], drawing="anchor_topk", topk=4)[1:5]) == {1, 3, 4, 7}


def test_overlap_is_over_known_pairs_and_the_band_asks_for_the_nearest_before() -> None:
    overlap = np.array([[254, 127, UNKNOWN], [127, 254, 0], [UNKNOWN, 0, 254]], np.uint8)
    assert overlap_of(overlap, np.array([0, 1, 2]), (0.1, 0.8)) == (pytest.approx(0.25), 0.5)
    assert overlap_of(overlap, np.array([0, 1]), (0.6, 0.8)) == (pytest.approx(0.5), 1.0)
    assert np.isnan(overlap_of(overlap, np.array([1]), (0.1, 0.8))).all()
    assert overlap[0, 0] == 254


def test_stand_ins_are_the_frames_that_see_most_of_the_rest_then_the_rest() -> None:
    overlap = np.zeros((6, 6), np.uint8)
    for a, b, share in ((0, 3, 100), (1, 3, 50), (0, 4, 200), (1, 5, UNKNOWN)):
        overlap[a, b] = overlap[b, a] = share
    assert stand_ins(overlap, np.array([0, 2, 1]), 2).tolist() == [4, 3, 5, 0, 1]
