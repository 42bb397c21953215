"""A decoded video frame -> upright 8-bit sRGB pixels of a size, whatever its bits, colour matrix and transfer.

Pixels of more than 8 bits are rounded once, at the end. HDR (PQ and HLG in BT.2020) is brought to sRGB with diffuse
white (203 cd/m2, ITU-R BT.2408) as white and brighter light clipped. This file knows nothing of files and time.
"""

from typing import Any

import numpy as np

_UNSPECIFIED, _PQ, _HLG = 2, 16, 18
_HD = 720
"""Frames of at least this height that do not name their colour matrix have BT.709's, smaller ones BT.601's."""
_DIFFUSE_WHITE = 203.0
_HLG_PEAK = 1000.0
# BT.2020 -> BT.709 primaries, linear light (ITU-R BT.2087)
_TO_709 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32
)


def to_rgb(frame: Any, size: tuple[int, int]) -> np.ndarray:
    """(h, w, 3) uint8 sRGB of an `av.VideoFrame`, resized to (h, w) = `size` before it is turned."""
    if int(frame.color_trc) in (_PQ, _HLG):
        signal = _convert(frame, size, "rgb48le").astype(np.float32) / 65535
        return _hdr_to_srgb(signal, int(frame.color_trc))
    return _convert(frame, size, "rgb24")


def turn(pixels: np.ndarray, degrees: int) -> np.ndarray:
    """The picture turned counter-clockwise by a display matrix's angle, to the nearest quarter."""
    return np.ascontiguousarray(np.rot90(pixels, round(degrees / 90) % 4))


def _convert(frame: Any, size: tuple[int, int], layout: str) -> np.ndarray:
    from av.video.reformatter import Colorspace, Interpolation

    unnamed = int(frame.colorspace) == _UNSPECIFIED
    matrix = (Colorspace.ITU709 if frame.height >= _HD else Colorspace.ITU601) if unnamed else None
    # These flags take the path of swscale that gives equal bytes on every processor.
    exact = Interpolation.ACCURATE_RND | Interpolation.BITEXACT | Interpolation.FULL_CHR_H_INT
    return frame.to_ndarray(
        format=layout,
        height=size[0],
        width=size[1],
        src_colorspace=matrix,
        interpolation=Interpolation.BICUBIC | exact,
        threads=1,
    )


def _hdr_to_srgb(signal: np.ndarray, transfer: int) -> np.ndarray:
    light = _pq(signal) if transfer == _PQ else _hlg(signal)
    linear = np.clip((light / _DIFFUSE_WHITE) @ _TO_709.T, 0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.rint(255 * encoded).astype(np.uint8)


def _pq(signal: np.ndarray) -> np.ndarray:
    """cd/m2 of a PQ signal in 0..1 (SMPTE ST 2084)."""
    power = signal ** (32 / 2523)
    return 10000 * (np.maximum(power - 0.8359375, 0) / (18.8515625 - 18.6875 * power)) ** (8192 / 1305)


def _hlg(signal: np.ndarray) -> np.ndarray:
    """cd/m2 of an HLG signal in 0..1 on a display of 1000 cd/m2 (ITU-R BT.2100)."""
    scene = np.where(
        signal <= 0.5, signal**2 / 3, (np.exp((signal - 0.55991073) / 0.17883277) + 0.28466892) / 12
    )
    luminance = scene @ np.array([0.2627, 0.678, 0.0593], np.float32)
    return _HLG_PEAK * scene * np.maximum(luminance, 1e-6)[..., None] ** 0.2
