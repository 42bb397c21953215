"""Square images of one size, and the maps between their pixels and those of the originals.

Two rules: ``crop`` takes the central square, ``squash`` the whole image, each resized (antialiased bicubic, uint8).
Points are (n, 2) arrays of x, y in px, pixel centres at +0.5 in both, so that resizing is a multiplication and
coordinates follow exactly. Depth, labels and masks follow by the nearest pixel.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from probes.data.frames import Frame
from probes.errors import ProbeError
from shards.decode import centre_square, resize_crop

Fit = Literal["crop", "squash"]
RULES = {
    "crop": "central square, antialiased bicubic, uint8",
    "squash": "whole image squashed, antialiased bicubic, uint8",
}


@dataclass(frozen=True, kw_only=True)
class Square:
    """The part of an image of (height, width) that becomes a square of ``size``, and how points follow."""

    height: int
    width: int
    size: int
    fit: Fit = "crop"

    @property
    def crop(self) -> tuple[int, int, int, int]:
        """Top, left, height and width of that part, in px of the original."""
        if self.fit == "crop":
            return centre_square(self.height, self.width)
        return 0, 0, self.height, self.width

    @property
    def corner(self) -> NDArray:
        """Its upper left corner, x and y, in px of the original."""
        top, left, _, _ = self.crop
        return np.array([left, top], np.float64)

    @property
    def scale(self) -> NDArray:
        """(2,): px of the square in a px of the original, along x and y."""
        _, _, height, width = self.crop
        return np.array([self.size / width, self.size / height])

    @property
    def side(self) -> int:
        """The shorter side of that part, in px of the original."""
        return min(self.crop[2:])

    def inward(self, points: NDArray) -> NDArray:
        """Points (n, 2) of the original as points of the square image."""
        return (np.asarray(points, np.float64) - self.corner) * self.scale

    def outward(self, points: NDArray) -> NDArray:
        """Points (n, 2) of the square image as points of the original."""
        return np.asarray(points, np.float64) / self.scale + self.corner

    def contains(self, points: NDArray) -> NDArray:
        """Which points (n, 2) of the square image lie inside it."""
        return ((points >= 0) & (points < self.size)).all(axis=-1)

    @property
    def matrix(self) -> NDArray:
        """(3, 3) homography from px of the original to px of the square."""
        (sx, sy), (x, y) = self.scale, self.corner
        return np.array([[sx, 0, -x * sx], [0, sy, -y * sy], [0, 0, 1.0]])


class SquareFrames:
    """Frames as square images of one size: hashes at once, pixels, depth and labels when asked for.

    Raises:
        ProbeError: from the readers, where a file cannot be read.
    """

    def __init__(self, frames: Sequence[Frame], size: int, fit: Fit) -> None:
        self.frames, self.size, self.fit = tuple(frames), size, fit
        self.rule = RULES[fit]
        self.names = [frame.name for frame in frames]
        self._squares = [Square(height=f.height, width=f.width, size=size, fit=fit) for f in frames]

    @cached_property
    def hashes(self) -> list[str]:
        """Of the frames' encoded bytes."""
        return [frame.digest()[:32] for frame in self.frames]

    def __len__(self) -> int:
        return len(self.frames)

    def load(self, index: int) -> NDArray[np.uint8]:
        """Image (3, size, size)."""
        image = self.frames[index].image()
        self._check(index, image)
        return resize_crop(np.ascontiguousarray(image), self._squares[index].crop, self.size).numpy()

    def square(self, index: int) -> Square:
        """How points of the frame follow."""
        return self._squares[index]

    def intrinsics(self, index: int) -> NDArray | None:
        """(3, 3) in px of the square image."""
        found = self.frames[index].intrinsics
        return None if found is None else self._squares[index].matrix @ found

    def pose(self, index: int) -> NDArray | None:
        """(3, 4) world to camera."""
        return self.frames[index].world_to_camera

    def depth(self, index: int) -> NDArray[np.float32] | None:
        """(size, size) of the nearest pixels, 0 = unknown."""
        return self._nearest(index, self.frames[index].depth)

    def normals(self, index: int) -> NDArray[np.float32] | None:
        """(size, size, 3) of the nearest pixels, in the original camera's frame; 0 = unknown."""
        return self._nearest(index, self.frames[index].normals)

    def labels(self, index: int) -> NDArray[np.uint8] | None:
        """(size, size) of the nearest pixels."""
        return self._nearest(index, self.frames[index].labels)

    def mask(self, index: int) -> NDArray[np.bool_] | None:
        """(size, size) of the nearest pixels; None where all count."""
        return self._nearest(index, self.frames[index].mask)

    def _nearest(self, index: int, read: object) -> NDArray | None:
        if read is None:
            return None
        found = read()
        self._check(index, found)
        top, left, height, width = self._squares[index].crop
        # The original pixel in which the centre of a pixel of the square lies.
        rows = top + ((np.arange(self.size) + 0.5) * height / self.size).astype(np.int64)
        columns = left + ((np.arange(self.size) + 0.5) * width / self.size).astype(np.int64)
        return found[rows[:, None], columns[None]]

    def _check(self, index: int, found: NDArray) -> None:
        frame = self.frames[index]
        if found.shape[:2] != (frame.height, frame.width):
            raise ProbeError(
                f"{frame.name} should be {frame.width} x {frame.height} px, but its file holds "
                f"{found.shape[1]} x {found.shape[0]}"
            )
