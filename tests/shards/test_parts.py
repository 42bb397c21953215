"""A build in parts, as a job array runs it: every task the same command, the last one joins."""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import shards
from shards.build import BuildOptions, build
from shards.build_report import Report
from shards.format import ShardsError
from shards.parts import Part, parse_part
from shards.reader import Dataset
from shards.verify import verify

OPTIONS = BuildOptions(shard_mb=1, val_fraction=0.3)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("input") / "photos"
    rng = np.random.default_rng(0)
    for scene in range(7):
        (root / f"s{scene}").mkdir(parents=True)
        for number in range(3 + scene % 2):
            noise = Image.fromarray(rng.integers(0, 255, (300, 300, 3), np.uint8))
            noise.save(root / f"s{scene}" / f"{number}.jpg", quality=90)
    return root


@pytest.fixture(scope="module")
def whole(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, Report]:
    """The dataset of an undivided build."""
    out = tmp_path_factory.mktemp("whole") / "out"
    report = build("images", [photos], out, workers=1, options=OPTIONS)
    return shards.open_dataset(out), report


def part(photos: Path, out: Path, number: int, of: int = 3, **more: object) -> Report:
    return build("images", [photos], out, workers=1, options=OPTIONS, part=Part(number=number, of=of), **more)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def frames(dataset: Dataset) -> dict[tuple, bytes]:
    """(scene, frame, split) -> JPEG."""
    found = {}
    for number in range(dataset.num_chunks):
        chunk = dataset.chunk(number)
        for frame, name in enumerate(chunk.frame_names):
            found[chunk.scene, name, chunk.split] = dataset.read_jpeg(number, frame)
    assert len(found) == dataset.num_frames
    return found


