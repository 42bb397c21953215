import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.covisibility import (
    mean_overlap,
    overlap_from_depth,
    overlap_from_poses,
    overlap_from_time,
    overlap_from_tracks,
    symmetric,
    to_bytes,
    viewing_distances,
)
from tests.trees.world import render_world


@given(st.lists(st.lists(st.integers(0, 12), max_size=14), min_size=1, max_size=6))
def test_track_overlap_equals_the_formula(seen: list[list[int]]) -> None:
    overlap = overlap_from_tracks([np.array(ids, np.int64) for ids in seen])
    for i, a in enumerate(seen):
        for j, b in enumerate(seen):
            expected = len(set(a) & set(b)) / len(set(a)) if a else 0
            assert overlap[i, j] == pytest.approx(expected, abs=1e-12)


def test_track_overlap_of_many_long_tracks_equals_the_product_of_dense_matrices() -> None:
    seen = np.random.default_rng(0).random((40, 3000)) < np.linspace(0.01, 1, 3000)
    overlap = overlap_from_tracks([np.flatnonzero(row) for row in seen])
    shared = seen.astype(float) @ seen.T
    assert np.abs(overlap - shared / seen.sum(1)[:, None]).max() < 1e-12


def test_track_overlap_of_a_rendered_model_equals_the_brute_force_formula() -> None:
    seen = [set(view.points.tolist()) for view in render_world(12, size=(48, 64)).views]
    brute = np.array([[len(a & b) / len(a) for b in seen] for a in seen])
    overlap = overlap_from_tracks([np.array(sorted(points)) for points in seen])
    assert np.abs(overlap - brute).max() < 1e-12 and 0 < brute.min() < brute.mean() < 1


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


def around(angles: list[float], radius: float = 3.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cameras on a circle that look at its middle: intrinsics, poses and sizes."""
    poses = []
    for angle in np.radians(angles):
        turn = np.array([[np.cos(angle), 0, -np.sin(angle)], [0, 1, 0], [np.sin(angle), 0, np.cos(angle)]])
        poses.append(np.column_stack([turn, [0, 0, radius]]))
    intrinsics = np.repeat(np.array([[[64.0, 0, 32], [0, 64, 24], [0, 0, 1]]]), len(angles), 0)
    return intrinsics, np.stack(poses), np.full((len(angles), 2), (48, 64))


def test_cameras_that_look_at_one_place_tell_how_far_it_is() -> None:
    _, poses, _ = around([0, 20, 45, 90, 140])
    assert np.allclose(viewing_distances(poses), 3, atol=1e-9)


def test_pose_overlap_is_whole_for_one_place_and_falls_with_the_angle() -> None:
    row = overlap_from_poses(*around([0, 0, 15, 45, 90, 180]))[0]
    assert row[0] == row[1] == pytest.approx(1) and (np.diff(row[1:]) < 0).all()
    assert row[-1] < 0.1


def test_pose_overlap_of_cameras_back_to_back_is_zero() -> None:
    intrinsics, poses, sizes = around([0, 0, 30])
    poses[1, :, :3] = np.diag([-1.0, 1, -1]) @ poses[1, :, :3]
    poses[1, :, 3] = [0, 0, -3]
    assert overlap_from_poses(intrinsics, poses, sizes)[0, 1] == 0


def test_pose_overlap_ignores_the_units_of_the_poses() -> None:
    intrinsics, poses, sizes = around([0, 20, 50, 100])
    grown = poses * np.array([1, 1, 1, 250.0])
    assert np.allclose(
        overlap_from_poses(intrinsics, poses, sizes), overlap_from_poses(intrinsics, grown, sizes)
    )


def test_pose_overlap_of_a_camera_that_only_turns_or_moves_straight_on_is_finite() -> None:
    turning = np.stack([np.column_stack([p[:, :3], [0, 0, 0]]) for p in around([0, 10, 80])[1]])
    straight = np.stack([np.eye(3, 4) - [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, z]] for z in (0, 1, 2)])
    for poses in (turning, straight):
        overlap = overlap_from_poses(around([0, 0, 0])[0], poses, np.full((3, 2), (48, 64)))
        assert np.isfinite(overlap).all() and overlap[0, 1] > overlap[0, 2] and overlap[0, 0] == 1


def test_pose_overlap_ranks_pairs_of_rendered_views_as_their_depth_does() -> None:
    ranks = []
    for seed in range(3):
        views = render_world(12, size=(48, 64), seed=seed).views
        intrinsics = np.stack([v.intrinsics for v in views])
        poses = np.stack([v.world_to_camera for v in views])
        depths = [v.depth for v in views]
        pairs = np.triu_indices(len(views), 1)
        true = symmetric(overlap_from_depth(depths, intrinsics, poses))[pairs]
        guess = symmetric(overlap_from_poses(intrinsics, poses, np.array([d.shape for d in depths])))[pairs]
        ranks.append(np.corrcoef(true.argsort().argsort(), guess.argsort().argsort())[0, 1])
    assert min(ranks) > 0.85, ranks


def test_time_overlap_falls_with_the_gap_in_steps_of_the_scene() -> None:
    overlap = overlap_from_time(np.array([0, 0.5, 1, 1.5, 30]))
    assert overlap[0, 1] == pytest.approx(np.exp(-1 / 8)) and overlap[0, 3] == pytest.approx(np.exp(-3 / 8))
    assert overlap[0, 4] < 1e-3 and np.array_equal(overlap, overlap.T) and (np.diag(overlap) == 1).all()
    assert overlap_from_time(np.array([5.0, 5.0])).tolist() == [[1, 1], [1, 1]]


def test_stored_overlap_is_symmetric_bytes() -> None:
    stored = to_bytes(symmetric(np.array([[1, 0.5], [0.25, 1]])), 2)
    assert stored.dtype == np.uint8 and stored.tolist() == [[254, 64], [64, 254]]
    assert mean_overlap(stored) == pytest.approx(64 / 254)


def test_unknown_overlap_is_255_off_the_diagonal() -> None:
    stored = to_bytes(None, 3)
    assert (stored[~np.eye(3, dtype=bool)] == 255).all() and (np.diag(stored) == 254).all()
    assert np.isnan(mean_overlap(stored))


def test_only_pairs_that_nobody_measured_are_stored_as_unknown() -> None:
    nan = np.nan
    overlap = symmetric(np.array([[1, 0.5, nan], [nan, 1, 0], [nan, 0.25, 1]]))
    assert to_bytes(overlap, 3).tolist() == [[254, 127, 255], [127, 254, 0], [255, 0, 254]]
