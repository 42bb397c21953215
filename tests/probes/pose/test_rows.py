"""Rows of the pose probe and the scores that are made of them."""

import numpy as np
import pytest

from probes.data.pairs import Pair
from probes.metrics.pose import INTEGRATIONS, auc
from probes.pose.rows import METRICS, near_zero_baselines, own_auc_statistic, pair_row


def pair(translation: tuple[float, float, float] = (2, 0, 0), angle: float | None = 20.0) -> Pair:
    nothing = np.empty((0, 2))
    pose = np.column_stack([np.eye(3), translation])
    return Pair(
        name="p", scene="s", a=0, b=1, angle=angle, overlap=0.5,
        queries=nothing, targets=nothing, relative_pose=pose,
    )  # fmt: skip


def row(pose: np.ndarray, of: Pair | None = None, **options: object) -> dict:
    given = {"reading": "head", "layer": 2, "seed": 0, "auc": "trapezoid"} | options
    return pair_row(of or pair(), pose, **given)


def test_a_backward_translation_is_right_when_folded_and_wrong_when_signed() -> None:
    found = row(np.column_stack([np.eye(3), [-1, 0, 0]]))
    assert (found["translation_error"], found["translation_error_signed"]) == (0, 180)
    assert (found["pose_error"], found["pose_error_signed"]) == (0, 180)
    assert not found["failed"]


def test_the_larger_of_both_angles_is_the_error() -> None:
    turned = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    assert row(np.column_stack([turned, [1, 0, 0]]))["pose_error"] == pytest.approx(90)
    tilted = np.column_stack([np.eye(3), [1, 1, 0]])
    assert row(tilted)["pose_error"] == pytest.approx(45)


def test_a_failure_has_infinite_errors_and_counts() -> None:
    found = row(np.full((3, 4), np.nan), matches=3, inliers=0)
    assert found["failed"]
    assert {found[name] for name in ("pose_error", "pose_error_signed", "rotation_error")} == {np.inf}
    assert found["inliers"] == 0
    assert row(np.full((3, 4), np.nan), matches=0, inliers=0)["inliers"] is None


def test_a_pair_that_does_not_move_is_judged_by_its_rotation() -> None:
    found = row(np.column_stack([np.eye(3), [1, 0, 0]]), pair((0, 0, 0)))
    assert found["translation_error"] is None
    assert found["pose_error"] == 0


def test_pairs_that_hardly_move_are_counted() -> None:
    by_angle = [pair(angle=0.5), pair(angle=30), pair((1e-4, 0, 0), angle=30)]
    assert near_zero_baselines(by_angle) == 1
    by_length = [pair((x, 0, 0), angle=None) for x in (1.0, 2.0, 1e-3, 0.0)]
    assert near_zero_baselines(by_length) == 2


@pytest.mark.parametrize("kind", INTEGRATIONS)
def test_the_headline_is_integrated_as_the_data_asks(kind: str) -> None:
    errors = np.array([1.0, 2.6, 7, np.inf])
    values = np.column_stack([errors, np.full(4, INTEGRATIONS.index(kind))])
    found = own_auc_statistic(5)(values, np.ones((1, 4)))
    assert found == pytest.approx(auc(errors, 5, kind))
    assert len({auc(errors, 5, kind) for kind in INTEGRATIONS}) == 3


def test_signed_areas_are_made_of_signed_errors() -> None:
    back = row(np.column_stack([np.eye(3), [-1, 0, 0]]))
    score = {
        metric.name: metric.statistic(np.array([back[metric.source]]), np.ones((1, 1)))[0]
        for metric in METRICS
        if metric.name in ("auc20_trapezoid", "auc20_signed_trapezoid", "rra15", "rta15")
    }
    assert score == {"auc20_trapezoid": 1, "auc20_signed_trapezoid": 0, "rra15": 1, "rta15": 1}


def test_every_metric_has_its_column_and_every_integration_its_name() -> None:
    columns = row(np.column_stack([np.eye(3), [1, 0, 0]]), matches=8, inliers=6)
    for metric in METRICS:
        assert columns[metric.source] is not None
    names = [metric.name for metric in METRICS]
    assert len(set(names)) == len(names)
    assert {f"auc{t}_{kind}" for t in (5, 10, 20) for kind in INTEGRATIONS} <= set(names)
    assert {"rra5", "rra15", "rra30", "rta5", "rta15", "rta30"} <= set(names)
