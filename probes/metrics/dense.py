"""Errors of dense predictions: depth, surface normals and classes, each a pure function of arrays.

Depth and normals are scored per image, and a score is the mean over images; classes are counted per image and
divided once over the data set, as their benchmarks do. Whatever truth is unknown is left out by the caller or by a
stated mark. No model, no file, no list of frames.
"""

from dataclasses import asdict, dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

Alignment = Literal["none", "median", "affine", "affine disparity"]
"""How a predicted depth may be changed before it is compared with the truth of the same image: not at all; times the
ratio of medians; times a and plus b by least squares; the same of inverse depths."""
ALIGNMENTS: tuple[Alignment, ...] = get_args(Alignment)


@dataclass(frozen=True, kw_only=True)
class DepthScore:
    """Errors of the depth of one image."""

    abs_rel: float
    """Mean of |d - d*| / d*."""
    delta1: float
    """Share of pixels with max(d / d*, d* / d) < 1.25."""
    rmse: float
    """Root of the mean squared error, in the unit of the depth."""
    silog: float
    """Deviation of log d - log d* over the image; a common factor of d changes nothing. KITTI prints it times 100."""

    def to_dict(self) -> dict[str, float]:
        """By name."""
        return asdict(self)


def align_depth(predicted: NDArray, truth: NDArray, alignment: Alignment) -> NDArray:
    """The predicted depth (n,), aligned with the true one (n,), both positive; float64.

    A line fitted to depths may leave positive numbers: results are at least the smallest true depth, and of inverse
    depths at least the smallest true inverse depth (MiDaS, section 6, caps depth in the same place).
    """
    predicted, truth = _positive(predicted, "predicted"), _positive(truth, "true")
    if predicted.shape != truth.shape:
        raise ValueError(f"{predicted.shape} predicted depths and {truth.shape} true ones: need as many")
    if alignment == "median":
        return predicted * (np.median(truth) / np.median(predicted))
    if alignment == "affine":
        return np.maximum(_fitted(predicted, truth), truth.min())
    if alignment == "affine disparity":
        return 1 / np.maximum(_fitted(1 / predicted, 1 / truth), 1 / truth.max())
    return predicted


def score_depth(predicted: NDArray, truth: NDArray, alignment: Alignment = "none") -> DepthScore:
    """Errors of one image's predicted depth (n,) where the truth (n,) is known; ValueError unless all are positive."""
    aligned, truth = align_depth(predicted, truth, alignment), np.asarray(truth, np.float64)
    error, log_ratio = aligned - truth, np.log(aligned / truth)
    return DepthScore(
        abs_rel=float(np.mean(np.abs(error) / truth)),
        delta1=float(np.mean(np.maximum(aligned / truth, truth / aligned) < 1.25)),
        rmse=float(np.sqrt(np.mean(error**2))),
        silog=float(np.std(log_ratio)),
    )


@dataclass(frozen=True, kw_only=True)
class NormalScore:
    """Errors of the surface normals of one image: angles in degrees, shares between 0 and 1."""

    angle: float
    """Mean angle."""
    angle_median: float
    angle_rmse: float
    within11: float
    """Share of angles below 11.25 degrees."""
    within22: float
    """Below 22.5 degrees."""
    within30: float

    def to_dict(self) -> dict[str, float]:
        """By name."""
        return asdict(self)


def angles_between(a: NDArray, b: NDArray) -> NDArray:
    """Angles (...,) in degrees, 0 to 180, between vectors (..., 3) of any length above 0."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    a = a / np.linalg.norm(a, axis=-1, keepdims=True)
    b = b / np.linalg.norm(b, axis=-1, keepdims=True)
    # The arc cosine of a rounded product loses small angles; these two chords do not (Kahan).
    return np.degrees(2 * np.arctan2(np.linalg.norm(a - b, axis=-1), np.linalg.norm(a + b, axis=-1)))


def score_normals(predicted: NDArray, truth: NDArray) -> NormalScore:
    """Errors of one image's predicted normals (n, 3) where the truth (n, 3) is known."""
    angles = angles_between(predicted, truth)
    if angles.size == 0:
        raise ValueError("an image without a known normal has no score: it must not be scored")
    return NormalScore(
        angle=float(angles.mean()),
        angle_median=float(np.median(angles)),
        angle_rmse=float(np.sqrt(np.mean(angles**2))),
        within11=float(np.mean(angles < 11.25)),
        within22=float(np.mean(angles < 22.5)),
        within30=float(np.mean(angles < 30)),
    )


def class_pixels(predicted: NDArray, truth: NDArray, classes: int, ignored: int) -> NDArray[np.int64]:
    """Pixels of each class of one image (3 * classes,): rightly predicted, then predicted, then true.

    Args:
        predicted: class ids from 0, of any shape.
        truth: class ids of the same shape; pixels of the id ``ignored`` are not counted at all.
        classes: number of classes.
        ignored: id of pixels without a class.

    Raises:
        ValueError: a true class beyond the number of classes.
    """
    kept = truth != ignored
    predicted, truth = np.asarray(predicted)[kept].astype(np.int64), np.asarray(truth)[kept].astype(np.int64)
    if truth.size and int(truth.max()) >= classes:
        raise ValueError(f"the truth holds class {int(truth.max())}, but there are {classes} classes from 0")
    counted = [
        np.bincount(found, minlength=classes) for found in (truth[predicted == truth], predicted, truth)
    ]
    return np.concatenate(counted)


def miou_statistic(values: NDArray, weights: NDArray) -> NDArray:
    """Mean intersection over union (m,) of the images' `class_pixels` (n, 3 k) under weights (m, n).

    Pixels are summed over the images, divided per class, and averaged over the classes that occur, predicted or true.
    """
    right, predicted, true = _summed(values, weights)
    return _mean_of_ratios(right, predicted + true - right)


def class_accuracy_statistic(values: NDArray, weights: NDArray) -> NDArray:
    """Mean over the classes that occur of the share of their pixels that is found, (m,); arguments as of mIoU."""
    right, _, true = _summed(values, weights)
    return _mean_of_ratios(right, true)


def pixel_accuracy_statistic(values: NDArray, weights: NDArray) -> NDArray:
    """Share of all pixels that is right, (m,); arguments as of mIoU."""
    right, _, true = _summed(values, weights)
    with np.errstate(invalid="ignore"):
        return right.sum(axis=1) / true.sum(axis=1)


def _positive(depth: NDArray, what: str) -> NDArray:
    depth = np.asarray(depth, np.float64)
    if depth.size == 0 or not (depth > 0).all():
        raise ValueError(f"{what} depths must be positive numbers, at least one: mask what is unknown first")
    return depth


def _fitted(x: NDArray, y: NDArray) -> NDArray:
    """The values at ``x`` of the line that fits y best; the mean of y where x is constant."""
    centred = x - x.mean()
    spread = float(centred @ centred)
    slope = float(centred @ y) / spread if spread > 1e-24 * len(x) * float(x.mean()) ** 2 else 0.0
    return slope * centred + y.mean()


def _summed(values: NDArray, weights: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    totals = np.asarray(weights, np.float64) @ np.asarray(values, np.float64)
    right, predicted, true = np.split(totals, 3, axis=1)
    return right, predicted, true


def _mean_of_ratios(part: NDArray, whole: NDArray) -> NDArray:
    occurs = whole > 0
    ratios = np.divide(part, whole, out=np.zeros_like(part), where=occurs)
    with np.errstate(invalid="ignore"):
        return ratios.sum(axis=1) / occurs.sum(axis=1)
