"""Cameras follow crop, resize and flip exactly; crops obey their law."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from shards.augment import crop_box, follow_crop, mirror_intrinsics, mirror_pose

UNIT = st.floats(0, 1, exclude_max=True)


@given(st.floats(0.01, 1), st.floats(0.2, 5), UNIT, UNIT, st.integers(1, 700), st.integers(1, 700))
def test_a_crop_lies_within_its_picture(area, aspect, down, right, height, width) -> None:
    top, left, tall, wide = crop_box((area, aspect, down, right), height, width)
    assert top >= 0
    assert left >= 0
    assert 1 <= tall <= height - top
    assert 1 <= wide <= width - left


def test_a_crop_has_the_drawn_area_and_aspect_and_reaches_every_corner() -> None:
    top, left, tall, wide = crop_box((0.25, 4 / 3, 0.5, 0.5), 300, 400)
    assert (tall, wide) == (150, 200)
    assert (top, left) == (75, 100)
    assert crop_box((0.25, 4 / 3, 0.0, 0.999999), 300, 400)[:2] == (0, 200)
    assert crop_box((1.0, 4 / 3, 0.9, 0.9), 300, 300)[3] == 300


def camera(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Skewed intrinsics, a pose, and points before it."""
    rotation, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    rotation *= np.sign(np.linalg.det(rotation))
    pose = np.column_stack([rotation, rng.standard_normal(3)])
    intrinsics = np.array([[310.0, 3.0, 151.0], [0.0, 290.0, 122.0], [0.0, 0.0, 1.0]])
    seen = rng.uniform([-1, -1, 2], [1, 1, 6], (20, 3))
    return intrinsics, pose, (seen - pose[:, 3]) @ rotation


def project(intrinsics: np.ndarray, pose: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    seen = points @ pose[:, :3].T + pose[:, 3]
    homogeneous = seen @ intrinsics.T
    return homogeneous[:, :2] / homogeneous[:, 2:], seen[:, 2]


@given(
    st.integers(0, 2**32),
    st.integers(0, 100),
    st.integers(0, 200),
    st.integers(20, 140),
    st.integers(20, 120),
)
def test_points_stay_at_the_same_place_of_the_crop(seed, top, left, tall, wide) -> None:
    intrinsics, pose, points = camera(np.random.default_rng(seed))
    before, _ = project(intrinsics, pose, points)
    after, _ = project(follow_crop(intrinsics, (top, left, tall, wide), (64, 96)), pose, points)
    np.testing.assert_allclose(after / (96, 64), (before - (left, top)) / (wide, tall), atol=1e-9)


@given(st.integers(0, 2**32))
def test_mirrored_cameras_see_the_mirrored_world_mirrored(seed: int) -> None:
    intrinsics, pose, points = camera(np.random.default_rng(seed))
    before, depth = project(intrinsics, pose, points)
    mirrored = mirror_pose(pose)
    after, depth_after = project(mirror_intrinsics(intrinsics, 320), mirrored, points * (-1, 1, 1))
    np.testing.assert_allclose(after, np.column_stack([320 - before[:, 0], before[:, 1]]), atol=1e-8)
    np.testing.assert_allclose(depth_after, depth)
    np.testing.assert_allclose(np.linalg.det(mirrored[:, :3]), 1)


def test_inputs_are_left_alone_and_stacks_are_taken() -> None:
    intrinsics = np.stack([np.diag([100.0, 100.0, 1.0])] * 2)
    kept = intrinsics.copy()
    assert follow_crop(intrinsics, (1, 2, 10, 10), (20, 20)).shape == (2, 3, 3)
    assert mirror_intrinsics(intrinsics, 50)[1, 0, 2] == 50
    assert mirror_pose(np.stack([np.eye(3, 4)] * 4)).shape == (4, 3, 4)
    assert np.array_equal(intrinsics, kept)
