"""A COLMAP model: true tracks, photographs in their cameras' pixels, and what is refused."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from probes.benchmarks import open_benchmark
from probes.data.correspondences import Correspondent
from probes.data.square import SquareFrames
from probes.errors import ProbeError
from tests.trees import colmap
from tests.trees.proof import benchmark_pixel_error, benchmark_point_error
from tests.trees.world import View, World, render_world

SCENES = (
    *("llff_fern", "opensfm_lund", "sceaux_castle"),
    *("strecha_fountain_p11", "strecha_herzjesu_p25", "vggt_kitchen"),
)


@pytest.fixture
def tree(tmp_path: Path) -> tuple[Path, World, dict[str, View]]:
    world = render_world(4)
    return tmp_path, world, colmap.write(tmp_path, world)


def test_cameras_put_the_points_where_views_see_them(tree: tuple[Path, World, dict[str, View]]) -> None:
    root, world, views = tree
    found = open_benchmark(f"colmap:{root}")
    assert {f.name for f in found.test.frames} == set(views)
    assert benchmark_point_error(found.test.frames, views, world.points) < 0.5
    assert benchmark_pixel_error(found.test, views) < 4
    assert found.truth == "tracks" and found.train is None and len({f.scene for f in found.test.frames}) == 1


def test_tracks_are_true_correspondences(tree: tuple[Path, World, dict[str, View]]) -> None:
    root, _, views = tree
    split = open_benchmark(f"colmap:{root}").test
    frames = SquareFrames(split.frames, 48, "squash")
    found = Correspondent(frames).between(0, 1)
    one, two = (views[split.frames[i].name] for i in (0, 1))
    shared = np.intersect1d(one.points, two.points, return_indices=True)
    assert len(found.queries) == len(shared[0]) > 10
    np.testing.assert_allclose(frames.square(0).outward(found.queries), one.xy[shared[1]], atol=1e-3)
    np.testing.assert_allclose(frames.square(1).outward(found.targets), two.xy[shared[2]], atol=1e-3)


def test_missing_photographs_are_refused_and_may_be_left_out(
    tree: tuple[Path, World, dict[str, View]],
) -> None:
    root, _, views = tree
    gone = next(iter(views))
    (root / "images" / gone).unlink()
    with pytest.raises(ProbeError, match=f"1 of 4 files are missing: {gone}; complete it"):
        open_benchmark(f"colmap:{root}")
    found = open_benchmark(f"colmap:{root}", allow_missing=True)
    assert found.missing == (gone,) and len(found.test.frames) == 3


def test_reduced_photographs_come_in_their_cameras_pixels(tree: tuple[Path, World, dict[str, View]]) -> None:
    root, _, views = tree
    name, view = next(iter(views.items()))
    Image.fromarray(view.image).resize((48, 36)).save(root / "images" / name)
    (frame,) = (f for f in open_benchmark(f"colmap:{root}").test.frames if f.name == name)
    assert frame.image().shape == view.image.shape


def test_a_photograph_lying_on_its_side_is_turned_where_its_camera_stands(
    tree: tuple[Path, World, dict[str, View]],
) -> None:
    root, _, views = tree
    name, view = next(iter(views.items()))
    tags = Image.Exif()
    tags[0x0112] = 6  # a quarter clockwise brings it upright
    lying = Image.fromarray(np.ascontiguousarray(np.rot90(view.image)))
    lying.save(root / "images" / name, quality=97, exif=tags)
    (frame,) = (f for f in open_benchmark(f"colmap:{root}").test.frames if f.name == name)
    assert np.abs(frame.image().astype(int) - view.image).mean() < 4


def test_a_photograph_of_another_shape_is_named(tree: tuple[Path, World, dict[str, View]]) -> None:
    root, _, views = tree
    name = next(iter(views))
    Image.new("RGB", (96, 60)).save(root / "images" / name)
    (frame,) = (f for f in open_benchmark(f"colmap:{root}").test.frames if f.name == name)
    with pytest.raises(ProbeError, match="is 96 x 60, but its camera in the model is 96 x 72"):
        frame.image()


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProbeError, match=f"data 'colmap:{tmp_path}'"):
        open_benchmark(f"colmap:{tmp_path}")


@pytest.mark.parametrize("scene", SCENES)
def test_real_models_have_tracks_on_their_epipolar_lines(testdata: Callable[[str], Path], scene: str) -> None:
    found = open_benchmark(f"colmap:{testdata(f'data/real/{scene}')}")
    frames = SquareFrames(found.test.frames, 480, "crop")
    assert 11 <= len(frames) <= 25 and not found.missing
    assert frames.load(0).shape == (3, 480, 480)
    distances = []
    for a, b in ((0, 1), (1, 2), (2, 3)):
        tracks = Correspondent(frames).between(a, b)
        rotation = frames.pose(b)[:, :3] @ frames.pose(a)[:, :3].T
        x, y, z = frames.pose(b)[:, 3] - rotation @ frames.pose(a)[:, 3]
        essential = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]) @ rotation
        fundamental = np.linalg.inv(frames.intrinsics(b)).T @ essential @ np.linalg.inv(frames.intrinsics(a))
        lines = np.column_stack([tracks.queries, np.ones(len(tracks.queries))]) @ fundamental.T
        gaps = (lines[:, :2] * tracks.targets).sum(1) + lines[:, 2]
        distances += list(np.abs(gaps) / np.linalg.norm(lines[:, :2], axis=1))
    assert len(distances) > 50 and np.median(distances) < 0.5
