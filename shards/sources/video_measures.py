"""What is measured on a video's frames to choose among them: sharpness, difference in colour, and motion.

Pure functions of small pictures. This file knows nothing of files, time and thresholds.
"""

import numpy as np

_BLOCK = 32
_COLOURS = 8
_LEAST_TEXTURE = 3.0
"""A block whose grey levels deviate less than this (rms) shows no motion."""
_LEAST_PEAK = 0.2
"""Below this height of the correlation's peak, of 1 for a pure shift, two blocks do not show the same thing: of
unrelated pictures it is 0.10 to 0.19, of shifts by a third of a block 0.4 and more."""


def grey(rgb: np.ndarray) -> np.ndarray:
    """(H, W) float32 mean of the channels of (H, W, 3) uint8."""
    return (rgb[..., 0].astype(np.float32) + rgb[..., 1] + rgb[..., 2]) / 3


def sharpness(grey: np.ndarray) -> float:
    """Variance of the Laplacian of a picture, (H, W): blur makes it small. Comparable within one scene alone."""
    middle = grey[1:-1, 1:-1]
    laplacian = 4 * middle - grey[:-2, 1:-1] - grey[2:, 1:-1] - grey[1:-1, :-2] - grey[1:-1, 2:]
    return float(laplacian.var())


def colour_histogram(rgb: np.ndarray) -> np.ndarray:
    """(512,) shares of the pixels of (H, W, 3) uint8 in 8 x 8 x 8 colours."""
    level = rgb.astype(np.int64) * _COLOURS // 256
    number = (level[..., 0] * _COLOURS + level[..., 1]) * _COLOURS + level[..., 2]
    return np.bincount(number.ravel(), minlength=_COLOURS**3) / number.size


def colour_distance(one: np.ndarray, other: np.ndarray) -> float:
    """Share of the pixels, 0 to 1, whose colour one histogram has and the other has not."""
    return float(np.abs(one - other).sum() / 2)


def motion(one: np.ndarray, other: np.ndarray) -> float:
    """How far the picture moved between two frames, as a share of its short side; infinite if most is not found again.

    Both (H, W) are cut into blocks of 32 x 32, each is shifted onto its counterpart by phase correlation (Kuglin and
    Hines, 1975), and the lengths of the shifts of the blocks with texture are averaged. So it is displacement in the
    picture, by translation as well as rotation or zoom, not the camera's baseline. Shifts are told up to 12 pixels.
    """
    a, b = _blocks(one), _blocks(other)
    has_texture = [x.std((1, 2)) > _LEAST_TEXTURE for x in (a, b)]
    both = has_texture[0] & has_texture[1]
    if not both.any():
        return float("inf") if has_texture[0].any() or has_texture[1].any() else 0.0
    a, b = a[both], b[both]
    window = np.hanning(_BLOCK + 2)[1:-1]
    window = (window[:, None] * window).astype(np.float32)
    spectra = [np.fft.rfft2((x - x.mean((1, 2), keepdims=True)) * window) for x in (a, b)]
    cross = spectra[0] * spectra[1].conj()
    surface = np.fft.irfft2(cross / np.maximum(np.abs(cross), 1e-6), (_BLOCK, _BLOCK))
    peaks = surface.reshape(len(surface), -1).max(1)
    found = peaks > _LEAST_PEAK
    if found.mean() < 0.5:
        return float("inf")
    lengths = [np.hypot(*_peak(s)) for s in surface[found]]
    return float(np.mean(lengths) / min(one.shape))


def _blocks(grey: np.ndarray) -> np.ndarray:
    """(n, 32, 32) float32 from the middle of a picture."""
    rows, columns = grey.shape[0] // _BLOCK, grey.shape[1] // _BLOCK
    top, left = (grey.shape[0] - rows * _BLOCK) // 2, (grey.shape[1] - columns * _BLOCK) // 2
    middle = grey[top : top + rows * _BLOCK, left : left + columns * _BLOCK].astype(np.float32)
    cut = middle.reshape(rows, _BLOCK, columns, _BLOCK).swapaxes(1, 2)
    return cut.reshape(-1, _BLOCK, _BLOCK)


def _peak(surface: np.ndarray) -> tuple[float, float]:
    """Where a correlation is highest, below a pixel by a parabola through its neighbours."""
    y, x = np.unravel_index(surface.argmax(), surface.shape)
    return _fine(surface[:, x], int(y)), _fine(surface[y], int(x))


def _fine(line: np.ndarray, at: int) -> float:
    before, here, after = line[at - 1], line[at], line[(at + 1) % _BLOCK]
    bend = before - 2 * here + after
    offset = 0.5 * (before - after) / bend if bend else 0.0
    return (at + _BLOCK // 2) % _BLOCK - _BLOCK // 2 + float(offset)
