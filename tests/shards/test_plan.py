"""The plan: pure, exact in its sums, even in its use of the data."""

import dataclasses
import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.format import CorruptFrame
from shards.plan import DataConfig, Plan, PlanError, fit_counts, permute, stream, view_counts


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
        np.array_equal(getattr(a, f.name), getattr(b, f.name), equal_nan=f.name == "overlap")
        for f in dataclasses.fields(a)
    )


@given(st.integers(1, 9), st.integers(0, 8), st.integers(1, 12), st.integers(0, 2**32), st.data())
def test_view_counts_keep_sum_and_range(low: int, spread: int, scenes: int, seed: int, data) -> None:
    images = data.draw(st.integers(low * scenes, (low + spread) * scenes))
    counts = view_counts(images, scenes, (low, low + spread), np.random.default_rng(seed))
    assert counts.sum() == images
    assert len(counts) == scenes
    assert counts.min() >= low
    assert counts.max() <= low + spread


def test_view_counts_are_uniform_given_their_sum() -> None:
    legal = [c for c in itertools.product(range(2, 6), repeat=3) if sum(c) == 10]
    rng = np.random.default_rng(0)
    seen = Counter(tuple(view_counts(10, 3, (2, 5), rng).tolist()) for _ in range(6000))
    assert set(seen) == set(legal)
    expected = 6000 / len(legal)
    assert sum((n - expected) ** 2 / expected for n in seen.values()) < 40  # chi-square, 11 degrees


@given(st.integers(1, 3000), st.integers(0, 50))
@settings(max_examples=60)
def test_permute_is_a_permutation(length: int, epoch: int) -> None:
    keys = stream(0, 1, epoch).integers(0, 2**64, 8, np.uint64)
    assert sorted(permute(np.arange(length), length, keys).tolist()) == list(range(length))


def test_permute_sends_a_place_anywhere_equally_often() -> None:
    landed = Counter(
        int(permute(np.array([3]), 19, stream(0, 1, epoch).integers(0, 2**64, 8, np.uint64))[0])
        for epoch in range(3800)
    )
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
    plan = Plan(Tables([96] * 50), DataConfig(lanes=8))
    for step in range(20):
        multisets = {tuple(sorted(plan.lane_step(step, lane).views.tolist())) for lane in range(8)}
        assert len(multisets) == 1
    assert len({tuple(sorted(plan.lane_step(step, 0).views.tolist())) for step in range(20)}) > 10


@given(
    st.lists(st.integers(2, 30), min_size=1, max_size=12),
    st.sampled_from([(2, 24), (2, 6), (6, 6), (3, 3), (2, 12)]),
    st.sampled_from(["connected", "uniform"]),
    st.integers(0, 10**9),
)
@settings(max_examples=60, deadline=None)
def test_any_data_give_full_packs_of_distinct_frames(frames, views, drawing, step) -> None:
    config = DataConfig(images_per_lane=24, views=views, lanes=2, drawing=drawing)
    if config.scenes_per_lane * max(frames) < 24:
        with pytest.raises(PlanError):
            Plan(Tables(frames), config)
        return
    part = Plan(Tables(frames), config).lane_step(step, 1)
    assert part.views.sum() == 24
    assert len(part.views) == len(part.chunks) == config.scenes_per_lane
    for chunk, own in zip(part.chunks, np.split(part.frames, np.cumsum(part.views)[:-1]), strict=True):
        assert len(set(own.tolist())) == len(own)
        assert own.max() < frames[chunk]


@given(st.data(), st.integers(1, 8))
def test_fit_counts_keeps_the_sum_within_what_scenes_hold(data, scenes: int) -> None:
    counts = np.array(data.draw(st.lists(st.integers(1, 9), min_size=scenes, max_size=scenes)))
    capacity = np.array(data.draw(st.lists(st.integers(1, 12), min_size=scenes, max_size=scenes)))
    dealt = fit_counts(counts, capacity, most=9)
    if capacity.sum() < counts.sum():
        assert dealt is None
        return
    assert dealt.sum() == counts.sum()
    assert (dealt <= capacity).all()
    assert (dealt >= 1).all()
    if (np.sort(counts) <= np.sort(capacity)).all():
        assert sorted(dealt) == sorted(counts)
    if np.minimum(capacity, 9).sum() >= counts.sum():
        assert dealt.max() <= 9


def test_an_epoch_visits_every_chunk_in_proportion_to_its_frames() -> None:
    frames = [6, 12, 11, 30, 7]  # visits of 6: 1, 2, 2, 5, 2
    plan = Plan(Tables(frames), dataclasses.replace(TINY, lanes=2))
    assert plan.visits_per_epoch == 12
    assert plan.steps_per_epoch == 3
    for epoch in range(4):
        steps = range(3 * epoch, 3 * epoch + 3)
        parts = [plan.lane_step(step, lane) for step in steps for lane in range(2)]
        assert {part.epoch for part in parts} == {epoch}
        visited = Counter(np.concatenate([part.chunks for part in parts]).tolist())
        assert visited == {0: 1, 1: 2, 2: 2, 3: 5, 4: 2}


def test_epochs_that_end_within_a_step_lose_nothing() -> None:
    plan = Plan(Tables([6] * 7), TINY)  # 7 visits an epoch, 8 a step
    chunks = np.concatenate([[plan.lane_step(s, v).chunks for v in range(4)] for s in range(7)])
    assert set(Counter(chunks.ravel().tolist()).values()) == {8}


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


@pytest.mark.parametrize("drawing", ["connected", "uniform"])
def test_frames_of_a_chunk_are_used_evenly(drawing: str) -> None:
    config = DataConfig(images_per_lane=24, views=(6, 6), lanes=1, drawing=drawing)
    plan = Plan(Tables([24] * 5), config)  # 4 visits of 6: groups of exactly 6
    used = Counter()
    for step in range(plan.steps_per_epoch):
        part = plan.lane_step(step, 0)
        used.update(zip(np.repeat(part.chunks, part.views).tolist(), part.frames.tolist(), strict=True))
    assert len(used) == 120
    assert set(used.values()) == {1}


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


def test_scenes_of_one_photograph_serve_single_views_only() -> None:
    assert Plan(Tables([1, 12, 1]), TINY).skipped == 2
    with pytest.raises(PlanError, match="none with at least 2 frames"):
        Plan(Tables([1, 1]), TINY)


def test_data_that_cannot_fill_a_lane_are_refused_with_numbers() -> None:
    with pytest.raises(
        PlanError, match=r"largest scene .* has 5 frames, so 2 scenes give 10 of the 12 images"
    ):
        Plan(Tables([5, 4, 5]), TINY)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"views": (5, 5)}, "12 images a lane cannot be cut into scenes of 5 to 5 views"),
        ({"views": (3, 2)}, "views must be"),
        ({"flip": "both"}, "flip must be one of scene, none, view"),
        ({"drawing": "windows"}, "drawing must be one of connected, uniform"),
        ({"crop_area": (0.5, 1.5)}, "crop_area"),
        ({"band": (0.9, 0.2)}, "band"),
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
