"""Two-view pose on rendered scenes: what perfect features, noise and exact correspondences score, and on what lists."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from probes.benchmarks import open_benchmark
from probes.data.frames import Benchmark, FrameList, FramePair
from probes.encoders.features import FeatureMaps
from probes.errors import ProbeError
from probes.matching.linear import LinearConfig
from probes.metrics.pose import auc
from probes.pose.head import HeadConfig
from probes.pose.pose import PROBE, PoseTask
from probes.probe import Row, Settings, Unit
from tests.probes.truth import NamedEncoder, noise_maps, true_maps

GRID = (16, 16)
COARSE = (8, 8)
CPU = torch.device("cpu")


def open_task(data: Benchmark, train: Benchmark | None = None, **changes: object) -> PoseTask:
    config = PROBE.config(data, Settings(size=64, preset="small", items=24))
    config = replace(
        config,
        train_pairs=24,
        solver=replace(config.solver, max_iterations=200),
        linear=LinearConfig(steps=30, pairs=8, queries=32, width=48),
        head=HeadConfig(width=16, heads=2, blocks=1, steps=3, pairs=4, grid=4),
    )
    return PROBE.open(data, train, replace(config, **changes))


@pytest.fixture(scope="module")
def data(rendered: Path) -> Benchmark:
    return open_benchmark(str(rendered))


@pytest.fixture(scope="module")
def untrained(data: Benchmark) -> PoseTask:
    return open_task(data)


@pytest.fixture(scope="module")
def baselines(untrained: PoseTask) -> list[Row]:
    return untrained.baselines([GRID])


@pytest.fixture(scope="module")
def task(data: Benchmark) -> PoseTask:
    return open_task(data, data, angles=(0.0, 180.0), train_pairs=24)


@pytest.fixture(scope="module")
def unit(task: PoseTask) -> Unit:
    return task.score(NamedEncoder(), {1: true_maps(task.frames, COARSE)}, CPU)


def area(rows: list[Row], threshold: int, **wanted: object) -> float:
    found = [row["pose_error"] for row in rows if all(row[key] == value for key, value in wanted.items())]
    assert found
    return 100 * auc(np.array(found), threshold, "exact")


def test_exact_correspondences_give_the_pose(baselines: list[Row]) -> None:
    assert area(baselines, 5, encoder="exact correspondences") > 99


def test_perfect_features_reach_the_bound_of_the_grid(untrained: PoseTask, baselines: list[Row]) -> None:
    rows = untrained.score(NamedEncoder(), {1: true_maps(untrained.frames, GRID)}, CPU).rows
    for threshold in (5, 10, 20):
        bound = area(baselines, threshold, encoder="oracle (16 x 16)")
        assert abs(area(rows, threshold) - bound) < 2
    assert 20 < area(rows, 5) < 70


def test_noise_scores_at_chance(untrained: PoseTask, baselines: list[Row]) -> None:
    rows = untrained.score(NamedEncoder(), {1: noise_maps(len(untrained.frames), GRID)}, CPU).rows
    chance = [row for row in baselines if row["encoder"] == "chance (16 x 16)"]
    assert area(rows, 20) < 3
    assert area(chance, 20) < 3
    counts = [np.mean([row["matches"] for row in found]) for found in (rows, chance)]
    assert counts[0] == pytest.approx(counts[1], rel=0.1)


def test_truth_of_shuffled_images_scores_at_chance(untrained: PoseTask) -> None:
    order = np.random.Generator(np.random.Philox(key=[2, 0])).permutation(len(untrained.frames))
    rows = untrained.score(NamedEncoder(), {1: true_maps(untrained.frames, COARSE).part(order)}, CPU).rows
    scene = {index: untrained.frames.frames[at].scene for index, at in enumerate(order)}
    apart = {pair.name for pair in untrained.pairs if scene[pair.a] != scene[pair.b]}
    assert len(apart) > 10
    assert area([row for row in rows if row["item"] in apart], 20) < 3


def test_every_pair_has_a_row_for_every_reading(task: PoseTask, unit: Unit) -> None:
    names = sorted(pair.name for pair in task.pairs)
    for reading in PROBE.leading:
        rows = [row for row in unit.rows if row["reading"] == reading]
        assert sorted(row["item"] for row in rows) == names
    assert len(unit.rows) == 4 * len(names)
    assert {metric.source for metric in PROBE.metrics} <= set(unit.rows[0])
    json.dumps(unit.rows)


def test_the_same_again_is_the_same(task: PoseTask, unit: Unit) -> None:
    again = task.score(NamedEncoder(), {1: true_maps(task.frames, COARSE)}, CPU)
    assert again.rows == unit.rows
    np.testing.assert_array_equal(again.arrays["shown"], unit.arrays["shown"])


def test_both_solvers_get_the_same_matches(unit: Unit) -> None:
    counts = [
        [row["matches"] for row in unit.rows if row["reading"] == f"{kind}-linear"]
        for kind in ("poselib", "opencv")
    ]
    assert counts[0] == counts[1]
    assert all(row["matches"] is None for row in unit.rows if row["reading"] == "head")


def test_the_threshold_is_chosen_on_held_out_training_scenes(task: PoseTask, unit: Unit) -> None:
    assert task.facts["held_out_scenes"] == 1
    found = unit.selections["threshold of layer 1, seed 0"]
    assert found["among"] == [0.125, 0.25, 0.5]
    assert found["chosen"] == found["among"][int(np.argmax(found["scores"]))]
    # It cannot depend on what is scored: other features there, the same choice.
    scored, count = task.facts["images"], len(task.frames)
    maps = true_maps(task.frames, COARSE)
    noise = noise_maps(count, COARSE, maps.tokens([0]).shape[-1])
    mixed = FeatureMaps.joined([noise.part(range(scored)), maps.part(range(scored, count))])
    task.readings, readings = ("poselib-linear",), task.readings
    try:
        assert task.score(NamedEncoder(), {1: mixed}, CPU).selections == unit.selections
    finally:
        task.readings = readings


def test_a_layer_is_chosen_on_held_out_training_scenes(data: Benchmark) -> None:
    task = open_task(
        data, data, layers="all", readings=("poselib-mutual", "poselib-linear"), angles=(0.0, 180.0)
    )
    scored, count = task.facts["images"], len(task.frames)
    truth = true_maps(task.frames, COARSE)
    noise = noise_maps(count, COARSE, truth.tokens([0]).shape[-1])
    # Layer 1 is good where it is scored, layer 2 where it may be looked at.
    maps = {
        layer: FeatureMaps.joined([test.part(range(scored)), train.part(range(scored, count))])
        for layer, test, train in ((1, truth, noise), (2, noise, truth))
    }
    unit = task.score(NamedEncoder(num_layers=2), maps, CPU)
    best = unit.selections["layer"]["best"]
    assert best == {"poselib-mutual, position kept": 2, "poselib-linear, position kept": 2}
    mutual = [row for row in unit.rows if row["reading"] == "poselib-mutual"]
    assert area(mutual, 20, layer=1) > area(mutual, 20, layer=2) + 5


def test_nothing_that_is_scored_is_trained_on(task: PoseTask) -> None:
    scored = task.facts["images"]
    assert not set(task.frames.hashes[:scored]) & set(task.frames.hashes[scored:])
    assert task.facts["train_items"] > 0
    assert {row["encoder"] for row in task.baselines([])} == {"exact correspondences", "mean training pose"}


def test_seeds_have_rows_of_their_own(data: Benchmark) -> None:
    task = open_task(data, seeds=(0, 1))
    rows = task.score(NamedEncoder(), {1: noise_maps(len(task.frames), COARSE)}, CPU).rows
    by_seed = [[row["pose_error"] for row in rows if row["seed"] == seed] for seed in (0, 1)]
    assert len(by_seed[0]) == len(by_seed[1]) == len(task.pairs)
    assert by_seed[0] != by_seed[1]


def poses_alone(data: Benchmark) -> Benchmark:
    """The data as a list of pairs with poses of its own and no depth, one of them infinite."""
    frames = tuple(replace(frame, depth=None, tracks=None) for frame in data.test.frames)
    pairs = []
    for number in range(0, 25, 5):
        a, b = (frames[number + k].world_to_camera for k in (0, 1))
        rotation = b[:, :3] @ a[:, :3].T
        pose = np.column_stack([rotation, b[:, 3] - rotation @ a[:, 3]])
        pose = pose * np.inf if number == 20 else pose
        pairs.append(
            FramePair(
                name=f"{number}", scene=frames[number].scene, a=number, b=number + 1, relative_pose=pose
            )
        )
    bare = tuple(replace(frame, world_to_camera=None) for frame in frames)
    return replace(data, test=FrameList(frames=bare, pairs=tuple(pairs)), truth="poses", auc="trapezoid")


@pytest.mark.filterwarnings("ignore:invalid value")
def test_a_list_with_poses_alone_is_scored_without_bounds(data: Benchmark) -> None:
    task = open_task(poses_alone(data))
    assert task.facts["items"] == 4
    assert task.facts["refused"] == {"no true pose or intrinsics": 1}
    rows = task.score(NamedEncoder(), {1: noise_maps(len(task.frames), COARSE)}, CPU).rows
    assert len(rows) == 4
    assert {row["encoder"] for row in task.baselines([COARSE])} == {"chance (8 x 8)"}
    assert "trapezoid" in task.notes[0]


def test_data_without_poses_are_refused(data: Benchmark) -> None:
    def changed(**parts: object) -> Benchmark:
        frames = tuple(replace(frame, **parts) for frame in data.test.frames)
        return replace(data, test=FrameList(frames=frames))

    assert PROBE.refuses(data) is None
    assert PROBE.refuses(poses_alone(data)) is None
    assert PROBE.refuses(changed(world_to_camera=None)) == "no camera poses"
    assert "no list of pairs" in PROBE.refuses(changed(depth=None))
    assert "training part" in PROBE.refuses(replace(data, test=None))


def test_trained_readings_alone_need_training_data(data: Benchmark) -> None:
    with pytest.raises(ProbeError, match=r"nothing to train pose readings on.*--readings poselib-mutual"):
        open_task(data, readings=("head",))


def test_without_training_data_what_needs_none_is_scored(untrained: PoseTask) -> None:
    assert untrained.readings == ("poselib-mutual",)
    assert untrained.facts["train_items"] == 0


def test_pictures_show_the_best_the_median_and_the_worst_pair(task: PoseTask, unit: Unit) -> None:
    found = task.exhibits({"truth": unit})
    assert [exhibit.title for exhibit in found] == ["Best pair", "Median pair", "Worst pair"]
    for exhibit in found:
        assert [panel.label for panel in exhibit.panels] == ["truth", "truth"]
        assert "turn" in exhibit.panels[1].caption
        assert exhibit.panels[1].content.count("<line") > 0
    best, worst = (float(exhibit.panels[1].caption.split("turn ")[1].split("°")[0]) for exhibit in found[::2])
    rows = [row for row in unit.rows if row["reading"] == task.pictured]
    for turn, pick in ((best, min), (worst, max)):
        row = pick(rows, key=lambda row: row["pose_error"])
        assert turn == pytest.approx(row["rotation_error"], abs=0.051)


def test_a_pair_without_matches_is_pictured_as_such(untrained: PoseTask) -> None:
    unit = untrained.score(NamedEncoder(), {1: noise_maps(len(untrained.frames), (2, 2))}, CPU)
    assert all(row["failed"] for row in unit.rows)
    found = untrained.exhibits({"noise": unit})
    assert "no pose from" in found[-1].panels[1].caption
