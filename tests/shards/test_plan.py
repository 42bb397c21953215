"""The plan: pure, exact in its sums, even in its use of the data."""

import dataclasses
import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.format import CorruptFrame
from shards.plan import DataConfig, Plan, PlanError
from shards.streams import permute
from shards.view_counts import Schedule, chances_for, in_even_order, view_counts


class Tables:
    """A dataset without pixels: scenes of so many frames, all overlapping by half."""

    hash = "tables"

    def __init__(self, frames: list[int] | np.ndarray) -> None:
        self.frames_per_chunk = np.asarray(frames)

    def select(self, split: str | None) -> np.ndarray:
        return np.arange(len(self.frames_per_chunk))

    def covisibility(self, chunk: int) -> np.ndarray:
        return np.full((self.frames_per_chunk[chunk],) * 2, 127, np.uint8)


TINY = DataConfig(size=32, images_per_lane=12, views=(6, 6), lanes=4)
PHOTOGRAPHS = [20, 11, 18, 11, 25, 24]


def same(a: object, b: object) -> bool:
    return all(
        np.array_equal(getattr(a, f.name), getattr(b, f.name), equal_nan=f.name in ("overlap", "outside"))
        for f in dataclasses.fields(a)
    )


@given(st.integers(1, 9), st.integers(0, 8), st.integers(1, 12), st.integers(0, 2**32), st.data())
def test_view_counts_keep_sum_and_range(low: int, spread: int, scenes: int, seed: int, data) -> None:
    images = data.draw(st.integers(low * scenes, (low + spread) * scenes))
    counts = view_counts(images, scenes, (low, low + spread), np.random.default_rng(seed).random((3, scenes)))
    assert counts.shape == (3, scenes)
    assert (counts.sum(1) == images).all()
    assert counts.min() >= low
    assert counts.max() <= low + spread


def test_view_counts_are_uniform_given_their_sum() -> None:
    legal = [c for c in itertools.product(range(2, 6), repeat=3) if sum(c) == 10]
    seen = Counter(
        map(tuple, view_counts(10, 3, (2, 5), np.random.default_rng(0).random((6000, 3))).tolist())
    )
    assert set(seen) == set(legal)
    expected = 6000 / len(legal)
    assert sum((n - expected) ** 2 / expected for n in seen.values()) < 40  # chi-square, 11 degrees


@given(st.integers(0, 2**32))
@settings(max_examples=10, deadline=None)
def test_steps_come_in_an_order_in_which_every_count_keeps_its_pace(seed: int) -> None:
    counts = view_counts(96, 7, (2, 24), np.random.default_rng(seed).random((256, 7)))
    ordered = in_even_order(counts)
    assert sorted(map(tuple, ordered.tolist())) == sorted(map(tuple, counts.tolist()))
    of_step = Schedule(ordered).of_step
    ahead = of_step.cumsum(0) - np.outer(np.arange(1, 257), of_step.mean(0))
    assert np.abs(ahead).max() < 7  # independent draws stray by 15


def test_view_counts_are_uniform_unless_small_scenes_hold_more_than_small_counts_show() -> None:
    none, third = np.zeros(25), np.where(np.arange(25) >= 12, 0.3, 0)
    assert chances_for(96, 7, (2, 24), none) is None
    chances = chances_for(96, 7, (2, 24), third)
    assert chances is not None
    assert np.all(np.diff(chances) <= 0)
    counts = view_counts(96, 7, (2, 24), np.random.default_rng(0).random((4000, 7)), chances)
    assert (counts.sum(1) == 96).all()
    assert counts[counts <= 12].sum() / counts.sum() == pytest.approx(0.3 * 1.25, abs=0.02)


def test_small_scenes_cost_few_repeats_while_the_mean_allows() -> None:
    mixed = Plan(Tables([96] * 400 + [12] * 1400), DataConfig())
    (source,) = mixed.summary()["sources"]
    assert source["repeat_rate"] < 0.2
    # A mean of 13.7 views leaves no room for half of all frames in scenes of 5: shown all the same, at a price.
    (source,) = Plan(Tables([96] * 100 + [5] * 1920), DataConfig()).summary()["sources"]
    assert 1 < source["repeat_rate"] < 10


