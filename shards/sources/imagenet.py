"""Single pictures, each a scene of its own: class folders as ImageNet has them, or tars of an existing webdataset.

A chunk is what views are drawn from, so pictures of one class or one tar are never put into one. Where a `train` and a
`val` (or `validation`, `test`) stand side by side, as folders or in the names of tars, the splits are theirs; otherwise
each picture's is cut by a hash of its name. Class labels are not kept. Pictures are read a batch at a time, since a
task for each of a million would cost more than the pictures.
"""

import os
import re
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from shards.format import Frame, Scene, ShardsError
from shards.photographs import SUFFIXES
from shards.sources.folders import natural_key

SINGLE_VIEWS = True

_BATCH = 256
"""Pictures of a task."""
_SLICE = 64 << 20
"""Bytes of a tar that a task reads."""
_MOST_BYTES = 1 << 28
"""A member of a tar that claims more is no picture."""
_SPLIT_OF = {
    "train": "train",
    "training": "train",
    "val": "val",
    "validation": "val",
    "valid": "val",
    "test": "val",
}

Split = Literal["train", "val"] | None


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of `build imagenet`."""

    licence: str = "unknown"
    """Licence tag of the pictures, kept with every chunk."""


@dataclass(frozen=True, kw_only=True)
class BatchTask:
    """Some pictures of class folders."""

    name: str
    pictures: tuple[Path, ...]
    scenes: tuple[str, ...]
    """The name of each picture's scene: its folder and its own name without the suffix."""
    split: Split
    licence: str

    @property
    def views(self) -> int:
        """Pictures of the batch."""
        return len(self.pictures)


@dataclass(frozen=True, kw_only=True)
class TarTask:
    """The samples of a webdataset's tar whose pictures begin in a range of its bytes."""

    name: str
    tar: Path
    begin: int
    end: int
    stem: str
    """What the names of its scenes begin with."""
    split: Split
    licence: str


def find(paths: Sequence[Path], options: Options) -> Iterator[BatchTask | TarTask]:
    """Tasks for all pictures and all tars at or below `paths`; folders are listed, no file is opened."""
    if not paths:
        raise ShardsError("name at least one folder of class folders, or tars of a webdataset")
    pictures: list[tuple[Path, Path, Split]] = []
    tars: list[Path] = []
    for path in paths:
        if not path.exists():
            raise ShardsError(f"{path} does not exist")
        if path.is_file() and path.suffix != ".tar":
            raise ShardsError(f"{path} is no .tar; name the folder it lies in, or unpack it")
        before = len(pictures), len(tars)
        if path.is_file():
            tars.append(path)
        else:
            _look_below(path, pictures, tars)
        if before == (len(pictures), len(tars)):
            raise ShardsError(
                f"{path} and its subfolders hold no pictures (.JPEG, .png ...) and no .tar files"
            )
    known = {split for _, _, split in pictures} | {_split_in(tar.stem) for tar in tars}
    as_told = {"train", "val"} <= known
    yield from _batches(pictures, as_told, options)
    yield from _slices(tars, as_told, options)


def read(task: BatchTask | TarTask) -> Iterator[Scene]:
    """The pictures of a task, each as a scene of one view. ShardsError for a tar that cannot be read whole."""
    if isinstance(task, BatchTask):
        for path, name in zip(task.pictures, task.scenes, strict=True):
            frame = Frame(name=path.name, image=path)
            yield Scene(name=name, frames=[frame], split=task.split, licence=task.licence)
        return
    for key, suffix, data in _samples(task):
        frame = Frame(name=f"{key.rsplit('/', 1)[-1]}{suffix}", image=data)
        yield Scene(name=f"{task.stem}/{key}", frames=[frame], split=task.split, licence=task.licence)


def _look_below(root: Path, pictures: list[tuple[Path, Path, Split]], tars: list[Path]) -> None:
    """Add (root, picture, split that its folders tell) and tars, each folder in natural order."""
    for folder, inner, names in os.walk(root):
        inner[:] = sorted((name for name in inner if not name.startswith(".")), key=natural_key)
        parts = Path(folder).relative_to(root).parts
        told = next(
            (_SPLIT_OF[part.lower()] for part in (root.name, *parts) if part.lower() in _SPLIT_OF), None
        )
        for name in sorted((name for name in names if not name.startswith(".")), key=natural_key):
            suffix = os.path.splitext(name)[1].lower()
            if suffix in SUFFIXES:
                pictures.append((root, Path(folder, name), told))  # type: ignore[arg-type]
            elif suffix == ".tar":
                tars.append(Path(folder, name))


