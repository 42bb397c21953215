"""The depth probe: bins, loss, range, and what it says of units."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from probes.benchmarks import open_benchmark
from probes.data.frames import Benchmark, Frame
from probes.data.square import SquareFrames
from probes.dense.depth import PROBE, DepthTarget
from probes.dense.training import Training
from probes.errors import ProbeError
from probes.probe import Settings
from tests.probes.truth import NamedEncoder, noise_maps
from tests.trees import nyu
from tests.trees.world import render_world


def target(benchmark: Benchmark, truths: list[np.ndarray] | None = None, **changes: Any) -> DepthTarget:
    config = PROBE.config(benchmark, Settings(size=8, preset="small"))
    changes = {"range": (1.0, 9.0), "bins": 5, "spacing": "linear"} | changes
    found = DepthTarget(config=replace(config, **changes))
    found.learn(truths or [np.full((8, 8), 2.0, np.float32)])
    return found


def frame(**known: Any) -> SquareFrames:
    one = Frame(name="f", scene="s", height=4, width=4, image=lambda: None, digest=lambda: "", **known)
    return SquareFrames([one], 4, "crop")


def test_depth_is_the_weighted_mean_of_the_bins(benchmark: Benchmark) -> None:
    outputs = torch.zeros(1, 5, 1, 2)
    outputs[0, 3, 0, 1] = 0.9
    outputs[0, 0, 0, 1] = -7
    found = target(benchmark).activate(outputs)[0, 0, 0]
    # Bins at 1, 3, 5, 7, 9; a negative output weighs as much as 0.
    assert found.tolist() == pytest.approx([5, (0.1 * (1 + 3 + 5 + 9) + 1.0 * 7) / 1.4])


def test_bins_may_be_spaced_in_log_depth(benchmark: Benchmark) -> None:
    found = target(benchmark, spacing="log", range=(1.0, 16.0))
    assert found._centres.tolist() == pytest.approx([1, 2, 4, 8, 16])


def test_loss_worked_out_by_hand(benchmark: Benchmark) -> None:
    truth = torch.tensor([[[1.0, 2.0], [4.0, 0.0]], [[1.0, 1.0], [0.0, 0.0]]])
    error = torch.tensor([[[0.1, 0.3], [0.2, 9.0]], [[1.0, 1.0], [5.0, 5.0]]])
    predicted = (truth.where(truth > 0, 1) * error.exp())[:, None]
    first, all_ = np.array([0.1, 0.3, 0.2]), np.array([0.1, 0.3, 0.2, 1, 1])

    def expected(g: np.ndarray) -> float:
        return float(np.sqrt(g.var() + 0.15 * g.mean() ** 2))

    over_image = target(benchmark, loss_over="image").loss(predicted, truth)
    assert float(over_image) == pytest.approx((expected(first) + expected(np.ones(2))) / 2, rel=1e-4)
    over_batch = target(benchmark, loss_over="batch").loss(predicted, truth)
    assert float(over_batch) == pytest.approx(expected(all_), rel=1e-4)


@pytest.mark.parametrize("over", ["image", "batch"])
def test_the_loss_of_nothing_known_and_of_no_error_has_finite_slopes(benchmark: Benchmark, over: str) -> None:
    for truth in (torch.zeros(2, 4, 4), torch.full((2, 4, 4), 3.0)):
        predicted = torch.full((2, 1, 4, 4), 3.0, requires_grad=True)
        loss = target(benchmark, loss_over=over).loss(predicted, truth)
        loss.backward()
        assert loss.item() == pytest.approx(0, abs=2e-4) and torch.isfinite(predicted.grad).all()


def test_truth_outside_the_range_or_the_mask_is_unknown(benchmark: Benchmark) -> None:
    depth = np.array([[0.5, 1, 5, 9], [10, 0, np.inf, np.nan], [2, 2, 2, 2], [2, 2, 2, 2]], np.float32)
    mask = np.ones((4, 4), bool)
    mask[3] = False
    truth = target(benchmark).read(frame(depth=lambda: depth, mask=lambda: mask), 0)
    assert truth.tolist() == [[0, 1, 5, 9], [0, 0, 0, 0], [2, 2, 2, 2], [0, 0, 0, 0]]
    free = target(benchmark, range=None).read(frame(depth=lambda: depth), 0)
    assert free[0, 0] == 0.5 and free[1].tolist() == [10, 0, 0, 0]


def test_without_a_range_the_bins_cover_the_training_depths(benchmark: Benchmark) -> None:
    rng = np.random.default_rng(0)
    truths = [rng.uniform(2, 6, (8, 8)).astype(np.float32) * (rng.random((8, 8)) < 0.9) for _ in range(20)]
    found = DepthTarget(config=replace(target(benchmark).config, range=None))
    chosen = found.learn(truths)["depth_range"]
    assert 1.5 < chosen["chosen"][0] < 2.1 and 5.9 < chosen["chosen"][1] < 7 and "training" in chosen["on"]
    assert found._centres[0] == pytest.approx(chosen["chosen"][0])
    assert target(benchmark).learn(truths) == {}


def test_guesses_are_geometric_means_of_known_depths(benchmark: Benchmark) -> None:
    one, two = np.full((8, 8), 2.0, np.float32), np.full((8, 8), 8.0, np.float32)
    one[0, 0] = one[1, 1] = two[1, 1] = 0
    found = target(benchmark, [one, two])
    assert found.guesses()["mean depth"][[0, 4], [0, 4]].tolist() == pytest.approx([8, 4])
    # 62 pixels of depth 2 and 63 of depth 8; a place that nobody saw gets the mean of all.
    overall = np.exp((62 * np.log(2) + 63 * np.log(8)) / 125)
    assert found.guesses()["constant depth"][3, 3] == pytest.approx(overall)
    assert found.guesses()["mean depth"][1, 1] == pytest.approx(overall)


def test_no_depth_at_all_is_one_sentence(benchmark: Benchmark) -> None:
    with pytest.raises(ProbeError, match="no training frame has a known depth"):
        target(benchmark, [np.zeros((8, 8), np.float32)])


def test_scores_name_their_alignment(benchmark: Benchmark) -> None:
    truth = np.linspace(1, 5, 64, dtype=np.float32).reshape(8, 8)
    scored = target(benchmark).score(3 * truth, truth)
    assert scored["abs_rel"] == pytest.approx(2) and scored["delta1"] == 0
    assert scored["abs_rel_median"] == pytest.approx(0, abs=1e-6) and scored["delta1_affine"] == 1
    assert set(scored) == {metric.name for metric in PROBE.metrics}
    assert set(target(benchmark).failure(truth)) == set(scored)


def test_units_must_agree_and_unstated_ones_are_noted(benchmark: Benchmark) -> None:
    config = PROBE.config(benchmark, Settings(size=64, preset="small"))
    with pytest.raises(ProbeError, match=r"in m and .* in mm"):
        PROBE.open(replace(benchmark, unit="m"), replace(benchmark, unit="mm"), config)
    assert "scale of its depths is not stated" in PROBE.open(benchmark, benchmark, config).notes[0]
    assert not PROBE.open(replace(benchmark, unit="m"), benchmark, config).notes


def test_the_standard_recipe_is_the_published_one(benchmark: Benchmark) -> None:
    config = PROBE.config(replace(benchmark, unit="m", depth_range=(0.001, 10)), Settings(size=448))
    assert (config.bins, config.linear.steps, config.linear.lr, config.linear.batch) == (
        256,
        38_400,
        3e-4,
        16,
    )
    assert (config.spacing, config.loss_over, config.range) == ("linear", "batch", (0.001, 10))


def test_pictures_take_the_scale_of_the_truth(benchmark: Benchmark) -> None:
    truth = np.linspace(1, 5, 64, dtype=np.float32).reshape(8, 8)
    found = target(benchmark)
    assert np.array_equal(found.colours(2 * truth, truth), found.colours(truth, truth))
    near, far = found.colours(truth, truth)[[0, -1], [0, -1]].astype(int).sum(axis=1)
    assert near > far
    truth[0, 0] = 0
    assert found.colours(truth, truth)[0, 0].tolist() == [128] * 3
    assert (found.colours(np.zeros((8, 8)), truth) == 128).all()
    assert (found.colours(truth, np.zeros((8, 8))) == 128).all()


def test_nyu_is_scored_inside_its_crop_in_metres(tmp_path: Path) -> None:
    nyu.write(tmp_path, render_world(6, size=nyu.SIZE))
    found = open_benchmark(f"nyu:{tmp_path}")
    config = PROBE.config(found, Settings(size=48, preset="small", readings=("linear",)))
    quick = Training(steps=3, batch=2, lr=1e-2, weight_decay=0.0)
    task = PROBE.open(found, found, replace(config, linear=quick))
    unit = task.score(NamedEncoder(), {1: noise_maps(len(task.frames), (4, 4))}, torch.device("cpu"))
    assert {row["item"] for row in unit.rows} == {f"{number:04d}" for number in nyu.TEST}
    inside = int(task.frames.mask(0).sum())
    assert 0.7 * 48 * 48 < inside < 48 * 48
    assert all(0.9 * inside < row["pixels"] <= inside for row in unit.rows)
    assert (config.range, config.spacing, task.facts["unit"], task.notes) == ((0.001, 10), "linear", "m", [])
    assert unit.selections == {}
