"""MegaDepth: photographs of landmarks with COLMAP models and dense depth, undistorted by D2-Net's script.

The root holds `Undistorted_SfM/<scene>/{images,sparse-txt}` and, as it was published, the depth maps in
`phoenix/S6/zl548/MegaDepth_v1/<scene>/dense0/depths/*.h5`. Only the undistorted photographs fit these
cameras and depths; those of the first release do not. Files below 100 kB are ordinal masks and no depth: like
D2-Net's scene files, and everything trained from them, the build leaves photographs out that have no depth
map or such a small one. Overlap comes from the tracks and equals D2-Net's
`overlap_matrix`. Needs h5py.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from shards.format import BadPhotograph, Scene, ShardsError
from shards.sources import colmap
from shards.sources.depth_maps import read_hdf5
from shards.sources.folders import check_folders, children
from shards.sources.reduced import same_aspect

_LICENCE = "MegaDepth: Flickr photographs, each its owner's"
_DEPTHS = "phoenix/S6/zl548/MegaDepth_v1/{scene}/dense0/depths"
_SMALLEST_DEPTH = 100 * 1024


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of `build megadepth`."""

    depth: Literal["required", "optional", "none"] = "required"
    """`required` leaves photographs without a dense depth map out, `optional` keeps them without depth,
    `none` keeps all and stores no depth."""


@dataclass(frozen=True, kw_only=True)
class MegaDepthTask:
    """One scene."""

    name: str
    model: Path
    images: Path
    depths: Path | None
    """Folder of the depth maps; None where none are wanted."""
    required: bool
    """Photographs without one are left out."""


def find(paths: Sequence[Path], options: Options) -> Iterator[MegaDepthTask]:
    """The scenes of MegaDepth's root folders, by their numbers."""
    check_folders(paths)
    for path in paths:
        undistorted = path / "Undistorted_SfM"
        scenes = [f for f in children(undistorted) if _is_scene(f)] if undistorted.is_dir() else []
        if not scenes:
            raise ShardsError(
                f"{path} holds no Undistorted_SfM/<scene>/sparse-txt: name MegaDepth's root, with the photographs"
                " undistorted by D2-Net's script"
            )
        for folder in scenes:
            yield MegaDepthTask(
                name=folder.name,
                model=folder / "sparse-txt",
                images=folder / "images",
                depths=None if options.depth == "none" else path / _DEPTHS.format(scene=folder.name),
                required=options.depth == "required",
            )


def read(task: MegaDepthTask) -> Scene:
    """The registered photographs with cameras and tracks; depth is read when a frame is encoded."""
    model = colmap.read_model(task.model, images=task.images, name=task.name)
    if task.depths is None:
        return Scene(name=task.name, frames=[colmap.to_frame(f) for f in model.frames], licence=_LICENCE)
    if task.required and not task.depths.is_dir():
        raise ShardsError(
            f"scene {task.name} has no depth maps in {task.depths}: fetch them, or keep photographs without"
            " depth by --depth optional"
        )
    frames, left_out = [], []
    for registered in model.frames:
        file = task.depths / f"{Path(registered.name).stem}.h5"
        reason = _no_depth(file)
        if reason and task.required:
            left_out.append((f"{task.name}/{registered.name}", reason))
            continue
        depth = None if reason else partial(read_depth, file, registered.camera_size)
        frames.append(dataclasses.replace(colmap.to_frame(registered), depth=depth))
    return Scene(name=task.name, frames=frames, left_out=left_out, licence=_LICENCE)


def read_depth(path: Path, picture_size: tuple[int, int]) -> np.ndarray | None:
    """(h, w) float32 along the camera's axis, 0 = unknown; None where there is no file.

    BadPhotograph where it cannot be read, or is not of the aspect of its picture (H, W).
    """
    depth = read_hdf5(path, "depth")
    if depth is None:
        return None
    if depth.ndim != 2 or not depth.size or depth.dtype.kind != "f":
        raise BadPhotograph(
            str(path), f"its depth is {depth.dtype} {depth.shape}, not floats (height, width)"
        )
    if not same_aspect(depth.shape, picture_size):
        sizes = f"{depth.shape[1]}x{depth.shape[0]}, its photograph {picture_size[1]}x{picture_size[0]}"
        raise BadPhotograph(str(path), f"the depth map is {sizes}: it belongs to another undistortion")
    return depth.astype(np.float32)


def _no_depth(file: Path) -> str:
    try:
        size = file.stat().st_size
    except OSError:
        return "no depth map"
    return "ordinal depth only (below 100 kB)" if size < _SMALLEST_DEPTH else ""


def _is_scene(folder: Path) -> bool:
    return (folder / "sparse-txt" / "images.txt").is_file()
