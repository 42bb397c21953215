import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.build import BuildOptions, Report, build
from shards.format import ShardsError
from shards.reader import Dataset
from shards.sources.arkitscenes import (
    Options,
    find,
    interpolate,
    read,
    read_trajectory,
    thin,
    upright_orientation,
)
from tests.trees import arkitscenes, proof
from tests.trees.world import View, render_world

WORLD = render_world(4)
SKIES = ("upright", "left", "down", "right")


def convert(root: Path, **options: int) -> tuple[Dataset, Report]:
    out = root.parent / f"out{len(list(root.parent.iterdir()))}"
    report = build("arkitscenes", [root], out, options=BuildOptions(**options), workers=1)
    return Dataset(out), report


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, View]]:
    root = tmp_path_factory.mktemp("arkit") / "ARKitScenes"
    return root, arkitscenes.write(root, WORLD)


@pytest.fixture
def copy(tree: tuple[Path, dict[str, View]], tmp_path: Path) -> Path:
    return Path(shutil.copytree(tree[0], tmp_path / "copy"))


@pytest.mark.parametrize("sky", SKIES)
def test_depth_cameras_and_pixels_of_a_capture_held_anyhow_are_those_of_the_upright_world(
    tmp_path: Path, sky: str
) -> None:
    in_file = arkitscenes.write(tmp_path / "root", WORLD, sky)
    upright = dict(zip(in_file, WORLD.views, strict=True))
    dataset, _ = convert(tmp_path / "root")
    assert proof.warp_error(dataset, in_file) < 0.5
    assert proof.point_error(dataset, in_file, WORLD.points) < 0.01
    assert proof.pixel_error(dataset, upright) < 5
    described = dataset.chunk(0)
    for frame, name in enumerate(described.frame_names):
        np.testing.assert_allclose(described.intrinsics[frame], upright[name].intrinsics, atol=1e-4)
        np.testing.assert_allclose(described.world_to_camera[frame], upright[name].world_to_camera, atol=1e-6)
        np.testing.assert_allclose(dataset.read_depth(0, frame), upright[name].depth, atol=6e-4)


def test_turned_pictures_keep_their_geometry_when_they_are_reduced(
    tree: tuple[Path, dict[str, View]],
) -> None:
    dataset, _ = convert(tree[0], short_side=48)
    assert dataset.read_image(0, 0).shape == (48, 64, 3)
    assert proof.warp_error(dataset, tree[1]) < 0.5
    assert proof.point_error(dataset, tree[1], WORLD.points) < 0.01


def test_frames_follow_one_another_in_time_though_their_names_do_not(
    tree: tuple[Path, dict[str, View]],
) -> None:
    dataset, _ = convert(tree[0])
    assert dataset.chunk(0).frame_names == list(tree[1]) != sorted(tree[1])
    np.testing.assert_allclose(dataset.chunk(0).meta["timestamps"], [99.95, 100.45, 100.95, 101.45])


def test_pictures_without_intrinsics_or_pose_are_counted_and_named(tree: tuple[Path, dict]) -> None:
    _, report = convert(tree[0])
    assert {Path(name).name: reason for name, reason in report.refused} == {
        "41048190_99.980.png": "no intrinsics of its time (99.980 s)",
        "41048190_250.000.png": "no pose of its time (250.000 s)",
    }
    assert (report.frames_in, report.frames_out) == (6, 4)


def test_the_raw_release_gives_its_larger_pictures_with_small_depth_and_its_fold_is_the_split(
    tmp_path: Path,
) -> None:
    views = arkitscenes.write_raw(tmp_path / "root", WORLD)
    arkitscenes.write(tmp_path / "root", WORLD)
    tasks = {task.name: task for task in find([tmp_path / "root"], Options())}
    raw = tasks[arkitscenes.RAW]
    assert (raw.pictures.name, raw.split, tasks[arkitscenes.CAPTURE].split) == ("vga_wide", "val", "train")
    build("arkitscenes", [tmp_path / "root" / "raw"], tmp_path / "out", workers=1)
    dataset = Dataset(tmp_path / "out")
    assert proof.point_error(dataset, views, WORLD.points) < 0.01
    assert proof.pixel_error(dataset, views) < 5
    for frame, name in enumerate(dataset.chunk(0).frame_names):
        low = views[name].depth[::2, ::2].repeat(2, 0).repeat(2, 1)
        np.testing.assert_allclose(dataset.read_depth(0, frame), low, atol=6e-4)


def test_of_two_releases_of_a_capture_the_larger_pictures_are_taken(tmp_path: Path) -> None:
    arkitscenes.write_raw(tmp_path, WORLD)
    small = tmp_path / "3dod" / "Validation" / arkitscenes.RAW / f"{arkitscenes.RAW}_frames"
    shutil.copytree(
        tmp_path / "raw" / "Validation" / arkitscenes.RAW, small, ignore=shutil.ignore_patterns("vga*")
    )
    for order in ([tmp_path / "raw", tmp_path / "3dod"], [tmp_path / "3dod", tmp_path / "raw"], [tmp_path]):
        (task,) = find(order, Options())
        assert task.pictures.name == "vga_wide" and "raw" in task.trajectory.parts


