"""The transform that carries one set of points best onto another: least squares, in closed form.

Points are (n, 3) with rows that correspond. Knows no cameras and no clouds.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Similarity:
    """x -> scale * rotation @ x + translation."""

    scale: float
    rotation: NDArray = field(repr=False)
    """(3, 3), a proper rotation."""
    translation: NDArray = field(repr=False)
    """(3,)."""

    def apply(self, points: NDArray) -> NDArray:
        """Points (..., 3), moved."""
        return self.scale * np.asarray(points, np.float64) @ self.rotation.T + self.translation


def umeyama(source: NDArray, target: NDArray, *, scale: bool = True) -> Similarity:
    """The similarity with the least sum of squared distances from the moved source to the target.

    Args:
        source: (n, 3).
        target: (n, 3), row by row where those points belong.
        scale: True for Sim(3), False for SE(3).

    Raises:
        ValueError: shapes that do not fit, no point, or a value that is not finite.

    Source: Umeyama, Least-squares estimation of transformation parameters between two point patterns, 1991, eq. 40-43.
    """
    source, target = np.asarray(source, np.float64), np.asarray(target, np.float64)
    if source.shape != target.shape or source.ndim != 2 or source.shape[1] != 3 or len(source) == 0:
        raise ValueError(f"an alignment needs two (n, 3) arrays, got {source.shape} and {target.shape}")
    if not (np.isfinite(source).all() and np.isfinite(target).all()):
        raise ValueError("an alignment needs finite points: leave out those that are not")
    middle, goal = source.mean(axis=0), target.mean(axis=0)
    left, spread, right = np.linalg.svd((target - goal).T @ (source - middle) / len(source))
    # Without the sign a mirrored set would be met by a reflection.
    signs = np.array([1.0, 1.0, np.sign(np.linalg.det(left) * np.linalg.det(right))])
    rotation = (left * signs) @ right
    variance = np.square(source - middle).sum(axis=1).mean()
    factor = float(spread @ signs / variance) if scale and variance > 0 else 1.0
    return Similarity(scale=factor, rotation=rotation, translation=goal - factor * rotation @ middle)
