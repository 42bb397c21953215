"""Point clouds against the truth: alignment by Sim(3) and ICP, then accuracy, completeness and normals.

Clouds are (n, 3) arrays in one frame and one unit, normals (n, 3) unit vectors whose sign means nothing. The
protocol `PI3_STYLE` is that of Pi3's evaluator (arXiv 2507.13347; MuM's point-cloud figures): Sim(3) on points that
correspond, point-to-point ICP, distances to the nearest neighbour. It is neither DTU's nor ETH3D's official one.
This file knows nothing of frames, encoders or heads.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from probes.metrics.alignment import Similarity, umeyama

PI3_STYLE = "pi3-style: Sim(3) on corresponding pixels, then point-to-point ICP, then nearest neighbours"
ICP_STEPS = 30
"""At most; it ends before where neither the share nor the error of the pairs moves by 1e-6."""
_CHUNK = 1 << 16  # neighbourhoods at once, so that millions of points fit in memory


class CloudScore(NamedTuple):
    """Distances in the clouds' unit, each as mean and median over points; normal consistency from 0 to 1."""

    accuracy: float
    """Mean distance from a predicted point to the nearest true one."""
    accuracy_median: float
    completeness: float
    """Mean distance from a true point to the nearest predicted one."""
    completeness_median: float
    overall: float
    """The mean of accuracy and completeness: the Chamfer distance, halved."""
    overall_median: float
    normal_consistency: float
    """Mean |cosine| between a point's normal and that of its nearest neighbour, averaged over both directions."""
    normal_consistency_median: float


def icp(source: NDArray, target: NDArray, *, distance: float) -> Similarity:
    """Point-to-point ICP: the rigid motion that settles ``source`` onto ``target`` (Besl and McKay, PAMI 1992).

    Args:
        source: (n, 3), roughly aligned.
        target: (m, 3).
        distance: nearest neighbours farther apart are not paired.
    """
    tree = cKDTree(target)
    moved, before = np.asarray(source, np.float64), (np.inf, np.inf)
    for _ in range(ICP_STEPS):
        gaps, nearest = tree.query(moved, distance_upper_bound=distance)
        close = np.isfinite(gaps)
        if close.sum() < 3:
            break
        fit = (close.mean(), np.sqrt(np.square(gaps[close]).mean()) / distance)
        if np.allclose(fit, before, rtol=0, atol=1e-6):
            break
        before = fit
        moved = umeyama(moved[close], target[nearest[close]], scale=False).apply(moved)
    return umeyama(source, moved, scale=False)


def cloud_normals(points: NDArray, neighbours: int = 30) -> NDArray:
    """Normals (n, 3) of a cloud: the direction in which a point's nearest neighbours spread least.

    The sign is arbitrary. Clouds of fewer than three points have none: zeros.
    """
    points = np.asarray(points, np.float64)
    if len(points) < 3:
        return np.zeros_like(points)
    tree = cKDTree(points)
    normals = np.empty_like(points)
    for start in range(0, len(points), _CHUNK):
        part = points[start : start + _CHUNK]
        _, around = tree.query(part, k=min(neighbours, len(points)))
        spread = points[around] - points[around].mean(axis=1, keepdims=True)
        normals[start : start + _CHUNK] = np.linalg.eigh(spread.transpose(0, 2, 1) @ spread)[1][..., 0]
    return normals


def compare_clouds(
    predicted: NDArray,
    truth: NDArray,
    predicted_normals: NDArray | None = None,
    true_normals: NDArray | None = None,
) -> CloudScore:
    """Accuracy, completeness and normal consistency of an aligned cloud.

    Args:
        predicted: (n, 3).
        truth: (m, 3).
        predicted_normals: (n, 3); None: by `cloud_normals`.
        true_normals: (m, 3); None likewise.

    Raises:
        ValueError: an empty cloud.
    """
    if not len(predicted) or not len(truth):
        raise ValueError(f"clouds of {len(predicted)} and {len(truth)} points cannot be compared")
    normals = (
        cloud_normals(predicted) if predicted_normals is None else predicted_normals,
        cloud_normals(truth) if true_normals is None else true_normals,
    )
    there, nearest_true = cKDTree(truth).query(predicted)
    back, nearest_predicted = cKDTree(predicted).query(truth)
    agree = np.abs((normals[0] * normals[1][nearest_true]).sum(axis=1))
    agree_back = np.abs((normals[1] * normals[0][nearest_predicted]).sum(axis=1))

    def both(of: object) -> tuple[float, ...]:
        accuracy, completeness = float(of(there)), float(of(back))
        return accuracy, completeness, (accuracy + completeness) / 2, float(of(agree) + of(agree_back)) / 2

    mean, median = both(np.mean), both(np.median)
    return CloudScore(
        accuracy=mean[0],
        accuracy_median=median[0],
        completeness=mean[1],
        completeness_median=median[1],
        overall=mean[2],
        overall_median=median[2],
        normal_consistency=mean[3],
        normal_consistency_median=median[3],
    )


def align(predicted: NDArray, truth: NDArray, *, distance: float, most: int = 1 << 17) -> NDArray:
    """A predicted cloud (n, 3), moved by Sim(3) on corresponding points and then by ICP.

    Args:
        predicted: (n, 3), n at least 1.
        truth: (n, 3), the same points in the same order.
        distance: of the ICP.
        most: points that ICP looks at, evenly spaced in the given order.
    """
    moved = umeyama(predicted, truth).apply(predicted)
    step = -(-len(truth) // most)
    return icp(moved[::step], truth[::step], distance=distance).apply(moved)
