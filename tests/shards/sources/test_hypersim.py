import csv
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.build import Report, build
from shards.format import BadPhotograph, ShardsError
from shards.reader import Dataset
from shards.sources.hypersim import Options, find, pinhole, read
from tests.trees import proof
from tests.trees.world import View, render_world

h5py = pytest.importorskip("h5py", reason="Hypersim's files are read by h5py: pip install 'mumkit[datasets]'")

from tests.trees import hypersim  # noqa: E402

WORLD = render_world(6)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, View]]:
    root = tmp_path_factory.mktemp("hypersim") / "scenes"
    return root, hypersim.write(root, WORLD)


@pytest.fixture(scope="module")
def built(tree: tuple[Path, dict[str, View]]) -> tuple[Dataset, Report]:
    report = build("hypersim", [tree[0]], tree[0].parent / "out", workers=1)
    return Dataset(tree[0].parent / "out"), report


@pytest.fixture
def copy(tree: tuple[Path, dict[str, View]], tmp_path: Path) -> Path:
    return Path(shutil.copytree(tree[0], tmp_path / "copy"))


def tasks(root: Path, options: Options | None = None) -> dict:
    return {task.name: task for task in find([root], options or Options())}


def test_depth_cameras_and_pixels_are_those_of_the_world_through_straight_and_tilted_lenses(
    tree: tuple[Path, dict[str, View]], built: tuple[Dataset, Report]
) -> None:
    dataset, views = built[0], tree[1]
    assert proof.warp_error(dataset, views) < 0.5
    assert proof.point_error(dataset, views, WORLD.points) < 0.01
    assert proof.pixel_error(dataset, views) < 6
    for name, (chunk, frame) in proof.stored_frames(dataset, views).items():
        np.testing.assert_allclose(
            dataset.chunk(chunk).intrinsics[frame], views[name].intrinsics, atol=1e-5, err_msg=name
        )
        np.testing.assert_allclose(dataset.read_depth(chunk, frame), views[name].depth, rtol=1e-3)


def test_every_camera_is_a_scene_and_the_official_test_scenes_are_held_out(
    built: tuple[Dataset, Report],
) -> None:
    dataset = built[0]
    splits = {d.meta["scene"]: d.meta["split"] for d in map(dataset.chunk, range(dataset.num_chunks))}
    assert splits == {"ai_001_001/cam_00": "train", "ai_001_001/cam_01": "train", "ai_037_010/cam_00": "val"}


def test_only_tone_mapped_previews_are_pictures(built: tuple[Dataset, Report]) -> None:
    names = built[0].chunk(0).frame_names
    assert names == ["frame.0000.tonemap.jpg", "frame.0002.tonemap.jpg", "frame.0004.tonemap.jpg"]


def test_bad_scenes_and_withdrawn_or_unposed_frames_are_counted_and_named(
    built: tuple[Dataset, Report],
) -> None:
    report = built[1]
    assert report.dropped == [("ai_026_008/cam_00", "its cameras are wrong")]
    assert {Path(name).name: reason for name, reason in report.refused} == {
        "frame.0008.tonemap.jpg": "content flagged for removal",
        "frame.0077.tonemap.jpg": "no pose of its number",
    }
    assert (report.frames_in, report.frames_out) == (12, 10)


def test_without_a_split_file_all_scenes_are_the_builds_to_split(copy: Path) -> None:
    (copy / "metadata_images_split_scene_v1.csv").unlink()
    found = tasks(copy)
    assert {task.split for task in found.values()} == {None}
    assert [Path(n).name for n, _ in read(found["ai_001_001/cam_00"]).left_out] == ["frame.0077.tonemap.jpg"]


def test_frames_without_distances_have_no_depth_and_damaged_ones_are_refused(copy: Path) -> None:
    frames = read(tasks(copy)["ai_001_001/cam_01"]).frames
    geometry = copy / "ai_001_001" / "images" / "scene_cam_01_geometry_hdf5"
    (geometry / "frame.0000.depth_meters.hdf5").unlink()
    (geometry / "frame.0002.depth_meters.hdf5").write_bytes(b"damaged")
    with h5py.File(geometry / "frame.0004.depth_meters.hdf5", "w") as file:
        file["depth"] = np.zeros((4, 4))
    assert frames[0].depth() is None
    for frame, reason in ((frames[1], "cannot be read"), (frames[2], "holds no 'dataset'")):
        with pytest.raises(BadPhotograph, match=reason):
            frame.depth()


