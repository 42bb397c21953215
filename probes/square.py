"""Square images of one size, and the map between their pixels and those of the originals.

Points are (n, 2) arrays of x, y in px, pixel centres at +0.5 in both, so that resizing is a multiplication.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shards.decode import centre_square, load_square


@dataclass(frozen=True, kw_only=True)
class Square:
    """The central square of an image of (height, width), resized to ``size``."""

    height: int
    width: int
    size: int

    @property
    def side(self) -> int:
        """Side of the square in px of the original."""
        return centre_square(self.height, self.width)[2]

    @property
    def corner(self) -> NDArray:
        """Its upper left corner, x and y, in px of the original."""
        top, left, _, _ = centre_square(self.height, self.width)
        return np.array([left, top], np.float64)

    def inward(self, points: NDArray) -> NDArray:
        """Points (n, 2) of the original as points of the square image."""
        return (np.asarray(points, np.float64) - self.corner) * self.size / self.side

    def outward(self, points: NDArray) -> NDArray:
        """Points (n, 2) of the square image as points of the original."""
        return np.asarray(points, np.float64) * self.side / self.size + self.corner

    def contains(self, points: NDArray) -> NDArray:
        """Which points (n, 2) of the square image lie inside it."""
        return ((points >= 0) & (points < self.size)).all(axis=-1)


class SquareImages:
    """The images that pairs point into: their hashes at once, their pixels when asked for."""

    rule = "central square, antialiased bicubic, uint8"

    def __init__(self, size: int) -> None:
        self.size = size
        self.hashes: list[str] = []
        self.names: list[str] = []
        self._readers: list[Callable[[], NDArray[np.uint8]]] = []

    def __len__(self) -> int:
        return len(self.hashes)

    def add(self, name: str, data: bytes, read: Callable[[], NDArray[np.uint8]]) -> int:
        """Add an image by its encoded bytes (hashed, not kept) and a reader of (H, W, 3); its index."""
        self.names.append(name)
        self.hashes.append(hashlib.sha256(data).hexdigest()[:32])
        self._readers.append(read)
        return len(self) - 1

    def load(self, index: int) -> NDArray[np.uint8]:
        """Image (3, size, size) uint8."""
        return load_square(self._readers[index](), self.size)[0].numpy()
