"""Cameras of pictures that were reduced after calibration: their intrinsics, brought to the file that is there.

Pixels are the file's own, as it stores them. A file of another aspect was cropped or turned, which no scale
mends.
"""

from pathlib import Path

import numpy as np

from shards.format import ShardsError
from shards.photographs import file_geometry

_ASPECT = 0.01


def reduced_intrinsics(path: Path, intrinsics: np.ndarray, camera_size: tuple[int, int]) -> np.ndarray:
    """(3, 3) intrinsics of `camera_size` (H, W), scaled to the picture at `path`.

    Unchanged where the picture cannot be opened: whoever decodes it will name it. ShardsError where its aspect
    is not the camera's.
    """
    geometry = file_geometry(path)
    if geometry is None:
        return intrinsics
    (height, width), _ = geometry
    if not same_aspect((height, width), camera_size):
        raise ShardsError(
            f"{path} is {width}x{height}, but its camera is given for {camera_size[1]}x{camera_size[0]}:"
            " the picture was cropped or turned; use the dataset's own pictures"
        )
    return np.diag([width / camera_size[1], height / camera_size[0], 1.0]) @ intrinsics


def same_aspect(size: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two sizes (H, W) differ by a scale alone, up to the rounding of a pixel."""
    return abs(size[0] * other[1] / (size[1] * other[0]) - 1) < _ASPECT + 1 / min(*size, *other)
