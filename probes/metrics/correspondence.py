"""Errors of predicted correspondences: pure functions of numbers, no model and no file.

Points are (n, 2) arrays of x, y in pixels of the evaluated size, pixel centres at +0.5. A pair of images is
the statistical unit: every metric is first a number per pair, and a score is the plain mean of those
numbers.
"""

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

ROBUST_PIXELS = 32.0
ROBUST_SIZE = 448


@dataclass(frozen=True, kw_only=True)
class PairScore:
    """The metrics of one pair, of one prediction. Shares are fractions between 0 and 1."""

    epe: float  # mean end-point error, px
    median: float  # median end-point error, px
    pck1: float  # share of errors below 1 px
    pck3: float
    pck5: float
    pck_patch: float  # share below one patch of the encoder's grid
    robust: float  # share below 32 px at 448, in proportion elsewhere

    def to_dict(self) -> dict[str, float]:
        """The metrics by name, in the order of the columns of the tables."""
        return asdict(self)


def end_point_errors(predicted: NDArray, target: NDArray) -> NDArray:
    """Euclidean distances (n,) in px between predicted and true points, both (n, 2)."""
    predicted, target = np.asarray(predicted, np.float64), np.asarray(target, np.float64)
    if predicted.shape != target.shape or predicted.ndim != 2 or predicted.shape[1] != 2:
        raise ValueError(f"points must be two (n, 2) arrays, got {predicted.shape} and {target.shape}")
    return np.hypot(*(predicted - target).T)


def pck(errors: NDArray, threshold: float) -> float:
    """Percentage of correct keypoints, as a fraction: the share of errors strictly below ``threshold`` px."""
    return float(np.mean(np.asarray(errors) < threshold))


def robust_threshold(size: int) -> float:
    """The 32 px of the RoMa protocol at 448 px, in proportion at another evaluated size."""
    return ROBUST_PIXELS * size / ROBUST_SIZE


def score_pair(errors: NDArray, *, patch: float, size: int) -> PairScore:
    """All metrics of one pair from its errors (n,) in px; ``patch`` is the grid step in px of ``size``."""
    errors = np.asarray(errors, np.float64)
    if errors.size == 0:
        raise ValueError("a pair without a visible query has no score: it must not enter the list of pairs")
    return PairScore(
        epe=float(errors.mean()),
        median=float(np.median(errors)),
        pck1=pck(errors, 1),
        pck3=pck(errors, 3),
        pck5=pck(errors, 5),
        pck_patch=pck(errors, patch),
        robust=pck(errors, robust_threshold(size)),
    )


def score_chance(centres: NDArray, target: NDArray, *, patch: float, size: int) -> PairScore:
    """The exact expectation of `score_pair` when every patch centre (p, 2) is predicted equally often.

    The median is that of all predictions of all targets (n, 2).
    """
    errors = np.linalg.norm(centres[None] - np.asarray(target, np.float64)[:, None], axis=-1)
    return score_pair(errors.reshape(-1), patch=patch, size=size)


def patch_centres(rows: int, columns: int, size: int) -> NDArray:
    """Centres (rows * columns, 2) in px of a grid of patches laid over a square image, row by row."""
    x = (np.arange(columns) + 0.5) * size / columns
    y = (np.arange(rows) + 0.5) * size / rows
    return np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)


def patch_of(points: NDArray, rows: int, columns: int, size: int) -> NDArray:
    """Index (n,) int64, row by row, of the patch in which each point (n, 2) of a square image lies."""
    points = np.asarray(points, np.float64)
    column = np.clip(np.floor(points[:, 0] * columns / size), 0, columns - 1)
    row = np.clip(np.floor(points[:, 1] * rows / size), 0, rows - 1)
    return (row * columns + column).astype(np.int64)


def patch_step(grid: tuple[int, int], size: int) -> float:
    """One patch of a grid laid over a square image, in px of it."""
    return size / max(grid)


def viewing_angle(
    points_a: NDArray,
    points_b: NDArray,
    intrinsics_a: NDArray,
    intrinsics_b: NDArray,
    rotation_a: NDArray,
    rotation_b: NDArray,
) -> float:
    """Viewpoint angle of a pair in degrees: the median angle under which both cameras see the shared points.

    Points (n, 2) px, intrinsics (3, 3) px, rotations (3, 3) world to camera. The rays need no depth, so depth
    maps and tracks are measured by the same rule.
    """

    def rays(points: NDArray, intrinsics: NDArray, rotation: NDArray) -> NDArray:
        homogeneous = np.concatenate([points, np.ones((len(points), 1))], axis=1)
        directions = homogeneous @ np.linalg.inv(intrinsics).T @ rotation
        return directions / np.linalg.norm(directions, axis=1, keepdims=True)

    a, b = rays(points_a, intrinsics_a, rotation_a), rays(points_b, intrinsics_b, rotation_b)
    # The chord is exact near zero, where the arc cosine of a rounded product is not.
    half = np.clip(np.linalg.norm(a - b, axis=1) / 2, 0, 1)
    return float(np.degrees(np.median(2 * np.arcsin(half))))
