"""Laws of the pinhole camera on random cameras and points."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mum import cameras

D = torch.float64
seeds = st.integers(0, 10**6)
law = settings(max_examples=40, deadline=None)


def random_pose(g) -> torch.Tensor:
    q, _ = torch.linalg.qr(torch.randn(3, 3, generator=g, dtype=D))
    q = q * torch.linalg.det(q).sign()
    return torch.cat((q, torch.randn(3, 1, generator=g, dtype=D)), dim=1)


def random_intrinsics(g) -> torch.Tensor:
    f = 50 + 100 * torch.rand(2, generator=g, dtype=D)
    c = 20 + 40 * torch.rand(2, generator=g, dtype=D)
    return torch.tensor([[f[0], 0.3, c[0]], [0, f[1], c[1]], [0, 0, 1]], dtype=D)


@given(seeds)
@law
def test_projection_is_undone(seed):
    g = torch.Generator().manual_seed(seed)
    pose, k = random_pose(g), random_intrinsics(g)
    pixels = 100 * torch.rand(9, 2, generator=g, dtype=D)
    depth = 0.1 + 5 * torch.rand(9, generator=g, dtype=D)
    points = cameras.unproject(pixels, depth, k, pose)
    again, z = cameras.project(points, k, pose)
    torch.testing.assert_close(again, pixels)
    torch.testing.assert_close(z, depth)


@given(seeds)
@law
def test_projection_is_the_textbook_s(seed):
    g = torch.Generator().manual_seed(seed)
    pose, k = random_pose(g), random_intrinsics(g)
    point = torch.randn(3, generator=g, dtype=D)
    x, y, z = (pose @ torch.cat((point, torch.ones(1, dtype=D)))).tolist()
    pixel, depth = cameras.project(point[None], k, pose)
    assert depth.item() == pytest.approx(z)
    if z > 1e-3:
        u = (k[0, 0] * x + k[0, 1] * y) / z + k[0, 2]
        v = k[1, 1] * y / z + k[1, 2]
        torch.testing.assert_close(pixel[0], torch.stack((u, v)))
    assert pixel.isfinite().all()


@given(seeds)
@law
def test_relative_pose_takes_a_to_b(seed):
    g = torch.Generator().manual_seed(seed)
    a, b = random_pose(g), random_pose(g)
    points = torch.randn(5, 3, generator=g, dtype=D)
    in_a, in_b = cameras.transform(points, a), cameras.transform(points, b)
    torch.testing.assert_close(cameras.transform(in_a, cameras.relative_pose(a, b)), in_b)
    torch.testing.assert_close(cameras.transform(in_a, cameras.invert(a)), points)
    centre = cameras.camera_centre(a)
    torch.testing.assert_close(cameras.transform(centre[None], a), torch.zeros(1, 3, dtype=D))


@given(seeds)
@law
def test_angles_between_vectors(seed):
    g = torch.Generator().manual_seed(seed)
    a, b = torch.randn(2, 3, generator=g, dtype=D)
    cosine = torch.nn.functional.cosine_similarity(a, b, dim=0)
    assert cameras.angle_between(a, b).item() == pytest.approx(math.degrees(math.acos(cosine)), abs=1e-5)
    assert cameras.angle_between(a, 3 * a).item() == pytest.approx(0, abs=1e-9)
    assert cameras.angle_between(a, -a).item() == pytest.approx(180)


def plane_scene(shift: float = 1.0):
    """Two cameras `shift` apart before a wall at depth 4; 40 x 60 px, focal length 40."""
    k = torch.tensor([[40.0, 0, 30], [0, 40, 20], [0, 0, 1]])
    a = torch.eye(3, 4)
    b = a.clone()
    b[0, 3] = -shift
    return k, a, b, torch.full((40, 60), 4.0)


def test_warp_moves_by_disparity():
    k, a, b, wall = plane_scene()
    pixels = torch.tensor([[30.5, 20.5], [59.5, 0.5], [5.5, 7.5]])
    warped, valid = cameras.warp_by_depth(pixels, wall, k, a, wall, k, b)
    torch.testing.assert_close(warped, pixels - torch.tensor([10.0, 0]))
    assert valid.tolist() == [True, True, False]  # the last leaves the image on the left


def test_warp_sees_occlusion_unknown_depth_and_what_is_behind():
    k, a, b, wall = plane_scene()
    pixels = torch.tensor([[30.5, 20.5]])
    occluder = wall.clone()
    occluder[20, 20] = 3.0
    unknown = wall.clone()
    unknown[20, 30] = 0
    unknown_in_b = wall.clone()
    unknown_in_b[20, 20] = 0
    behind = torch.cat((torch.diag(torch.tensor([-1.0, 1.0, -1.0])), torch.zeros(3, 1)), dim=1)
    assert not cameras.warp_by_depth(pixels, wall, k, a, occluder, k, b)[1]
    assert not cameras.warp_by_depth(pixels, unknown, k, a, wall, k, b)[1]
    assert not cameras.warp_by_depth(pixels, wall, k, a, unknown_in_b, k, b)[1]
    assert not cameras.warp_by_depth(pixels, wall, k, a, wall, k, behind)[1]


@pytest.mark.parametrize(("depth", "seen"), [(3.81, True), (3.79, False), (4.19, True), (4.21, False)])
def test_visibility_tolerance_is_five_per_cent_either_way(depth, seen):
    k, a, b, wall = plane_scene()
    other = torch.full_like(wall, depth)
    _, valid = cameras.warp_by_depth(torch.tensor([[30.5, 20.5]]), wall, k, a, other, k, b)
    assert valid.item() == seen


@given(seeds)
@law
def test_warp_there_and_back(seed):
    g = torch.Generator().manual_seed(seed)
    k, a, b, wall = plane_scene(float(torch.rand((), generator=g)))
    pixels = torch.rand(8, 2, generator=g) * torch.tensor([60.0, 40.0])
    there, seen = cameras.warp_by_depth(pixels, wall, k, a, wall, k, b)
    back, _ = cameras.warp_by_depth(there[seen], wall, k, b, wall, k, a)
    torch.testing.assert_close(back, pixels[seen], atol=1e-4, rtol=1e-4)


def test_depth_is_read_at_the_pixel_a_point_falls_into():
    depth = torch.arange(6.0).reshape(2, 3) + 1
    points = torch.tensor([[0.0, 0.0], [2.99, 1.99], [3.0, 0.5], [-0.01, 0.5], [1.5, 0.5]])
    assert cameras.read_depth(depth, points).tolist() == [1, 6, 0, 0, 2]


def test_leading_axes_broadcast():
    poses = torch.eye(3, 4).expand(2, 5, 3, 4)
    k = torch.eye(3)
    pixels, depth = cameras.project(torch.ones(2, 5, 7, 3), k, poses)
    assert (pixels.shape, depth.shape) == ((2, 5, 7, 2), (2, 5, 7))
    assert cameras.unproject(pixels, depth, k.expand(2, 5, 3, 3), poses).shape == (2, 5, 7, 3)
