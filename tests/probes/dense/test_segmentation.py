"""The segmentation probe: its loss and counts, classes that do not fit, and a data set's mIoU."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torchmetrics.functional.classification import multiclass_jaccard_index

from probes.benchmarks import open_benchmark
from probes.data.frames import IGNORED, Benchmark, Frame
from probes.data.square import SquareFrames
from probes.dense.segmentation import PROBE, SegmentationTarget
from probes.dense.training import Training
from probes.errors import ProbeError
from probes.probe import Settings
from tests.probes.truth import NamedEncoder, noise_maps
from tests.trees import ade20k
from tests.trees.world import render_world

MIOU = PROBE.metrics[0]


def frames(labels: np.ndarray, mask: np.ndarray | None = None) -> SquareFrames:
    one = Frame(
        name="scene/f",
        scene="s",
        height=len(labels),
        width=len(labels),
        image=lambda: None,
        digest=lambda: "",
        labels=lambda: labels,
        mask=None if mask is None else lambda: mask,
    )
    return SquareFrames([one], len(labels), "crop")


def test_the_rows_give_the_miou_of_the_data_set(benchmark: Benchmark) -> None:
    config = PROBE.config(benchmark, Settings(size=64, preset="small", readings=("linear",)))
    task = PROBE.open(
        benchmark, benchmark, replace(config, linear=Training(steps=5, batch=4, lr=1e-2, weight_decay=0.0))
    )
    unit = task.score(NamedEncoder(), {1: noise_maps(len(task.frames), (8, 8))}, torch.device("cpu"))
    counts = np.array([row["class_pixels"] for row in unit.rows])
    truth = np.stack([task.frames.labels(i) for i in range(len(unit.rows))])
    # At 64 px predictions are kept as they are.
    theirs = multiclass_jaccard_index(
        torch.from_numpy(unit.arrays["linear"]), torch.from_numpy(truth), num_classes=18, average="none"
    )
    occurs = (counts.sum(axis=0).reshape(3, 18)[1:] > 0).any(axis=0)
    expected = float(theirs[torch.from_numpy(occurs)].mean())
    assert MIOU.statistic(counts, np.ones((1, len(counts))))[0] == pytest.approx(expected, abs=1e-6)
    assert all(row["pixels"] == sum(row["class_pixels"][36:]) for row in unit.rows)


def test_loss_is_the_cross_entropy_of_known_pixels() -> None:
    logits = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    truth = torch.randint(0, 3, (2, 4, 4), generator=torch.Generator().manual_seed(1)).byte()
    target = SegmentationTarget(classes=("a", "b", "c"))
    assert float(target.loss(logits, truth)) == pytest.approx(float(F.cross_entropy(logits, truth.long())))
    half = truth.clone()
    half[1] = IGNORED
    assert float(target.loss(logits, half)) == pytest.approx(
        float(F.cross_entropy(logits[:1], truth[:1].long()))
    )
    half[:] = IGNORED
    assert float(target.loss(logits, half)) == 0


def test_a_class_without_a_name_is_one_sentence() -> None:
    labels = np.array([[0, 1], [7, 255]], np.uint8)
    with pytest.raises(ProbeError, match="scene/f holds the class id 7, but its data names 2 classes"):
        SegmentationTarget(classes=("a", "b")).read(frames(labels), 0)
    mask = labels != 7
    assert SegmentationTarget(classes=("a", "b")).read(frames(labels, mask), 0).tolist() == [
        [0, 1],
        [255, 255],
    ]


def test_training_data_must_name_the_same_classes(benchmark: Benchmark) -> None:
    config = PROBE.config(benchmark, Settings(size=64, preset="small"))
    other = replace(benchmark, spec="other", classes=benchmark.classes[:5])
    with pytest.raises(ProbeError, match="the same classes"):
        PROBE.open(benchmark, other, config)


def test_labels_without_names_are_refused(benchmark: Benchmark) -> None:
    assert PROBE.refuses(benchmark) is None
    assert "no names" in PROBE.refuses(replace(benchmark, classes=()))


def test_guesses_are_the_most_frequent_classes() -> None:
    target = SegmentationTarget(classes=("a", "b", "c"))
    truths = [[[0, 1], [2, 255]], [[0, 1], [1, 255]], [[2, 1], [1, 255]]]
    target.learn([np.array(truth, np.uint8) for truth in truths])
    guesses = target.guesses()
    assert guesses["majority class"].tolist() == [[1, 1], [1, 1]]
    assert guesses["majority class per position"].tolist() == [[0, 1], [1, 0]]


def test_the_oracle_takes_the_largest_share_of_a_patch() -> None:
    truth = np.full((8, 8), 9, np.uint8)
    truth[:4, :4] = 3
    truth[0, 0] = 255
    truth[5:7, 5:7] = 7
    found = SegmentationTarget(classes=tuple("abcdefghij")).averaged(truth, (2, 2))
    assert found[:3, :3].tolist() == [[3] * 3] * 3 and (found[4:, 4:] == 9).all() and found.dtype == np.uint8


def test_pictures_give_every_class_a_colour_and_leave_the_unlabelled_white() -> None:
    colours = SegmentationTarget(classes=("a",)).colours(
        np.arange(256, dtype=np.uint8)[None], np.zeros((1, 256))
    )
    assert colours[0, 255].tolist() == [255] * 3
    used = colours[0, :40].astype(int)
    apart = np.abs(used[:, None] - used[None]).sum(-1) + 999 * np.eye(40, dtype=int)
    assert apart.min() > 20


def test_the_legend_names_the_classes_of_the_truth_largest_first() -> None:
    target = SegmentationTarget(classes=("a<b", "c", "d"))
    legend = target.legend(np.array([[2, 2, 0, 255]], np.uint8))
    assert legend.index(">d<") < legend.index("a&lt;b") and ">c<" not in legend
    many = SegmentationTarget(classes=tuple(f"n{i}" for i in range(30)))
    assert "and 18 more" in many.legend(np.arange(30, dtype=np.uint8)[None])


def test_ade20k_is_scored_without_what_has_no_class(tmp_path: Path) -> None:
    ade20k.write(tmp_path, render_world(6, size=(72, 96)))
    found = open_benchmark(f"ade20k:{tmp_path}")
    config = PROBE.config(found, Settings(size=48, preset="small", readings=("linear",)))
    task = PROBE.open(
        found, found, replace(config, linear=Training(steps=3, batch=2, lr=1e-2, weight_decay=0.0))
    )
    unit = task.score(NamedEncoder(), {1: noise_maps(len(task.frames), (4, 4))}, torch.device("cpu"))
    assert len(unit.rows) == 3 and task.facts["classes"] == 150 and task.facts["train_items"] == 2
    # The first 5 of 96 columns have no class: those under the first 2 of 48 pixels.
    assert all(row["pixels"] == 46 * 48 for row in unit.rows)
    oracle = [row for row in task.baselines([(48, 48)]) if row["encoder"] == "oracle (48 x 48)"]
    assert MIOU.statistic(np.array([row["class_pixels"] for row in oracle]), np.ones((1, 3)))[0] == 1
