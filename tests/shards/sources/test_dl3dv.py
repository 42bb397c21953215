import shutil
from pathlib import Path

import pytest

from shards.build import Report, build
from shards.format import ShardsError
from shards.reader import Dataset
from shards.sources.dl3dv import Options, find, read
from tests.trees import dl3dv, proof
from tests.trees.nerfstudio import points_there
from tests.trees.world import View, render_world

WORLD = render_world(5, seed=2)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, View]]:
    root = tmp_path_factory.mktemp("DL3DV-10K")
    return root, dl3dv.write(root, WORLD)


@pytest.fixture(scope="module")
def built(tree: tuple[Path, dict[str, View]]) -> tuple[Dataset, Report]:
    report = build("dl3dv", [tree[0]], tree[0] / "out", workers=1)
    return Dataset(tree[0] / "out"), report


def test_true_points_fall_where_the_cameras_see_them(
    tree: tuple[Path, dict[str, View]], built: tuple[Dataset, Report]
) -> None:
    dataset, views = built[0], tree[1]
    assert proof.point_error(dataset, views, points_there(WORLD.points)) < 0.5
    assert proof.pixel_error(dataset, views) < 4


def test_frames_are_those_with_a_camera_in_the_videos_order(
    tree: tuple[Path, dict[str, View]], built: tuple[Dataset, Report]
) -> None:
    assert built[0].chunk(0).frame_names == list(tree[1]) and built[1].frames_out == 4
    assert built[0].chunk(0).scene == dl3dv.SCENE


def test_eighths_are_read_only_where_there_are_no_fourths(
    tree: tuple[Path, dict[str, View]], tmp_path: Path
) -> None:
    root, views = tree
    shutil.copytree(root / "1K", tmp_path / "1K")
    shutil.rmtree(tmp_path / dl3dv.SCENE / "images_4")
    build("dl3dv", [tmp_path], tmp_path / "out", workers=1)
    dataset = Dataset(tmp_path / "out")
    assert dataset.chunk(0).sizes[0].tolist() == [36, 48]
    halved = dataset.chunk(0).intrinsics
    assert halved is not None
    assert abs(halved[0, 0, 0] - next(iter(views.values())).intrinsics[0, 0] / 2) < 1e-9


def test_one_part_alone_is_read(tree: tuple[Path, dict[str, View]]) -> None:
    (task,) = find([tree[0] / "1K"], Options())
    assert task.name == dl3dv.SCENE


def test_missing_frames_folder_is_named(tree: tuple[Path, dict[str, View]]) -> None:
    (task,) = find([tree[0]], Options(images="images_2"))
    with pytest.raises(ShardsError, match="has no images_2: fetch it"):
        read(task)


def test_folder_that_is_not_dl3dv_is_refused(tmp_path: Path) -> None:
    (tmp_path / "1K" / "scene").mkdir(parents=True)
    with pytest.raises(ShardsError, match=r"<1K\.\.11K>/<hash"):
        list(find([tmp_path], Options()))
