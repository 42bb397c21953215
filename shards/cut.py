"""A part of a JPEG as a JPEG of its own, without decoding: fewer pixels to decode where a crop needs no more.

Frames are stored with a restart marker after every few blocks (`restart_interval`), where the decoder begins
anew, and with the lengths of the stretches between them (`write_lengths`, an APP9 segment that other readers
skip). The stretches that cover a crop make a smaller file under a header with a smaller size, and its pixels are
those of the whole picture, bit for bit. A file of any other form is left to be decoded whole. ITU-T T.81 has the
markers. This file knows bytes, no pixels.
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
"""The tables of a stored frame take far less."""

_LENGTHS = b"mumkit stretches\0"
"""How the segment with the lengths begins; they follow as big-endian 16-bit numbers."""

_SOF = b"\xff\xc0\x00\x11\x08%c%c%c%c\x03\x01\x22\x00\x02\x11\x01\x03\x11\x01"
_SOS = b"\xff\xda\x00\x0c\x03\x01\x00\x02\x11\x03\x11\x00\x3f\x00"
_DRI = b"\xff\xdd\x00\x04"


def restart_interval(width: int) -> int:
    """Blocks between restart markers for a picture `width` px wide: about four, whole rows where nothing divides
    them."""
    blocks = -(-width // _MCU)
    return min((n for n in range(3, 9) if blocks % n == 0), key=lambda n: abs(n - 4), default=blocks)


def write_lengths(jpeg: bytes) -> bytes:
    """The same picture with the lengths of its stretches; as it is where they do not fit 16 bits or it has none."""
    start = jpeg.find(_SOS, 0, _HEADER) + len(_SOS)
    if jpeg[:4] != b"\xff\xd8\xff\xe0" or start < len(_SOS):
        return jpeg
    # In coded data 0xff is followed by 0, by a restart's number, or by the end.
    data = np.frombuffer(jpeg, np.uint8, offset=start)
    ends = np.flatnonzero((data[:-1] == 0xFF) & (data[1:] != 0)) + 2
    lengths = np.diff(ends, prepend=0)
    body = _LENGTHS + lengths.astype(">u2").tobytes()
    if len(lengths) < 2 or lengths.max() >= 1 << 16 or len(body) + 2 >= 1 << 16:
        return jpeg
    first = 4 + int.from_bytes(jpeg[4:6])  # behind the APP0 segment, which is to come first
    return jpeg[:first] + b"\xff\xe9" + (len(body) + 2).to_bytes(2) + body + jpeg[first:]


def cut(jpeg: bytes, size: tuple[int, int], crop: Crop) -> tuple[bytearray, tuple[int, int], Crop] | None:
    """The smallest part of a `size` (H, W) picture that decides the pixels of `crop`.

    Returns:
        The part as a JPEG, its (h, w), and where the crop lies in it. None where the file is not of the form
        that `build` writes, or the part would be nearly all.
    """
    (height, width), (top, left, along, across) = size, crop
    table = jpeg.find(_LENGTHS, 0, _HEADER) + len(_LENGTHS)
    if table < len(_LENGTHS):
        return None
    blocks, rows = -(-width // _MCU), -(-height // _MCU)
    header_size = int.from_bytes(jpeg[table - len(_LENGTHS) - 2 : table - len(_LENGTHS)]) + _HEADER
    sof = jpeg.find(_SOF % (height >> 8, height & 255, width >> 8, width & 255), table, header_size)
    dri, start = jpeg.find(_DRI, table, header_size), jpeg.find(_SOS, table, header_size) + len(_SOS)
    interval = jpeg[dri + 4] << 8 | jpeg[dri + 5] if dri >= 0 else 0
    if sof < 0 or start < len(_SOS) or not interval or blocks % interval:
        return None
    # The picture as a table of stretches, `rows` by `columns`; what is kept of it.
    columns, stretch = blocks // interval, interval * _MCU
    first, last = max(top - _CONTEXT, 0) // _MCU, min(-(-(top + along + _CONTEXT) // _MCU), rows)
    begin, end = max(left - _CONTEXT, 0) // stretch, min(-(-(left + across + _CONTEXT) // stretch), columns)
    if (last - first) * (end - begin) > _MOST_SHARE * rows * columns:
        return None

    lengths = np.frombuffer(jpeg, ">u2", rows * columns, table) if table + 2 * rows * columns < start else []
    ends = start + np.cumsum(lengths, dtype=np.int64)
    if not len(ends) or ends[-1] > len(jpeg):
        return None
    kept = ends.reshape(rows, columns)[first:last, begin:end]
    starts = np.concatenate([[start], ends[:-1]])[first * columns + begin : last * columns : columns]
    part_height = min(height, last * _MCU) - first * _MCU
    part_width = min(width, end * stretch) - begin * stretch
    header = bytearray(jpeg[:start])
    header[sof + 5 : sof + 9] = part_height.to_bytes(2) + part_width.to_bytes(2)
    view = memoryview(jpeg)
    part = bytearray().join(
        [header, *(view[a:b] for a, b in zip(starts.tolist(), kept[:, -1].tolist(), strict=True))]
    )
    # Restarts are numbered from 0 to 7 and around; the last marker is the picture's end.
    taken = kept[:, -1] - starts
    marks = (kept + (start + np.cumsum(taken) - taken - starts)[:, None]).ravel() - 1
    numbers = np.frombuffer(part, np.uint8)
    if (numbers[marks - 1] != 0xFF).any() or (numbers[marks] < 0xD0).any():
        return None  # the lengths are not this picture's
    numbers[marks] = 0xD0 + (np.arange(len(marks)) & 7)
    numbers[marks[-1]] = 0xD9
    return part, (part_height, part_width), (top - first * _MCU, left - begin * stretch, along, across)
