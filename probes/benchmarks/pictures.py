"""What readers of benchmarks share about files: sizes from headers, pixels as stored, digests, resized maps.

Cameras of benchmarks speak of pixels as a file stores them, so no EXIF orientation is applied unless a reader asks
for it. Every failure is a `ProbeError` that names the file. Knows no benchmark.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from probes.errors import ProbeError
from shards.format import BadPhotograph
from shards.photographs import file_geometry, read_photograph

_OFF_CENTRE = 0.25
"""Share of a side by which a principal point may lie off the middle; beyond it the camera means another picture."""


def picture_size(path: Path) -> tuple[int, int]:
    """(H, W) as stored, from the header alone. ProbeError where the file is no picture."""
    geometry = file_geometry(path)
    if geometry is None:
        raise ProbeError(f"{path} is no picture that can be read: fetch it again")
    return geometry[0]


def read_picture(path: Path, size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """(H, W, 3) RGB as stored, or resized to `size` (H, W), antialiased bicubic. ProbeError where it is damaged."""
    try:
        pixels = read_photograph(path, str(path), orientation=1).pixels
    except BadPhotograph as error:
        raise ProbeError(f"{error}: fetch it again") from error
    if size is not None and pixels.shape[:2] != size:
        resized = Image.fromarray(pixels).resize((size[1], size[0]), Image.Resampling.BICUBIC)
        return np.asarray(resized)
    return pixels


def digest(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes. ProbeError where it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise ProbeError(f"{path} cannot be read: {error.strerror}") from error


def stamp(paths: Iterable[Path]) -> str:
    """Names and bytes of files that are too large to be hashed, for `Frame.stamp`."""
    return " ".join(f"{path.name}:{path.stat().st_size}" for path in paths)


def at_size(values: NDArray, size: tuple[int, int]) -> NDArray:
    """A map (h, w, ...) at another size (H, W) of the same picture, by the nearest pixel."""
    if values.shape[:2] == size:
        return values
    rows, columns = (
        ((np.arange(n) + 0.5) * m / n).astype(np.int64) for n, m in zip(size, values.shape[:2], strict=True)
    )
    return values[rows[:, None], columns[None]]


def check_camera(path: Path, size: tuple[int, int], intrinsics: NDArray) -> None:
    """ProbeError where a camera (3, 3) cannot belong to a picture of (H, W): its principal point is far off the middle.

    It catches pictures that were resized without their cameras.
    """
    middle = np.array([intrinsics[0, 2] / size[1], intrinsics[1, 2] / size[0]])
    if not (np.abs(middle - 0.5) < _OFF_CENTRE).all():
        x, y = intrinsics[:2, 2]
        raise ProbeError(
            f"{path} is {size[1]} x {size[0]} px, but its camera looks at ({x:.0f}, {y:.0f}): use the pictures at the"
            " size they were published in"
        )
