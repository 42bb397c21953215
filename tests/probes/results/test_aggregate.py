"""Rows to scores, by hand: seeds, failures, columns that are missing, differences and who may be called better."""

import math
from dataclasses import replace

import numpy as np
import pytest

from probes.probe import Metric
from probes.results import aggregate
from probes.results.aggregate import (
    Difference,
    difference,
    difference_lines,
    final_layer,
    sample,
    table_line,
    verdict,
)
from tests.probes.made_results import auc5

EPE = Metric(name="epe", label="mean error", better="less")
AUC = Metric(name="auc", label="AUC", column="error", statistic=auc5)


def row(item: str, seed: int | None = None, **values: object) -> dict:
    return {"item": item, "scene": item[0], "seed": seed, "failed": False, **values}


def line(rows: list[dict], metric: Metric) -> dict:
    return table_line(("p", "d", "linear", "kept", "e", 3), rows, [metric])


def test_seeds_are_averaged_per_item_and_their_deviation_is_of_the_scores() -> None:
    rows = [row("a1", 0, epe=1.0), row("a1", 1, epe=3.0), row("b1", 0, epe=4.0), row("b1", 1, epe=8.0)]
    found = line(rows, EPE)
    assert (found["items"], found["scenes"]) == (2, 2)
    assert found["epe"] == 4
    assert found["epe_seed_sd"] == pytest.approx(np.std([2.5, 5.5], ddof=1))
    assert line(rows[::2], EPE)["epe_seed_sd"] is None


def test_score_that_is_no_mean_is_averaged_over_seeds_not_its_errors() -> None:
    rows = [
        row("a1", 0, error=0.0),
        row("a1", 1, error=math.inf),
        row("b1", 0, error=2.5),
        row("b1", 1, error=5.0),
    ]
    # Seed 0: (1 + 0.5) / 2, seed 1: 0; the mean error of a1 would be infinite under both.
    assert line(rows, AUC)["auc"] == pytest.approx(0.375)


def test_failures_are_counted_and_make_the_mean_infinite() -> None:
    rows = [row("a1", epe=1.0), row("b1", epe=math.inf) | {"failed": True}]
    found = line(rows, EPE)
    assert (found["failed"], found["epe"]) == (1, math.inf)


def test_item_without_the_metric_is_left_out_and_counted() -> None:
    found = line([row("a1", epe=1.0), row("b1", epe=None), row("c1", epe=3.0)], EPE)
    assert (found["items"], found["epe"], found["epe_items"]) == (3, 2, 2)
    assert line([row("a1", epe=None)], EPE)["epe"] is None


def test_item_that_a_seed_lacks_is_left_out_and_counted() -> None:
    rows = [row("a1", 0, epe=1.0), row("a1", 1, epe=1.0), row("b1", 0, epe=9.0), row("c1", 0, epe=3.0)]
    found = line([*rows, row("c1", 1, epe=5.0)], EPE)
    assert (found["items"], found["epe"], found["epe_items"]) == (3, 2.5, 2)


def test_one_scene_has_no_interval() -> None:
    found = line([row("a1", epe=1.0), row("a2", epe=2.0)], EPE)
    assert (found["epe"], found["epe_lo"], found["epe_hi"]) == (1.5, None, None)


@pytest.mark.parametrize(("unit", "scale", "most"), [("%", 100, 1.0), ("°", 1, 180.0)])
def test_interval_stays_where_scores_can_be(unit: str, scale: float, most: float) -> None:
    share = Metric(name="share", label="share", unit=unit, scale=scale)
    rows = [row(f"{scene}1", share=most * value) for scene, value in zip("abcd", (0.4, 1, 1, 1), strict=True)]
    found = line(rows, share)
    assert found["share_lo"] < 0.85 * most and found["share_hi"] == most
    assert line(rows, replace(share, unit="px"))["share_hi"] > most
    lost = line([*rows, row("e1", share=math.inf)], share)
    assert lost["share"] == lost["share_hi"] == math.inf


