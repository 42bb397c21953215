import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shards.build import Report, build
from shards.format import BadPhotograph, ShardsError
from shards.reader import Dataset
from shards.sources.wildrgbd import Options, find, read
from tests.trees import proof, wildrgbd
from tests.trees.world import View, render_world

WORLD = render_world(6)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, View]]:
    root = tmp_path_factory.mktemp("wildrgbd") / "WildRGB-D"
    return root, wildrgbd.write(root, WORLD)


@pytest.fixture(scope="module")
def built(tree: tuple[Path, dict[str, View]]) -> tuple[Dataset, Report]:
    out = tree[0].parent / "out"
    return (build("wildrgbd", [tree[0]], out, workers=1), Dataset(out))[::-1]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    wildrgbd.write(tmp_path, render_world(4))
    return tmp_path


def test_depth_cameras_and_pixels_are_those_of_the_world(
    tree: tuple[Path, dict[str, View]], built: tuple[Dataset, Report]
) -> None:
    assert proof.warp_error(built[0], tree[1]) < 0.5
    assert proof.point_error(built[0], tree[1], WORLD.points) < 0.01
    assert proof.pixel_error(built[0], tree[1]) < 5


def test_frames_are_in_the_order_of_their_numbers_whatever_the_order_of_the_poses(
    built: tuple[Dataset, Report],
) -> None:
    for chunk in range(built[0].num_chunks):
        names = built[0].chunk(chunk).frame_names
        assert names == sorted(names) and len(names) >= 2


def test_scenes_of_the_val_list_are_held_out_and_only_they(built: tuple[Dataset, Report]) -> None:
    dataset = built[0]
    splits = {d.meta["scene"]: d.meta["split"] for d in map(dataset.chunk, range(dataset.num_chunks))}
    assert splits == {"cup/scene_002": "train", "cup/scene_010": "train", "cup/scene_200": "val"}


def test_pictures_without_poses_and_poses_without_pictures_are_counted_and_named(
    tree: tuple[Path, dict[str, View]], built: tuple[Dataset, Report]
) -> None:
    report, rgb = built[1], tree[0] / "cup" / "scenes" / "scene_002" / "rgb"
    assert dict(report.refused) == {
        str(rgb / "00098.png"): "no pose in cam_poses.txt",
        str(rgb / "00099.png"): "no such picture, though it has a pose",
    }
    assert (report.frames_in, report.frames_out) == (10, 8)


def test_scenes_are_found_in_natural_order_from_the_root_or_a_category(tree: tuple[Path, dict]) -> None:
    names = ["cup/scene_002", "cup/scene_010", "cup/scene_200"]
    assert [task.name for task in find([tree[0]], Options())] == names
    assert [task.name for task in find([tree[0] / "cup"], Options())] == names


def test_a_category_without_lists_leaves_the_split_to_the_build(copy: Path) -> None:
    for path in (copy / "cup").glob("*_list.json"):
        path.unlink()
    assert {task.split for task in find([copy], Options())} == {None}


def test_missing_depth_is_no_error_and_a_depth_map_of_8_bits_is(copy: Path) -> None:
    task = next(iter(find([copy], Options())))
    depth = task.poses.parent / "depth"
    frames = read(task).frames
    (depth / frames[0].name).unlink()
    Image.new("L", (96, 72)).save(depth / frames[1].name)
    assert frames[0].depth() is None
    with pytest.raises(BadPhotograph, match="one channel of 16 bits"):
        frames[1].depth()


def test_intrinsics_written_row_by_row_are_refused(copy: Path) -> None:
    path = copy / "cup" / "scenes" / "scene_002" / "metadata"
    values = json.loads(path.read_text())
    values["K"] = np.reshape(values["K"], (3, 3)).T.ravel().tolist()
    path.write_text(json.dumps(values))
    with pytest.raises(ShardsError, match="column by column"):
        build("wildrgbd", [copy], copy / "out", workers=1)
    assert not (copy / "out" / "manifest.jsonl").exists()


@pytest.mark.parametrize("text", ["", "7 1 0 0\n", "7" + " nan" * 16, "7" + " 0" * 16])
def test_poses_that_are_none_are_refused_by_name(copy: Path, text: str) -> None:
    (copy / "cup" / "scenes" / "scene_010" / "cam_poses.txt").write_text(text)
    with pytest.raises(ShardsError, match=r"scene_010/cam_poses\.txt"):
        build("wildrgbd", [copy], copy / "out", workers=1)


def test_a_folder_that_is_no_wildrgbd_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ShardsError, match="<category>/scenes/<scene>"):
        list(find([tmp_path], Options()))
