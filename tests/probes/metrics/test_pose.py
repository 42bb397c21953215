"""Pose metrics against hand-computed values, the peers' own formulas, OpenCV, scipy and evo."""

import cv2
import numpy as np
import pytest
from evo.core import metrics as evo
from evo.core.trajectory import PosePath3D
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.spatial.transform import Rotation

from probes.metrics.pose import (
    INTEGRATIONS,
    absolute_trajectory_error,
    auc,
    auc_statistic,
    camera_centres,
    median_statistic,
    recall_statistic,
    relative_pose_errors,
    rotation_errors,
    translation_errors,
)

some_errors = arrays.arrays(np.float64, st.integers(1, 30), elements=st.floats(0, 40) | st.just(np.inf))


def turn(axis: str, degrees: float) -> np.ndarray:
    return Rotation.from_euler(axis, degrees, degrees=True).as_matrix()


@pytest.mark.parametrize("degrees", [0, 1e-6, 1, 45, 90, 179.9999, 180])
def test_rotation_error_is_the_angle_of_the_turn(degrees: float) -> None:
    start = turn("z", 33)
    assert rotation_errors(turn("x", degrees) @ start, start) == pytest.approx(degrees, abs=1e-9)


def test_rotation_errors_agree_with_opencv_and_scipy() -> None:
    predicted, true = (Rotation.random(50, rng=np.random.default_rng(seed)) for seed in (0, 1))
    found = rotation_errors(predicted.as_matrix(), true.as_matrix())
    np.testing.assert_allclose(found, np.degrees((predicted * true.inv()).magnitude()), atol=1e-9)
    vectors = [cv2.Rodrigues(m)[0] for m in predicted.as_matrix() @ true.inv().as_matrix()]
    np.testing.assert_allclose(found, np.degrees(np.linalg.norm(vectors, axis=(1, 2))), atol=1e-6)


def test_translation_error_folded_and_signed() -> None:
    predicted = np.array([[2.0, 0, 0], [-3, 0, 0], [0, 0.1, 0], [-1, 1, 0]])
    true = np.array([5.0, 0, 0])
    np.testing.assert_allclose(translation_errors(predicted, true, folded=False), [0, 180, 90, 135])
    np.testing.assert_allclose(translation_errors(predicted, true, folded=True), [0, 0, 90, 45], atol=1e-12)


def test_tiny_angles_between_translations_are_not_rounded_away() -> None:
    small = np.radians(1e-7)
    found = translation_errors(
        np.array([np.cos(small), np.sin(small), 0]), np.array([1.0, 0, 0]), folded=True
    )
    assert found == pytest.approx(1e-7, rel=1e-6)


def test_a_prediction_that_is_missing_has_an_infinite_error() -> None:
    nothing = np.full(3, np.nan)
    assert rotation_errors(np.full((3, 3), np.nan), np.eye(3)) == np.inf
    for folded in (True, False):
        assert translation_errors(nothing, np.ones(3), folded=folded) == np.inf
        assert translation_errors(np.zeros(3), np.ones(3), folded=folded) == np.inf


def test_where_the_truth_has_no_direction_there_is_no_error() -> None:
    assert np.isnan(translation_errors(np.ones(3), np.zeros(3), folded=True))


def test_areas_by_hand() -> None:
    # Recall is 0 up to 1, 1/4 up to 2.5, 2/4 up to 4, 3/4 up to 5; the last pair failed.
    errors = np.array([4.0, 1.0, 2.5, np.inf])
    assert auc(errors, 5, "exact") == pytest.approx((0.25 * 1.5 + 0.5 * 1.5 + 0.75 * 1) / 5)
    by_lines = 0.125 * 1 + 0.375 * 1.5 + 0.625 * 1.5 + 0.75 * 1
    assert auc(errors, 5, "trapezoid") == pytest.approx(by_lines / 5)
    # Shares of the bins [0, 1) .. [4, 5]: 0, 1, 1, 0, 1 of four; cumulative 0, 1, 2, 2, 3.
    assert auc(errors, 5, "histogram") == pytest.approx((0 + 1 + 2 + 2 + 3) / 4 / 5)


