"""The ray caster against closed forms: what a ray through a pixel centre must meet, and at which z."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.sources.scenes_rays import CENTRE, Camera, Material, Room, Solid, World, cast
from shards.sources.scenes_render import SUBPIXELS
from shards.sources.scenes_textures import SIZE, Atlas
from shards.sources.scenes_views import look_at

PLAIN = Material(texture=0, period=1.0)
GREY = Atlas.build([np.full((3, SIZE, SIZE), 0.5, np.float32)])


def world(*solids: Solid, atlas: Atlas = GREY) -> World:
    """A room of 8 x 8 x 4 metres with these solids."""
    room = Room(size=np.array([8.0, 8.0, 4.0]), labels=(0, 0, 0, 0, 1, 2), materials=(PLAIN,) * 6)
    return World(room=room, solids=solids, atlas=atlas)


def solid(shape: str, centre, half, rotation=None, taper: float = 1.0) -> Solid:
    """A plain solid of class 3."""
    return Solid(
        shape=shape,
        centre=np.array(centre, float),
        half=np.array(half, float),
        rotation=np.eye(3) if rotation is None else rotation,
        label=3,
        material=PLAIN,
        taper=taper,
    )


def camera(position, target, size: int = 33, roll: float = 0.1) -> Camera:
    """A camera of `size` pixels, odd so that one pixel centre is the middle."""
    intrinsics = np.array([[0.9 * size, 0, size / 2], [0, 0.9 * size, size / 2], [0, 0, 1]])
    pose = look_at(np.array(position, float), np.array(target, float), roll)
    return Camera(intrinsics=intrinsics, world_to_camera=pose, height=size, width=size)


def world_points(view: Camera, depth: np.ndarray) -> np.ndarray:
    """Pixel centres lifted by z-depth, (H, W, 3) in the world."""
    y, x = np.mgrid[: view.height, : view.width] + 0.5
    rays = np.stack([x, y, np.ones_like(x)], -1) @ np.linalg.inv(view.intrinsics).T
    return (rays * depth[..., None] - view.world_to_camera[:, 3]) @ view.world_to_camera[:, :3]


def turned(axis, angle: float) -> np.ndarray:
    """Rotation about an axis (3,), by Rodrigues."""
    axis = np.array(axis, float) / np.linalg.norm(axis)
    k = np.cross(np.eye(3), axis)
    return np.eye(3) + np.sin(angle) * k.T + (1 - np.cos(angle)) * k @ k


def boundary(body: Solid, points: np.ndarray) -> np.ndarray:
    """How far points lie from the surface of a solid in its unit coordinates; negative inside."""
    p = np.abs((points - body.centre) @ body.rotation / body.half)
    signed = ((points - body.centre) @ body.rotation / body.half)[..., 2]
    if body.shape == "box":
        return p.max(-1) - 1
    if body.shape == "sphere":
        return np.linalg.norm(p, axis=-1) - 1
    radius = (1 + body.taper) / 2 + (body.taper - 1) / 2 * signed
    return np.maximum(np.hypot(p[..., 0], p[..., 1]) - radius, p[..., 2] - 1)


SHAPES = [("box", 1.0), ("sphere", 1.0), ("frustum", 1.0), ("frustum", 0.4), ("frustum", 0.02)]


@pytest.mark.parametrize(("shape", "taper"), SHAPES)
@settings(max_examples=12, deadline=None)
@given(
    angle=st.floats(0, 6.2),
    lean=st.floats(-1, 1),
    azimuth=st.floats(0, 6.2),
    half=st.tuples(*[st.floats(0.2, 0.9)] * 3),
)
def test_hits_lie_on_the_solid_and_nothing_of_it_is_passed_through(
    shape, taper, angle, lean, azimuth, half
) -> None:
    half = half if shape == "box" else (half[0], half[0], half[2])
    body = solid(shape, (4, 4, 1.6), half, turned((lean, 1, 0.3), angle), taper)
    view = camera((4 + 2.6 * np.cos(azimuth), 4 + 2.6 * np.sin(azimuth), 1.9), (4, 4, 1.6))
    hits = cast(world(body), view, CENTRE)
    points = world_points(view, hits.depth[0].astype(float))
    on_body = hits.surface[0] == 6
    assert on_body[16, 16] and on_body.sum() > 4
    assert np.abs(boundary(body, points[on_body])).max() < 2e-4
    # Walk each ray from the lens to its hit: no step on the way lies inside the body.
    for part in np.linspace(0.02, 0.99, 40):
        assert boundary(body, view.position + part * (points - view.position)).min() > -2e-3


def test_room_faces_lie_where_the_room_ends() -> None:
    view = camera((3, 2.5, 1.5), (6, 6, 0.8))
    hits = cast(world(), view, CENTRE)
    points = world_points(view, hits.depth[0].astype(float))
    for face, (axis, value) in enumerate([(0, 0), (0, 8), (1, 0), (1, 8), (2, 0), (2, 4)]):
        there = hits.surface[0] == face
        np.testing.assert_allclose(points[there][:, axis], value, atol=1e-5)
    assert points.min() > -1e-5 and (points < np.array([8, 8, 4]) + 1e-5).all()


def test_depth_is_along_the_axis_and_the_middle_ray_meets_the_target() -> None:
    view = camera((2, 4, 1.5), (6, 4, 1.5), roll=0.0)
    depth = cast(world(solid("box", (6, 4, 1.5), (1, 2, 1))), view, CENTRE).depth[0]
    on_front = depth[10:23, 10:23]
    np.testing.assert_allclose(on_front, 3.0, atol=1e-5)  # a plane square to the axis: the same z everywhere


def test_a_solid_behind_the_lens_is_not_seen_and_one_around_it_is_clipped() -> None:
    view = camera((2, 4, 1.5), (6, 4, 1.5))
    assert not (cast(world(solid("sphere", (1, 4, 1.5), (0.4,) * 3)), view, CENTRE).surface == 6).any()
    floor_slab = solid("box", (4, 4, 0.1), (3.9, 3.9, 0.1))
    hits = cast(world(floor_slab), view, CENTRE)
    points = world_points(view, hits.depth[0].astype(float))[hits.surface[0] == 6]
    assert len(points) > 50
    np.testing.assert_allclose(points[:, 2], 0.2, atol=1e-5)


def test_a_solid_that_reaches_past_the_lens_is_seen_to_its_end() -> None:
    beside = solid("box", (2, 3.2, 1.5), (1.5, 0.3, 0.6))
    view = camera((1.2, 4.0, 1.5), (6, 3.2, 1.4))
    hits = cast(world(beside), view, CENTRE)
    points = world_points(view, hits.depth[0].astype(float))
    assert (hits.surface == 6).sum() > 50
    for part in np.linspace(0.02, 0.99, 60):
        assert boundary(beside, view.position + part * (points - view.position)).min() > -2e-3


def test_the_nearer_of_two_solids_wins_in_either_order() -> None:
    near, far = solid("sphere", (4, 4, 1.5), (0.5,) * 3), solid("box", (5.5, 4, 1.5), (0.4, 1.5, 1.2))
    view = camera((2, 4, 1.5), (6, 4, 1.5))
    one, other = cast(world(near, far), view, CENTRE), cast(world(far, near), view, CENTRE)
    np.testing.assert_array_equal(one.depth, other.depth)
    assert one.surface[0, 16, 16] == 6 and other.surface[0, 16, 16] == 7


def test_depth_does_not_depend_on_the_other_rays_of_the_pixel() -> None:
    body = solid("frustum", (4, 4, 1.5), (0.5, 0.5, 0.7), turned((1, 1, 0), 0.7), 0.5)
    view = camera((2, 4, 1.5), (6, 4, 1.5))
    alone = cast(world(body), view, CENTRE).depth[0]
    together = cast(world(body), view, np.concatenate([SUBPIXELS, CENTRE])).depth[4]
    np.testing.assert_allclose(alone, together, rtol=1e-5)
