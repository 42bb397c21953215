import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import shards
from shards.build import BuildOptions, build
from shards.format import ShardsError
from shards.plan import DataConfig, Plan
from shards.reader import Dataset
from shards.sources import imagenet
from shards.sources.imagenet import Options, find, read
from tests.trees import imagenet as tree
from tests.trees.world import World, render_world

LOSSY = 6.0
"""Mean absolute difference, grey levels, that 4:2:0 JPEG may make of pictures so small and so full of detail; others
differ by more than 20."""


@pytest.fixture(scope="module")
def worlds() -> list[World]:
    return [render_world(4, size=(48, 64), seed=seed, points=40) for seed in (3, 8)]


def stored_pictures(dataset: Dataset) -> dict[str, np.ndarray]:
    chunks = [dataset.chunk(number) for number in range(dataset.num_chunks)]
    assert all(chunk.num_frames == 1 for chunk in chunks) and len({c.scene for c in chunks}) == len(chunks)
    return {chunk.scene: dataset.read_image(chunk.number, 0).astype(int) for chunk in chunks}


def assert_same_pictures(dataset: Dataset, truth: dict[str, np.ndarray]) -> None:
    stored = stored_pictures(dataset)
    assert stored.keys() == truth.keys()
    for name, picture in stored.items():
        errors = {other: np.abs(picture - true).mean() for other, true in truth.items()}
        assert errors.pop(name) < LOSSY and min(errors.values()) > 4 * LOSSY - 4


def test_every_picture_of_class_folders_is_a_scene_of_its_own(worlds: list[World], tmp_path: Path) -> None:
    truth = tree.write(tmp_path / "imagenet", worlds)
    report = build("imagenet", [tmp_path / "imagenet"], tmp_path / "out", workers=1)
    assert (report.scenes_in, report.scenes_out, report.frames_out) == (8, 8, 8)
    dataset = shards.open_dataset(tmp_path / "out")
    assert_same_pictures(dataset, truth)
    splits = {chunk.scene: chunk.split for chunk in map(dataset.chunk, range(dataset.num_chunks))}
    assert {name for name, split in splits.items() if split == "val"} == {
        "n01440764/ILSVRC2012_val_00000293",
        "n01443537/ILSVRC2012_val_00000294",
    }


def test_row_of_the_table_counts_the_pictures_and_their_error(tmp_path: Path) -> None:
    row = tree.figures(tmp_path)
    assert (row.scenes, row.frames, row.proof, row.error, row.refused) == (8, 8, "pixels", None, ())
    assert row.pixels < LOSSY