def test_scenes_may_be_named_one_at_a_time_with_the_parameters_beside_them(copy: Path) -> None:
    assert list(tasks(copy / "ai_037_010")) == ["ai_037_010/cam_00"]


def test_missing_camera_parameters_are_asked_for(copy: Path, tmp_path: Path) -> None:
    moved = (copy / "metadata_camera_parameters.csv").rename(tmp_path / "moved.csv")
    with pytest.raises(ShardsError, match=r"contrib/mikeroberts3000.*--camera-parameters"):
        tasks(copy)
    assert len(tasks(copy, Options(camera_parameters=moved))) == 4
    with pytest.raises(ShardsError, match=r"none\.csv does not exist"):
        tasks(copy, Options(camera_parameters=tmp_path / "none.csv"))


def test_a_scene_without_parameters_is_named(copy: Path) -> None:
    path = copy / "metadata_camera_parameters.csv"
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["scene_name"] != "ai_001_001"]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    with pytest.raises(ShardsError, match="no row of ai_001_001"):
        tasks(copy)


def test_a_scene_without_units_or_poses_is_named(copy: Path) -> None:
    found = tasks(copy)
    found["ai_001_001/cam_00"].keyframes.joinpath("camera_keyframe_positions.hdf5").unlink()
    with pytest.raises(ShardsError, match=r"cam_00 must hold positions"):
        read(found["ai_001_001/cam_00"])
    found["ai_001_001/cam_01"].units.write_text("parameter_name,parameter_value\n")
    with pytest.raises(ShardsError, match=r"metadata_scene\.csv does not say meters_per_asset_unit"):
        read(found["ai_001_001/cam_01"])


def test_without_h5py_the_way_to_get_it_is_told(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ShardsError, match=r"pip install 'mumkit\[datasets\]'"):
        tasks(copy)


def test_a_folder_that_is_no_hypersim_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ShardsError, match="ai_VVV_NNN"):
        tasks(tmp_path)


def test_the_published_matrix_of_a_tilted_lens_is_a_pinhole_camera() -> None:
    """ai_038_010 as it stands in the published file: sixty degrees wide, its lens shifted by 0.109."""
    projection = np.array(
        [
            [1.7219110759986052, 0, 0],
            [0, 2.3093746177592296, 0],
            [0, -0.10794058016124469, -0.9941458557590505],
        ]
    )
    intrinsics, turn = pinhole(projection, (768, 1024))
    assert turn @ turn.T == pytest.approx(np.eye(3)) and np.linalg.det(turn) > 0
    ray_from_uv = np.array(
        [
            [0.580750082822982, 0, 0],
            [0, 0.433017663011423, 0],
            [0, -0.047015412773442865, -1.0058886170545667],
        ]
    )
    for u, v in ((-1, -1), (0.3, 0.9), (1, -0.2)):
        x, y, z = ray_from_uv @ (u, v, 1)
        pixel = intrinsics @ turn @ (x, -y, -z)
        np.testing.assert_allclose(pixel[:2] / pixel[2], [(u + 1) * 512, (1 - v) * 384], atol=1e-3)
    assert np.degrees(np.arccos(turn[2, 2])) == pytest.approx(6.2, abs=0.1)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(-0.3, 0.3), min_size=5, max_size=5), st.floats(0.6, 3))
def test_every_projection_is_taken_apart_exactly(numbers: list[float], focal: float) -> None:
    a, b, c, d, e = numbers
    projection = np.array([[focal, a, b], [0, 1.2 * focal, c], [d, e, -1]])
    intrinsics, turn = pinhole(projection, (480, 640))
    edges = np.array([[320, 0, 320], [0, -240, 240], [0, 0, 1]])
    wanted = edges @ projection @ np.diag([1.0, -1, -1])
    rebuilt = intrinsics @ turn
    np.testing.assert_allclose(rebuilt / np.linalg.norm(rebuilt), wanted / np.linalg.norm(wanted), atol=1e-9)
    assert np.allclose(np.tril(intrinsics, -1), 0) and (np.diag(intrinsics) > 0).all()


@pytest.mark.parametrize("projection", [np.zeros((3, 3)), np.eye(3), np.full((3, 3), np.nan)])
def test_a_matrix_that_is_no_camera_is_refused(projection: np.ndarray) -> None:
    with pytest.raises(ShardsError, match="no camera's"):
        pinhole(projection, (480, 640))
