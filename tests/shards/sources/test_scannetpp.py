import json
import shutil
from pathlib import Path

import pytest

from shards.build import Report, build
from shards.format import ShardsError
from shards.reader import Dataset
from shards.sources.scannetpp import Options, find, read
from tests.trees import proof, scannetpp
from tests.trees.nerfstudio import points_there
from tests.trees.world import View, render_world

WORLD = render_world(7, seed=2)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, View]]:
    root = tmp_path_factory.mktemp("scannetpp")
    return root, scannetpp.write(root, WORLD)


@pytest.fixture(scope="module")
def built(tree: tuple[Path, dict[str, View]]) -> tuple[Dataset, Report]:
    report = build("scannetpp", [tree[0]], tree[0] / "out", workers=1)
    return Dataset(tree[0] / "out"), report


def test_true_points_fall_where_the_cameras_see_them(
    tree: tuple[Path, dict[str, View]], built: tuple[Dataset, Report]
) -> None:
    dataset, views = built[0], tree[1]
    assert proof.point_error(dataset, views, points_there(WORLD.points)) < 0.5
    assert proof.pixel_error(dataset, views) < 4
    assert dataset.chunk(0).frame_names == list(views)


def test_test_frames_and_bad_frames_are_left_out_and_named(built: tuple[Dataset, Report]) -> None:
    report = built[1]
    assert (report.frames_in, report.frames_out) == (7, 4)
    assert [(Path(name).name, why) for name, why in report.refused] == [
        ("DSC00013.JPG", "in neither of train_test_lists.json's lists"),
        ("DSC00014.JPG", "marked as bad"),
        ("DSC00015.JPG", "a test frame"),
    ]


def test_a_test_frame_stays_out_wherever_it_is_listed(
    tree: tuple[Path, dict[str, View]], tmp_path: Path
) -> None:
    shutil.copytree(tree[0] / "data", tmp_path / "data")
    path = next(tmp_path.rglob("transforms_undistorted.json"))
    transforms = json.loads(path.read_text())
    transforms["frames"] += transforms.pop("test_frames")
    path.write_text(json.dumps(transforms))
    (task,) = find([tmp_path], Options())
    assert "DSC00015.JPG" not in [frame.name for frame in read(task).frames]


def test_overlap_comes_from_colmaps_tracks_where_they_are(
    built: tuple[Dataset, Report], tmp_path: Path
) -> None:
    assert built[0].chunk(0).meta["overlap_from"] == "tracks"
    scannetpp.write(tmp_path, WORLD, colmap=False)
    (task,) = find([tmp_path], Options())
    assert all(frame.points is None for frame in read(task).frames)


def test_model_without_observations_does_not_mean_no_overlap(
    tree: tuple[Path, dict[str, View]], tmp_path: Path
) -> None:
    shutil.copytree(tree[0] / "data", tmp_path / "data")
    path = next(tmp_path.rglob("images.txt"))
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    path.write_text("".join(f"{line}\n\n" for line in lines[::2]))
    (task,) = find([tmp_path], Options())
    assert all(frame.points is None for frame in read(task).frames)


def test_fisheye_pictures_have_poses_and_no_intrinsics(
    tree: tuple[Path, dict[str, View]], tmp_path: Path
) -> None:
    root, views = tree
    build("scannetpp", [root], tmp_path / "out", source_options=Options(images="fisheye"), workers=1)
    dataset = Dataset(tmp_path / "out")
    chunk = dataset.chunk(0)
    assert chunk.intrinsics is None and chunk.world_to_camera is not None
    assert chunk.meta["distortions"][0]["model"] == "OPENCV_FISHEYE"
    assert {"DSC00015.JPG", "DSC00013.JPG"}.isdisjoint(chunk.frame_names)
    bad = {"DSC00014.JPG": WORLD.views[5]}  # only the undistorted list marks it
    assert proof.pixel_error(dataset, views | bad) < 4


def test_licence_forbids_passing_shards_on(built: tuple[Dataset, Report]) -> None:
    assert "no redistribution" in built[0].chunk(0).meta["licence"]


def test_missing_undistortion_says_what_to_do(tree: tuple[Path, dict[str, View]], tmp_path: Path) -> None:
    shutil.copytree(tree[0] / "data", tmp_path / "data")
    shutil.rmtree(next(tmp_path.rglob("resized_undistorted_images")))
    with pytest.raises(ShardsError, match=r"run the toolkit's undistortion .* --images fisheye"):
        build("scannetpp", [tmp_path], tmp_path / "out", workers=1)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["", "[]", '{"test": []}', '{"train": [1]}'])
def test_broken_lists_are_refused_in_one_line(
    tree: tuple[Path, dict[str, View]], tmp_path: Path, text: str
) -> None:
    shutil.copytree(tree[0] / "data", tmp_path / "data")
    next(tmp_path.rglob("train_test_lists.json")).write_text(text)
    (task,) = find([tmp_path], Options())
    with pytest.raises(ShardsError, match=r"train_test_lists\.json") as caught:
        read(task)
    assert "\n" not in str(caught.value)


def test_folder_that_is_not_scannetpp_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ShardsError, match="no data/<scene>/dslr"):
        list(find([tmp_path], Options()))