@given(st.lists(st.integers(1, 6), min_size=1, max_size=4), st.integers(1, 9), st.integers(0, 3000))
def test_a_schedule_counts_the_slots_before_any_step(sizes: list[int], cycle: int, step: int) -> None:
    counts = np.random.default_rng(0).choice(sizes, (cycle, 3))
    schedule = Schedule(counts)
    shown = Counter(counts[np.arange(step) % cycle].ravel().tolist())
    assert dict(zip(schedule.sizes.tolist(), schedule.before(step).tolist(), strict=True)) == {
        int(size): shown[size] for size in np.unique(counts)
    }
    assert np.array_equal(schedule.before(step + 1) - schedule.before(step), schedule.at(step))


@given(st.integers(1, 3000), st.integers(0, 2**64 - 1))
@settings(max_examples=60)
def test_permute_is_a_permutation(length: int, key: int) -> None:
    assert sorted(permute(np.arange(length), length, key).tolist()) == list(range(length))


def test_permute_takes_a_length_and_a_key_for_each_number() -> None:
    index, length, key = np.array([3, 3, 0, 6]), np.array([19, 7, 1, 7]), np.array([5, 6, 7, 6], np.uint64)
    single = [int(permute(np.array(i), int(n), int(k))) for i, n, k in zip(index, length, key, strict=True)]
    assert permute(index, length, key).tolist() == single


def test_permute_sends_a_place_anywhere_equally_often() -> None:
    landed = Counter(permute(np.full(3800, 3), 19, np.arange(3800)).tolist())
    assert sum((landed[i] - 200) ** 2 / 200 for i in range(19)) < 45  # chi-square, 18 degrees


def test_lane_step_depends_on_its_numbers_alone() -> None:
    first, second = Plan(Tables(PHOTOGRAPHS), TINY), Plan(Tables(PHOTOGRAPHS), TINY)
    forwards = {(s, v): first.lane_step(s, v) for s in range(5) for v in range(4)}
    np.random.seed(99)
    backwards = {(s, v): second.lane_step(s, v) for s in reversed(range(5)) for v in reversed(range(4))}
    assert all(same(forwards[key], backwards[key]) for key in forwards)
    assert len({part.crops.tobytes() for part in forwards.values()}) == 20
    other = Plan(Tables(PHOTOGRAPHS), dataclasses.replace(TINY, seed=1))
    assert not np.array_equal(other.lane_step(0, 0).crops, forwards[0, 0].crops)


def test_all_lanes_have_the_same_multiset_of_view_counts() -> None:
    plan = Plan(Tables([96] * 500), DataConfig(lanes=8))
    for step in range(20):
        multisets = {tuple(sorted(plan.lane_step(step, lane).views.tolist())) for lane in range(8)}
        assert len(multisets) == 1
    assert len({tuple(sorted(plan.lane_step(step, 0).views.tolist())) for step in range(20)}) > 10


@given(
    st.lists(st.integers(2, 30), min_size=1, max_size=12),
    st.sampled_from([(2, 24), (2, 6), (6, 6), (3, 3), (2, 12)]),
    st.sampled_from(["connected", "window", "anchor_topk", "uniform"]),
    st.integers(0, 10**9),
)
@settings(max_examples=60, deadline=None)
def test_any_data_give_full_packs_of_distinct_frames(frames, views, drawing, step) -> None:
    config = DataConfig(images_per_lane=24, views=views, lanes=2, drawing=drawing)
    if config.scenes_per_lane * max(frames) < 24 or max(frames) < views[0]:
        with pytest.raises(PlanError):
            Plan(Tables(frames), config)
        return
    part = Plan(Tables(frames), config).lane_step(step, 1)
    assert part.views.sum() == 24
    assert len(part.views) == len(part.chunks) == config.scenes_per_lane
    for chunk, own in zip(part.chunks, np.split(part.frames, np.cumsum(part.views)[:-1]), strict=True):
        assert len(set(own.tolist())) == len(own)
        assert own.max() < frames[chunk]


def used_in(plan: Plan, epoch: int) -> Counter:
    """(chunk, frame) -> how often an epoch shows it."""
    used: Counter = Counter()
    for step in range(epoch * plan.steps_per_epoch, (epoch + 1) * plan.steps_per_epoch):
        for lane in range(plan.config.lanes):
            part = plan.lane_step(step, lane)
            assert part.epoch == epoch
            chunks = np.repeat(part.chunks, part.views)
            used.update(zip(chunks.tolist(), part.frames.tolist(), strict=True))
    return used


