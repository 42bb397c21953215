"""A pair's row of the pose probe, and the scores that its columns make.

Errors are angles in degrees; a pair without a prediction has infinite ones. Nothing here knows features.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from probes.data.pairs import Pair
from probes.matching.task import pair_columns
from probes.metrics.pose import (
    INTEGRATIONS,
    Integration,
    auc_statistic,
    median_statistic,
    recall_statistic,
    rotation_errors,
    translation_errors,
)
from probes.probe import Metric, Row
from probes.statistics import Statistic

NEAR_ZERO_ANGLE = 1.0
"""Viewpoint angle in degrees below which a translation hardly shows."""
NEAR_ZERO_SHARE = 0.01
"""Of the median baseline of the list: the same where no point tells the angle."""


def pair_row(
    pair: Pair,
    pose: NDArray,
    *,
    reading: str,
    layer: int | None,
    seed: int | None,
    auc: Integration,
    matches: int | None = None,
    inliers: int | None = None,
) -> Row:
    """The row of a pair with a predicted pose.

    Args:
        pair: with its true `relative_pose`.
        pose: (3, 4), x_b = R x_a + t up to the length of t; nan where there is none.
        reading: as in `probes.probe.Row`, like layer and seed.
        layer: from 1, or None.
        seed: or None.
        auc: integration that the data's own figures use.
        matches: how many matches the pose was solved from; None where there are none.
        inliers: how many of them agree with it.
    """
    true, failed = pair.relative_pose, not np.isfinite(pose).all()
    rotation = float(rotation_errors(pose[:, :3], true[:, :3]))
    moves = np.linalg.norm(true[:, 3]) > 0
    folded, signed = (
        (float(translation_errors(pose[:, 3], true[:, 3], folded=folded)) if moves else None)
        for folded in (True, False)
    )
    # A pair that does not move has no direction to miss: its rotation alone counts.
    error, error_signed = (max(rotation, part if part is not None else 0.0) for part in (folded, signed))
    return {
        **pair_columns(pair, layer=layer, reading=reading, seed=seed, failed=failed),
        "baseline": float(np.linalg.norm(true[:, 3])),
        "rotation_error": rotation,
        "translation_error": folded,
        "translation_error_signed": signed,
        "pose_error": error,
        "pose_error_signed": error_signed,
        "pose_error_own": [error, INTEGRATIONS.index(auc)],
        "matches": matches,
        "inliers": None if not matches else inliers / matches,
    }


def near_zero_baselines(pairs: Sequence[Pair]) -> int:
    """How many pairs move too little for the direction of their translation to mean much.

    By the viewpoint angle where points tell it, else by the baseline against the median of all pairs.
    """
    lengths = np.array([np.linalg.norm(pair.relative_pose[:, 3]) for pair in pairs])
    short = lengths <= NEAR_ZERO_SHARE * np.median(lengths)
    return sum(
        bool(one) if pair.angle is None else pair.angle < NEAR_ZERO_ANGLE
        for pair, one in zip(pairs, short, strict=True)
    )


def own_auc_statistic(threshold: float) -> Statistic:
    """The area in the integration that the data's own figures use; values (n, 2): error and number of it."""
    by_kind = [auc_statistic(threshold, kind) for kind in INTEGRATIONS]

    def statistic(values: NDArray, weights: NDArray) -> NDArray:
        kinds = set(values[:, 1].astype(int).tolist())
        if len(kinds) != 1:
            raise ValueError("rows of several integrations cannot be one score")
        return by_kind[kinds.pop()](values[:, 0], weights)

    return statistic


def _area(threshold: int, kind: Integration, *, signed: bool = False) -> Metric:
    mark, words = ("_signed", ", signed t") if signed else ("", "")
    return Metric(
        name=f"auc{threshold}{mark}_{kind}",
        label=f"AUC@{threshold}° ({kind}{words})",
        unit="%",
        digits=1,
        scale=100,
        column=f"pose_error{mark}",
        statistic=auc_statistic(threshold, kind),
    )


def _median(name: str, label: str) -> Metric:
    return Metric(
        name=name,
        label=f"median {label} error",
        unit="°",
        better="less",
        digits=2,
        column=name,
        statistic=median_statistic,
    )


def recall_metric(name: str, threshold: int, column: str) -> Metric:
    """Share of errors below a threshold in degrees, such as RRA@15° of rotation errors."""
    return Metric(
        name=f"{name.lower()}{threshold}",
        label=f"{name}@{threshold}°",
        unit="%",
        digits=1,
        scale=100,
        column=column,
        statistic=recall_statistic(threshold),
    )


def _own_area(threshold: int) -> Metric:
    return Metric(
        name=f"auc{threshold}",
        label=f"AUC@{threshold}°",
        unit="%",
        digits=1,
        scale=100,
        column="pose_error_own",
        statistic=own_auc_statistic(threshold),
    )


METRICS: tuple[Metric, ...] = (
    _own_area(20),
    _median("pose_error", "pose"),
    _own_area(10),
    _own_area(5),
    *(_area(threshold, kind) for kind in INTEGRATIONS for threshold in (5, 10, 20)),
    *(_area(threshold, "trapezoid", signed=True) for threshold in (5, 10, 20)),
    _median("rotation_error", "rotation"),
    _median("translation_error", "translation"),
    _median("translation_error_signed", "signed translation"),
    *(recall_metric("RRA", threshold, "rotation_error") for threshold in (5, 15, 30)),
    *(recall_metric("RTA", threshold, "translation_error") for threshold in (5, 15, 30)),
    Metric(name="inliers", label="inliers", unit="%", digits=1, scale=100),
)
"""Of the probe: errors are folded but where called signed; an AUC without a name has the data's own integration."""
