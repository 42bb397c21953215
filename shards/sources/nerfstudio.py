"""nerfstudio's `transforms*.json`: one camera for all pictures, and their poses.

Poses there are camera-to-world with OpenGL axes (x right, y up, z backward) in a world of nerfstudio's own,
which stays as it is; here they become world-to-camera with OpenCV axes. Intrinsics are in pixels of the
file's `w` and `h`, pixel centres at +0.5, whatever size the pictures beside it have. This file is no source.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shards.format import Frame, ShardsError
from shards.sources.json_files import read_json
from shards.sources.reduced import reduced_intrinsics

_OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])
_PARAMETERS = {
    "PINHOLE": (),
    "OPENCV": ("k1", "k2", "p1", "p2"),
    "OPENCV_FISHEYE": ("k1", "k2", "k3", "k4"),
}


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A picture of the list."""

    file: str
    """`file_path` as it stands there."""
    world_to_camera: np.ndarray
    """(3, 4), OpenCV axes."""
    is_bad: bool
    """The list marks it as bad (blurred)."""


@dataclass(frozen=True, kw_only=True)
class Transforms:
    """A camera and its pictures."""

    size: tuple[int, int]
    """(H, W) that the intrinsics speak of."""
    intrinsics: np.ndarray | None
    """(3, 3), None for a fisheye camera."""
    distortion: dict[str, Any] | None
    """COLMAP's model and parameters, in pixels of `size`, where there is any."""
    listed: list[Listed]
    """The pictures under `frames`, in the file's order."""
    tests: list[Listed]
    """The pictures under `test_frames`, which some datasets hold out."""

    def frame(self, listed: Listed, path: Path) -> Frame:
        """The frame of a listed picture that lies at `path`, reduced or not."""
        intrinsics = self.intrinsics
        return Frame(
            name=path.name,
            image=path,
            intrinsics=None if intrinsics is None else reduced_intrinsics(path, intrinsics, self.size),
            world_to_camera=listed.world_to_camera,
            distortion=self.distortion,
            camera_pixels="stored",
        )


def read_transforms(path: Path) -> Transforms:
    """Read the file; ShardsError says what it lacks."""
    data = read_json(path)
    try:
        size = int(data["h"]), int(data["w"])
        fx, fy, cx, cy = (float(data[key]) for key in ("fl_x", "fl_y", "cx", "cy"))
        model = str(data.get("camera_model", "OPENCV"))
        lens = [float(data.get(key, 0)) for key in _PARAMETERS.get(model, ())]
        listed = [_listed(entry) for entry in data["frames"]]
        tests = [_listed(entry) for entry in data.get("test_frames") or []]
    except KeyError as error:
        raise ShardsError(f"{path} lacks {error.args[0]!r}") from None
    except (TypeError, ValueError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise ShardsError(f"{path} is not a list of cameras as nerfstudio writes it: {reason}") from None
    if model not in _PARAMETERS:
        raise ShardsError(f"{path} has camera_model {model!r}, known are {', '.join(_PARAMETERS)}")
    if min(size) < 1 or not all(math.isfinite(v) for v in (fx, fy, cx, cy, *lens)) or min(fx, fy) <= 0:
        raise ShardsError(f"{path} has impossible intrinsics: {size[1]}x{size[0]}, focal {fx}, {fy}")
    pinhole = model != "OPENCV_FISHEYE"
    return Transforms(
        size=size,
        intrinsics=np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]) if pinhole else None,
        distortion={"model": model, "params": [fx, fy, cx, cy, *lens]} if any(lens) or not pinhole else None,
        listed=listed,
        tests=tests,
    )


def _listed(entry: dict[str, Any]) -> Listed:
    file = str(entry["file_path"])
    matrix = np.asarray(entry["transform_matrix"], np.float64)
    if matrix.shape not in {(3, 4), (4, 4)} or not np.isfinite(matrix).all():
        raise ValueError(f"transform_matrix of {file} is {matrix.shape}, not a finite (4, 4)")
    pose = np.vstack([matrix[:3], [0, 0, 0, 1]]) @ _OPENGL
    rotation = pose[:3, :3]
    if np.abs(rotation @ rotation.T - np.eye(3)).max() > 1e-3 or np.linalg.det(rotation) < 0:
        raise ValueError(f"transform_matrix of {file} is no rotation and translation")
    return Listed(file=file, world_to_camera=np.linalg.inv(pose)[:3], is_bad=bool(entry.get("is_bad", False)))