def _batches(
    pictures: Sequence[tuple[Path, Path, Split]], as_told: bool, options: Options
) -> Iterator[BatchTask]:
    scenes = _scene_names([(root, path) for root, path, _ in pictures])
    number = start = 0
    while start < len(pictures):
        split = pictures[start][2]
        end = start
        while end < min(start + _BATCH, len(pictures)) and pictures[end][2] == split:
            end += 1
        yield BatchTask(
            name=f"batch-{number:06d}",
            pictures=tuple(path for _, path, _ in pictures[start:end]),
            scenes=tuple(scenes[start:end]),
            split=split if as_told else None,
            licence=options.licence,
        )
        number, start = number + 1, end


def _scene_names(pictures: Sequence[tuple[Path, Path]]) -> list[str]:
    """`folder/name` of each picture; with all its folders and its suffix where that is taken."""
    names, taken = [], set()
    for root, path in pictures:
        name = f"{path.parent.resolve().name if path.parent == root else path.parent.name}/{path.stem}"
        if name in taken:
            name = path.relative_to(root).as_posix()
        if name in taken:
            raise ShardsError(f"two pictures are called {name!r}, {path} is the second; rename a folder")
        taken.add(name)
        names.append(name)
    return names


def _slices(tars: Sequence[Path], as_told: bool, options: Options) -> Iterator[TarTask]:
    taken = Counter(tar.stem for tar in tars)
    for tar in tars:
        stem = tar.stem if taken[tar.stem] == 1 else f"{tar.resolve().parent.name}/{tar.stem}"
        for begin in range(0, max(1, tar.stat().st_size), _SLICE):
            yield TarTask(
                name=f"{stem}#{begin // _SLICE}",
                tar=tar,
                begin=begin,
                end=begin + _SLICE,
                stem=stem,
                split=_split_in(tar.stem) if as_told else None,
                licence=options.licence,
            )


def _split_in(stem: str) -> Split:
    """The split that the name of a tar tells, such as `imagenet1k-train-0007`."""
    words = re.split(r"[^a-z]+", stem.lower())
    return next((_SPLIT_OF[word] for word in words if word in _SPLIT_OF), None)  # type: ignore[return-value]


def _samples(task: TarTask) -> Iterator[tuple[str, str, bytes]]:
    """(key, suffix, file) of each sample's picture, as webdataset groups names: the key ends at the first dot."""
    try:
        with tarfile.open(task.tar, "r:") as tar:
            last = None
            while (member := tar.next()) is not None and member.offset < task.end:
                tar.members.clear()  # type: ignore[attr-defined]
                folder, _, name = member.name.rpartition("/")
                stem, dot, suffix = name.partition(".")
                key = f"{folder}/{stem}" if folder else stem
                if not member.isreg() or f".{suffix.lower()}" not in SUFFIXES or key == last:
                    continue
                last = key
                if member.offset < task.begin:
                    continue
                file = tar.extractfile(member)
                if file is None or member.size > _MOST_BYTES:
                    raise ShardsError(
                        f"{task.tar}: {member.name} claims {member.size} bytes; it is no picture"
                    )
                yield key, dot + suffix, file.read()
            if member is None:
                _check_end(tar, task.tar)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ShardsError(f"{task.tar} is no whole tar ({error}); copy it again or leave it out") from None


def _check_end(tar: tarfile.TarFile, path: Path) -> None:
    """A tar ends with blocks of zeros; tarfile takes a damaged header for the end as well."""
    with path.open("rb") as file:
        file.seek(tar.offset)  # type: ignore[attr-defined]
        block = file.read(512)
    if len(block) < 512 or block.strip(b"\0"):
        raise ShardsError(
            f"{path} is no whole tar (it breaks off at byte {tar.offset}); copy it again or leave it out"
        )  # type: ignore[attr-defined]