@pytest.mark.parametrize("kind", INTEGRATIONS)
def test_all_perfect_is_one_and_all_failed_is_zero(kind: str) -> None:
    assert auc(np.zeros(7), 10, kind) == 1
    assert auc(np.full(7, np.inf), 10, kind) == 0
    assert auc(np.full(7, np.nan), 10, kind) == 0


def superglue(errors: np.ndarray, threshold: float) -> float:
    """The trapezoid as SuperGlue and its heirs write it."""
    errors = np.concatenate([[0], np.sort(errors)])
    shares = np.arange(len(errors)) / (len(errors) - 1)
    last = np.searchsorted(errors, threshold)
    return np.trapezoid(np.r_[shares[:last], shares[last - 1]], x=np.r_[errors[:last], threshold]) / threshold


def posediffusion(errors: np.ndarray, threshold: int) -> float:
    """The histogram as PoseDiffusion and its heirs write it."""
    counts, _ = np.histogram(errors[np.isfinite(errors)], bins=np.arange(threshold + 1))
    return np.cumsum(counts / len(errors)).mean()


@settings(deadline=None)
@given(some_errors, st.sampled_from([3, 5, 10, 20, 30]))
def test_areas_equal_the_peers_own_formulas(errors: np.ndarray, threshold: int) -> None:
    assert auc(errors, threshold, "trapezoid") == pytest.approx(superglue(errors, threshold))
    assert auc(errors, threshold, "histogram") == pytest.approx(posediffusion(errors, threshold))


def test_the_exact_area_is_that_under_a_fine_recall_curve() -> None:
    errors = np.random.default_rng(0).gamma(2, 4, 200)
    grid = (np.arange(100_000) + 0.5) / 100_000 * 10
    by_counting = np.searchsorted(np.sort(errors), grid, side="right").mean() / len(errors)
    assert auc(errors, 10, "exact") == pytest.approx(by_counting, abs=1e-5)


@settings(deadline=None)
@given(some_errors, st.sampled_from(INTEGRATIONS), st.integers(0, 1000))
def test_a_weighted_area_is_that_of_the_items_drawn(errors: np.ndarray, kind: str, seed: int) -> None:
    weights = np.random.default_rng(seed).multinomial(len(errors), np.full(len(errors), 1 / len(errors)), 4)
    expected = [auc(np.repeat(errors, row), 5, kind) for row in weights]
    np.testing.assert_allclose(auc_statistic(5, kind)(errors, weights.astype(float)), expected, atol=1e-12)


@settings(deadline=None)
@given(some_errors, st.integers(0, 1000))
def test_a_weighted_median_is_that_of_the_items_drawn(errors: np.ndarray, seed: int) -> None:
    weights = np.random.default_rng(seed).multinomial(len(errors), np.full(len(errors), 1 / len(errors)), 4)
    expected = [np.median(np.repeat(errors, row)) for row in weights]
    np.testing.assert_allclose(median_statistic(errors, weights.astype(float)), expected)


@pytest.mark.parametrize(
    "statistic", [*(auc_statistic(5, k) for k in INTEGRATIONS), recall_statistic(5), median_statistic]
)
def test_nothing_drawn_has_no_score(statistic) -> None:
    assert np.isnan(statistic(np.array([1.0, np.inf]), np.zeros((2, 2)))).all()


def test_recall_counts_errors_strictly_below() -> None:
    errors = np.array([1.0, 5.0, 4.999, np.inf, np.nan])
    assert recall_statistic(5)(errors, np.ones((1, len(errors)))) == pytest.approx(2 / 5)
    np.testing.assert_allclose(recall_statistic(5)(errors, np.array([[2.0, 1, 1, 0, 0]])), [3 / 4])


def test_an_unknown_integration_and_a_broken_bin_are_refused() -> None:
    with pytest.raises(ValueError, match="known are exact, trapezoid, histogram"):
        auc(np.zeros(1), 5, "simpson")
    with pytest.raises(ValueError, match=r"of 2\.5 degrees"):
        auc(np.zeros(1), 2.5, "histogram")


