"""Cameras of a scene: clear of everything, looking at the middle; exposures within their limits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.sources.scenes_layout import Layout, lay_out
from shards.sources.scenes_views import Exposure, develop, draw_cameras, draw_moment, look_at


def generator(key: int) -> np.random.Generator:
    """A counter-based generator."""
    return np.random.Generator(np.random.Philox(key=key))


@pytest.fixture(scope="module")
def layouts() -> list[Layout]:
    """A few scenes."""
    return [lay_out(generator(k), generator(k + 100), held_out=False) for k in range(8)]


def test_no_camera_stands_in_a_solid_or_a_wall(layouts: list[Layout]) -> None:
    for key, layout in enumerate(layouts):
        for camera in draw_cameras(generator(key), layout, 8, 64):
            assert np.all(camera.position > 0.1) and np.all(camera.position < layout.world.room.size - 0.1)
            local = layout.world.to_local @ (camera.position - layout.world.centres)[..., None]
            assert np.all(np.abs(local).max((1, 2)) > 1)


def test_the_first_views_do_not_depend_on_how_many_follow(layouts: list[Layout]) -> None:
    few, many = (draw_cameras(generator(3), layouts[0], count, 64) for count in (3, 6))
    for a, b in zip(few, many[:3], strict=True):
        np.testing.assert_array_equal(a.world_to_camera, b.world_to_camera)


def test_the_size_changes_intrinsics_in_proportion_and_nothing_else(layouts: list[Layout]) -> None:
    small, large = (draw_cameras(generator(4), layouts[1], 3, size) for size in (48, 96))
    for a, b in zip(small, large, strict=True):
        np.testing.assert_array_equal(a.world_to_camera, b.world_to_camera)
        np.testing.assert_allclose(2 * a.intrinsics[:2], b.intrinsics[:2])


@given(
    position=st.tuples(*[st.floats(-3, 3)] * 3),
    step=st.tuples(st.floats(0.5, 2), st.floats(-2, 2), st.floats(-1, 1)),
    roll=st.floats(-1, 1),
)
def test_look_at_is_a_rigid_pose_that_centres_its_target(position, step, roll) -> None:
    position, target = np.array(position), np.array(position) + step
    pose = look_at(position, target, roll)
    np.testing.assert_allclose(pose[:, :3] @ pose[:, :3].T, np.eye(3), atol=1e-9)
    assert np.linalg.det(pose[:, :3]) > 0
    np.testing.assert_allclose(pose[:, :3] @ position + pose[:, 3], 0, atol=1e-9)
    np.testing.assert_allclose(pose[:, :3] @ target + pose[:, 3], [0, 0, np.linalg.norm(step)], atol=1e-9)
    if abs(roll) < 0.5:
        assert pose[1, 2] < 0.0  # up in the world is up in the picture: y grows downwards


def test_moments_differ_and_held_out_ones_reach_further(layouts: list[Layout]) -> None:
    light = layouts[0].light
    train, held_out = (
        [draw_moment(generator(k), light, held_out=held_out)[1] for k in range(300)]
        for held_out in (False, True)
    )
    gains, wider = np.array([e.gain for e in train]), np.array([e.gain for e in held_out])
    assert gains.min() > 0.65 and gains.max() < 1.45 and gains.std() > 0.1
    assert wider.min() < gains.min() and wider.max() > gains.max()
    gammas = np.array([e.gamma for e in train])
    assert gammas.min() > 0.84 and gammas.max() < 1.25


def test_develop_is_monotone_in_light_and_gain() -> None:
    ramp = np.broadcast_to(np.linspace(0, 4, 64, dtype=np.float32)[:, None, None], (64, 8, 3))

    def shot(gain: float) -> np.ndarray:
        exposure = Exposure(gain=gain, gamma=1.0, white=np.ones(3), vignette=0.0, grain=0.0)
        return develop(ramp, exposure, 1.0, generator(0)).astype(int)

    assert np.all(np.diff(shot(1.0)[:, 0, 0]) >= 0) and shot(1.0)[0, 0, 0] == 0
    assert np.all(shot(1.2) >= shot(0.9)) and (shot(1.2) > shot(0.9)).mean() > 0.8
