"""Depth maps as datasets store them: 16-bit PNG, in millimetres or as half-precision bits, and HDF5 arrays.

Each is read when its frame is encoded, so a missing file is no error: that frame has no depth. A file that is
there and cannot be read is one. This file knows nothing of cameras and of what the numbers measure.
"""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from shards.format import BadPhotograph, ShardsError

_MOST_PIXELS = 1 << 26


def read_millimetres(path: Path) -> np.ndarray | None:
    """(h, w) float32 metres of a 16-bit PNG in millimetres, 0 = unknown; None where there is no file."""
    stored = read_png16(path)
    return None if stored is None else stored.astype(np.float32) / np.float32(1000)


def read_half_bits(path: Path, scale: float, mask: Path | None = None) -> np.ndarray | None:
    """(h, w) float32 of a 16-bit PNG whose bits are half-precision floats, times `scale`; None without a file.

    Where `mask` (a PNG of the same size) is there and 0, depth is 0 = unknown.
    """
    stored = read_png16(path)
    if stored is None:
        return None
    depth = np.where(np.isfinite(half := stored.view(np.float16)), half, 0).astype(np.float32)
    depth *= np.float32(scale)
    if mask is not None and mask.is_file():
        kept = _open_png(mask)
        if kept.shape[:2] != depth.shape:
            raise BadPhotograph(str(mask), f"the depth's mask is {kept.shape[:2]}, the depth {depth.shape}")
        depth[(kept if kept.ndim == 2 else kept.max(-1)) == 0] = 0
    return depth


def read_png16(path: Path) -> np.ndarray | None:
    """(h, w) uint16 of a greyscale PNG of 16 bits; None where there is no file. BadPhotograph if it is another
    kind of picture or cannot be read."""
    if not path.is_file():
        return None
    pixels = _open_png(path)
    if pixels.ndim != 2 or pixels.dtype == np.uint8:
        raise BadPhotograph(str(path), f"a depth map must have one channel of 16 bits, not {pixels.dtype}")
    return np.ascontiguousarray(pixels).astype(np.uint16)


def read_hdf5(path: Path, key: str = "dataset") -> np.ndarray | None:
    """The array `key` of an HDF5 file; None where there is no file. BadPhotograph if it cannot be read."""
    h5py = load_h5py()
    if not path.is_file():
        return None
    try:
        with h5py.File(path, "r") as file:
            stored = file[key]
            if np.prod(stored.shape) > _MOST_PIXELS:
                raise BadPhotograph(str(path), f"{key!r} has {np.prod(stored.shape):,} numbers")
            return np.asarray(stored)
    except KeyError:
        raise BadPhotograph(str(path), f"holds no {key!r}") from None
    except BadPhotograph:
        raise
    except (OSError, RuntimeError, TypeError, ValueError, AttributeError) as error:
        raise BadPhotograph(str(path), f"cannot be read ({' '.join(str(error).split())})") from None


def load_h5py() -> Any:
    """The h5py module; ShardsError says how to get it."""
    try:
        import h5py
    except ImportError:
        raise ShardsError("this dataset's HDF5 files need h5py: pip install 'mumkit[datasets]'") from None
    return h5py


def _open_png(path: Path) -> np.ndarray:
    try:
        with Image.open(path) as opened:
            return np.asarray(opened)
    except Exception as error:  # decoders fail in many ways on broken files; each is the file's fault
        raise BadPhotograph(
            str(path), f"the depth map cannot be read ({' '.join(str(error).split())})"
        ) from None
