import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from shards.build import BuildOptions, Report, build
from shards.covisibility import overlap_from_tracks
from shards.format import BadPhotograph, ShardsError
from shards.reader import Dataset
from shards.sources.megadepth import Options, find, read, read_depth
from tests.trees import megadepth, proof
from tests.trees.world import View, render_world

WORLD = render_world(6, size=megadepth.SIZE, seed=2)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, View]]:
    root = tmp_path_factory.mktemp("MegaDepth")
    return root, megadepth.write(root, WORLD)


@pytest.fixture(scope="module")
def built(tree: tuple[Path, dict[str, View]]) -> tuple[Dataset, Report]:
    root, _ = tree
    report = build("megadepth", [root], root / "out", workers=1)
    return Dataset(root / "out"), report


def test_depth_cameras_and_pixels_are_those_of_the_world(
    tree: tuple[Path, dict[str, View]], built: tuple[Dataset, Report]
) -> None:
    dataset, views = built[0], tree[1]
    assert set(proof.stored_frames(dataset)) == set(views) and len(views) == 4
    assert proof.warp_error(dataset, views) < 0.5
    assert proof.point_error(dataset, views, WORLD.points) < 0.01
    assert proof.pixel_error(dataset, views) < 4


def test_photographs_without_dense_depth_are_left_out_and_named(built: tuple[Dataset, Report]) -> None:
    report = built[1]
    assert (report.frames_in, report.frames_out, report.frames_refused) == (6, 4, 2)
    (absent, why_absent), (ordinal, why_ordinal) = report.refused
    assert absent.startswith("0001/") and why_absent == "no depth map"
    assert ordinal.startswith("0001/") and "ordinal" in why_ordinal


def test_photograph_without_points_keeps_its_place(
    tree: tuple[Path, dict[str, View]], built: tuple[Dataset, Report]
) -> None:
    views = tree[1]
    chunk = built[0].chunk(0)
    row = chunk.frame_names.index(megadepth.without_points(views))
    assert np.delete(chunk.covisibility[row], row).max() == 0
    rest = np.delete(np.delete(chunk.covisibility, row, 0), row, 1)
    assert rest.min() > 0  # the lines after it were not shifted


def test_overlap_is_the_share_of_a_views_points_that_the_other_sees(
    tree: tuple[Path, dict[str, View]],
) -> None:
    root, views = tree
    (task,) = find([root], Options())
    frames = read(task).frames
    truth = {name: set(view.points.tolist()) for name, view in views.items()}
    truth[megadepth.without_points(views)] = set()
    seen = [truth[frame.name] for frame in frames]
    formula = np.array([[len(a & b) / len(a) if a else 0.0 for b in seen] for a in seen])
    assert np.abs(overlap_from_tracks([frame.points for frame in frames]) - formula).max() < 1e-12
    assert not np.allclose(formula, formula.T)


def test_photographs_without_depth_are_kept_on_request(
    tree: tuple[Path, dict[str, View]], tmp_path: Path
) -> None:
    root, _ = tree
    for depth, known in (("optional", 4), ("none", 0)):
        out = tmp_path / depth
        report = build("megadepth", [root], out, source_options=Options(depth=depth), workers=1)
        assert (report.frames_in, report.frames_out) == (6, 6)
        dataset = Dataset(out)
        assert sum(dataset.read_depth(0, f) is not None for f in range(6)) == known


def test_missing_depth_folder_names_the_option(tree: tuple[Path, dict[str, View]], tmp_path: Path) -> None:
    shutil.copytree(tree[0] / "Undistorted_SfM", tmp_path / "Undistorted_SfM")
    with pytest.raises(ShardsError, match=r"no depth maps .* --depth optional"):
        build("megadepth", [tmp_path], tmp_path / "out", workers=1)
    assert not (tmp_path / "out").exists()


def test_evaluation_scene_is_denied(tree: tuple[Path, dict[str, View]], tmp_path: Path) -> None:
    (tmp_path / "Undistorted_SfM").mkdir()
    (tmp_path / "phoenix").symlink_to(tree[0] / "phoenix")
    for name in ("0001", "0015"):
        (tmp_path / "Undistorted_SfM" / name).symlink_to(tree[0] / "Undistorted_SfM" / "0001")
    assert [task.name for task in find([tmp_path], Options())] == ["0001", "0015"]
    report = build("megadepth", [tmp_path], tmp_path / "out", workers=1)
    assert report.scenes_out == 1 and report.dropped[0][0] == "0015"


def test_depth_of_another_undistortion_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("depth", data=np.ones((30, 40), np.float32))
    assert read_depth(tmp_path / "a.h5", (60, 80)).shape == (30, 40)
    with pytest.raises(BadPhotograph, match="40x30, its photograph 80x70"):
        read_depth(tmp_path / "a.h5", (70, 80))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"depths": np.ones((2, 2))}, "no 'depth'"),
        ({"depth": np.ones(4)}, r"\(4,\)"),
        ({"depth/inner": np.ones((2, 2))}, "cannot be read"),
        (None, "cannot be read"),
    ],
)
def test_damaged_depth_is_refused_in_one_line(tmp_path: Path, content: dict | None, reason: str) -> None:
    path = tmp_path / "a.h5"
    if content is None:
        path.write_bytes(b"no HDF5 at all" * 99)
    else:
        with h5py.File(path, "w") as file:
            for name, data in content.items():
                file.create_dataset(name, data=data)
    with pytest.raises(BadPhotograph, match=reason) as caught:
        read_depth(path, (2, 2))
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_damaged_depth_map_is_refused_by_name_and_the_rest_kept(
    tree: tuple[Path, dict[str, View]], tmp_path: Path
) -> None:
    shutil.copytree(tree[0] / "phoenix", tmp_path / "phoenix")
    (tmp_path / "Undistorted_SfM").symlink_to(tree[0] / "Undistorted_SfM")
    victim = sorted(tmp_path.rglob("*.h5"))[0]
    victim.write_bytes(victim.read_bytes()[:105_000])
    with pytest.raises(BadPhotograph, match=victim.name):
        build("megadepth", [tmp_path], tmp_path / "out", workers=1)
    report = build("megadepth", [tmp_path], tmp_path / "out", workers=1, options=BuildOptions(skip_bad=True))
    assert (report.frames_in, report.frames_out) == (6, 3)


def test_folder_that_is_not_megadepth_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ShardsError, match="no Undistorted_SfM"):
        list(find([tmp_path], Options()))
