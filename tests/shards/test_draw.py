"""Drawing views: connected within the band, fair, and sensible where little is known."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.draw import draw, grow, mean_overlap, stand_ins
from shards.format import UNKNOWN


def symmetric(rng: np.random.Generator, count: int) -> np.ndarray:
    """Random overlap, a third of the pairs apart and some unknown."""
    matrix = rng.integers(0, 255, (count, count))
    matrix[rng.random((count, count)) < 0.3] = 0
    matrix[rng.random((count, count)) < 0.1] = UNKNOWN
    matrix = np.triu(matrix, 1)
    return (matrix + matrix.T + 254 * np.eye(count, dtype=int)).astype(np.uint8)


@given(st.integers(2, 30), st.data(), st.integers(0, 2**32))
@settings(max_examples=80, deadline=None)
def test_every_frame_is_in_the_band_whenever_one_could_be(count: int, data, seed: int) -> None:
    rng = np.random.default_rng(seed)
    overlap = symmetric(rng, count)
    wanted = data.draw(st.integers(1, count))
    own = rng.random(count) < 0.5
    frames = grow(overlap, wanted, rng, anchor=int(rng.integers(count)), own=own, band=(0.2, 0.7))
    assert len(set(frames.tolist())) == wanted
    known = np.where(overlap == UNKNOWN, 0, overlap) / 254
    inside = lambda share: (share >= 0.2) & (share <= 0.7)  # noqa: E731
    for i in range(1, wanted):
        rest = np.setdiff1d(np.arange(count), frames[:i])
        best = known[:, frames[:i]].max(1)
        fitting = rest[inside(best[rest])]
        if len(fitting):
            assert inside(best[frames[i]])
            assert own[frames[i]] or not own[fitting].any()


def test_outside_the_band_the_nearest_tenth_comes_first_and_strangers_last() -> None:
    overlap = np.full((5, 5), 0, np.uint8)
    overlap[0] = overlap[:, 0] = [254, 250, 229, 13, 0]  # shares 1, .98, .9, .05, 0
    orders = Counter(
        tuple(
            grow(
                overlap, 5, np.random.default_rng(i), anchor=0, own=np.zeros(5, bool), band=(0.3, 0.85)
            ).tolist()
        )
        for i in range(50)
    )
    assert set(orders) == {(0, 2, 1, 3, 4)}


def test_a_chunk_of_unknown_overlap_is_drawn_uniformly() -> None:
    overlap = np.full((6, 6), UNKNOWN, np.uint8)
    seen = Counter()
    for seed in range(2000):
        rng = np.random.default_rng(seed)
        frames = grow(overlap, 3, rng, anchor=0, own=np.zeros(6, bool), band=(0.1, 0.8))
        seen.update(frames[1:].tolist())
    assert sum((seen[i] - 800) ** 2 / 800 for i in range(1, 6)) < 20
    assert np.isnan(mean_overlap(overlap, np.array([0, 1, 2])))


def test_within_the_band_chance_is_proportional_to_overlap() -> None:
    overlap = np.zeros((3, 3), np.uint8)
    overlap[0, 1] = overlap[1, 0] = 60
    overlap[0, 2] = overlap[2, 0] = 180
    seconds = Counter(
        int(grow(overlap, 2, np.random.default_rng(i), anchor=0, own=np.ones(3, bool), band=(0.1, 0.8))[1])
        for i in range(4000)
    )
    assert abs(seconds[2] / 4000 - 0.75) < 0.03


def test_uniform_takes_the_order_it_is_given() -> None:
    overlap = np.full((5, 5), 127, np.uint8)
    order = np.array([3, 1, 4, 0, 2])
    rng = np.random.default_rng(0)
    frames, overlapping = draw(overlap, 3, rng, order=order, group=2, drawing="uniform", band=(0.1, 0.8))
    assert frames.tolist() == [3, 1, 4]
    assert overlapping == pytest.approx(0.5)


def test_mean_overlap_is_over_known_pairs_of_different_frames() -> None:
    overlap = np.array([[254, 127, UNKNOWN], [127, 254, 0], [UNKNOWN, 0, 254]], np.uint8)
    assert mean_overlap(overlap, np.array([0, 1, 2])) == pytest.approx(0.25)
    assert np.isnan(mean_overlap(overlap, np.array([1])))
    assert overlap[0, 0] == 254


def test_stand_ins_are_the_frames_that_see_most_of_the_rest_then_the_rest() -> None:
    overlap = np.zeros((6, 6), np.uint8)
    for a, b, share in ((0, 3, 100), (1, 3, 50), (0, 4, 200), (1, 5, UNKNOWN)):
        overlap[a, b] = overlap[b, a] = share
    assert stand_ins(overlap, np.array([0, 2, 1]), 2).tolist() == [4, 3, 5, 0, 1]
