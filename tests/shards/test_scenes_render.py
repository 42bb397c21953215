"""Light on rendered surfaces: shadows where geometry puts them, falloff, texture and edges without aliasing."""

from dataclasses import replace

import numpy as np

from shards.sources.scenes_rays import CENTRE, Camera, Material, Room, Solid, World, cast
from shards.sources.scenes_render import Light, render, shadows
from shards.sources.scenes_textures import SIZE, Atlas
from shards.sources.scenes_views import look_at

PLAIN = Material(texture=0, period=1.0)
CHECKS = Atlas.build([np.broadcast_to(np.indices((SIZE, SIZE)).sum(0) % 2, (3, SIZE, SIZE)) * 1.0])
GREY = Atlas.build([np.full((3, SIZE, SIZE), 0.5, np.float32)])
BALL = Solid(
    shape="sphere",
    centre=np.array([4, 4, 1.0]),
    half=np.full(3, 0.5),
    rotation=np.eye(3),
    label=3,
    material=PLAIN,
)


def world(*solids: Solid, atlas: Atlas = GREY) -> World:
    """A room of 8 x 8 x 4 metres with these solids."""
    room = Room(size=np.array([8.0, 8.0, 4.0]), labels=(0, 0, 0, 0, 1, 2), materials=(PLAIN,) * 6)
    return World(room=room, solids=solids, atlas=atlas)


def camera(position, target, size: int = 65) -> Camera:
    """A camera of `size` pixels."""
    intrinsics = np.array([[0.9 * size, 0, size / 2], [0, 0.9 * size, size / 2], [0, 0, 1]])
    pose = look_at(np.array(position, float), np.array(target, float), 0.1)
    return Camera(intrinsics=intrinsics, world_to_camera=pose, height=size, width=size)


def world_points(view: Camera, depth: np.ndarray) -> np.ndarray:
    """Pixel centres lifted by z-depth, (H, W, 3) in the world."""
    y, x = np.mgrid[: view.height, : view.width] + 0.5
    rays = np.stack([x, y, np.ones_like(x)], -1) @ np.linalg.inv(view.intrinsics).T
    return (rays * depth[..., None] - view.world_to_camera[:, 3]) @ view.world_to_camera[:, :3]


LAMP = Light(
    positions=np.array([[4.0, 4.0, 3.8]]), colours=np.ones((1, 3)), ambient=np.full((2, 3), 0.2), reach=3.0
)
SKY = replace(LAMP, colours=np.zeros((1, 3)), ambient=np.ones((2, 3)))


def test_a_shadow_falls_on_the_far_side_of_the_lamp() -> None:
    view = camera((1.5, 4, 2.5), (4.2, 4, 0.3))
    hits = cast(world(BALL), view, CENTRE)
    lit = shadows(world(BALL), view, hits, LAMP.positions[0])
    points = world_points(view, hits.depth[0].astype(float))
    floor = hits.surface[0] == 4
    away = np.hypot(points[..., 0] - 4, points[..., 1] - 4)
    # The lamp is 2.8 m over the ball's middle: its shadow on the floor has radius 3.8 * tan(asin(0.5 / 2.8)).
    edge = 3.8 * np.tan(np.arcsin(0.5 / 2.8))
    assert (floor & (away < edge - 0.2)).sum() > 10
    assert lit[floor & (away < edge - 0.2)].max() < 0.1
    assert lit[floor & (away > edge + 0.3)].min() > 0.9
    # The ball itself is lit from above and dark from beneath.
    ball = hits.surface[0] == 6
    assert lit[ball & (points[..., 2] > 1.2)].min() > 0.9 and lit[ball & (points[..., 2] < 0.8)].max() < 0.1


def test_light_falls_off_with_distance() -> None:
    view = camera((1, 4, 1.5), (7, 4, 0.5))
    picture = render(world(), view, LAMP)
    points = world_points(view, picture.depth.astype(float))
    floor = picture.labels == 1
    away = np.hypot(points[..., 0] - 4, points[..., 1] - 4)
    near, far = picture.colour[floor & (away < 1)].mean(), picture.colour[floor & (away > 3)].mean()
    assert near > 1.3 * far > 0
    assert picture.colour.min() > 0


def test_a_glowing_thing_needs_no_lamp_and_throws_no_shadow() -> None:
    dark = replace(SKY, ambient=np.zeros((2, 3)))
    glowing = replace(BALL, material=replace(PLAIN, glow=0.8))
    view = camera((1.5, 4, 2.5), (4.2, 4, 0.3))
    picture = render(world(glowing), view, dark)
    np.testing.assert_allclose(picture.colour[picture.labels != 3].min(), 0, atol=1e-6)
    np.testing.assert_allclose(picture.colour.max(), 0.4, rtol=1e-4)  # reflectance 0.5
    assert shadows(world(glowing), view, cast(world(glowing), view, CENTRE), LAMP.positions[0]).min() == 1


def test_fine_texture_is_averaged_not_aliased() -> None:
    """A floor of one-texel checks (4 mm) seen from 3 m must come out grey, with next to no contrast left."""
    picture = render(world(atlas=CHECKS), camera((4, 4, 3), (4, 6.5, 0.1)), SKY)
    floor = picture.labels == 1
    assert abs(picture.colour[floor].mean() - 0.5) < 0.02
    assert picture.colour[floor].std() < 0.03


def test_edges_are_blended_while_labels_stay_whole() -> None:
    body = replace(BALL, material=Material(texture=1, period=1.0))
    atlas = Atlas.build([np.full((3, SIZE, SIZE), value, np.float32) for value in (0.9, 0.05)])
    picture = render(world(body, atlas=atlas), camera((1.5, 4, 1.6), (4, 4, 1)), SKY)
    levels = set(np.unique(np.round(picture.colour[..., 0].astype(float), 3)).tolist())
    assert {0.05, 0.9} <= levels and len(levels) >= 4
    assert set(np.unique(picture.labels)) <= {0, 1, 2, 3}


def test_depth_and_labels_are_those_of_the_pixel_centres() -> None:
    view = camera((1.5, 4, 1.6), (4, 4, 1))
    picture, hits = render(world(BALL), view, SKY), cast(world(BALL), view, CENTRE)
    np.testing.assert_allclose(picture.depth, hits.depth[0], rtol=1e-5)
    np.testing.assert_array_equal(picture.labels == 3, hits.surface[0] == 6)
