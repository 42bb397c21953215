"""Picture and truth files of benchmarks: pixels as their cameras speak of them, sizes, hashes, and stamps.

Readers that build frames lazily hand these functions out as the frames' callables. This file knows no benchmark.
"""

import hashlib
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from probes.errors import ProbeError
from shards.photographs import file_geometry, read_photograph

_OFF_CENTRE = 0.25
"""Share of a side by which a principal point may lie off the middle; beyond it the camera means another picture."""


def picture_size(path: Path) -> tuple[int, int]:
    """(H, W) as stored, from the header alone. ProbeError where the file is no picture."""
    geometry = file_geometry(path)
    if geometry is None:
        raise ProbeError(f"{path} is no picture that can be read: fetch it again")
    return geometry[0]


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


def read_picture(
    path: Path,
    *,
    upright: bool,
    size: tuple[int, int] | None = None,
    annotated: tuple[int, int] | None = None,
) -> NDArray[np.uint8]:
    """(H, W, 3) RGB of a picture file.

    Args:
        path: of the file.
        upright: turn it as its EXIF orientation says; False keeps the pixels as they are stored.
        size: (H, W) it is resized to, antialiased bicubic; None keeps its own.
        annotated: (H, W) that the file must have, after it was turned.

    Raises:
        ProbeError: it cannot be read whole, or has another size than annotated.
    """
    short_side = min(size) if size else None
    try:
        found = read_photograph(path, str(path), short_side=short_side, orientation=None if upright else 1)
    except ValueError as error:
        raise ProbeError(str(error)) from error
    if annotated is not None:
        check_size(path, found.size, annotated)
    pixels = found.pixels
    if size is None or pixels.shape[:2] == size:
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((size[1], size[0]), Image.Resampling.BICUBIC))


def check_size(path: Path, found: tuple[int, ...], annotated: tuple[int, int]) -> None:
    """ProbeError where a file's (H, W) is not what the benchmark says it is."""
    if tuple(found) != annotated:
        raise ProbeError(
            f"{path} is {found[1]} x {found[0]}, annotated is {annotated[1]} x {annotated[0]}: give the"
            " benchmark's own files"
        )


def at_size(values: NDArray, size: tuple[int, int]) -> NDArray:
    """A map (h, w, ...) at another size (H, W) of the same picture, by the nearest pixel."""
    if values.shape[:2] == size:
        return values
    rows, columns = (
        ((np.arange(n) + 0.5) * m / n).astype(np.int64) for n, m in zip(size, values.shape[:2], strict=True)
    )
    return values[rows[:, None], columns[None]]


def digest_of(path: Path) -> Callable[[], str]:
    """A callable for `Frame.digest`: SHA-256 (hex) of the file's bytes."""
    return partial(_digest, path)


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise ProbeError(f"{path} cannot be read: {error.strerror}") from error


def truth_of(read: Callable[..., NDArray | None], *arguments: Any) -> Callable[[], NDArray]:
    """A callable for `Frame.depth` and its like, from a reader that answers None where there is no file."""
    return partial(_truth, read, arguments)


def _truth(read: Callable[..., NDArray | None], arguments: tuple[Any, ...]) -> NDArray:
    try:
        found = read(*arguments)
    except ValueError as error:
        raise ProbeError(str(error)) from error
    if found is None:
        raise ProbeError(f"{arguments[0]} is not there any more")
    return found


def stamp_of(root: Path, files: Iterable[Path]) -> str:
    """For `Frame.stamp`: names relative to the root and sizes in bytes of a frame's truth files."""
    return " ".join(f"{path.relative_to(root)}:{path.stat().st_size}" for path in files)
