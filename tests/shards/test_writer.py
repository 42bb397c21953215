import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
from PIL import Image

from shards import writer
from shards.build import BuildOptions, build
from shards.format import ShardsError
from shards.writer import DatasetWriter


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for scene in "abcd":
        (tmp_path / "photos" / scene).mkdir(parents=True)
        for number in range(3):
            noise = Image.fromarray(rng.integers(0, 255, (300, 300, 3), np.uint8))
            noise.save(tmp_path / "photos" / scene / f"{number}.jpg")
    return tmp_path / "photos"


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Let the disk be full after so many bytes."""

    def fill(room: int) -> None:
        left = [room]

        class FullFile:
            def __init__(self, file: BinaryIO) -> None:
                self.file = file

            def write(self, data: bytes) -> int:
                left[0] -= len(data)
                if left[0] < 0:
                    self.file.write(data[: len(data) // 2])
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                return self.file.write(data)

        real = writer._Hashed.__init__
        monkeypatch.setattr(writer._Hashed, "__init__", lambda self, file: real(self, FullFile(file)))

    return fill


@pytest.mark.parametrize("room", [0, 10_000, 300_000])
def test_full_disk_leaves_nothing_behind(
    photos: Path, tmp_path: Path, full_disk: Callable[[int], None], room: int
) -> None:
    full_disk(room)
    with pytest.raises(ShardsError, match="cannot be written: No space left"):
        build("images", [photos], tmp_path / "out", workers=1, options=BuildOptions(shard_mb=1))
    assert not (tmp_path / "out").exists()


def test_full_disk_leaves_the_old_dataset_whole(
    photos: Path, tmp_path: Path, full_disk: Callable[[int], None]
) -> None:
    build("images", [photos / "a"], tmp_path / "out", workers=1)
    before = tree(tmp_path / "out")
    full_disk(100_000)
    with pytest.raises(ShardsError, match="No space left"):
        build("images", [photos], tmp_path / "out", workers=1, force=True)
    assert tree(tmp_path / "out") == before


def test_full_disk_at_the_manifest_leaves_no_dataset_and_the_shards_for_another_try(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build("images", [photos], tmp_path / "clean", workers=1)
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if os.readlink(f"/proc/self/fd/{descriptor}").endswith("manifest.jsonl"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(ShardsError, match="No space left on device; the same command goes on"):
            build("images", [photos], tmp_path / "out", workers=1)
    assert [p.name for p in (tmp_path / "out").iterdir()] == [".building"]
    monkeypatch.setattr("shards.executor.convert_scene", None)  # anything converted would fail
    build("images", [photos], tmp_path / "out", workers=1)
    assert tree(tmp_path / "out") == tree(tmp_path / "clean")


def test_two_builds_into_one_folder_are_refused(photos: Path, tmp_path: Path) -> None:
    with (
        DatasetWriter(tmp_path / "out", source="images"),
        pytest.raises(ShardsError, match="another build is writing"),
    ):
        build("images", [photos], tmp_path / "out", workers=1)


def test_folder_that_cannot_be_made_is_one_sentence(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ShardsError, match="cannot be written"):
        build("images", [photos], tmp_path / "file" / "out", workers=1)
