"""Relative poses from matched points by robust estimators: PoseLib (LO-RANSAC, the default) and OpenCV.

The estimator moves a score more than many encoders do, so there is one setting for all, stated in a config, and
OpenCV stands beside PoseLib only to be compared with published figures. Problems are independent: each is solved
with a seed made of the caller's and its own name, so that neither the order nor the number of workers matters.
The pool is of threads: both libraries release the interpreter's lock while they work, and a thread needs neither
copies of the points nor a second import of everything. This file knows points and intrinsics and no encoder.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from probes.errors import ProbeError

LEAST_MATCHES = 5
"""What the five-point algorithm needs; fewer matches or inliers are a failure."""


@dataclass(frozen=True, kw_only=True)
class SolverConfig:
    """Which estimator and how; part of the identity of a result."""

    kind: Literal["poselib", "opencv"] = "poselib"
    threshold: float = 2.0
    """Largest epipolar error of an inlier, px of the images that the points are of."""
    confidence: float = 0.9999
    """Wanted probability of having drawn a sample without an outlier."""
    max_iterations: int = 100_000
    min_iterations: int = 1000
    """Of PoseLib; OpenCV has none."""


@dataclass(frozen=True, kw_only=True)
class PoseProblem:
    """Matched points of one pair."""

    name: str
    """Stable; the draws depend on it."""
    points_a: NDArray = field(repr=False)
    """(n, 2) px."""
    points_b: NDArray = field(repr=False)
    intrinsics_a: NDArray = field(repr=False)
    """(3, 3) px."""
    intrinsics_b: NDArray = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class PoseEstimate:
    """What a solver found."""

    pose: NDArray = field(repr=False)
    """(3, 4): x_b = R x_a + t with |t| = 1; nan where it failed."""
    inliers: NDArray = field(repr=False)
    """(n,) bool."""

    @property
    def failed(self) -> bool:
        """Whether there is no pose."""
        return not np.isfinite(self.pose).all()


def solve_all(
    problems: Sequence[PoseProblem],
    config: SolverConfig,
    *,
    seed: int,
    workers: int | None = None,
) -> list[PoseEstimate]:
    """Solve problems in a pool; the answers do not depend on how many work on them.

    Args:
        problems: with names of their own.
        config: one for all.
        seed: of the draws.
        workers: threads; by default one for every core this process may use.

    Raises:
        ProbeError: the estimator is not installed or of a version whose options have other names.
    """
    task = partial(_solver(config), config=config, seed=seed)
    workers = min(workers or available_cores(), max(1, len(problems)))
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(task, problems))


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def solve(problem: PoseProblem, config: SolverConfig, *, seed: int) -> PoseEstimate:
    """Solve one problem in this thread, to the same answer as `solve_all`."""
    return _solver(config)(problem, config=config, seed=seed)


def _solver(config: SolverConfig) -> Callable[..., PoseEstimate]:
    try:
        if config.kind == "poselib":
            import poselib

            # Unknown options are ignored in silence, so another name would mean another threshold.
            if "max_epipolar_error" not in poselib.RansacOptions():
                raise ProbeError("this version of poselib names its options otherwise: install poselib 2.0")
            return _by_poselib
        import cv2

        cv2.setNumThreads(1)  # A problem is too small to share; the pool holds several.
    except ImportError as error:
        raise ProbeError(
            f"{error.name} is not installed: pip install 'mumkit[probes]' brings the pose solvers"
        ) from error
    return _by_opencv


def _by_poselib(problem: PoseProblem, *, config: SolverConfig, seed: int) -> PoseEstimate:
    import poselib

    (a, focal_a), (b, focal_b) = _centred(problem)
    if len(a) < LEAST_MATCHES:
        return _failure(problem)
    options: dict[str, Any] = {
        "max_epipolar_error": config.threshold,
        "success_prob": config.confidence,
        "max_iterations": config.max_iterations,
        "min_iterations": min(config.min_iterations, config.max_iterations),
        "seed": _seed(seed, problem.name),
    }
    cameras = [_camera(focal) for focal in (focal_a, focal_b)]
    # The refinement minimises the very score that sampling maximised; a rounder loss weighs down the honest error of
    # a patch's centre and costs up to six points of AUC.
    loss = {"loss_type": "TRUNCATED", "loss_scale": config.threshold}
    found, info = poselib.estimate_relative_pose(a, b, *cameras, options, loss)
    inliers = np.asarray(info["inliers"], bool)
    length = np.linalg.norm(found.t)
    if inliers.sum() < LEAST_MATCHES or not length > 0:
        return _failure(problem)
    pose = np.column_stack([found.R, found.t / length])
    return PoseEstimate(pose=pose, inliers=inliers) if np.isfinite(pose).all() else _failure(problem)


def _by_opencv(problem: PoseProblem, *, config: SolverConfig, seed: int) -> PoseEstimate:
    import cv2

    (a, focal_a), (b, focal_b) = _centred(problem)
    if len(a) < LEAST_MATCHES:
        return _failure(problem)
    # Its own generator starts at a constant, so the seed acts through the order of the matches.
    order = np.random.Generator(np.random.Philox(key=_seed(seed, problem.name))).permutation(len(a))
    a, b = a[order] / focal_a, b[order] / focal_b
    essential, mask = cv2.findEssentialMat(
        a,
        b,
        np.eye(3),
        method=cv2.RANSAC,
        prob=config.confidence,
        threshold=config.threshold * (1 / focal_a + 1 / focal_b) / 2,
        maxIters=config.max_iterations,
    )
    best, pose, inliers = 0, None, np.zeros(len(a), bool)
    # Where the sample allows several solutions they come stacked; the one with most points ahead is taken.
    for part in () if essential is None else np.split(essential, len(essential) // 3):
        ahead, rotation, translation, seen, _ = cv2.recoverPose(
            part, a, b, np.eye(3), distanceThresh=1e9, mask=mask.copy()
        )
        if ahead > best:
            best, pose = ahead, np.column_stack([rotation, translation])
            inliers = np.zeros(len(a), bool)
            inliers[order] = seen.ravel() > 0
    if pose is None or best < LEAST_MATCHES or not np.isfinite(pose).all():
        return _failure(problem)
    return PoseEstimate(pose=pose, inliers=inliers)


def _centred(problem: PoseProblem) -> tuple[tuple[NDArray, float], tuple[NDArray, float]]:
    """Points (n, 2) of both views about the principal point, and the focal length in px they then have.

    Both axes get the mean focal length, so that an inlier is as near along x as along y of a squashed image.
    """
    sides = []
    for points, intrinsics in (
        (problem.points_a, problem.intrinsics_a),
        (problem.points_b, problem.intrinsics_b),
    ):
        focal = float((intrinsics[0, 0] + intrinsics[1, 1]) / 2)
        rays = (
            np.column_stack([np.asarray(points, np.float64), np.ones(len(points))])
            @ np.linalg.inv(intrinsics).T
        )
        sides.append((np.ascontiguousarray(focal * rays[:, :2] / rays[:, 2:]), focal))
    return sides[0], sides[1]


def _camera(focal: float) -> dict[str, Any]:
    return {"model": "SIMPLE_PINHOLE", "width": 0, "height": 0, "params": [focal, 0, 0]}


def _failure(problem: PoseProblem) -> PoseEstimate:
    return PoseEstimate(pose=np.full((3, 4), np.nan), inliers=np.zeros(len(problem.points_a), bool))


def _seed(seed: int, name: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}\0{name}".encode()).digest()[:4], "little")
