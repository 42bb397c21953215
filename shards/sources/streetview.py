"""3D Street View: a scene is a physical point of a street, seen from two to seven panoramas.

A folder (of `dataset_aligned`, or of the unaligned release) is a region of the map, with the files
`<dataset>_<image>_<view>_<target>.jpg` and a `.txt` of the same name. All pictures whose names end in the same
target show that point in their middle, wherever they stand in the listing; consecutive pictures often show
different ones.

What is assumed: the grammar of names is that of the dataset's README, whose prose names the fields otherwise
(dataset, target, patch, street view) than its listing; its authors' own code takes the last field for the
target. Where a text file is there, its line `d <dataset> <target> ...` must agree, or the picture is left
out: it was put into the wrong place. Poses are not converted: latitude, longitude, heading and pitch are
those of a map, off by metres (hence the alignment, which warps the pictures), and no field of view is given.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from shards.format import Frame, Scene, ShardsError
from shards.sources.folders import check_folders, children, natural_key

_LICENCE = "3D Street View: non-commercial, no redistribution"
_FIELDS = 4


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of `build streetview`."""


@dataclass(frozen=True, kw_only=True)
class TargetTask:
    """The views of one target."""

    name: str
    folder: str
    """Where they are. No Path, for the build would look through the whole folder once for each of its tens of
    thousands of targets: pictures that change under the same names are not noticed."""
    pictures: tuple[str, ...]
    """File names, in natural order."""
    target: int | None
    """None for pictures with names of another form, which are only counted and named."""

    @property
    def views(self) -> int:
        """Pictures of the target."""
        return 0 if self.target is None else len(self.pictures)


def find(paths: Sequence[Path], options: Options) -> Iterator[TargetTask]:
    """A scene for every target in the folders at `paths`, directly below them, or in their dataset_aligned."""
    check_folders(paths)
    for path in paths:
        aligned = path / "dataset_aligned"
        root = aligned if aligned.is_dir() else path
        found = False
        for folder in (root, *children(root)):
            targets = _targets(folder)
            found = found or any(target is not None for target in targets)
            for target, pictures in targets.items():
                yield TargetTask(
                    name=f"{folder.resolve().name}/{'strangers' if target is None else target}",
                    folder=str(folder),
                    pictures=tuple(pictures),
                    target=target,
                )
        if not found:
            raise ShardsError(
                f"{path} holds no pictures of 3D Street View (<dataset>_<image>_<view>_<target>.jpg)"
            )


def read(task: TargetTask) -> Scene:
    """The target's views; those whose text file names another target are left out."""
    paths = [Path(task.folder, name) for name in task.pictures]
    if task.target is None:
        strangers = [(str(path), "is not named <dataset>_<image>_<view>_<target>") for path in paths]
        return Scene(name=task.name, frames=[], left_out=strangers, dropped="names of another form")
    frames, left_out = [], []
    for path in paths:
        told = _told_target(path.with_suffix(".txt"))
        if told is not None and told != task.target:
            reason = f"its text file says that it shows target {told}, not {task.target}"
            left_out.append((str(path), reason))
        else:
            frames.append(Frame(name=path.name, image=path))
    return Scene(name=task.name, frames=frames, left_out=left_out, licence=_LICENCE)


def _targets(folder: Path) -> dict[int | None, list[str]]:
    """Target -> names of its pictures, both in natural order; names of another form come last, under None."""
    with os.scandir(folder) as entries:
        names = [e.name for e in entries if e.name.lower().endswith((".jpg", ".jpeg"))]
    targets: dict[int | None, list[str]] = {}
    for name in sorted(names, key=natural_key):
        targets.setdefault(_target(name), []).append(name)
    return dict(sorted(targets.items(), key=lambda item: (item[0] is None, item[0] or 0)))


def _target(name: str) -> int | None:
    fields = name.rsplit(".", 1)[0].split("_")
    return int(fields[-1]) if len(fields) == _FIELDS and all(f.isdecimal() for f in fields) else None


def _told_target(path: Path) -> int | None:
    """The target that a text file names; None where it is missing or says nothing."""
    try:
        words = path.read_text(encoding="ascii", errors="replace").split(maxsplit=3)
    except OSError:
        return None
    return int(words[2]) if len(words) > 2 and words[0] == "d" and words[2].isdecimal() else None
