"""Pose solvers: known poses are found, whoever else is solved beside them; too little is a failure, not a guess."""

import sys

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from probes.errors import ProbeError
from probes.metrics.pose import rotation_errors, translation_errors
from probes.pose.solvers import PoseProblem, SolverConfig, solve, solve_all

KINDS = ("poselib", "opencv")
WIDE = np.array([[520.0, 0, 340], [0, 500, 230], [0, 0, 1]])
SQUASHED = np.array([[390.0, 0, 255], [0, 610, 281], [0, 0, 1]])


def problem(
    seed: int, *, noise: float = 0.0, outliers: float = 0.0, count: int = 200
) -> tuple[PoseProblem, np.ndarray]:
    """Matches between two cameras with different, uneven intrinsics, and the true pose with |t| = 1."""
    rng = np.random.default_rng(seed)
    rotation = Rotation.from_rotvec(rng.normal(size=3) * 0.2).as_matrix()
    translation = rng.normal(size=3)
    translation /= np.linalg.norm(translation)
    homogeneous = np.column_stack([rng.uniform(0, 640, count), rng.uniform(0, 480, count), np.ones(count)])
    points = homogeneous @ np.linalg.inv(WIDE).T * rng.uniform(3, 8, (count, 1))
    seen = (points @ rotation.T + translation) @ SQUASHED.T
    a, b = homogeneous[:, :2], seen[:, :2] / seen[:, 2:]
    b = b + rng.normal(size=b.shape) * noise
    wrong = rng.random(count) < outliers
    b[wrong] = rng.uniform(0, 512, (wrong.sum(), 2))
    found = PoseProblem(name=str(seed), points_a=a, points_b=b, intrinsics_a=WIDE, intrinsics_b=SQUASHED)
    return found, np.column_stack([rotation, translation])


def errors(pose: np.ndarray, true: np.ndarray) -> tuple[float, float]:
    """Of the rotation, and of the translation with its sign."""
    rotation = rotation_errors(pose[:, :3], true[:, :3])
    return float(rotation), float(translation_errors(pose[:, 3], true[:, 3], folded=False))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(4))
def test_exact_matches_give_the_pose_and_the_side_of_the_scene(kind: str, seed: int) -> None:
    matches, true = problem(seed)
    found = solve(matches, SolverConfig(kind=kind), seed=0)
    assert max(errors(found.pose, true)) < 0.01
    assert found.inliers.mean() > 0.95
    assert np.linalg.norm(found.pose[:, 3]) == pytest.approx(1)


@pytest.mark.parametrize("kind", KINDS)
def test_outliers_are_told_from_inliers(kind: str) -> None:
    clean, true = problem(5, noise=0.5)
    matches, _ = problem(5, noise=0.5, outliers=0.4)
    wrong = (matches.points_b != clean.points_b).any(axis=1)
    found = solve(matches, SolverConfig(kind=kind), seed=0)
    assert max(errors(found.pose, true)) < 3
    assert found.inliers[~wrong].mean() > 0.85
    assert found.inliers[wrong].mean() < 0.15


@pytest.mark.parametrize("kind", KINDS)
def test_answers_depend_on_seed_and_name_alone(kind: str) -> None:
    problems = [problem(seed, noise=2, outliers=0.5)[0] for seed in range(5)]
    config = SolverConfig(kind=kind, max_iterations=200)
    alone = solve_all(problems, config, seed=3, workers=1)
    together = solve_all(problems[::-1], config, seed=3, workers=4)[::-1]
    others = solve_all(problems, config, seed=4, workers=4)
    for one, two in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one.pose, two.pose)
        np.testing.assert_array_equal(one.inliers, two.inliers)
    assert any((one.pose != other.pose).any() for one, other in zip(alone, others, strict=True))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [0, 4])
def test_too_few_matches_are_a_failure(kind: str, count: int) -> None:
    found = solve(problem(0, count=count)[0], SolverConfig(kind=kind), seed=0)
    assert found.failed
    assert found.inliers.shape == (count,)
    assert rotation_errors(found.pose[:, :3], np.eye(3)) == np.inf


def test_a_threshold_means_the_same_for_both_axes_of_a_squashed_image() -> None:
    matches, _ = problem(2)
    for axis in (0, 1):
        moved = matches.points_b.copy()
        # Six px in the image whose axes have the same focal length.
        moved[::4, axis] += 6 * SQUASHED[axis, axis] / SQUASHED[[0, 1], [0, 1]].mean()
        off = PoseProblem(
            name="off",
            points_a=matches.points_a,
            points_b=moved,
            intrinsics_a=WIDE,
            intrinsics_b=SQUASHED,
        )
        for threshold, least, most in ((1.0, 0.7, 0.9), (12.0, 1.0, 1.0)):
            share = solve(off, SolverConfig(threshold=threshold), seed=0).inliers.mean()
            assert least <= share <= most


def test_a_solver_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "poselib", None)
    with pytest.raises(ProbeError, match=r"poselib is not installed: pip install 'mumkit\[probes\]'"):
        solve_all([problem(0)[0]], SolverConfig(), seed=0)


def test_a_solver_with_other_option_names_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import poselib

    monkeypatch.setattr(poselib, "RansacOptions", lambda: {"max_error": 1.0})
    with pytest.raises(ProbeError, match=r"install poselib 2\.0"):
        solve_all([problem(0)[0]], SolverConfig(), seed=0)
