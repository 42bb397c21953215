"""Metrics against numbers worked out by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial import distance
from scipy.spatial.transform import Rotation

from probes.metrics.correspondence import (
    end_point_errors,
    patch_centres,
    patch_of,
    patch_step,
    pck,
    robust_threshold,
    score_chance,
    score_pair,
    viewing_angle,
)


def test_end_point_errors_are_distances() -> None:
    errors = end_point_errors(np.array([[0, 0], [3, 4], [1, 1]]), np.array([[0, 0], [0, 0], [1, 2.5]]))
    np.testing.assert_allclose(errors, [0, 5, 1.5])


def test_end_point_errors_are_those_of_scipy() -> None:
    rng = np.random.default_rng(0)
    predicted, target = rng.uniform(0, 448, (2, 50, 2))
    np.testing.assert_allclose(
        end_point_errors(predicted, target), np.diag(distance.cdist(predicted, target)), rtol=1e-12
    )


def test_end_point_errors_refuse_points_that_do_not_correspond() -> None:
    with pytest.raises(ValueError, match=r"\(3, 2\) and \(2, 2\)"):
        end_point_errors(np.zeros((3, 2)), np.zeros((2, 2)))


def test_pck_counts_errors_strictly_below() -> None:
    assert pck(np.array([0.5, 1.0, 2.9, 3.0]), 3) == 0.75
    assert pck(np.array([1.0]), 1) == 0.0


def test_score_of_a_pair_golden() -> None:
    score = score_pair(np.array([0.5, 2.0, 4.0, 6.0, 37.5]), patch=8, size=448)
    assert score.to_dict() == pytest.approx(
        {"epe": 10, "median": 4, "pck1": 0.2, "pck3": 0.4, "pck5": 0.6, "pck_patch": 0.8, "robust": 0.8}
    )


def test_robustness_is_in_proportion_to_the_size() -> None:
    assert robust_threshold(448) == 32
    assert robust_threshold(64) == pytest.approx(32 / 7)
    assert score_pair(np.array([4.5, 4.6]), patch=8, size=64).robust == 0.5


def test_a_pair_without_queries_is_refused() -> None:
    with pytest.raises(ValueError, match="without a visible query"):
        score_pair(np.array([]), patch=8, size=64)


def test_patch_centres_run_row_by_row() -> None:
    np.testing.assert_allclose(patch_centres(2, 2, 16), [[4, 4], [12, 4], [4, 12], [12, 12]])
    np.testing.assert_allclose(patch_centres(1, 3, 12), [[2, 6], [6, 6], [10, 6]])


@given(st.integers(1, 9), st.integers(1, 9), st.integers(8, 500))
def test_a_centre_lies_in_its_own_patch(rows: int, columns: int, size: int) -> None:
    centres = patch_centres(rows, columns, size)
    np.testing.assert_array_equal(patch_of(centres, rows, columns, size), np.arange(rows * columns))


def test_points_on_the_far_edge_stay_in_the_last_patch() -> None:
    assert patch_of(np.array([[16.0, 16.0], [-0.1, 3]]), 2, 2, 16).tolist() == [3, 0]


def test_chance_is_the_mean_over_all_centres() -> None:
    centres = np.array([[0.0, 0.0], [3.0, 4.0]])
    score = score_chance(centres, np.array([[0.0, 0.0]]), patch=4, size=64)
    assert (score.epe, score.pck_patch) == (2.5, 0.5)


def test_viewing_angle_between_two_cameras_at_a_point() -> None:
    # Cameras at (-1, 0, 0) and (1, 0, 0), both looking along +z at (0, 0, 1): rays at 45 degrees either way.
    k = np.array([[100.0, 0, 50], [0, 100, 50], [0, 0, 1]])
    point_a, point_b = np.array([[150.0, 50.0]]), np.array([[-50.0, 50.0]])
    assert viewing_angle(point_a, point_b, k, k, np.eye(3), np.eye(3)) == pytest.approx(90)


def test_viewing_angle_ignores_a_camera_turning_on_the_spot() -> None:
    k = np.array([[100.0, 0, 50], [0, 100, 50], [0, 0, 1]])
    c, s = np.cos(0.3), np.sin(0.3)
    turn = np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]])
    ray = turn @ np.array([0, 0, 1.0])
    seen = (k @ ray)[:2] / ray[2]
    assert viewing_angle(np.array([[50.0, 50.0]]), seen[None], k, k, np.eye(3), turn) == pytest.approx(
        0, abs=1e-5
    )


def test_a_patch_is_the_longer_step_of_the_grid() -> None:
    assert patch_step((8, 8), 64) == 8
    assert patch_step((4, 8), 64) == 8


@given(st.integers(0, 999))
def test_viewing_angle_is_the_same_from_either_view_and_in_any_world(seed: int) -> None:
    rng = np.random.default_rng(seed)
    k = np.array([[80.0, 0, 32], [0, 90, 30], [0, 0, 1]])
    a, b = rng.uniform(0, 64, (2, 7, 2))
    turns = Rotation.random(3, rng=rng).as_matrix()
    forth = viewing_angle(a, b, k, k, turns[0], turns[1])
    assert viewing_angle(b, a, k, k, turns[1], turns[0]) == pytest.approx(forth)
    assert viewing_angle(a, b, k, k, turns[0] @ turns[2], turns[1] @ turns[2]) == pytest.approx(forth)
