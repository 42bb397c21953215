"""Errors of camera poses and what is made of them: pure functions of numbers, no image, model or file.

Angles are in degrees. Poses are (..., 3, 4) [R | t], world to camera. A prediction that is missing or not finite
has the error infinity, so that it counts as a failure wherever it is averaged. Areas under the curve come in
three integrations that differ by up to 12 points, so none goes without its name:

    exact      mean of max(0, 1 - e / T): the area under the true recall curve
    trapezoid  SuperGlue, LoFTR, RoMa, Reloc3r: straight lines between the points of the recall curve from (0, 0)
    histogram  PoseDiffusion, VGGT: bins of one degree, the mean of their cumulative shares
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from probes.metrics.alignment import umeyama
from probes.statistics import Statistic

Integration = Literal["exact", "trapezoid", "histogram"]
INTEGRATIONS: tuple[Integration, ...] = ("exact", "trapezoid", "histogram")


def rotation_errors(predicted: NDArray, true: NDArray) -> NDArray:
    """Angles (...) of the rotations between predicted and true ones, (..., 3, 3) each; 0 to 180."""
    predicted, true = np.asarray(predicted, np.float64), np.asarray(true, np.float64)
    between = predicted @ np.swapaxes(true, -1, -2)
    # The arc tangent is exact near 0 and 180, where the arc cosine of a rounded trace is not.
    axis = between - np.swapaxes(between, -1, -2)
    sine = np.hypot(np.hypot(axis[..., 2, 1], axis[..., 0, 2]), axis[..., 1, 0]) / 2
    cosine = (np.trace(between, axis1=-2, axis2=-1) - 1) / 2
    angles = np.degrees(np.arctan2(sine, cosine))
    return np.where(np.isfinite(predicted).all(axis=(-2, -1)), angles, np.inf)


def translation_errors(predicted: NDArray, true: NDArray, *, folded: bool) -> NDArray:
    """Angles (...) between the directions of predicted and true translations, (..., 3) each.

    Args:
        predicted: of any length; one of length 0 has no direction and counts as a failure.
        true: of any length; where it is exactly 0 there is no direction to meet and the error is nan.
        folded: True takes a direction and its opposite as the same, 0 to 90, as for what an essential matrix
            tells; False is signed, 0 to 180. The two must never stand in one column.
    """
    predicted, true = np.asarray(predicted, np.float64), np.asarray(true, np.float64)
    cosine = (predicted * true).sum(axis=-1)
    angles = np.degrees(np.arctan2(np.linalg.norm(np.cross(predicted, true), axis=-1), cosine))
    if folded:
        angles = np.minimum(angles, 180 - angles)
    found = np.isfinite(predicted).all(axis=-1) & (np.linalg.norm(predicted, axis=-1) > 0)
    known = np.linalg.norm(true, axis=-1) > 0
    return np.where(known, np.where(found, angles, np.inf), np.nan)


def auc(errors: NDArray, threshold: float, kind: Integration) -> float:
    """Area under the recall curve of errors (n,) up to ``threshold``, 0 to 1; see the head of this file.

    An infinite error or one that is nan is a failure: it stays in the number of items.
    """
    errors = np.asarray(errors, np.float64)
    return float(auc_statistic(threshold, kind)(errors, np.ones((1, len(errors))))[0])


def auc_statistic(threshold: float, kind: Integration) -> Statistic:
    """`auc` as a statistic of resamples: values (n,) and weights (m, n) to (m,).

    Equals `auc` of the items, each repeated as often as its weight says. ValueError for an unknown integration or
    a histogram up to a threshold that is not a whole number.
    """
    if kind not in INTEGRATIONS:
        raise ValueError(f"unknown integration {kind!r}: known are {', '.join(INTEGRATIONS)}")
    if threshold <= 0 or (kind == "histogram" and threshold != int(threshold)):
        raise ValueError(f"a threshold of {threshold:g} degrees is not possible with the {kind} integration")

    def statistic(values: NDArray, weights: NDArray) -> NDArray:
        errors = _failures_infinite(values)
        weights = np.asarray(weights, np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            total = weights.sum(axis=1)
            if kind == "histogram":
                steps = np.minimum(np.floor(np.minimum(errors, threshold)), threshold - 1)
                return weights @ np.where(errors <= threshold, 1 - steps / threshold, 0.0) / total
            area = weights @ np.clip(1 - errors / threshold, 0, None) / total
            if kind == "exact":
                return area
            # Straight lines exceed the steps by half a step over all that lies before the last error counted.
            inside = np.where(errors < threshold, errors, 0.0)
            return area + (np.where(weights > 0, inside, 0.0)).max(axis=1, initial=0) / (
                2 * threshold * total
            )

    return statistic


def recall_statistic(threshold: float) -> Statistic:
    """Share of errors strictly below ``threshold`` (RRA of rotation errors, RTA of translation errors)."""

    def statistic(values: NDArray, weights: NDArray) -> NDArray:
        below = (_failures_infinite(values) < threshold).astype(np.float64)
        with np.errstate(invalid="ignore"):
            return weights @ below / np.asarray(weights, np.float64).sum(axis=1)

    return statistic


def median_statistic(values: NDArray, weights: NDArray) -> NDArray:
    """The median of values (n,), each repeated as often as its weight in a row of (m, n) says; it may be infinite."""
    order = np.argsort(values, kind="stable")
    ordered = np.asarray(values, np.float64)[order]
    reached = np.cumsum(np.asarray(weights, np.float64)[:, order], axis=1)
    half = reached[:, -1:] / 2
    low, high = (reached >= half).argmax(axis=1), (reached > half).argmax(axis=1)
    return np.where(half[:, 0] > 0, ordered[low] / 2 + ordered[high] / 2, np.nan)


def absolute_trajectory_error(predicted: NDArray, true: NDArray, *, scale: bool = True) -> float:
    """ATE: root mean square distance of the camera centres after the best alignment, in the truth's unit.

    Args:
        predicted: (n, 3, 4) world to camera.
        true: (n, 3, 4).
        scale: True aligns by Sim(3), False by SE(3), for predictions in the truth's own unit.

    Source: Sturm et al., A benchmark for the evaluation of RGB-D SLAM systems, 2012, section V.
    """
    predicted, true = _trajectories(predicted, true)
    if not np.isfinite(predicted).all():
        return np.inf
    source, target = camera_centres(predicted), camera_centres(true)
    moved = umeyama(source, target, scale=scale).apply(source)
    return _root_mean_square(np.linalg.norm(moved - target, axis=1))


def relative_pose_errors(
    predicted: NDArray, true: NDArray, *, step: int = 1, scale: bool = True
) -> tuple[float, float]:
    """RPE: root mean square errors of the motions from frame i to i + ``step``, of all i.

    Args:
        predicted: (n, 3, 4) world to camera, n > ``step``.
        true: (n, 3, 4).
        step: frames between the two ends of a motion.
        scale: whether predictions are first scaled as the Sim(3) alignment of all centres says.

    Returns:
        Of the translation, in the truth's unit, and of the rotation, in degrees.

    Source: Sturm et al., 2012, section V.
    """
    predicted, true = _trajectories(predicted, true)
    if step < 1 or len(true) <= step:
        raise ValueError(f"{len(true)} poses have no motion over {step} frames")
    if not np.isfinite(predicted).all():
        return np.inf, np.inf
    factor = umeyama(camera_centres(predicted), camera_centres(true)).scale if scale else 1.0
    motions = []
    for poses, by in ((predicted, factor), (true, 1.0)):
        rotations, centres = poses[:, :, :3], camera_centres(poses) * by
        turned = rotations[:-step] @ np.swapaxes(rotations[step:], 1, 2)
        moved = (rotations[:-step] @ (centres[step:] - centres[:-step])[..., None])[..., 0]
        motions.append((turned, moved))
    (turned, moved), (turned_truly, moved_truly) = motions
    gaps = np.linalg.norm(moved - moved_truly, axis=1)
    return _root_mean_square(gaps), _root_mean_square(rotation_errors(turned, turned_truly))


def camera_centres(world_to_camera: NDArray) -> NDArray:
    """Positions (..., 3) in the world of cameras (..., 3, 4)."""
    poses = np.asarray(world_to_camera, np.float64)
    return -(np.swapaxes(poses[..., :3], -1, -2) @ poses[..., 3:])[..., 0]


def _trajectories(predicted: NDArray, true: NDArray) -> tuple[NDArray, NDArray]:
    predicted, true = np.asarray(predicted, np.float64), np.asarray(true, np.float64)
    if predicted.shape != true.shape or true.ndim != 3 or true.shape[1:] != (3, 4) or len(true) == 0:
        raise ValueError(f"trajectories must be two (n, 3, 4) arrays, got {predicted.shape} and {true.shape}")
    return predicted, true


def _root_mean_square(values: NDArray) -> float:
    return float(np.sqrt(np.square(values).mean()))


def _failures_infinite(values: NDArray) -> NDArray:
    values = np.asarray(values, np.float64)
    return np.where(np.isnan(values), np.inf, values)
