"""The probe of point clouds: the truth is at the noise floor, nothing else is, and what counts as a point."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from probes.data.frames import Benchmark, FrameList
from probes.errors import ProbeError
from probes.multiview.pointmap import PROBE, PointmapTask
from probes.multiview.task import Prediction
from probes.probe import Row, Settings
from tests.probes.multiview.quick import QUICK
from tests.probes.truth import NamedEncoder, noise_maps, true_points

CPU = torch.device("cpu")
SMALL = Settings(size=64, preset="small")


@pytest.fixture(scope="module")
def task(benchmark: Benchmark) -> PointmapTask:
    return PROBE.open(
        benchmark,
        benchmark,
        replace(PROBE.config(benchmark, SMALL), training=replace(QUICK, steps=30), sequences=3),
    )


def true_prediction(task: PointmapTask) -> Prediction:
    """Of the first sequence: exact depths at the grid's points and exact poses."""
    sequence, side = task.scored.sequences[0], task.config.resolution
    poses = np.stack([task.frames.pose(index) for index in sequence.frames])
    depth = task.cloud(sequence).depth.reshape(-1, side, side)
    return Prediction(world_to_camera=poses, depth=np.where(depth > 0, depth, 1.0))


def score(task: PointmapTask, change: Callable[[Prediction], Prediction]) -> Row:
    (row,) = task.rows_of(task.scored.sequences[0], change(true_prediction(task)))
    return row


def test_true_points_lie_where_the_renderer_put_them(task: PointmapTask) -> None:
    sequence = task.scored.sequences[0]
    cloud = task.cloud(sequence)
    side = task.config.resolution
    expected = np.concatenate(
        [true_points(task.frames, i, (side, side)).reshape(-1, 3) for i in sequence.frames]
    )
    known = ~np.isnan(expected[:, 0])
    np.testing.assert_allclose(cloud.points * cloud.scale, expected[known], atol=1e-6)
    assert np.median(np.linalg.norm(cloud.points - cloud.points.mean(axis=0), axis=1)) == pytest.approx(1)


def test_the_truth_in_any_world_and_unit_is_at_the_noise_floor(task: PointmapTask) -> None:
    def elsewhere(truth: Prediction) -> Prediction:
        turn = Rotation.from_rotvec([1, -0.4, 2]).as_matrix()
        rotation = truth.world_to_camera[:, :, :3] @ turn
        moved = 0.2 * truth.world_to_camera[:, :, 3:] + rotation @ np.array([[3.0], [1], [-2]])
        return Prediction(world_to_camera=np.concatenate([rotation, moved], axis=2), depth=0.2 * truth.depth)

    row = score(task, elsewhere)
    for name in ("accuracy", "completeness", "overall", "overall_median"):
        assert row[name] < 1e-5
    assert row["normal_consistency"] > 0.999 and not row["failed"]
    assert row["points"] == len(task.cloud(task.scored.sequences[0]).points)


def test_wrong_poses_and_wrong_depths_both_show(task: PointmapTask) -> None:
    def together(truth: Prediction) -> Prediction:
        return replace(truth, world_to_camera=np.tile(np.eye(3, 4), (len(truth.depth), 1, 1)))

    def flat(truth: Prediction) -> Prediction:
        return replace(truth, depth=np.ones_like(truth.depth))

    floor = score(task, lambda truth: truth)["overall_median"]
    assert score(task, together)["overall_median"] > floor + 0.01
    assert score(task, flat)["overall_median"] > floor + 0.01


def test_baselines_are_ordered_and_name_their_grid(task: PointmapTask) -> None:
    rows = task.baselines([(4, 4), (8, 8), (16, 16)])
    means = {
        name: np.mean([row["overall_median"] for row in rows if row["encoder"] == name])
        for name in dict.fromkeys(row["encoder"] for row in rows)
    }
    # The head's own grid ends at 8 x 8.
    assert list(means) == ["mean depth, one camera", "oracle (4 x 4)", "oracle (8 x 8)"]
    assert means["oracle (8 x 8)"] < means["oracle (4 x 4)"] < means["mean depth, one camera"]
    assert {row["item"] for row in rows} == {sequence.name for sequence in task.scored.sequences}


def test_what_is_not_finite_has_failed(task: PointmapTask) -> None:
    row = score(
        task, lambda truth: replace(truth, world_to_camera=np.full_like(truth.world_to_camera, np.nan))
    )
    assert row["failed"] and row["overall_median"] == np.inf and row["normal_consistency"] == 0


def test_noise_is_no_better_than_a_guess_and_its_clouds_are_shown(task: PointmapTask) -> None:
    maps = {1: noise_maps(len(task.frames), (8, 8))}
    unit = task.score(NamedEncoder(identity={"is": "noise"}), maps, CPU)
    assert [row["item"] for row in unit.rows] == [sequence.name for sequence in task.scored.sequences]

    def mean(rows: list[Row]) -> float:
        return float(np.mean([row["overall_median"] for row in rows]))

    baselines = task.baselines([(8, 8)])
    guess = mean([row for row in baselines if row["encoder"].startswith("mean depth")])
    assert mean(unit.rows) > 0.8 * guess
    assert mean(unit.rows) > 3 * mean([row for row in baselines if row["encoder"].startswith("oracle")])
    exhibits = task.exhibits({"noise": unit, "again": unit})
    assert [panel.label for panel in exhibits[0].panels] == ["frames", "truth", "noise", "again"]
    assert all(panel.content.startswith("<img") for panel in exhibits[0].panels)
    assert exhibits[0].panels[2].caption.endswith("radii")


def test_masks_and_ranges_say_what_counts(benchmark: Benchmark, task: PointmapTask) -> None:
    half = np.zeros((64, 64), bool)
    half[:, :32] = True
    frames = tuple(replace(frame, mask=lambda: half) for frame in benchmark.test.frames)
    masked = replace(benchmark, test=FrameList(frames=frames))

    def known(config: object) -> np.ndarray:
        found = PROBE.open(masked, benchmark, config)
        side = found.config.resolution
        return (found.cloud(found.scored.sequences[0]).depth > 0).reshape(-1, side, side)

    counts = known(task.config)
    assert counts[:, :, :24].any() and not counts[:, :, 24:].any()
    near = float(np.median(task.cloud(task.scored.sequences[0]).depth))
    limited = PROBE.open(benchmark, benchmark, replace(task.config, depth_range=(0.0, near)))
    assert limited.cloud(limited.scored.sequences[0]).depth.max() <= near


def test_lengths_follow_the_benchmarks_unit(benchmark: Benchmark, task: PointmapTask) -> None:
    metric = PROBE.open(replace(benchmark, unit="m"), benchmark, task.config)
    assert metric.cloud(metric.scored.sequences[0]).scale == 1 and metric.facts["length_unit"] == "m"
    for unit, distance in (("mm", 100.0), ("m", 0.1), ("", 0.05)):
        assert PROBE.config(replace(benchmark, unit=unit), SMALL).icp_distance == distance
    assert any("pi3-style" in note for note in task.notes)


def test_data_without_depth_is_refused(benchmark: Benchmark, task: PointmapTask) -> None:
    frames = tuple(replace(frame, depth=None) for frame in benchmark.test.frames)
    bare = replace(benchmark, test=FrameList(frames=frames))
    assert PROBE.refuses(bare) == "its frames have no depth" and PROBE.refuses(benchmark) is None
    with pytest.raises(ProbeError, match="frames without depth"):
        PROBE.open(benchmark, replace(bare, train=bare.test), task.config)
