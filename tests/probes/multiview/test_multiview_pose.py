"""The probe of several views' poses: what the truth, chance and shuffled truth score, and what a row says."""

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from probes.data.frames import Benchmark, FrameList
from probes.errors import ProbeError
from probes.metrics.pose import absolute_trajectory_error, camera_centres
from probes.multiview.multiview_pose import PROBE, MultiviewPoseTask
from probes.multiview.task import Prediction
from probes.probe import Row, Settings
from tests.probes.multiview.quick import QUICK
from tests.probes.truth import NamedEncoder, noise_maps, true_maps

CPU = torch.device("cpu")
SMALL = Settings(size=64, preset="small")


@pytest.fixture(scope="module")
def task(benchmark: Benchmark) -> MultiviewPoseTask:
    return PROBE.open(benchmark, benchmark, replace(PROBE.config(benchmark, SMALL), training=QUICK))


def score(rows: list[Row], name: str) -> float:
    (metric,) = [metric for metric in PROBE.metrics if metric.name == name]
    values = np.array([row[metric.source] for row in rows])
    return metric.scale * float(metric.statistic(values, np.ones((1, len(values))))[0])


def rows_of(task: MultiviewPoseTask, change: Callable[[np.ndarray], np.ndarray]) -> list[Row]:
    """Rows where all poses are predicted as the true ones (n, 3, 4), changed."""
    rows = []
    for sequence in task.scored.sequences:
        true = np.stack([task.scored.frames.pose(index) for index in sequence.frames])
        prediction = Prediction(world_to_camera=change(true), depth=np.ones((len(true), 1, 1)))
        rows += task.rows_of(sequence, prediction)
    return rows


def true_poses(task: MultiviewPoseTask, number: int) -> np.ndarray:
    return np.stack([task.scored.frames.pose(index) for index in task.scored.sequences[number].frames])


def in_another_world(true: np.ndarray) -> np.ndarray:
    turn = Rotation.from_rotvec([0.3, 1, -2]).as_matrix()
    rotation = true[:, :, :3] @ turn
    return np.concatenate([rotation, 3 * true[:, :, 3:] + rotation @ np.ones((3, 1))], axis=2)


def test_all_pairs_of_all_sequences_are_rows_with_stable_names(task: MultiviewPoseTask) -> None:
    rows = rows_of(task, lambda true: true)
    assert len(rows) == len({row["item"] for row in rows}) == 6 * 10 == task.facts["items"]
    assert len({row["scene"] for row in rows}) == 6
    row, sequence = rows[0], task.scored.sequences[0]
    first, second = (task.frames.names[index] for index in sequence.frames[:2])
    assert row["item"] == f"{sequence.name}|{first}|{second}" and row["sequence"] == sequence.name
    poses = [task.frames.pose(index)[:, :3] for index in sequence.frames[:2]]
    turned = Rotation.from_matrix(poses[1] @ poses[0].T).magnitude()
    assert row["rotation"] == pytest.approx(np.degrees(turned))
    assert row["overlap"] > 0 and row["angle"] > 0


def test_the_truth_in_any_world_and_unit_scores_perfectly(task: MultiviewPoseTask) -> None:
    rows = rows_of(task, in_another_world)
    for kind in ("exact", "trapezoid", "histogram"):
        assert score(rows, f"auc30_{kind}") == pytest.approx(100, abs=1e-3)
    assert score(rows, "rra5") == score(rows, "rta5") == 100
    for name in ("ate", "rpe_translation", "rpe_rotation", "translation_error_signed"):
        assert score(rows, name) == pytest.approx(0, abs=1e-5)
    assert not any(row["failed"] for row in rows)


def test_a_mirrored_path_is_forgiven_by_the_folded_error_alone(task: MultiviewPoseTask) -> None:
    def backwards(true: np.ndarray) -> np.ndarray:
        return np.concatenate([true[:, :, :3], -true[:, :, 3:]], axis=2)

    rows = rows_of(task, backwards)
    assert score(rows, "auc30_exact") == pytest.approx(100, abs=1e-3)
    assert score(rows, "translation_error_signed") == pytest.approx(180, abs=1e-3)
    assert score(rows, "ate") > 0.1


def test_lengths_are_in_units_of_the_path_or_of_the_benchmark(
    benchmark: Benchmark, task: MultiviewPoseTask
) -> None:
    rng = np.random.Generator(np.random.Philox(0))
    bent = lambda true: true + 0.05 * np.pad(rng.normal(size=(len(true), 3, 1)), [(0, 0), (0, 0), (3, 0)])  # noqa: E731
    sequence = task.scored.sequences[0]
    true = np.stack([task.frames.pose(index) for index in sequence.frames])
    wrong = bent(true)
    prediction = Prediction(world_to_camera=wrong, depth=np.ones((5, 1, 1)))
    centres = camera_centres(true)
    extent = np.sqrt(np.square(centres - centres.mean(0)).sum(1).mean())
    ate = absolute_trajectory_error(wrong, true)
    assert task.rows_of(sequence, prediction)[0]["ate"] == pytest.approx(ate / extent)
    metric = PROBE.open(replace(benchmark, unit="m"), benchmark, task.config)
    assert metric.rows_of(sequence, prediction)[0]["ate"] == pytest.approx(ate)
    assert metric.facts["length_unit"] == "m"


