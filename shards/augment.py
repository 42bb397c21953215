"""Augmentation of views together with their cameras: random resized crops and flips.

Conventions: OpenCV cameras, world-to-camera (3, 4), intrinsics (3, 3) in pixels of the current picture, pixel
centres at +0.5; crops are (top, left, height, width) in whole pixels. Everything is arithmetic on given
numbers: the drawing is done by `shards/plan.py`, the pixels by `shards/decode.py`.
"""

import math
from collections.abc import Sequence

import numpy as np

from shards.cut import Crop


def crop_box(drawn: Sequence[float] | np.ndarray, height: int, width: int) -> Crop:
    """The crop that a plan's row (share of area, width by height, down, right) means in a picture.

    RandomResizedCrop's law (Szegedy et al., 2015): sides from area and aspect, a uniform place. Where the
    crop would stick out, the side is clamped to the picture's (torchvision draws anew up to ten times and
    then takes the middle).
    """
    area, aspect, down, right = (float(value) for value in drawn)
    across = min(max(round(math.sqrt(area * height * width * aspect)), 1), width)
    along = min(max(round(math.sqrt(area * height * width / aspect)), 1), height)
    # A uniform place among the (height - along + 1) whole ones.
    top = min(int(down * (height - along + 1)), height - along)
    left = min(int(right * (width - across + 1)), width - across)
    return top, left, along, across


def follow_crop(intrinsics: np.ndarray, crop: Crop, size: tuple[int, int]) -> np.ndarray:
    """(..., 3, 3) intrinsics of the picture made by cropping and then resizing the crop to `size` (h, w)."""
    top, left, height, width = crop
    moved = np.array(intrinsics, np.float64)
    moved[..., 0, 2] -= left
    moved[..., 1, 2] -= top
    moved[..., 0, :] *= size[1] / width
    moved[..., 1, :] *= size[0] / height
    return moved


def mirror_intrinsics(intrinsics: np.ndarray, width: int) -> np.ndarray:
    """(..., 3, 3) intrinsics of the mirrored picture, `width` px wide, as a camera of the mirrored world."""
    mirrored = np.array(intrinsics, np.float64)
    mirrored[..., 0, 1] *= -1
    mirrored[..., 0, 2] = width - mirrored[..., 0, 2]
    return mirrored


def mirror_pose(world_to_camera: np.ndarray) -> np.ndarray:
    """(..., 3, 4) pose in the world mirrored at its plane x = 0: M R M and M t with M = diag(-1, 1, 1).

    A proper rotation again. A point X seen at (x, y) becomes M X seen at (width - x, y), at the same depth.
    All views of a scene have to be mirrored together: the mirrored world is another world.
    """
    mirrored = np.array(world_to_camera, np.float64)
    mirrored[..., 0, :] *= -1
    mirrored[..., :, 0] *= -1
    return mirrored