@given(
    st.lists(st.integers(2, 96), min_size=3, max_size=30),
    st.sampled_from([(2, 24), (2, 12), (4, 8), (6, 6)]),
    st.sampled_from([1, 2, 3]),
    st.sampled_from(["connected", "window", "anchor_topk", "uniform"]),
    st.integers(0, 5),
)
@settings(max_examples=15, deadline=None)
def test_every_epoch_shows_every_frame(frames, views, lanes, drawing, epoch) -> None:
    config = DataConfig(images_per_lane=24, views=views, lanes=lanes, drawing=drawing)
    frames = [*frames, 24]
    plan = Plan(Tables(frames), config)
    used = used_in(plan, epoch)
    assert len(used) == sum(n for n in frames if n >= views[0])
    (source,) = plan.summary()["sources"]
    assert sum(used.values()) == plan.steps_per_epoch * lanes * 24
    assert sum(used.values()) / len(used) - 1 == pytest.approx(source["repeat_rate"])


def test_an_epoch_of_many_steps_shows_few_frames_twice() -> None:
    """Measured 0.1 to 0.7 %: what whole steps leave over, and a piece here and there."""
    rng = np.random.default_rng(0)
    for views, images in (((2, 24), 96), ((2, 12), 128)):
        plan = Plan(Tables(rng.integers(24, 97, 4000)), DataConfig(images_per_lane=images, views=views))
        (source,) = plan.summary()["sources"]
        assert 0 <= source["repeat_rate"] < 0.01


def test_scenes_that_no_count_of_views_divides_are_filled_up() -> None:
    plan = Plan(Tables([20] * 30), DataConfig(images_per_lane=12, views=(6, 6), lanes=2))
    used = used_in(plan, 0)  # 4 visits of 6 for 20 frames
    assert len(used) == 600
    assert sum(used.values()) == 720
    assert max(used.values()) == 2


def test_the_frames_of_an_epoch_are_fixed_by_seed_and_data_alone() -> None:
    config = DataConfig(images_per_lane=24, views=(2, 12), lanes=2)
    frames = [20, 50, 33, 24, 60, 40]
    plan = Plan(Tables(frames), config)
    assert used_in(plan, 3) == used_in(Plan(Tables(frames), config), 3)
    assert used_in(plan, 3) != used_in(plan, 4)


def test_visits_of_an_epoch_lie_apart() -> None:
    """The pieces of a chunk come in a shuffled order, anew in every epoch."""
    plan = Plan(Tables([24] * 40), DataConfig(images_per_lane=24, views=(6, 6), lanes=1))
    orders = []
    for epoch in range(2):
        steps = range(epoch * plan.steps_per_epoch, (epoch + 1) * plan.steps_per_epoch)
        orders.append(np.concatenate([plan.lane_step(step, 0).chunks for step in steps]))
        assert set(Counter(orders[-1].tolist()).values()) == {4}
        assert 0.3 < np.abs(np.diff(orders[-1])).mean() / (40 / 3) < 1.7
    assert (orders[0] == orders[1]).mean() < 0.2


def test_single_views_use_every_frame_once_an_epoch() -> None:
    config = DataConfig(images_per_lane=5, views=(1, 1), lanes=2)
    plan = Plan(Tables([13, 1, 6]), config)
    assert plan.steps_per_epoch == 2
    for epoch in range(3):
        used = Counter()
        for step, lane in itertools.product((2 * epoch, 2 * epoch + 1), range(2)):
            part = plan.lane_step(step, lane)
            used.update(zip(part.chunks.tolist(), part.frames.tolist(), strict=True))
        assert len(used) == 20
        assert set(used.values()) == {1}


def test_a_band_that_moves_moves_by_epochs() -> None:
    """Nearest partners overlap by 0.9 or 0.3: early epochs take the one, late ones the other."""

    class Pairs(Tables):
        def covisibility(self, chunk: int) -> np.ndarray:
            matrix = np.full((24, 24), round(0.3 * 254), np.uint8)
            for first in range(0, 24, 4):
                matrix[first : first + 4, first : first + 4] = round(0.9 * 254)
            return matrix

    config = DataConfig(
        images_per_lane=24, views=(4, 4), lanes=1, band=(0.8, 1.0), band_end=(0.2, 0.4), band_steps=40
    )
    plan = Plan(Pairs([24] * 10), config)
    assert plan.steps_per_epoch == 10
    means = [np.mean([plan.lane_step(10 * e + s, 0).overlap for s in range(10)]) for e in range(6)]
    assert means[0] > 0.7
    assert means[4] < 0.45
    assert means[5] < 0.45
    assert plan.config.rule(20).band == (0.5, 0.7)
    assert plan.config.hash != dataclasses.replace(config, band_steps=41).hash


