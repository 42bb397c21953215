import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from shards.covisibility import symmetric
from shards.cutting import cut


def is_connected(overlap: np.ndarray, views: np.ndarray) -> bool:
    reached = {int(views[0])}
    front = list(reached)
    while front:
        view = front.pop()
        found = {int(v) for v in views if overlap[view, v] > 0.002} - reached
        reached |= found
        front += found
    return len(reached) == len(views)


def geometric(count: int, radius: float, seed: int) -> np.ndarray:
    """Overlap of views at random places of a square that falls to 0 at `radius`."""
    places = np.random.default_rng(seed).random((count, 2))
    apart = np.linalg.norm(places[:, None] - places[None], axis=2)
    return np.clip(1 - apart / radius, 0, 1)


@given(st.integers(1, 60), st.integers(1, 17), st.booleans(), st.integers(0, 99))
def test_cutting_gives_every_view_once_in_even_parts(count: int, most: int, known: bool, seed: int) -> None:
    overlap = symmetric(0.01 + np.random.default_rng(seed).random((count, count))) if known else None
    parts = cut(overlap, count, most)
    assert sorted(np.concatenate(parts)) == list(range(count))
    assert len(parts) == -(-count // most)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert all((np.diff(part) > 0).all() for part in parts)


@given(st.integers(1, 90), st.integers(6, 24), st.floats(0.1, 0.6), st.integers(0, 10_000))
def test_chunks_of_a_connected_scene_are_connected_and_none_is_one_view(
    count: int, most: int, radius: float, seed: int
) -> None:
    overlap = geometric(count, radius, seed)
    parts = cut(overlap, count, most)
    assert sorted(np.concatenate(parts)) == list(range(count))
    assert max(map(len, parts)) <= most
    if is_connected(overlap, np.arange(count)):
        assert all(is_connected(overlap, part) for part in parts)
        assert count == 1 or min(map(len, parts)) > 1
        assert len(parts) <= 2 * -(-count // most)


def test_cutting_keeps_views_together_that_see_the_same() -> None:
    groups = np.arange(40) % 2
    overlap = np.where(groups[:, None] == groups, 0.6, 0.01)
    parts = cut(overlap, 40, 20)
    assert [len(set(groups[part])) for part in parts] == [1, 1]


def test_scene_that_fits_is_one_chunk_whatever_overlaps() -> None:
    assert [part.tolist() for part in cut(np.eye(5), 5)] == [[0, 1, 2, 3, 4]]


def test_large_parts_of_a_scene_that_do_not_overlap_are_cut_apart() -> None:
    groups = np.arange(90) % 3
    parts = cut(np.where(groups[:, None] == groups, 0.5, 0.0), 90, 50)
    assert [part.tolist() for part in parts] == [list(range(g, 90, 3)) for g in range(3)]


def test_view_that_overlaps_no_other_goes_with_its_neighbours_in_order() -> None:
    overlap = np.where(np.arange(60)[:, None] // 30 == np.arange(60) // 30, 0.5, 0.0)
    overlap[47], overlap[:, 47] = 0, 0
    assert [part.tolist() for part in cut(overlap, 60, 50)] == [list(range(30)), list(range(30, 60))]


def test_scene_whose_views_overlap_one_alone_is_not_cut_into_single_views() -> None:
    star = np.eye(30)
    star[0], star[:, 0] = 0.3, 0.3
    parts = cut(star, 30, 10)
    assert sorted(np.concatenate(parts)) == list(range(30))
    assert [len(part) for part in parts] == [10, 10, 10]


def test_unknown_overlap_connects_nothing() -> None:
    overlap = np.where(np.arange(60)[:, None] // 30 == np.arange(60) // 30, 0.5, np.nan)
    assert [part.tolist() for part in cut(overlap, 60, 50)] == [list(range(30)), list(range(30, 60))]
