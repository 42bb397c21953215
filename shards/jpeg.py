"""The structure of a JPEG file: whether its data can be stored as it is, and the same data without metadata.

Re-encoding a JPEG loses a little and costs time; a file that is already what a shard holds (baseline,
4:2:0, no finer quantisation than asked for) keeps its own data, with EXIF (and so GPS), thumbnails,
comments and trailing bytes taken away. ITU-T T.81 names the markers.
"""

import re

_STANDARD_LUMA_SUM = 3688
"""Sum of the 64 luminance quantisers of T.81, table K.1."""

_SOF0, _DHT, _EOI, _SOS, _DQT, _DRI, _APP0, _APP14 = 0xC0, 0xC4, 0xD9, 0xDA, 0xDB, 0xDD, 0xE0, 0xEE
_MARKER_AFTER_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


def keep_data(data: bytes, quality: int) -> bytes | None:
    """The file without metadata if it is baseline 4:2:0 YCbCr of at most `quality`, else None.

    `quality` is libjpeg's scale, 1 to 100; files of other encoders are judged by the mean of their luminance
    quantisers. The picture is not checked: decode it as well.
    """
    if data[:2] != b"\xff\xd8":
        return None
    kept, at, luma, frame_is_right = [b"\xff\xd8"], 2, None, False
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        segment = data[at : at + 2 + length]
        body = segment[4:]
        at += 2 + length
        if marker == _DQT:
            while body:
                precision, table = body[0] >> 4, body[0] & 15
                if precision:
                    return None
                luma = sum(body[1:65]) if table == 0 else luma
                body = body[65:]
        elif marker == _SOF0:
            # 8 bits, three components 1, 2, 3, sampled 2x2, 1x1, 1x1, luminance by table 0
            components = body[6:]
            frame_is_right = (
                body[0] == 8 and body[5] == 3 and components[:3] == b"\x01\x22\x00"
            ) and components[3:5] + components[6:8] == b"\x02\x11\x03\x11"
        elif marker == _APP14 and (len(body) < 12 or body[11] != 1):
            return None  # not YCbCr
        elif marker == _SOS:
            if not frame_is_right or body[:1] != b"\x03" or luma is None or luma < _luma_sum(quality) * 0.99:
                return None
            end = _MARKER_AFTER_SCAN.search(data, at)
            if end is None or data[end.start() + 1] != _EOI:
                return None
            return b"".join([*kept, segment, data[at : end.end()]])
        elif marker == _APP0 and not body.startswith(b"JFIF\0"):
            continue
        elif 0xC0 <= marker <= 0xCF and marker != _DHT:
            return None  # progressive, arithmetic, lossless, ...
        if marker in {_SOF0, _DHT, _DQT, _DRI, _APP0, _APP14}:
            kept.append(segment)
    return None


def _luma_sum(quality: int) -> float:
    """Sum of the luminance quantisers that libjpeg uses at a quality, before rounding."""
    return _STANDARD_LUMA_SUM * (5000 / quality if quality < 50 else 200 - 2 * quality) / 100
