"""How alike two pictures are: PSNR and SSIM, as novel views are scored; functions of arrays (H, W, C) in [0, 1]."""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

SIGMA = 1.5
RADIUS = 5
"""Of the Gaussian window of SSIM: 11 x 11 px."""
_C1, _C2 = 0.01**2, 0.03**2


def psnr(picture: NDArray, truth: NDArray) -> float:
    """Peak signal-to-noise ratio in dB for a peak of 1, over all pixels and channels; infinite for equal pictures."""
    picture, truth = _pair(picture, truth)
    error = float(np.mean((picture - truth) ** 2))
    return float("inf") if error == 0 else -10 * float(np.log10(error))


def ssim(picture: NDArray, truth: NDArray) -> float:
    """Structural similarity (Wang et al. 2004, equation 13), at most 1.

    Gaussian window of deviation 1.5 over 11 x 11 px, population variances, K1 = 0.01 and K2 = 0.03, a peak of 1; per
    channel, averaged over the pixels whose window lies inside the picture. ValueError below 11 px.
    """
    picture, truth = _pair(picture, truth)
    if min(picture.shape[:2]) <= 2 * RADIUS:
        raise ValueError(f"SSIM needs pictures of {2 * RADIUS + 1} px or more, not {picture.shape[:2]}")
    mean_a, mean_b = _blurred(picture), _blurred(truth)
    variance_a = _blurred(picture**2) - mean_a**2
    variance_b = _blurred(truth**2) - mean_b**2
    covariance = _blurred(picture * truth) - mean_a * mean_b
    likeness = ((2 * mean_a * mean_b + _C1) * (2 * covariance + _C2)) / (
        (mean_a**2 + mean_b**2 + _C1) * (variance_a + variance_b + _C2)
    )
    return float(likeness.mean())


def _pair(picture: NDArray, truth: NDArray) -> tuple[NDArray, NDArray]:
    if (
        picture.shape != truth.shape
        or picture.ndim != 3
        or picture.dtype.kind != "f"
        or truth.dtype.kind != "f"
    ):
        raise ValueError(
            f"pictures must be two float arrays (H, W, C) of one shape, not {picture.dtype} {picture.shape} and "
            f"{truth.dtype} {truth.shape}"
        )
    return picture.astype(np.float64), truth.astype(np.float64)


def _blurred(values: NDArray) -> NDArray:
    """Gaussian means (H - 10, W - 10, C), only of windows inside."""
    weights = np.exp(-0.5 * (np.arange(-RADIUS, RADIUS + 1) / SIGMA) ** 2)
    weights /= weights.sum()
    for axis in (0, 1):
        values = sliding_window_view(values, len(weights), axis=axis) @ weights
    return values
