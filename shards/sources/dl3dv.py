"""DL3DV-10K: video frames of scenes with nerfstudio's cameras, in the folders `1K` to `11K`.

A scene is `<1K..11K>/<hash>/` with `transforms.json` and the frames at a fourth (`images_4`, 960x540) or an
eighth of their size (`images_8`): the fourth is taken where it is there, since crops of the eighth are mostly
enlarged. The intrinsics are those of the full size and are scaled to the pictures; lens distortion is noted
and not undone. Frames are those that `transforms.json` lists, in the order of the video.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from shards.format import Scene, ShardsError
from shards.sources.folders import check_folders, children, natural_key
from shards.sources.nerfstudio import read_transforms

_LICENCE = "DL3DV-10K terms of use: CC-BY-NC-4.0"
_PART = re.compile(r"\d+K")
_HASH = re.compile(r"[0-9a-f]{64}")
_FOLDERS = ("images_4", "images_8")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of `build dl3dv`."""

    images: str | None = None
    """Folder of the frames within each scene; by default images_4 or, where a scene has none, images_8."""


@dataclass(frozen=True, kw_only=True)
class Dl3dvTask:
    """One scene."""

    name: str
    folder: Path
    images: str | None


def find(paths: Sequence[Path], options: Options) -> Iterator[Dl3dvTask]:
    """Every scene of the root folders, or of single parts such as `3K`."""
    check_folders(paths)
    for path in paths:
        parts = [path] if _is_part(path) else [part for part in children(path) if _is_part(part)]
        scenes = [(part, f) for part in parts for f in children(part) if _HASH.fullmatch(f.name)]
        if not scenes:
            raise ShardsError(f"{path} holds no <1K..11K>/<hash of 64 digits>: name the root of DL3DV-10K")
        for part, folder in scenes:
            name = f"{part.resolve().name}/{folder.name}"
            yield Dl3dvTask(name=name, folder=folder, images=options.images)


def read(task: Dl3dvTask) -> Scene:
    """The listed frames with cameras."""
    images = _images(task)
    transforms = read_transforms(task.folder / "transforms.json")
    listed = sorted(transforms.listed, key=lambda entry: natural_key(entry.file))
    frames = [transforms.frame(entry, images / Path(entry.file).name) for entry in listed]
    return Scene(name=task.name, frames=frames, licence=_LICENCE, ordered=True)


def _images(task: Dl3dvTask) -> Path:
    names = (task.images,) if task.images else _FOLDERS
    for name in names:
        if (task.folder / name).is_dir():
            return task.folder / name
    raise ShardsError(f"{task.folder} has no {' or '.join(names)}: fetch it, or name another with --images")


def _is_part(path: Path) -> bool:
    return bool(_PART.fullmatch(path.resolve().name))
