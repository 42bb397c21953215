from pathlib import Path

import pytest

from shards.build import Report, build
from shards.format import ShardsError
from shards.reader import Dataset
from shards.sources.streetview import Options, find, read
from tests.trees import proof, streetview
from tests.trees.world import View, render_world

WORLD = render_world(6)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, View]]:
    root = tmp_path_factory.mktemp("streetview") / "root"
    return root, streetview.write(root, WORLD)


@pytest.fixture(scope="module")
def built(tree: tuple[Path, dict[str, View]]) -> tuple[Dataset, Report]:
    report = build("streetview", [tree[0]], tree[0].parent / "out", workers=1)
    return Dataset(tree[0].parent / "out"), report


def test_pictures_of_a_target_are_a_scene_in_natural_order_though_targets_alternate_in_the_listing(
    tree: tuple[Path, dict[str, View]], built: tuple[Dataset, Report]
) -> None:
    dataset = built[0]
    described = [dataset.chunk(chunk) for chunk in range(dataset.num_chunks)]
    found = {d.meta["scene"]: list(d.frame_names) for d in described}
    assert found == {
        "0002/9": [f"0002_{i:07d}_{v}_0000009.jpg" for i, v in ((8, 98), (10, 100), (12, 102))],
        "0002/10": [f"0002_{i:07d}_{v}_0000010.jpg" for i, v in ((9, 99), (11, 101), (13, 103))],
    }
    assert proof.pixel_error(dataset, tree[1]) < 6


def test_no_camera_is_stored(built: tuple[Dataset, Report]) -> None:
    meta = built[0].chunk(0).meta
    assert meta["intrinsics"] is meta["world_to_camera"] is None and meta["overlap_from"] == "unknown"


def test_misplaced_pictures_and_strange_names_are_counted_and_named(built: tuple[Dataset, Report]) -> None:
    report = built[1]
    assert {Path(name).name: reason for name, reason in report.refused} == {
        "0002_0000500_1_0000009.jpg": "its text file says that it shows target 10, not 9",
        "overview.jpg": "is not named <dataset>_<image>_<view>_<target>",
    }
    assert (report.frames_in, report.frames_out) == (8, 6)


def test_targets_come_in_natural_order_from_the_root_or_a_region(tree: tuple[Path, dict]) -> None:
    aligned = tree[0] / "dataset_aligned"
    for path in (tree[0], aligned, aligned / streetview.REGION):
        assert [task.name for task in find([path], Options())] == ["0002/9", "0002/10", "0002/strangers"]


def test_a_picture_without_text_or_with_an_empty_one_stays(tmp_path: Path) -> None:
    streetview.write(tmp_path, render_world(4))
    texts = sorted((tmp_path / "dataset_aligned" / streetview.REGION).glob("*_0000009.txt"))
    texts[0].unlink()
    texts[1].write_text("")
    assert len(read(next(find([tmp_path], Options()))).frames) == 2


def test_a_folder_without_such_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ShardsError, match="<dataset>_<image>_<view>_<target>"):
        list(find([tmp_path], Options()))
