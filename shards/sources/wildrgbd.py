"""WildRGB-D: phone videos around objects, with depth and poses by SLAM.

The root holds `<category>/scenes/<scene>/{rgb,depth,masks}/%05d.png`, `cam_poses.txt` (a frame's number and
its 4x4 camera-to-world matrix a line, OpenCV axes) and `metadata`, JSON whose K is written column by column.
Depth is 16-bit PNG in millimetres; the objects' masks are not read. Scenes that the category's own
`camera_eval_list.json` or `nvs_list.json` put into `val` go to the val split.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from shards.format import Frame, Scene, ShardsError
from shards.sources.depth_maps import read_millimetres
from shards.sources.folders import check_folders, children, list_photographs
from shards.sources.json_files import read_json
from shards.sources.reduced import reduced_intrinsics
from shards.sources.tables import read_rows

_LICENCE = "MIT"
_LISTS = ("camera_eval_list.json", "nvs_list.json")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of `build wildrgbd`."""

    depth: bool = True
    """Store the depth maps."""


@dataclass(frozen=True, kw_only=True)
class WildTask:
    """One video."""

    name: str
    poses: Path
    metadata: Path
    pictures: Path
    depths: Path | None
    """None where none are wanted."""
    split: Literal["train", "val"] | None


def find(paths: Sequence[Path], options: Options) -> Iterator[WildTask]:
    """The scenes of the categories at or directly below `paths`, in natural order."""
    check_folders(paths)
    for path in paths:
        categories = [path] if (path / "scenes").is_dir() else children(path)
        found = False
        for category in categories:
            if not (category / "scenes").is_dir():
                continue
            held_out = _held_out(category)
            for scene in children(category / "scenes"):
                found = True
                split: Literal["train", "val"] = "val" if scene.name in held_out else "train"
                yield WildTask(
                    name=f"{category.resolve().name}/{scene.name}",
                    poses=scene / "cam_poses.txt",
                    metadata=scene / "metadata",
                    pictures=scene / "rgb",
                    depths=scene / "depth" if options.depth else None,
                    split=split if held_out else None,
                )
        if not found:
            raise ShardsError(
                f"{path} holds no <category>/scenes/<scene>: name WildRGB-D's root or a category"
            )


def read(task: WildTask) -> Scene:
    """The video's frames with a picture and a pose, in the order of their numbers; depth is read later."""
    intrinsics, size = _read_metadata(task.metadata)
    frames, left_out = [], []
    poses = _read_poses(task.poses)
    for number, pose in sorted(poses.items()):
        picture = task.pictures / f"{number:05d}.png"
        if not picture.is_file():
            left_out.append((str(picture), "no such picture, though it has a pose"))
            continue
        frames.append(
            Frame(
                name=picture.name,
                image=picture,
                intrinsics=reduced_intrinsics(picture, intrinsics, size),
                world_to_camera=pose,
                depth=partial(read_millimetres, task.depths / picture.name) if task.depths else None,
            )
        )
    posed = {f"{number:05d}.png" for number in poses}
    for path in list_photographs(task.pictures) if task.pictures.is_dir() else []:
        if path.name not in posed:
            left_out.append((str(path), "no pose in cam_poses.txt"))
    return Scene(
        name=task.name, frames=frames, left_out=left_out, licence=_LICENCE, split=task.split, ordered=True
    )


def _read_metadata(path: Path) -> tuple[np.ndarray, tuple[int, int]]:
    """K (3, 3) and the (H, W) it speaks of."""
    values = read_json(path)
    try:
        columns = np.array(values["K"], np.float64).reshape(3, 3)
        size = int(values["h"]), int(values["w"])
    except (KeyError, TypeError, ValueError):
        raise ShardsError(f"{path} must hold w, h and the nine numbers of K") from None
    intrinsics = columns.T
    if abs(intrinsics[2] - (0, 0, 1)).max() > 1e-6 or min(size) < 1:
        raise ShardsError(f"{path}: K, which is written column by column, must end in the row 0 0 1")
    return intrinsics, size


def _read_poses(path: Path) -> dict[int, np.ndarray]:
    """Frame's number -> world-to-camera (3, 4)."""
    rows = read_rows(path, 17)
    try:
        inverses = np.linalg.inv(rows[:, 1:].reshape(-1, 4, 4))[:, :3]
    except np.linalg.LinAlgError:
        raise ShardsError(f"{path} holds a pose that cannot be inverted") from None
    return {int(number): pose for number, pose in zip(rows[:, 0], inverses, strict=True)}


def _held_out(category: Path) -> set[str]:
    """Names of the scenes that the category's lists keep for validation."""
    names: set[str] = set()
    for name in _LISTS:
        if (category / name).is_file():
            listed = read_json(category / name).get("val", [])
            if not isinstance(listed, list):
                raise ShardsError(f"{category / name}: 'val' must be a list of scenes")
            names |= {str(scene).rsplit("/", 1)[-1] for scene in listed}
    return names
