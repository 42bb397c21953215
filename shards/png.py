"""Depth and labels as they are stored, 16- and 8-bit grey PNG, to arrays; the size is believed last of all."""

import io
import struct
import zlib

import numpy as np

_MAX_PIXELS = 1 << 26
_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def decode_png(data: bytes, kind: type[np.unsignedinteger]) -> np.ndarray:
    """(H, W) of `kind`, np.uint16 or np.uint8. ValueError where the bytes are no sound grey PNG."""
    from PIL import Image

    if data[:8] != _SIGNATURE or len(data) < 33 or data[12:16] != b"IHDR":
        raise ValueError("no PNG")
    width, height = struct.unpack(">II", data[16:24])
    if not 0 < width * height <= _MAX_PIXELS:
        raise ValueError(f"a PNG of {width} x {height} px is larger than any that is stored")
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            values = np.array(image, kind)
    except (OSError, ValueError, SyntaxError, EOFError, struct.error, zlib.error, OverflowError) as error:
        raise ValueError(f"no sound PNG: {error}") from None
    if values.shape != (height, width):
        raise ValueError(f"a PNG of shape {values.shape}, which is not grey")
    return values
