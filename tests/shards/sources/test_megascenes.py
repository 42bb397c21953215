import shutil
from pathlib import Path

import pytest

from shards.build import BuildOptions, Report, build
from shards.format import ShardsError
from shards.reader import Dataset
from shards.sources.megascenes import Options, find
from tests.trees import megascenes, proof
from tests.trees.world import View, render_world

WORLD = render_world(6, seed=2)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, View]]:
    root = tmp_path_factory.mktemp("MegaScenes")
    return root, megascenes.write(root, WORLD)


@pytest.fixture(scope="module")
def built(tree: tuple[Path, dict[str, View]]) -> tuple[Dataset, Report]:
    report = build("megascenes", [tree[0]], tree[0] / "out", workers=1)
    return Dataset(tree[0] / "out"), report


def test_true_points_fall_where_the_cameras_see_them(
    tree: tuple[Path, dict[str, View]], built: tuple[Dataset, Report]
) -> None:
    dataset, views = built[0], tree[1]
    assert set(proof.stored_frames(dataset)) == set(views)
    assert proof.point_error(dataset, views, WORLD.points) < 0.5
    assert proof.pixel_error(dataset, views) < 4


def test_each_model_is_a_scene_with_overlap_from_its_tracks(built: tuple[Dataset, Report]) -> None:
    dataset, report = built
    chunks = [dataset.chunk(i) for i in range(dataset.num_chunks)]
    assert sorted(chunk.scene for chunk in chunks) == ["000/123/0", "000/123/1"]
    assert (report.scenes_out, report.frames_out) == (2, 6)
    assert all(chunk.meta["overlap_from"] == "tracks" and chunk.covisibility.min() > 0 for chunk in chunks)


def test_photographs_that_are_not_registered_stay_out(built: tuple[Dataset, Report]) -> None:
    assert not any("Unregistered" in name for name in proof.stored_frames(built[0]))


def test_licence_leads_to_each_photographs_own(built: tuple[Dataset, Report]) -> None:
    chunk = built[0].chunk(0)
    assert "raw_metadata.json" in chunk.meta["licence"]
    assert all(name.startswith("commons/") for name in chunk.frame_names)


def test_lens_distortion_is_noted(built: tuple[Dataset, Report]) -> None:
    assert built[0].chunk(0).meta["distortions"][0]["model"] == "OPENCV"


def test_photograph_that_was_deleted_is_refused_by_name(
    tree: tuple[Path, dict[str, View]], tmp_path: Path
) -> None:
    shutil.copytree(tree[0] / "images", tmp_path / "images")
    (tmp_path / "reconstruct").symlink_to(tree[0] / "reconstruct")
    name = next(iter(tree[1]))
    (tmp_path / "images" / "000" / "123" / name).unlink()
    with pytest.raises(ShardsError, match=Path(name).name):
        build("megascenes", [tmp_path], tmp_path / "out", workers=1)
    report = build("megascenes", [tmp_path], tmp_path / "out", workers=1, options=BuildOptions(skip_bad=True))
    assert (report.frames_in, report.frames_out, report.frames_refused) == (6, 5, 1)


def test_earlier_layout_is_found(tree: tuple[Path, dict[str, View]], tmp_path: Path) -> None:
    place = tmp_path / "reconstruct" / "000" / "123"
    place.mkdir(parents=True)
    (place / "sparses").symlink_to(tree[0] / "reconstruct" / "000" / "123" / "colmap")
    assert [task.name for task in find([tmp_path], Options())] == ["000/123/0", "000/123/1"]


def test_folder_that_is_not_megascenes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ShardsError, match="no reconstruct/<aaa>/<bbb>/colmap/<k>"):
        list(find([tmp_path], Options()))
