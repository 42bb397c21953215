"""Training of the multi-view head: its truth, its losses, its draws, and that it learns."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from probes.benchmarks import open_benchmark
from probes.data.correspondences import Correspondent
from probes.data.sequences import SequenceConfig, SequenceSet, choose_sequences
from probes.metrics.correspondence import patch_of
from probes.multiview.head import Reading
from probes.multiview.training import (
    Truth,
    _draw,
    _trained,
    loss_of,
    predict,
    ray_map,
    read_truth,
    reference_truth,
    train_head,
    true_matches,
)
from tests.probes.multiview.quick import QUICK
from tests.probes.truth import NamedEncoder, true_maps

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def sequences(rendered: Path) -> SequenceSet:
    return choose_sequences("x", open_benchmark(str(rendered)).test, SequenceConfig(size=64))


@pytest.fixture(scope="module")
def truth(sequences: SequenceSet) -> Truth:
    return read_truth(sequences.frames, (64, 64), None)


def some(truth: Truth, frames: list[int]) -> Truth:
    return Truth(
        intrinsics=truth.intrinsics[frames],
        world_to_camera=truth.world_to_camera[frames],
        depth=truth.depth[frames],
    )


def test_rays_pass_through_pixel_centres() -> None:
    intrinsics = torch.tensor([[[2.0, 0, 0.5], [0, 4, 0.25], [0, 0, 1]]])
    found = ray_map(intrinsics, 1, 2)[0]
    torch.testing.assert_close(found, torch.tensor([[-0.125, 0.0625, 1], [0.125, 0.0625, 1]]))


def test_depth_that_does_not_count_is_unknown(sequences: SequenceSet, truth: Truth) -> None:
    middle = float(truth.depth.median())
    cut = read_truth(sequences.frames, (64, 64), (0.0, middle)).depth
    torch.testing.assert_close(cut, torch.where(truth.depth <= middle, truth.depth, 0.0))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_the_worlds_own_frame_and_unit_do_not_matter(truth: Truth, seed: int) -> None:
    rng = np.random.Generator(np.random.Philox(seed))
    turn, scale = Rotation.random(rng=rng).as_matrix(), float(np.exp(rng.normal()))
    part = some(truth, [0, 1, 2, 5, 6])
    poses = part.world_to_camera.numpy()
    rotation = poses[:, :, :3] @ turn.T
    move = poses[:, :, 3:] * scale - rotation @ rng.normal(size=(3, 1))
    moved = replace(
        part,
        world_to_camera=torch.from_numpy(np.concatenate([rotation, move], axis=2)),
        depth=part.depth * scale,
    )
    for one, other in zip(reference_truth(part, (3, 2)), reference_truth(moved, (3, 2)), strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_the_unit_is_the_mean_distance_of_points_or_else_of_cameras(truth: Truth) -> None:
    part = some(truth, [0, 1, 2])
    poses, depth = reference_truth(part, (3,))
    rays = ray_map(part.intrinsics, 64, 64)
    points = (rays * depth.flatten(1)[..., None]) @ poses[:, :, :3].mT + poses[:, None, :, 3]
    assert float(points[depth.flatten(1) > 0].norm(dim=-1).mean()) == pytest.approx(1, abs=1e-4)
    poses, depth = reference_truth(replace(part, depth=torch.zeros_like(part.depth)), (3,))
    assert float(poses[1:, :, 3].norm(dim=-1).mean()) == pytest.approx(1, abs=1e-4) and not depth.any()


def test_true_matches_are_those_of_the_correspondences(sequences: SequenceSet, truth: Truth) -> None:
    first, second = sequences.sequences[0].frames[:2]
    found = true_matches(some(truth, [first, second]), (2,), (8, 8))
    assert (found[0] == -1).all(), "the reference matches nothing"
    expected = Correspondent(sequences.frames).between(second, first)
    places = torch.from_numpy(patch_of(expected.queries, 8, 8, 64))
    assert len(places) == int((found[1] >= 0).sum()) > 5
    assert found[1][places].tolist() == patch_of(expected.targets, 8, 8, 64).tolist()


def test_the_loss_of_the_truth_is_nothing_and_each_part_counts(truth: Truth) -> None:
    part, views = some(truth, [0, 1, 2]), (3,)
    poses, depth = reference_truth(part, views)
    sure = torch.nn.functional.one_hot(true_matches(part, views, (8, 8)).clamp_min(0), 64) * 100.0
    perfect = Reading(poses, depth.clamp_min(1e-9).log(), sure)

    def loss(**changes: torch.Tensor) -> float:
        return float(loss_of(perfect._replace(**changes), part, views, (8, 8), QUICK))

    assert loss() == pytest.approx(0, abs=1e-4)
    moved = poses.clone()
    moved[1, 0, 3] += 0.3
    assert loss(poses=moved) == pytest.approx(QUICK.camera_weight * 0.1, rel=1e-3)
    assert loss(log_depth=perfect.log_depth + 0.2) == pytest.approx(0.2, rel=1e-3)
    assert loss(match_logits=torch.zeros_like(sure)) == pytest.approx(np.log(64), rel=1e-3)


def test_without_depth_only_poses_are_learned(truth: Truth) -> None:
    part = some(truth, [0, 1, 2])
    blind = replace(part, depth=torch.zeros_like(part.depth))
    poses, _ = reference_truth(blind, (3,))
    reading = Reading(poses, torch.randn(3, 64, 64), torch.randn(3, 64, 64))
    assert float(loss_of(reading, blind, (3,), (8, 8), QUICK)) == pytest.approx(0, abs=1e-5)


def test_draws_depend_on_seed_and_step_alone(sequences: SequenceSet) -> None:
    config = replace(QUICK, views=(2, 5), frames=12)
    drawn = [_draw(sequences, seed, step, config) for seed in (0, 1) for step in range(5)]
    assert drawn == [_draw(sequences, seed, step, config) for seed in (0, 1) for step in range(5)]
    assert len({str(found) for found in drawn}) == 10
    for frames, views in drawn:
        assert len(frames) == sum(views) <= 12 and len(set(views)) == 1


def test_true_features_are_learned_from_and_a_second_probe_gets_the_same_head(sequences: SequenceSet) -> None:
    maps = true_maps(sequences.frames, (8, 8))

    def train(**changes: object) -> object:
        asked = {"depth_range": None, "seed": 0, "config": QUICK, "device": CPU} | changes
        return train_head(NamedEncoder(), 1, maps, sequences, 0, **asked)

    brief = replace(QUICK, steps=3)
    once = train(config=brief)
    assert train(config=brief) is once
    assert train(config=brief, seed=1) is not once
    _trained.clear()
    torch.testing.assert_close(train(config=brief).state_dict(), once.state_dict(), rtol=0, atol=0)
    head = train()
    found = list(predict(head, maps, sequences, CPU))
    again = list(predict(head, maps, sequences, CPU))
    gaps, still = [], []
    for sequence, (poses, depth), (same, _) in zip(sequences.sequences, found, again, strict=True):
        np.testing.assert_array_equal(poses, same)
        np.testing.assert_allclose(poses[0], np.eye(3, 4), atol=1e-6)
        assert depth.shape == (5, 16, 16) and (depth > 0).all()
        true = np.stack([sequences.frames.pose(i) for i in sequence.frames])
        relative = true[:, :, :3] @ true[0, :, :3].T
        gaps.append(np.linalg.norm(poses[:, :, :3] - relative, axis=(1, 2)).mean())
        still.append(np.linalg.norm(np.eye(3) - relative, axis=(1, 2)).mean())
    assert np.mean(gaps) < 0.9 * np.mean(still)
