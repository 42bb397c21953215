"""MegaScenes: Wikimedia Commons photographs of places with COLMAP models, as the bucket `megascenes` lays them.

A scene of six digits lies in `images/aaa/bbb/` (a tree of `commons/<category>/0/pictures/`) and has any
number of models in `reconstruct/aaa/bbb/colmap/<k>/` (`sparses/<k>/` in an earlier layout): each model is a
scene of its own here, `aaa/bbb/k`, since models share no world frame. Only registered photographs are read.
Their cameras have lens distortion, which is noted and not undone. Every photograph has a licence of its own,
kept in the `raw_metadata.json` of its category: the frames' names lead there.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from shards.format import Scene, ShardsError
from shards.sources import colmap
from shards.sources.folders import check_folders, children

_LICENCE = "Wikimedia Commons: per image, see raw_metadata.json"
_MODELS = ("colmap", "sparses")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of `build megascenes`."""

    images: str = "images"
    """Folder of the photographs, relative to the dataset's root."""


def find(paths: Sequence[Path], options: Options) -> Iterator[colmap.ColmapTask]:
    """A scene for every model below the `reconstruct` of the root folders."""
    check_folders(paths)
    for path in paths:
        count = 0
        for place in _places(path / "reconstruct"):
            for folder in (place / name for name in _MODELS):
                for model in children(folder) if folder.is_dir() else ():
                    count += 1
                    yield _task(path, place, model, options)
        if not count:
            raise ShardsError(
                f"{path} holds no reconstruct/<aaa>/<bbb>/colmap/<k>: name MegaScenes' root, which holds"
                " reconstruct and images"
            )


def read(task: colmap.ColmapTask) -> Scene:
    """The registered photographs with cameras and tracks."""
    return colmap.read(task)


def _places(reconstruct: Path) -> Iterator[Path]:
    """Every `aaa/bbb`, in order."""
    for thousand in children(reconstruct) if reconstruct.is_dir() else ():
        yield from children(thousand)


def _task(root: Path, place: Path, model: Path, options: Options) -> colmap.ColmapTask:
    scene = f"{place.parent.name}/{place.name}"
    return colmap.ColmapTask(
        name=f"{scene}/{model.name}",
        model=tuple(model / f"{part}.bin" for part in ("cameras", "images", "points3D")),
        images=root / options.images / scene,
        licence=_LICENCE,
        views=None,
    )