def test_chance_and_shuffled_truth_score_alike_and_low(task: MultiviewPoseTask) -> None:
    chance = [row for row in task.baselines([]) if row["encoder"] == "chance"]
    assert chance == [row for row in task.baselines([]) if row["encoder"] == "chance"]
    assert score(chance, "auc30_exact") < 5
    # Of rotations drawn evenly, the median angle is 132 degrees; of folded directions, 60.
    assert np.median([row["rotation_error"] for row in chance]) == pytest.approx(132, abs=15)
    assert np.median([row["translation_error"] for row in chance]) == pytest.approx(60, abs=20)
    others = iter(np.roll(list(range(6)), 1))
    shuffled = rows_of(task, lambda true: true_poses(task, next(others)))
    assert score(shuffled, "auc30_exact") < 12
    still = [row for row in task.baselines([]) if row["encoder"] == "same direction"]
    for row in still:
        assert row["rotation_error"] == pytest.approx(row["rotation"])


def test_what_is_not_finite_has_failed(task: MultiviewPoseTask) -> None:
    rows = rows_of(task, lambda true: np.full_like(true, np.nan))
    assert all(row["failed"] and row["pose_error"] == np.inf for row in rows)
    assert score(rows, "auc30_histogram") == 0


def test_true_features_beat_noise_and_noise_is_at_chance(task: MultiviewPoseTask) -> None:
    def rotation_error(maps: object) -> float:
        return score(
            task.score(NamedEncoder(identity={"is": str(id(maps))}), {1: maps}, CPU).rows, "rotation_error"
        )

    known, noise = (
        rotation_error(maps)
        for maps in (true_maps(task.frames, (8, 8)), noise_maps(len(task.frames), (8, 8)))
    )
    still = score([row for row in task.baselines([]) if row["encoder"] == "same direction"], "rotation_error")
    assert known < 0.9 * noise
    assert noise > 0.9 * still


def test_a_unit_has_all_rows_and_its_pictures(task: MultiviewPoseTask) -> None:
    encoder, maps = NamedEncoder(), {1: noise_maps(len(task.frames), (4, 4))}
    brief = MultiviewPoseTask.__new__(MultiviewPoseTask)
    brief.__dict__ |= task.__dict__ | {
        "config": replace(task.config, seeds=(0, 1), training=replace(QUICK, steps=2))
    }
    unit = brief.score(encoder, maps, CPU)
    assert len(unit.rows) == 2 * 60 and {row["seed"] for row in unit.rows} == {0, 1}
    assert {(row["reading"], row["position"], row["layer"]) for row in unit.rows} == {("head", "kept", 1)}
    for row in unit.rows:
        assert {metric.source for metric in PROBE.metrics} <= row.keys()
    exhibits = brief.exhibits({"one": unit, "two": unit})
    assert [found.title for found in exhibits] == ["Best sequence", "Median sequence", "Worst sequence"]
    assert [panel.label for panel in exhibits[0].panels] == ["frames", "one", "two"]
    svg = exhibits[0].panels[1].content
    assert svg.count("<circle") == 10 and "nan" not in svg


def test_lists_are_counted_and_training_never_sees_a_scored_image(
    benchmark: Benchmark, task: MultiviewPoseTask
) -> None:
    assert task.facts["train_items"] == task.facts["train_scenes"] == 5
    assert task.facts["frames_per_sequence"] == [5] and task.facts["pairs_without_baseline"] == 0
    assert any("fewer than 10 frames" in note for note in task.notes)
    with pytest.raises(ProbeError, match="no sequence of 3 views"):
        PROBE.open(benchmark, replace(benchmark, train=benchmark.test), task.config)
    with pytest.raises(ProbeError, match="nothing to train on: name other scenes with --train-data"):
        PROBE.open(benchmark, None, task.config)


def test_data_without_cameras_is_refused_and_other_probes_readings_are_left_to_them(
    benchmark: Benchmark,
) -> None:
    bare = tuple(replace(frame, intrinsics=None) for frame in benchmark.test.frames)
    assert PROBE.refuses(replace(benchmark, test=FrameList(frames=bare))) == "its frames have no cameras"
    assert PROBE.refuses(benchmark) is None
    assert PROBE.config(benchmark, replace(SMALL, readings=("knn",))) == PROBE.config(benchmark, SMALL)
    assert PROBE.config(benchmark, replace(SMALL, layers="all")).layers == "last"
    assert PROBE.config(benchmark, replace(SMALL, items=3)).sequences == 3


def test_two_cameras_in_one_place_have_no_direction_and_no_row(
    benchmark: Benchmark, task: MultiviewPoseTask
) -> None:
    sequence = task.scored.sequences[0]
    same = {task.frames.names[index] for index in sequence.frames[:2]}
    one = task.frames.frames[sequence.frames[0]].world_to_camera
    frames = tuple(
        replace(frame, world_to_camera=one) if frame.name in same else frame
        for frame in benchmark.test.frames
    )
    found = PROBE.open(replace(benchmark, test=FrameList(frames=frames)), benchmark, task.config)
    assert found.facts["pairs_without_baseline"] == 1 and found.facts["items"] == 59
    true = np.stack([found.frames.pose(index) for index in found.scored.sequences[0].frames])
    rows = found.rows_of(
        found.scored.sequences[0], Prediction(world_to_camera=true, depth=np.ones((5, 1, 1)))
    )
    assert len(rows) == len(list(combinations(range(5), 2))) - 1