def test_every_picture_of_a_webdataset_is_a_scene_of_its_own(
    worlds: list[World], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = tree.write_webdataset(tmp_path / "tars", worlds)
    monkeypatch.setattr(imagenet, "_SLICE", 9000)  # so that a tar is read in several parts
    tasks = list(find([tmp_path / "tars"], Options()))
    assert len(tasks) > 4 and len({task.name for task in tasks}) == len(tasks)
    build("imagenet", [tmp_path / "tars"], tmp_path / "out", workers=1)
    assert_same_pictures(shards.open_dataset(tmp_path / "out"), truth)


def test_sample_with_two_pictures_gives_its_first(worlds: list[World], tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name in ("x/1.jpg", "x/1.png", "x/1.seg.png", "x/2.PNG", "y/2.png"):
            tar.addfile(tarfile.TarInfo(name))
    scenes = list(read(next(find([tmp_path / "a.tar"], Options()))))
    assert [(scene.name, scene.frames[0].name) for scene in scenes] == [
        ("a/x/1", "1.jpg"),
        ("a/x/2", "2.PNG"),
        ("a/y/2", "2.png"),
    ]


def test_tars_are_taken_by_name_and_tell_their_split(worlds: list[World], tmp_path: Path) -> None:
    tree.write_webdataset(tmp_path, worlds[:1])
    tree.write_webdataset(tmp_path, worlds[1:], name="imagenet1k-validation")
    paths = sorted(tmp_path.glob("*.tar"))
    assert {task.stem: task.split for task in find(paths, Options())} == {
        "imagenet1k-train-0000": "train",
        "imagenet1k-validation-0000": "val",
    }
    assert [task.split for task in find(paths[:1], Options())] == [None]


def test_splits_are_cut_by_picture_where_no_folder_tells_them(worlds: list[World], tmp_path: Path) -> None:
    tree.write(tmp_path / "imagenet", worlds)
    options = BuildOptions(val_fraction=0.5)
    build("imagenet", [tmp_path / "imagenet" / "train"], tmp_path / "out", options=options, workers=1)
    dataset = shards.open_dataset(tmp_path / "out")
    assert 0 < len(dataset.select("val")) < 6
    options = BuildOptions(val_fraction=0)
    build("imagenet", [tmp_path / "imagenet" / "train"], tmp_path / "none", options=options, workers=1)
    assert len(shards.open_dataset(tmp_path / "none").select("val")) == 0


def test_views_of_a_step_are_all_of_different_pictures(worlds: list[World], tmp_path: Path) -> None:
    tree.write(tmp_path / "imagenet", worlds)
    build("imagenet", [tmp_path / "imagenet"], tmp_path / "out", workers=1)
    plan = Plan(shards.open_dataset(tmp_path / "out"), DataConfig(images_per_lane=6, views=(1, 1), lanes=1))
    step = plan.lane_step(0, 0)
    assert step.views.tolist() == [1] * 6 and len(set(step.chunks.tolist())) == 6


def test_pictures_are_found_in_natural_order_in_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("b/10.JPEG", "b/9.JPEG", "a/x.png", "a/.hidden.png", "a/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    monkeypatch.setattr(imagenet, "_BATCH", 2)
    batches = list(find([tmp_path], Options()))
    assert [task.scenes for task in batches] == [("a/x", "b/9"), ("b/10",)]
    assert [task.views for task in batches] == [2, 1] and batches[0].split is None


def test_pictures_of_one_name_are_told_apart(tmp_path: Path) -> None:
    for name in ("train/n1/x.png", "train/n1/x.jpg", "val/n1/x.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    train, val = find([tmp_path], Options())
    assert (train.split, train.scenes) == ("train", ("n1/x", "train/n1/x.png"))
    assert (val.split, val.scenes) == ("val", ("val/n1/x.png",))


def test_test_pictures_of_imagenet_are_left_out(worlds: list[World], tmp_path: Path) -> None:
    for name in ("train/n1/n1_1.JPEG", "test/ILSVRC2012_test_00000001.JPEG"):
        (tmp_path / name).parent.mkdir(parents=True)
        Image.fromarray(worlds[0].views[0].image).save(tmp_path / name)
    report = build("imagenet", [tmp_path], tmp_path / "out", workers=1)
    assert report.dropped == [("test/ILSVRC2012_test_00000001", "evaluation scene: ImageNet test split")]
    assert report.frames_out == 1


def test_truncated_picture_stops_the_build_or_is_counted(worlds: list[World], tmp_path: Path) -> None:
    tree.write(tmp_path / "imagenet", worlds)
    bad = tmp_path / "imagenet" / "train" / "n01440764" / "n01440764_74.JPEG"
    bad.write_bytes(bad.read_bytes()[:600])
    with pytest.raises(ShardsError, match=r"n01440764_74\.JPEG: is truncated"):
        build("imagenet", [tmp_path / "imagenet"], tmp_path / "out", workers=1)
    options = BuildOptions(skip_bad=True)
    report = build("imagenet", [tmp_path / "imagenet"], tmp_path / "out", options=options, workers=1)
    assert (report.frames_in, report.frames_out, report.frames_refused) == (8, 7, 1)
    assert report.dropped[0][0] == "n01440764/n01440764_74"


@pytest.mark.parametrize("keep", [0.4, 0.999])
def test_tar_that_breaks_off_is_told_in_one_sentence(
    worlds: list[World], tmp_path: Path, keep: float
) -> None:
    tree.write_webdataset(tmp_path, worlds[:1])
    (path,) = tmp_path.glob("*.tar")
    with tarfile.open(path) as tar:
        end = max(member.offset_data + member.size for member in tar)
    path.write_bytes(path.read_bytes()[: int(keep * end)])
    with pytest.raises(ShardsError, match=rf"{path.name} is no whole tar .*copy it again"):
        list(read(next(find([path], Options()))))


def test_damaged_header_is_not_taken_for_the_end_of_a_tar(worlds: list[World], tmp_path: Path) -> None:
    tree.write_webdataset(tmp_path, worlds[:1])
    (path,) = tmp_path.glob("*.tar")
    with tarfile.open(path) as tar:
        offset = tar.getmembers()[4].offset
    data = bytearray(path.read_bytes())
    data[offset : offset + 20] = b"damage" * 3 + b"!!"
    path.write_bytes(data)
    with pytest.raises(ShardsError, match=rf"breaks off at byte {offset}"):
        list(read(next(find([path], Options()))))


def test_bad_paths_are_told_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    for paths, reason in (
        ([], "name at least one folder"),
        ([tmp_path / "nowhere"], "does not exist"),
        ([tmp_path / "a.zip"], "is no .tar"),
        ([tmp_path / "empty"], "hold no pictures"),
    ):
        with pytest.raises(ShardsError, match=reason):
            list(find(paths, Options()))