def trajectories(seed: int, *, scale: float = 2.5) -> tuple[np.ndarray, np.ndarray]:
    """Predicted and true (12, 3, 4) world-to-camera poses: the truth in another frame and scale, with noise."""
    rng = np.random.default_rng(seed)
    rotations, centres = Rotation.random(12, rng=rng).as_matrix(), rng.normal(size=(12, 3)) * 3
    true = np.concatenate([rotations, -rotations @ centres[..., None]], axis=2)
    world = Rotation.random(rng=rng).as_matrix()
    noisy = Rotation.from_rotvec(rng.normal(size=(12, 3)) * 0.05).as_matrix() @ rotations @ world.T
    moved = scale * (centres + rng.normal(size=(12, 3)) * 0.1) @ world.T + 1
    return np.concatenate([noisy, -noisy @ moved[..., None]], axis=2), true


def evo_path(poses: np.ndarray) -> PosePath3D:
    bottom = np.tile([[[0, 0, 0, 1.0]]], (len(poses), 1, 1))
    return PosePath3D(poses_se3=list(np.linalg.inv(np.concatenate([poses, bottom], axis=1))))


def evo_aligned(poses: tuple[np.ndarray, np.ndarray], scale: bool) -> tuple[PosePath3D, PosePath3D]:
    predicted, true = map(evo_path, poses)
    predicted.align(true, correct_scale=scale)
    return true, predicted


@pytest.mark.parametrize("scale", [True, False])
def test_trajectory_error_agrees_with_evo(scale: bool) -> None:
    poses = trajectories(3, scale=2.5 if scale else 1.0)
    reference = evo.APE(evo.PoseRelation.translation_part)
    reference.process_data(evo_aligned(poses, scale))
    expected = reference.get_statistic(evo.StatisticsType.rmse)
    assert absolute_trajectory_error(*poses, scale=scale) == pytest.approx(expected)


@pytest.mark.parametrize("step", [1, 3])
@pytest.mark.parametrize("scale", [True, False])
def test_relative_errors_agree_with_evo(scale: bool, step: int) -> None:
    poses = trajectories(4, scale=2.5 if scale else 1.0)
    relations = evo.PoseRelation.translation_part, evo.PoseRelation.rotation_angle_deg
    expected = []
    for relation in relations:
        reference = evo.RPE(relation, delta=step, delta_unit=evo.Unit.frames, all_pairs=True)
        reference.process_data(evo_aligned(poses, scale))
        expected.append(reference.get_statistic(evo.StatisticsType.rmse))
    assert relative_pose_errors(*poses, step=step, scale=scale) == pytest.approx(expected)


def test_trajectory_error_by_hand() -> None:
    # Centres on a line at 0, 1, 2; the middle one is predicted 0.3 too high. The best line lies 0.1 higher.
    true = np.tile(np.eye(3, 4), (3, 1, 1))
    true[:, 0, 3] = [0, -1, -2]
    predicted = true.copy()
    predicted[1, 1, 3] = -0.3
    np.testing.assert_allclose(camera_centres(predicted), [[0, 0, 0], [1, 0.3, 0], [2, 0, 0]])
    off = np.sqrt((0.1**2 + 0.2**2 + 0.1**2) / 3)
    assert absolute_trajectory_error(predicted, true, scale=False) == pytest.approx(off)


def test_a_trajectory_in_another_frame_and_scale_is_perfect() -> None:
    _, true = trajectories(5)
    world = np.block([[7 * turn("y", 50), np.ones((3, 1))], [np.zeros((1, 3)), np.ones((1, 1))]])
    moved = true @ np.linalg.inv(world)
    moved /= np.cbrt(np.linalg.det(moved[:, :, :3]))[:, None, None]
    assert absolute_trajectory_error(moved, true) == pytest.approx(0, abs=1e-9)
    assert relative_pose_errors(moved, true) == pytest.approx((0, 0), abs=1e-6)


def test_a_trajectory_that_is_not_finite_has_failed() -> None:
    predicted, true = trajectories(6)
    predicted[2] = np.nan
    assert absolute_trajectory_error(predicted, true) == np.inf
    assert relative_pose_errors(predicted, true) == (np.inf, np.inf)


def test_too_few_poses_for_a_motion_are_refused() -> None:
    predicted, true = trajectories(7)
    with pytest.raises(ValueError, match="12 poses have no motion over 12 frames"):
        relative_pose_errors(predicted, true, step=12)
