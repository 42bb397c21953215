"""Rendered scenes as the builder sees them: determinism, exact cameras, overlap, splits that differ, options."""

import itertools
import pickle

import numpy as np
import pytest

from shards.format import Frame, Scene, ShardsError
from shards.sources import get_source, scenes
from shards.sources.scenes import Options, find, read


def task(
    number: int, split: str = "train", *, seed: int = 0, views: int = 4, size: int = 48
) -> scenes.SceneTask:
    """A small scene to render."""
    return scenes.SceneTask(name="s", seed=seed, split=split, number=number, views=views, size=size)


@pytest.fixture(scope="module")
def rendered() -> list[Scene]:
    """A few scenes of either split, 64 px, all their views."""
    return [read(task(n, split, views=8, size=64)) for split in ("train", "val") for n in range(5)]


def warp(a: Frame, b: Frame) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The centres of a's pixels by its depth and pose in b: column, row (float pixels), z, and whether inside."""
    height, width = a.depth.shape
    y, x = np.mgrid[:height, :width] + 0.5
    rays = np.stack([x, y, np.ones_like(x)], -1) @ np.linalg.inv(a.intrinsics).T
    points = (rays * a.depth[..., None] - a.world_to_camera[:, 3]) @ a.world_to_camera[:, :3]
    local = points @ b.world_to_camera[:, :3].T + b.world_to_camera[:, 3]
    with np.errstate(divide="ignore", invalid="ignore"):
        pixels = local @ b.intrinsics.T
        u, v = pixels[..., 0] / local[..., 2], pixels[..., 1] / local[..., 2]
    inside = (local[..., 2] > 0.05) & (u >= 0.5) & (u < width - 0.5) & (v >= 0.5) & (v < height - 0.5)
    return u, v, local[..., 2], inside


def overlap(a: Frame, b: Frame) -> float:
    """The part of a's pixels that b sees too."""
    u, v, z, inside = warp(a, b)
    seen = b.depth[v[inside].astype(int), u[inside].astype(int)]
    return float(np.count_nonzero(np.abs(seen - z[inside]) < 0.05 * seen) / inside.size)


def angle(a: Frame, b: Frame) -> float:
    """Degrees between the views' directions."""
    return float(np.degrees(np.arccos(np.clip(a.world_to_camera[2, :3] @ b.world_to_camera[2, :3], -1, 1))))


def test_a_scene_depends_on_its_seed_split_and_number_only() -> None:
    few = next(itertools.islice(find([], Options(scenes=3, size=32, frames=2)), 2, None))
    many = next(itertools.islice(find([], Options(scenes=900, size=32, frames=2)), 2, None))
    read(task(7, views=1, size=16))  # whatever was drawn before leaves no trace
    first, again = read(few), read(pickle.loads(pickle.dumps(many)))
    assert first.name == again.name
    for a, b in zip(first.frames, again.frames, strict=True):
        for field in ("image", "depth", "labels", "intrinsics", "world_to_camera"):
            np.testing.assert_array_equal(getattr(a, field), getattr(b, field))


def test_seed_split_and_number_each_change_the_scene() -> None:
    tasks = task(0, views=1), task(1, views=1), task(0, views=1, seed=1), task(0, "val", views=1)
    for a, b in itertools.combinations([read(t).frames[0] for t in tasks], 2):
        assert np.abs(a.image.astype(int) - b.image).mean() > 10
        assert np.abs(a.depth - b.depth).mean() > 0.1 and not np.array_equal(
            a.world_to_camera, b.world_to_camera
        )


def test_frames_are_what_the_builder_expects(rendered: list[Scene]) -> None:
    for scene in rendered:
        assert scene.licence.startswith("CC0") and len({frame.name for frame in scene.frames}) == 8
        for frame in scene.frames:
            assert frame.image.dtype == np.uint8 and frame.image.shape == (64, 64, 3)
            assert frame.depth.dtype == np.float32 and (frame.depth > 0.05).all() and (frame.depth < 15).all()
            assert frame.labels.dtype == np.uint8 and frame.labels.max() < len(scene.classes)
            rotation = frame.world_to_camera[:, :3]
            np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
            assert np.linalg.det(rotation) > 0


