"""Normals of depth maps: exact on planes at any slant, close on spheres, unknown where surfaces end."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from probes.dense.depth_normals import normals_from_depth
from probes.metrics.dense import angles_between

INTRINSICS = np.array([[50.0, 0, 17.3], [0, 61.0, 21.9], [0, 0, 1]])
HEIGHT, WIDTH = 40, 32


def rays() -> np.ndarray:
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    return np.stack([x, y, np.ones_like(x)], axis=-1) @ np.linalg.inv(INTRINSICS).T


def plane(normal: np.ndarray, distance: float) -> np.ndarray:
    """Depth of the plane normal . X = -distance, the normal towards the camera; 0 where the ray misses it."""
    facing = rays() @ normal
    return np.where(facing < -0.05, -distance / np.minimum(facing, -1e-9), 0)


@given(st.floats(-70, 70), st.floats(-70, 70), st.floats(0.2, 50), st.integers(1, 3))
def test_planes_are_exact(pitch: float, yaw: float, distance: float, radius: int) -> None:
    p, q = np.radians([pitch, yaw])
    normal = np.array([np.sin(q) * np.cos(p), np.sin(p), -np.cos(q) * np.cos(p)])
    depth = plane(normal, distance)
    found = normals_from_depth(depth, INTRINSICS, radius=radius)
    inner = np.zeros(depth.shape, bool)
    inner[radius:-radius, radius:-radius] = True
    known = (found != 0).any(-1)
    if (depth > 0).all():
        assert (known == inner).all()
    if known.any():
        assert angles_between(found[known], normal).max() < 1e-3


def sphere_errors(scale: int) -> tuple[np.ndarray, np.ndarray]:
    """Angles at the known pixels of a sphere of about 12 px times the scale, and how many of its pixels are known."""
    intrinsics = np.diag([scale, scale, 1.0]) @ INTRINSICS
    y, x = np.mgrid[: scale * HEIGHT, : scale * WIDTH] + 0.5
    directions = np.stack([x, y, np.ones_like(x)], axis=-1) @ np.linalg.inv(intrinsics).T
    centre, radius = np.array([0.1, -0.1, 6.0]), 1.5
    a, b = (directions**2).sum(-1), directions @ centre
    root = b**2 - a * (centre @ centre - radius**2)
    depth = np.where(root > 0, (b - np.sqrt(np.maximum(root, 0))) / a, 0)
    found = normals_from_depth(depth, intrinsics)
    known = (found != 0).any(-1)
    assert not known[depth == 0].any()
    true = (directions * depth[..., None] - centre) / radius
    return angles_between(found[known], true[known]), known.sum() / (depth > 0).sum()


def test_spheres_come_closer_with_finer_pixels() -> None:
    (coarse, few), (fine, more) = sphere_errors(1), sphere_errors(4)
    assert np.median(coarse) < 0.8 and np.median(fine) < np.median(coarse) / 8
    assert 0.5 < few < more


def test_a_step_between_two_walls_is_unknown() -> None:
    depth = np.full((HEIGHT, WIDTH), 2.0)
    depth[:, 16:] = 3.0
    found = normals_from_depth(depth, INTRINSICS)
    known = (found != 0).any(-1)
    assert not known[:, 15:17].any()
    assert known[1:-1, 1:15].all() and known[1:-1, 17:-1].all()
    np.testing.assert_allclose(found[known], np.tile([0, 0, -1.0], (known.sum(), 1)), atol=1e-6)


def test_all_normals_face_the_camera() -> None:
    rng = np.random.default_rng(0)
    depth = 3 + 0.02 * rng.normal(size=(HEIGHT, WIDTH))
    found = normals_from_depth(depth, INTRINSICS, radius=2, tolerance=1)
    known = (found != 0).any(-1)
    assert known.any() and ((found * rays()).sum(-1)[known] < 0).all()
    np.testing.assert_allclose(np.linalg.norm(found[known], axis=-1), 1, rtol=1e-6)


def test_unknown_depth_spreads_no_further_than_its_window() -> None:
    depth = plane(np.array([0.3, 0.2, -0.93]), 2.0)
    depth[20, 10] = 0
    # However bad a fit is let through.
    known = (normals_from_depth(depth, INTRINSICS, tolerance=1e9) != 0).any(-1)
    assert (~known[1:-1, 1:-1]).sum() == 9 and not known[19:22, 9:12].any()


def test_a_wider_window_is_calmer_under_noise() -> None:
    rng = np.random.default_rng(0)
    depth = np.full((HEIGHT, WIDTH), 2.0) * (1 + 0.001 * rng.normal(size=(HEIGHT, WIDTH)))
    errors = []
    for radius in (1, 3):
        found = normals_from_depth(depth, INTRINSICS, radius=radius)
        known = (found != 0).any(-1)
        errors.append(angles_between(found[known], [0, 0, -1.0]).mean())
    assert errors[1] < errors[0] / 3


def test_pictures_smaller_than_the_window_have_none() -> None:
    assert not normals_from_depth(np.ones((2, 9)), INTRINSICS).any()
