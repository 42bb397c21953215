"""The normals probe: which truth it takes, its loss, and its guesses."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from probes.data.frames import Benchmark
from probes.dense.depth_normals import normals_from_depth
from probes.dense.normals import PROBE, NormalsTarget
from probes.metrics.dense import angles_between
from probes.probe import Settings
from tests.trees.world import observe, pixel_grid, project, render_world, unproject


def test_own_normals_go_before_those_made_of_depth(benchmark: Benchmark) -> None:
    own = np.zeros((64, 64, 3), np.float32)
    own[..., 2] = -1
    first, *rest = benchmark.test.frames
    mixed = (replace(first, normals=lambda: own), *rest)
    changed = replace(benchmark, test=replace(benchmark.test, frames=mixed))
    task = PROBE.open(changed, changed, PROBE.config(changed, Settings(size=64, preset="small")))
    names = [frame.name for frame in task.frames.frames]
    truths = [NormalsTarget().read(task.frames, names.index(frame.name)) for frame in mixed[:2]]
    assert np.array_equal(truths[0], own)
    made = truths[1][(truths[1] != 0).any(-1)]
    assert len(made) > 2000 and 10 < np.median(angles_between(made, [0, 0, -1.0])) < 90
    assert task.facts["frames_with_own_normals"] == 1 and task.facts["truth"] == "normals made of depth"
    assert (
        "normals" in benchmark.test.frames[0].__dataclass_fields__
        and benchmark.test.frames[0].normals is None
    )


def test_made_normals_agree_where_two_views_see_one_point() -> None:
    one, two = render_world(4, size=(72, 96)).views[:2]
    maps = [normals_from_depth(view.depth, view.intrinsics) for view in (one, two)]
    at = pixel_grid(72, 96)
    column, row = at.astype(int).T
    points = unproject(at, one.depth[row, column].astype(float), one.intrinsics, one.world_to_camera)
    seen, _ = observe(points, two.intrinsics, two.world_to_camera, two.depth)
    xy, _ = project(points[seen], two.intrinsics, two.world_to_camera)
    first, second = maps[0][row[seen], column[seen]], maps[1][xy[:, 1].astype(int), xy[:, 0].astype(int)]
    known = (first != 0).any(-1) & (second != 0).any(-1)
    in_world = [n[known] @ v.world_to_camera[:, :3] for n, v in ((first, one), (second, two))]
    angles = angles_between(*in_world)
    assert len(angles) > 1000
    assert np.median(angles) < 0.01 and np.mean(angles < 5) > 0.9


def test_loss_and_reading_are_of_directions() -> None:
    truth = torch.zeros(1, 2, 2, 3)
    truth[0, 0, 0] = torch.tensor([0, 0, -1.0])
    truth[0, 0, 1] = torch.tensor([0, 1.0, 0])
    predicted = torch.zeros(1, 3, 2, 2)
    predicted[0, :, 0, 0] = torch.tensor([0, 0, -7.0])
    predicted[0, :, 0, 1] = torch.tensor([0, 0, -2.0])
    predicted[0, :, 1] = 5
    target = NormalsTarget()
    assert float(target.loss(predicted, truth)) == pytest.approx((0 + 1) / 2)
    found = target.finish(predicted)
    np.testing.assert_allclose(found[0, 0], [[0, 0, -1], [0, 0, -1]], atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=-1), 1, rtol=1e-6)
    assert float(target.loss(predicted, torch.zeros(1, 2, 2, 3))) == 0


def test_a_vector_of_no_length_faces_the_camera() -> None:
    assert NormalsTarget().finish(torch.zeros(1, 3, 1, 1)).tolist() == [[[[0, 0, -1]]]]


def test_guesses_are_mean_directions_of_known_normals() -> None:
    target = NormalsTarget()
    one, two = np.zeros((2, 2, 2, 3), np.float32)
    one[..., 2] = -1
    two[0, 0] = [0, 1, 0]
    target.learn([one, two])
    guesses = target.guesses()
    np.testing.assert_allclose(guesses["mean normal"][0, 0], np.array([0, 1, -1]) / np.sqrt(2), atol=1e-6)
    np.testing.assert_allclose(guesses["mean normal"][1, 1], [0, 0, -1], atol=1e-6)
    np.testing.assert_allclose(
        guesses["constant normal"][1, 0], np.array([0, 1, -4]) / np.sqrt(17), atol=1e-6
    )


def test_a_failure_is_infinite(benchmark: Benchmark) -> None:
    found = NormalsTarget().failure(np.zeros((2, 2, 3)))
    assert (
        found["angle"] == np.inf and found["within30"] == 0 and set(found) == {m.name for m in PROBE.metrics}
    )


def test_frames_need_normals_or_depth_with_intrinsics(benchmark: Benchmark) -> None:
    blind = [replace(frame, intrinsics=None) for frame in benchmark.test.frames]
    changed = replace(benchmark, test=replace(benchmark.test, frames=tuple(blind)))
    assert "neither normals nor depth" in PROBE.refuses(changed)
    assert PROBE.refuses(benchmark) is None


def test_pictures_tell_directions_apart() -> None:
    values = np.array([[[0, 0, -1], [1, 0, 0], [0, -1, 0], [0, 0, 0]]], np.float32)
    facing, right, up, unknown = NormalsTarget().colours(values, values)[0].astype(int)
    assert facing.argmax() == 2 and right.argmax() == 0 and up.argmax() == 1 and unknown.tolist() == [64] * 3