def test_lists_reach_the_statistic_as_columns() -> None:
    def iou(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
        sums = weights @ values
        return sums[:, 0] / sums[:, 1]

    metric = Metric(name="iou", label="IoU", column="counts", statistic=iou)
    rows = [row("a1", counts=[1, 4]), row("b1", counts=[3, 4])]
    assert line(rows, metric)["iou"] == 0.5
    seeds = [one | {"seed": seed} for one in rows for seed in (0, 1)]
    assert line(seeds, metric)["iou"] == 0.5


def test_item_twice_under_one_seed_is_an_error() -> None:
    with pytest.raises(ValueError, match="two rows of item 'a1'"):
        sample([row("a1", epe=1.0), row("a1", epe=2.0)], EPE)


def test_difference_is_of_shared_items_whatever_their_order() -> None:
    a = sample([row("b1", epe=5.0), row("a1", epe=1.0), row("c1", epe=100.0)], EPE)
    b = sample([row("a1", epe=2.0), row("b1", epe=4.0), row("d1", epe=0.0)], EPE)
    found = difference(a, b)
    assert (found.a, found.b, found.mean, found.items, found.scenes) == (3, 3, 0, 2, 2)
    assert difference(a, sample([row("x1", epe=1.0)], EPE)) is None


@pytest.mark.parametrize("metric", [EPE, AUC])
def test_sides_may_have_other_numbers_of_seeds(metric: Metric) -> None:
    column = metric.source
    once = [row(f"{scene}1", **{column: float(k)}) for k, scene in enumerate("abcdefgh")]
    twice = [one | {"seed": seed} for one in once for seed in (0, 1)]
    found = difference(sample(once, metric), sample(twice, metric))
    assert found.mean == pytest.approx(0)
    assert found.lo == pytest.approx(0)


def test_failures_of_both_sides_leave_no_difference() -> None:
    rows = [row(f"{scene}1", epe=math.inf if scene == "a" else 1.0) for scene in "abcdefgh"]
    found = difference(sample(rows, EPE), sample(rows, EPE))
    assert (found.a, found.mean) == (math.inf, None)
    assert verdict(found, 0.001, EPE) == "undecided"


def made(p: float | None, mean: float = -1.0, scenes: int = 10) -> Difference:
    return Difference(0.0, -mean, mean, None, None, p, 10, scenes)


@pytest.mark.parametrize(
    ("mean", "p", "scenes", "metric", "expected"),
    [
        (-1.0, 0.01, 10, EPE, "better"),
        (1.0, 0.01, 10, EPE, "worse"),
        (1.0, 0.01, 10, AUC, "better"),
        (1.0, 0.05, 10, AUC, "undecided"),
        (1.0, None, 10, AUC, "undecided"),
        (1.0, None, 3, AUC, "too few scenes"),
    ],
)
def test_verdict_needs_scenes_and_the_corrected_test(
    mean: float, p: float | None, scenes: int, metric: Metric, expected: str
) -> None:
    assert verdict(made(p, mean, scenes), p, metric) == expected


def test_holm_runs_over_a_probes_metric_and_data_the_leading_reading_apart() -> None:
    of = {"probe": "matching", "data": "d"}
    lines = [(of, made(0.02), EPE, True), (of, made(0.03), EPE, True), (of, made(0.02), EPE, False)]
    lines += [(of | {"data": "e"}, made(0.04), EPE, True), (of, made(0.04), AUC, True)]
    assert [found["p_holm"] for found in difference_lines(lines)] == pytest.approx(
        [0.04, 0.04, 0.02, 0.04, 0.04]
    )


def test_headline_leads_what_is_tested() -> None:
    from tests.probes.made_results import PROBES

    assert [metric.name for metric in aggregate.compared(PROBES["matching"])] == [
        "epe",
        "pck_patch",
        "robust",
    ]


def test_selected_layer_stands_for_an_encoder_and_the_last_without_one() -> None:
    unit = {"probe": "p", "data": "d", "encoder": "e"}
    of = unit | {"reading": "knn", "position": "kept"}
    assert final_layer([1, 2, 3], [], of) == 3
    assert final_layer([None], [], of) is None
    assert final_layer([1, 2, 3], [unit | {"selected": {"layer": {"chosen": 2, "on": "held out"}}}], of) == 2
    assert final_layer([1, 2, 3], [unit | {"selected": {"layer": 1}}], of) == 1
    assert final_layer([1, 2, 3], [unit | {"encoder": "other", "selected": {"layer": 1}}], of) == 3
    by_reading = {
        "layer": {"best": {"knn, position kept": 2, "linear, position kept": 1}, "among": [1, 2, 3]}
    }
    assert final_layer([1, 2, 3], [unit | {"selected": by_reading}], of) == 2
    assert final_layer([1, 2, 3], [unit | {"selected": by_reading}], of | {"position": "removed"}) == 3


def test_score_of_one_item_alone() -> None:
    found = sample([row("a1", error=2.5), row("b1", error=9.0)], AUC)
    assert found.by_item == {"a1": 0.5, "b1": 0.0}
    mean = replace(EPE, name="error")
    assert sample([row("a1", 0, error=1.0), row("a1", 1, error=2.0)], mean).by_item == {"a1": 1.5}