def test_depth_and_labels_agree_between_views(rendered: list[Scene]) -> None:
    """A point of a must lie on the surface that b stores, where that is smooth enough to interpolate 1 / z."""
    points, wrong_depth, wrong_label = 0, 0, 0
    for scene in rendered:
        for a, b in itertools.pairwise(scene.frames):
            u, v, z, inside = warp(a, b)
            u, v, z, label = u[inside] - 0.5, v[inside] - 0.5, z[inside], a.labels[inside]
            x, y = u.astype(int), v.astype(int)
            corners = np.stack([1 / b.depth[y + j, x + i] for j in (0, 1) for i in (0, 1)])
            around = np.stack([b.labels[y + j, x + i] for j in (0, 1) for i in (0, 1)])
            # On a plane 1 / z is linear in the picture: its mixed difference is zero.
            plane = np.abs(corners[0] - corners[1] - corners[2] + corners[3]) * z < 1e-5
            plane &= (around == around[0]).all(0)
            fx, fy = u - x, v - y
            top, bottom = (1 - fx) * corners[0] + fx * corners[1], (1 - fx) * corners[2] + fx * corners[3]
            seen = 1 / ((1 - fy) * top + fy * bottom)
            visible = plane & (np.abs(seen - z) < 0.01 * z)
            points += np.count_nonzero(visible)
            wrong_depth += np.count_nonzero(np.abs(seen - z)[visible] > 1e-3 * z[visible])
            wrong_label += np.count_nonzero((around[0] != label)[visible])
    assert points > 50_000
    # What is left are points a centimetre behind thin things that b sees.
    assert wrong_depth < 0.005 * points
    assert wrong_label < 0.005 * points


def test_neighbouring_views_share_much_and_distant_ones_something(rendered: list[Scene]) -> None:
    near = [overlap(a, b) for scene in rendered for a, b in itertools.pairwise(scene.frames)]
    every = [overlap(a, b) for scene in rendered for a, b in itertools.permutations(scene.frames, 2)]
    assert 0.5 < np.mean(near) < 0.85 and min(near) > 0.25
    assert 0.35 < np.mean(every) < 0.75 and np.std(every) > 0.1


def test_viewpoints_spread(rendered: list[Scene]) -> None:
    near = [angle(a, b) for scene in rendered for a, b in itertools.pairwise(scene.frames)]
    every = [angle(a, b) for scene in rendered for a, b in itertools.combinations(scene.frames, 2)]
    assert 8 < np.median(near) < 35
    assert np.quantile(every, 0.1) < 20 and np.quantile(every, 0.9) > 45


def test_no_view_is_blank_or_blocked(rendered: list[Scene]) -> None:
    shell = {rendered[0].classes.index(name) for name in ("wall", "floor", "ceiling")}
    for scene in rendered:
        for frame in scene.frames:
            assert np.isin(frame.labels, list(shell)).mean() < 0.9
            assert np.quantile(frame.depth, 0.1) > 0.4
            assert frame.image.std() > 15 and 40 < frame.image.mean() < 215
            # Something to see in nearly every patch of 8 x 8.
            patches = frame.image.mean(-1).reshape(8, 8, 8, 8).swapaxes(1, 2).reshape(64, 64)
            assert np.mean(patches.std(1) > 3) > 0.9


def test_light_and_exposure_differ_between_views_of_a_scene(rendered: list[Scene]) -> None:
    """The same surface points come out lighter or darker, by different factors in the three colours."""
    ratios = []
    for scene in rendered:
        for a, b in itertools.pairwise(scene.frames):
            u, v, z, inside = warp(a, b)
            x, y = u[inside].astype(int), v[inside].astype(int)
            same = np.abs(b.depth[y, x] - z[inside]) < 0.02 * z[inside]
            ratio = np.log((b.image[y, x][same] + 1.0) / (a.image[inside][same] + 1.0))
            ratios.append(np.median(ratio, 0))
    ratios = np.array(ratios)
    assert 0.1 < ratios.mean(1).std() < 0.5
    assert (ratios - ratios.mean(1, keepdims=True)).std() > 0.012


def test_find_names_scenes_by_split_and_seed() -> None:
    tasks = list(find([], Options(scenes=20, seed=5)))
    assert [t.split for t in tasks] == ["train"] * 20 + ["val"] * 4
    assert len({t.name for t in tasks}) == len(tasks)
    assert all(t.split in t.name and "seed5" in t.name and t.name.isascii() for t in tasks)
    assert all(t.views == 8 for t in tasks)
    assert sum(t.split == "val" for t in find([], Options(scenes=200))) == 20
    assert get_source("scenes") is scenes


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"scenes": -1}, "--scenes"),
        ({"frames": 97}, "--frames"),
        ({"size": 4}, "--size"),
        ({"seed": -3}, "--seed"),
    ],
)
def test_options_out_of_range_are_named(options: dict[str, int], named: str) -> None:
    with pytest.raises(ShardsError, match=named):
        Options(**options)


def test_nothing_to_render_is_refused() -> None:
    with pytest.raises(ShardsError, match="nothing to render"):
        Options(scenes=0, val_scenes=0)


def test_a_folder_is_refused(tmp_path) -> None:
    with pytest.raises(ShardsError, match="reads no folder"):
        list(find([tmp_path], Options()))