def test_captures_are_found_from_the_release_the_fold_or_the_capture(tree: tuple[Path, dict]) -> None:
    fold = tree[0] / "3dod" / "Training"
    for path in (tree[0], fold, fold / arkitscenes.CAPTURE):
        assert [task.name for task in find([path], Options())] == [arkitscenes.CAPTURE]


def test_a_picture_between_rows_far_apart_has_no_pose(copy: Path) -> None:
    (task,) = find([copy], Options())
    lines = task.trajectory.read_text().splitlines()
    task.trajectory.write_text("\n".join(lines[:3] + lines[4:]) + "\n")
    scene = read(task)
    assert len(scene.frames) == 3
    assert any("100.450" in name and reason.startswith("no pose") for name, reason in scene.left_out)


@pytest.mark.parametrize(
    ("file", "text", "what"),
    [
        ("lowres_wide.traj", "99.9 1 2 3", r"lowres_wide\.traj: line 1 must hold 7 finite numbers"),
        (
            "lowres_wide_intrinsics/41048190_99.949.pincam",
            "256 192 nonsense",
            r"99\.949\.pincam must hold six numbers",
        ),
        ("lowres_wide/41048190_first.png", "", r"is not named <id>_<seconds>\.png"),
    ],
)
def test_files_that_are_none_are_refused_by_name(copy: Path, file: str, text: str, what: str) -> None:
    (task,) = find([copy], Options())
    (task.trajectory.parent / file).write_text(text)
    with pytest.raises(ShardsError, match=what):
        read(task)


def test_intrinsics_of_another_aspect_are_refused(copy: Path) -> None:
    (task,) = find([copy], Options())
    path = task.trajectory.parent / "lowres_wide_intrinsics" / "41048190_99.949.pincam"
    width, height, *rest = path.read_text().split()
    path.write_text(" ".join([height, width, *rest]))
    with pytest.raises(ShardsError, match="cropped or turned"):
        read(task)


def test_folders_without_captures_or_pictures_are_refused(tmp_path: Path, copy: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ShardsError, match="holds no captures"):
        list(find([tmp_path / "empty"], Options()))
    (task,) = find([copy], Options())
    shutil.rmtree(task.trajectory.parent / "lowres_wide")
    with pytest.raises(ShardsError, match="holds no pictures"):
        list(find([copy], Options()))


def test_cameras_that_look_straight_down_stay_as_they_are() -> None:
    down = np.array([[[1.0, 0, 0, 0], [0, -1, 0, 0], [0, 0, -1, 0]]])
    assert upright_orientation(down) == 1


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(-2, 2), min_size=12, max_size=12), st.floats(0, 1))
def test_interpolated_poses_are_rotations_and_meet_the_rows_at_their_times(
    numbers: list[float], share: float
) -> None:
    rows = np.column_stack([[1.0, 1.1], np.reshape(numbers, (2, 6))])
    first, between, last = interpolate(rows, np.array([1.0, 1 + 0.1 * share, 1.1]))
    for pose in (first, between, last):
        np.testing.assert_allclose(pose[:, :3] @ pose[:, :3].T, np.eye(3), atol=1e-9)
        assert np.linalg.det(pose[:, :3]) > 0
    np.testing.assert_allclose(first[:, 3], rows[0, 4:], atol=1e-9)
    np.testing.assert_allclose(last[:, 3], rows[1, 4:], atol=1e-9)
    angles = [
        np.arccos(np.clip((np.trace(a[:, :3].T @ b[:, :3]) - 1) / 2, -1, 1))
        for a, b in ((first, between), (first, last))
    ]
    assert angles[0] == pytest.approx(share * angles[1], abs=1e-6)


def test_rows_in_no_order_and_twice_are_one_trajectory(tmp_path: Path) -> None:
    path = tmp_path / "lowres_wide.traj"
    path.write_text("2 0 0 0 2 0 0\n1 0 0 0 1 0 0\n2 0 0 0 2 0 0\n")
    assert read_trajectory(path)[:, 0].tolist() == [1, 2]


@pytest.mark.parametrize(("there", "taken"), [(10, 1), (30, 3), (60, 6), (5, 1)])
def test_pictures_are_thinned_to_ten_a_second_whatever_their_clock_jitters(there: int, taken: int) -> None:
    jitter = np.random.default_rng(0).uniform(-0.002, 0.002, 200)
    times = (np.arange(200) / there + jitter).tolist()
    files = {time: Path(f"{i}.png") for i, time in enumerate(times)}
    assert [int(path.stem) for path in thin(files, 10.0).values()] == list(range(0, 200, taken))
    with pytest.raises(ShardsError, match="--rate must be above 0"):
        Options(rate=0)
