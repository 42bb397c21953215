"""Ladicky's normals of the labelled NYU images: 8-bit PNG, a component a channel, (value / 255) * 2 - 1.

The archive states no axes, and those who use it disagree. Their signs are therefore read off the data: each of x, y
and z is turned so that it agrees with the depth of the first images, over the pixels where that is smooth. So normals
always come as OpenCV's, towards the camera. This file knows files and no benchmark.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from probes.errors import ProbeError

_VOTES = 16
"""Images by which the signs are found: one alone may show nothing but a wall."""
_SHORTEST = 0.8
"""Vectors shorter than this are grey pixels without a normal."""
_SMOOTH = 0.03
"""Largest step of depth to a neighbour, as a share of it, where depth tells the surface's direction."""


@dataclass(frozen=True, kw_only=True)
class NormalFiles:
    """The unpacked archive."""

    folder: Path
    intrinsics: NDArray
    """(3, 3) of all images."""
    depth: Callable[[int], NDArray[np.float32]]
    """(H, W) of the image of a number from 1."""
    sample: tuple[tuple[int, str], ...]
    """Numbers, and `test` or `train`, of the images by which the signs are found."""

    def path(self, number: int, part: str) -> Path:
        """Of the image's number from 1, in `test` or `train`."""
        return self.folder / part / f"{number:05d}.png"

    def read(self, number: int, part: str) -> NDArray[np.float32]:
        """(H, W, 3) unit vectors in OpenCV's axes towards the camera, 0 where unknown.

        Raises:
            ProbeError: the file cannot be read or is not of the depth's size.
        """
        return (self._stored(number, part) * self.signs).astype(np.float32)

    @cached_property
    def signs(self) -> NDArray:
        """(3,) of +1 and -1."""
        there = [which for which in self.sample if self.path(*which).is_file()][:_VOTES]
        return agreeing_signs(
            sum(
                (self._stored(*which) * normals_of_depth(self.depth(which[0]), self.intrinsics)).sum((0, 1))
                for which in there
            )
        )

    def _stored(self, number: int, part: str) -> NDArray:
        path, shape = self.path(number, part), self.depth(number).shape
        try:
            with Image.open(path) as opened:
                stored = np.asarray(opened.convert("RGB"), np.float32) / 255 * 2 - 1
        except (OSError, ValueError) as error:
            raise ProbeError(f"{path} cannot be read: {error}") from error
        if stored.shape[:2] != shape:
            raise ProbeError(
                f"{path} is {stored.shape[1]} x {stored.shape[0]}, its image {shape[1]} x {shape[0]}"
            )
        length = np.linalg.norm(stored, axis=-1, keepdims=True)
        return np.where(length > _SHORTEST, stored / np.maximum(length, _SHORTEST), 0)


def agreeing_signs(products: NDArray) -> NDArray:
    """The signs (3,) by which vectors agree best with others, from the sums (3,) of their components' products."""
    return np.where(np.asarray(products) < 0, -1.0, 1.0)


def normals_of_depth(depth: NDArray, intrinsics: NDArray) -> NDArray[np.float32]:
    """(H, W, 3) unit normals towards the camera by central differences, 0 where depth is unknown or not smooth."""
    height, width = depth.shape
    x, y = (np.arange(width) + 0.5 - intrinsics[0, 2]) / intrinsics[0, 0], np.arange(height)[:, None] + 0.5
    rays = np.stack(np.broadcast_arrays(x[None], (y - intrinsics[1, 2]) / intrinsics[1, 1], 1.0), -1)
    points = rays * depth[..., None]
    found = np.zeros((height, width, 3))
    centre = depth[1:-1, 1:-1]
    across = points[1:-1, 2:] - points[1:-1, :-2]
    down = points[2:, 1:-1] - points[:-2, 1:-1]
    vectors = np.cross(down, across)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
    neighbours = np.stack([depth[1:-1, 2:], depth[1:-1, :-2], depth[2:, 1:-1], depth[:-2, 1:-1]])
    smooth = (centre > 0) & (np.abs(neighbours - centre).max(0) < _SMOOTH * centre) & (neighbours > 0).all(0)
    found[1:-1, 1:-1] = np.where(smooth[..., None], vectors, 0)
    return found.astype(np.float32)
