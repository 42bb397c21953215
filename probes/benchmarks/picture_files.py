"""Picture and truth files of benchmarks: pixels as their cameras speak of them, hashes, and names with sizes.

Readers that build frames lazily hand these functions out as the frames' callables. This file knows no benchmark.
"""

import hashlib
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.errors import ProbeError
from shards.photographs import read_photograph


def read_picture(path: Path, *, upright: bool) -> NDArray[np.uint8]:
    """(H, W, 3) RGB of a picture file.

    Args:
        path: of the file.
        upright: turn it as its EXIF orientation says; False keeps the pixels as they are stored.

    Raises:
        ProbeError: it cannot be read whole.
    """
    try:
        return read_photograph(path, str(path), orientation=None if upright else 1).pixels
    except ValueError as error:
        raise ProbeError(str(error)) from error


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