def test_crops_and_flips_follow_their_law() -> None:
    config = DataConfig(images_per_lane=240, views=(6, 6), lanes=2, crop_area=(0.3, 0.9))
    plan = Plan(Tables([40] * 60), config)
    parts = [plan.lane_step(step, lane) for step in range(10) for lane in range(2)]
    crops = np.concatenate([part.crops for part in parts])
    assert crops[:, 0].min() >= 0.3
    assert crops[:, 0].max() <= 0.9
    assert abs(crops[:, 0].mean() - 0.6) < 0.01
    assert abs(np.log(crops[:, 1]).mean()) < 0.01
    assert np.exp(np.abs(np.log(crops[:, 1]))).max() <= 4 / 3 + 1e-6
    assert np.abs(crops[:, 2:].mean(0) - 0.5).max() < 0.02
    flips = np.concatenate([part.flips.reshape(-1, 6) for part in parts])
    assert (flips.all(1) | ~flips.any(1)).all()
    assert 0.4 < flips[:, 0].mean() < 0.6
    each = Plan(Tables([40] * 60), dataclasses.replace(config, flip="view")).lane_step(0, 0).flips
    assert not (each.reshape(-1, 6).all(1) | ~each.reshape(-1, 6).any(1)).all()
    assert not Plan(Tables([40] * 60), dataclasses.replace(config, flip="none")).lane_step(0, 0).flips.any()


def test_scenes_of_fewer_frames_than_views_are_skipped_and_counted() -> None:
    assert Plan(Tables([1, 12, 5]), TINY).skipped == 2
    with pytest.raises(
        PlanError, match="largest scene of the train split has 5 frames, and a step shows 6 or more"
    ):
        Plan(Tables([1, 5]), TINY)


def test_data_that_cannot_fill_a_lane_are_refused_with_numbers() -> None:
    with pytest.raises(
        PlanError, match=r"largest scene .* has 5 frames, so 2 scenes give 10 of the 12 images"
    ):
        Plan(Tables([5, 4, 5]), dataclasses.replace(TINY, views=(4, 8)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"views": (5, 5)}, "12 images a lane cannot be cut into scenes of 5 to 5 views"),
        ({"views": (3, 2)}, "views must be"),
        ({"flip": "both"}, "flip must be one of scene, none, view"),
        ({"drawing": "windows"}, "drawing must be one of connected, window, anchor_topk, uniform"),
        ({"crop_area": (0.5, 1.5)}, "crop_area"),
        ({"band": (0.9, 0.2)}, "band"),
        ({"band_end": (0.3, 0.9)}, "needs both band_end and band_steps"),
        ({"band_end": (0.9, 0.3), "band_steps": 9}, "band_end must be overlaps"),
        ({"window": 0.0}, "window"),
        ({"single_share": 1.0}, "single_share"),
        ({"seed": -1}, "seed"),
        ({"lanes": 0}, "lanes"),
    ],
)
def test_impossible_configurations_are_refused(change: dict, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        dataclasses.replace(TINY, **change)


def test_hash_names_the_next_batches() -> None:
    plan = Plan(Tables(PHOTOGRAPHS), TINY)
    assert plan.hash(7) == Plan(Tables(PHOTOGRAPHS), TINY).hash(7)
    assert plan.hash(7) != plan.hash(8)
    assert plan.hash(7) != Plan(Tables(PHOTOGRAPHS), dataclasses.replace(TINY, seed=1)).hash(7)
    assert plan.hash(7) != Plan(Tables([*PHOTOGRAPHS[:-1], 23]), TINY).hash(7)


def test_recipes_fill_their_packs() -> None:
    assert DataConfig(images_per_lane=96, views=(2, 24)).scenes_per_lane == 7
    assert DataConfig(images_per_lane=128, views=(2, 12)).scenes_per_lane == 18
    assert TINY.scenes_per_lane == 2
    assert DataConfig(images_per_lane=12, views=(1, 1)).scenes_per_lane == 12


def test_a_damaged_overlap_matrix_is_told_and_drawn_as_unknown() -> None:
    class Damaged(Tables):
        def covisibility(self, chunk: int) -> np.ndarray:
            raise CorruptFrame("shards/a.tar", "a.covis.npy", 512, "its bytes fail their crc32")

    part = Plan(Damaged(PHOTOGRAPHS), TINY).lane_step(0, 0)
    assert part.views.sum() == 12
    assert np.isnan(part.overlap)
    assert [error.key for error in part.damaged] == ["a.covis.npy"] * 2