@given(st.integers(0, 40), st.integers(1, 9))
def test_parts_share_the_tasks_out(tasks: int, of: int) -> None:
    shares = [Part(number=number, of=of).share(list(range(tasks))) for number in range(1, of + 1)]
    assert sorted(task for share in shares for task in share) == list(range(tasks))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_three_parts_give_the_frames_splits_and_counts_of_one_build(
    photos: Path, whole: tuple, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert part(photos, out, 2).missing_parts == [1, 3]
    assert part(photos, out, 3).missing_parts == [1]
    with pytest.raises(ShardsError, match=r"is not a dataset"):
        shards.open_dataset(out)
    report = part(photos, out, 1)
    dataset = shards.open_dataset(out)
    assert frames(dataset) == frames(whole[0])
    bytes_out = {"bytes_out": dataset.header["bytes"]}
    assert report.missing_parts == [] and report.stored() == whole[1].stored() | bytes_out
    assert dataset.header["splits"] == whole[0].header["splits"]
    assert verify(out, workers=1) == [] and sorted(p.name for p in out.iterdir()) == [
        "manifest.jsonl",
        "shards",
    ]


def test_bytes_do_not_depend_on_which_part_ends_last(photos: Path, tmp_path: Path) -> None:
    for name, order in (("a", (1, 2, 3)), ("b", (3, 1, 2))):
        for number in order:
            part(photos, tmp_path / name, number)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_part_that_is_built_already_is_left_alone(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    part(photos, out, 1, of=2)
    with monkeypatch.context() as patch:
        patch.setattr("shards.executor.convert_scene", None)  # anything converted would fail
        assert part(photos, out, 1, of=2).existed
    part(photos, out, 2, of=2)
    before = tree(out)
    monkeypatch.setattr("shards.executor.convert_scene", None)
    assert part(photos, out, 2, of=2).existed and tree(out) == before


@pytest.mark.parametrize("move", [1, 2, 4, 5, 7, 9])
def test_join_that_was_stopped_is_done_by_the_next_run_of_any_part(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, move: int
) -> None:
    for number in (1, 2):
        part(photos, tmp_path / "clean", number, of=2)
    part(photos, tmp_path / "out", 1, of=2)
    real, left = os.replace, [move]

    def replace(source: Path, target: Path) -> None:
        if ".parts" not in str(target):
            left[0] -= 1
            if left[0] == 0:
                raise KeyboardInterrupt
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace)
        try:
            part(photos, tmp_path / "out", 2, of=2)
        except KeyboardInterrupt:
            assert not (tmp_path / "out" / "manifest.jsonl").exists()
        else:
            assert move > 8
    monkeypatch.setattr("shards.executor.convert_scene", None)
    part(photos, tmp_path / "out", 1, of=2)
    assert tree(tmp_path / "out") == tree(tmp_path / "clean")


def test_more_parts_than_scenes_are_no_error(photos: Path, whole: tuple, tmp_path: Path) -> None:
    for number in range(1, 10):
        report = part(photos, tmp_path / "out", number, of=9)
    assert report.frames_out == whole[1].frames_out
    assert frames(shards.open_dataset(tmp_path / "out")) == frames(whole[0])


def test_parts_of_another_number_are_refused_unless_forced(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    part(photos, out, 1, of=3)
    with pytest.raises(ShardsError, match=r"holds part 1 of 3 of a build that is not finished"):
        part(photos, out, 1, of=2)
    with pytest.raises(ShardsError, match=r"holds part 1 of 3 of a build that is not finished"):
        build("images", [photos], out, workers=1, options=OPTIONS)
    assert build("images", [photos], out, workers=1, options=OPTIONS, force=True).frames_out == 24
    assert not (out / ".parts").exists()


def test_part_with_other_options_is_named_at_the_join_and_mended_by_itself(
    photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    other = BuildOptions(shard_mb=1, val_fraction=0.3, short_side=64)
    build("images", [photos], out, workers=1, options=other, part=Part(number=1, of=2))
    with pytest.raises(ShardsError, match=r"part 1/2 in .* other options; run --part 1/2 again with --force"):
        part(photos, out, 2, of=2)
    part(photos, out, 1, of=2, force=True)
    assert shards.open_dataset(out).num_frames == 24


def test_dataset_of_parts_is_replaced_only_by_force(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for number in (1, 2):
        part(photos, out, number, of=2)
    with pytest.raises(ShardsError, match=r"2 parts there, 1 now"):
        build("images", [photos], out, workers=1, options=OPTIONS)
    with pytest.raises(ShardsError, match=r"2 parts there, 3 now"):
        part(photos, out, 1, of=3)
    for number in (1, 2, 3):
        part(photos, out, number, of=3, force=True)
    assert len(shards.open_dataset(out).shards) == len(list((out / "shards").glob("*.tar")))
    assert shards.open_dataset(out).num_frames == 24


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0/3", r"counted from 1.*--array=1-3"),
        ("4/3", "counted from 1"),
        ("two", "must be I/N"),
        ("1/0", "at least one"),
    ],
)
def test_part_that_is_none_is_one_sentence(text: str, message: str) -> None:
    with pytest.raises(ShardsError, match=message):
        parse_part(text)


def test_parts_at_the_same_time_join_once(photos: Path, tmp_path: Path, whole: tuple) -> None:
    with ThreadPoolExecutor(3) as threads:
        reports = list(threads.map(lambda number: part(photos, tmp_path / "out", number), (1, 2, 3)))
    assert any(report.frames_out == 24 and not report.part for report in reports)
    assert frames(shards.open_dataset(tmp_path / "out")) == frames(whole[0])


def test_damaged_part_is_named_at_the_join_and_mended(photos: Path, tmp_path: Path, whole: tuple) -> None:
    out = tmp_path / "out"
    part(photos, out, 1, of=2)
    next((out / ".parts" / "1-of-2" / "shards").glob("*.tar")).unlink()
    with pytest.raises(ShardsError, match=r"images-p1of2-000000\.tar is missing or damaged: remove .*1-of-2"):
        part(photos, out, 2, of=2)
    shutil.rmtree(out / ".parts" / "1-of-2")
    part(photos, out, 1, of=2)
    assert frames(shards.open_dataset(out)) == frames(whole[0])
