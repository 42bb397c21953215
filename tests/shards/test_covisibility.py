import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.covisibility import (
    cut,
    mean_overlap,
    overlap_from_depth,
    overlap_from_tracks,
    symmetric,
    to_bytes,
)


@given(st.lists(st.lists(st.integers(0, 12), max_size=14), min_size=1, max_size=6))
def test_track_overlap_equals_the_formula(seen: list[list[int]]) -> None:
    overlap = overlap_from_tracks([np.array(ids, np.int64) for ids in seen])
    for i, a in enumerate(seen):
        for j, b in enumerate(seen):
            expected = len(set(a) & set(b)) / len(set(a)) if a else 0
            assert overlap[i, j] == pytest.approx(expected, abs=1e-12)


def plane_views(shifts: list[float], distance: float = 4.0) -> tuple:
    """Cameras in a row looking straight at a wall: 64 px wide views that see 4 units of it."""
    intrinsics = np.repeat(np.array([[[64.0, 0, 32], [0, 64, 24], [0, 0, 1]]]), len(shifts), 0)
    poses = np.stack([np.hstack([np.eye(3), [[-shift], [0], [0]]]) for shift in shifts])
    return [np.full((48, 64), distance, np.float32) for _ in shifts], intrinsics, poses


def test_depth_overlap_of_a_wall_is_the_shared_width() -> None:
    overlap = overlap_from_depth(*plane_views([0, 1, 3, 5]))
    assert np.allclose(overlap[0], [1, 0.75, 0.25, 0], atol=0.02)
    assert np.allclose(overlap, overlap.T, atol=0.02)


def test_depth_overlap_needs_the_depth_to_agree() -> None:
    depths, intrinsics, poses = plane_views([0, 0])
    depths[1] = depths[1] * np.float32(0.8)  # something stands in front
    assert overlap_from_depth(depths, intrinsics, poses)[0, 1] == 0


def test_depth_overlap_counts_known_depth_only() -> None:
    depths, intrinsics, poses = plane_views([0, 0])
    depths[0] = depths[0].copy()
    depths[0][:, 32:] = 0
    overlap = overlap_from_depth(depths, intrinsics, poses)
    assert overlap[0, 1] == pytest.approx(1) and overlap[1, 0] == pytest.approx(0.5)
    depths[0][:] = 0
    assert overlap_from_depth(depths, intrinsics, poses)[0].tolist() == [0, 0]


def test_depth_overlap_of_opposite_cameras_is_zero() -> None:
    depths, intrinsics, poses = plane_views([0, 0])
    poses[1, :, :3] = np.diag([-1.0, 1, -1])
    assert overlap_from_depth(depths, intrinsics, poses)[0, 1] == 0


def test_stored_overlap_is_symmetric_bytes() -> None:
    stored = to_bytes(symmetric(np.array([[1, 0.5], [0.25, 1]])), 2)
    assert stored.dtype == np.uint8 and stored.tolist() == [[254, 64], [64, 254]]
    assert mean_overlap(stored) == pytest.approx(64 / 254)


def test_unknown_overlap_is_255_off_the_diagonal() -> None:
    stored = to_bytes(None, 3)
    assert (stored[~np.eye(3, dtype=bool)] == 255).all() and (np.diag(stored) == 254).all()
    assert np.isnan(mean_overlap(stored))


@given(st.integers(1, 60), st.integers(1, 17), st.booleans(), st.integers(0, 99))
def test_cutting_gives_every_view_once_in_even_parts(count: int, most: int, known: bool, seed: int) -> None:
    overlap = symmetric(np.random.default_rng(seed).random((count, count))) if known else None
    parts = cut(overlap, count, most)
    assert sorted(np.concatenate(parts)) == list(range(count))
    assert len(parts) == -(-count // most)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert all((np.diff(part) > 0).all() for part in parts)


def test_cutting_keeps_views_together_that_see_the_same() -> None:
    groups = np.arange(40) % 2
    overlap = np.where(groups[:, None] == groups, 0.6, 0.01)
    parts = cut(overlap, 40, 20)
    assert [len(set(groups[part])) for part in parts] == [1, 1]
