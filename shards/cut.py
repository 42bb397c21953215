"""A part of a JPEG as a JPEG of its own, without decoding: fewer pixels to decode where a crop needs no more.

Frames are stored with a restart marker after every few blocks (`restart_interval`), where the decoder begins
anew. The stretches between markers that cover a crop make a smaller file under a header with a smaller size,
and its pixels are those of the whole picture, bit for bit. A file of any other form is left to be decoded
whole. ITU-T T.81 has the markers. This file knows bytes, no pixels.
"""

import numpy as np

Crop = tuple[int, int, int, int]
"""Top, left, height, width in whole pixels."""

_MCU = 16
"""Side of what is coded together at 4:2:0, px."""

_CONTEXT = 2
"""Pixels beyond a crop that decide its own: half-resolution colour is interpolated between neighbours."""

_MOST_SHARE = 0.9
"""Cutting away less than the rest of this costs more than it saves."""

_HEADER = 4096
"""The tables of a stored frame end long before."""

_SOF = b"\xff\xc0\x00\x11\x08%c%c%c%c\x03\x01\x22\x00\x02\x11\x01\x03\x11\x01"
_SOS = b"\xff\xda\x00\x0c\x03\x01\x00\x02\x11\x03\x11\x00\x3f\x00"
_DRI = b"\xff\xdd\x00\x04"


def restart_interval(width: int) -> int:
    """Blocks between restart markers for a picture `width` px wide: about four, whole rows where nothing divides
    them."""
    blocks = -(-width // _MCU)
    return min((n for n in range(3, 9) if blocks % n == 0), key=lambda n: abs(n - 4), default=blocks)


def cut(jpeg: bytes, size: tuple[int, int], crop: Crop) -> tuple[bytearray, tuple[int, int], Crop] | None:
    """The smallest part of a `size` (H, W) picture that decides the pixels of `crop`.

    Returns:
        The part as a JPEG, its (h, w), and where the crop lies in it. None where the file is not of the form
        that `build` writes, or the part would be nearly all.
    """
    (height, width), (top, left, along, across) = size, crop
    sof = jpeg.find(_SOF % (height >> 8, height & 255, width >> 8, width & 255), 0, _HEADER)
    dri, start = jpeg.find(_DRI, 0, _HEADER), jpeg.find(_SOS, 0, _HEADER) + len(_SOS)
    if sof < 0 or dri < 0 or start < len(_SOS):
        return None
    interval = jpeg[dri + 4] << 8 | jpeg[dri + 5]
    blocks, rows = -(-width // _MCU), -(-height // _MCU)
    if not interval or blocks % interval:
        return None
    # The picture as a table of stretches, `rows` by `columns`; what is kept of it.
    columns, stretch = blocks // interval, interval * _MCU
    first, last = max(top - _CONTEXT, 0) // _MCU, min(-(-(top + along + _CONTEXT) // _MCU), rows)
    begin, end = max(left - _CONTEXT, 0) // stretch, min(-(-(left + across + _CONTEXT) // stretch), columns)
    if (last - first) * (end - begin) > _MOST_SHARE * rows * columns:
        return None

    # In coded data 0xff is followed by 0, by a restart's number, or by the end.
    data = np.frombuffer(jpeg, np.uint8, offset=start)
    ends = np.flatnonzero((data[:-1] == 0xFF) & (data[1:] != 0)) + (start + 2)
    if len(ends) != rows * columns:
        return None
    kept = ends.reshape(rows, columns)[first:last, begin:end]
    starts = np.concatenate([[start], ends[:-1]])[first * columns + begin : last * columns : columns][
        : len(kept)
    ]
    part_height = min(height, last * _MCU) - first * _MCU
    part_width = min(width, end * stretch) - begin * stretch
    header = bytearray(jpeg[:start])
    header[sof + 5 : sof + 9] = part_height.to_bytes(2) + part_width.to_bytes(2)
    view = memoryview(jpeg)
    part = bytearray().join(
        [header, *(view[a:b] for a, b in zip(starts.tolist(), kept[:, -1].tolist(), strict=True))]
    )
    # Restarts are numbered from 0 to 7 and around; the last marker is the picture's end.
    lengths = kept[:, -1] - starts
    marks = (kept + (start + np.cumsum(lengths) - lengths - starts)[:, None]).ravel() - 1
    numbers = np.frombuffer(part, np.uint8)
    numbers[marks] = 0xD0 + (np.arange(len(marks)) & 7)
    numbers[marks[-1]] = 0xD9
    return part, (part_height, part_width), (top - first * _MCU, left - begin * stretch, along, across)
