"""Training of dense heads: each as if alone, the same every time; and the small maps beneath."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from probes.data.frames import Frame
from probes.data.square import SquareFrames
from probes.dense.heads import LinearHead
from probes.dense.normals import NormalsTarget
from probes.dense.training import (
    HeadToTrain,
    Training,
    Truths,
    nearest_pixels,
    patch_average,
    predictions,
    resized,
    train_heads,
)
from probes.encoders.features import FeatureMaps
from probes.encoders.moments import channel_moments

CPU = torch.device("cpu")
RECIPE = Training(steps=60, batch=4, lr=0.02, weight_decay=0.0)


def scene(count: int = 6, size: int = 16) -> tuple[SquareFrames, FeatureMaps]:
    """Frames whose normals are a linear function of their features, one direction a quadrant."""
    rng = np.random.default_rng(0)
    frames, maps = [], []
    for number in range(count):
        grid = rng.normal(size=(2, 2, 3)).astype(np.float32)
        normals = np.kron(grid, np.ones((size // 2, size // 2, 1), np.float32))
        normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
        frames.append(
            Frame(
                name=str(number),
                scene="s",
                height=size,
                width=size,
                image=lambda: np.zeros((size, size, 3), np.uint8),
                digest=lambda: "",
                normals=lambda normals=normals: normals,
            )
        )
        maps.append(np.concatenate([normals[:: size // 2, :: size // 2] * 3 + 1, grid * 0], axis=-1))
    return SquareFrames(frames, size, "crop"), FeatureMaps(maps)


def trained(seeds: Sequence[int], recipe: Training = RECIPE) -> list[torch.Tensor]:
    """Weights of heads that differ in their first weights, trained side by side."""
    frames, maps = scene()
    heads = []
    for seed in seeds:
        torch.manual_seed(seed)
        head = LinearHead([channel_moments(maps.tokens, range(6))], 3, upsample=1)
        heads.append(HeadToTrain(layers=(1,), head=head))
    target = NormalsTarget()
    train_heads(
        heads,
        {1: maps},
        range(6),
        Truths(frames, target, 8),
        target,
        resolution=8,
        recipe=recipe,
        seed=0,
        device=CPU,
    )
    return [one.head.layer.weight.clone() for one in heads]


def test_heads_side_by_side_are_as_if_alone() -> None:
    together, alone = trained([1, 2, 3]), [trained([seed])[0] for seed in (1, 2, 3)]
    for one, other in zip(together, alone, strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(together[0], together[1])


def test_training_twice_gives_the_same_and_draws_nothing_from_the_global_generator() -> None:
    first = trained([1])[0]
    after = torch.get_rng_state()
    assert torch.equal(first, trained([1])[0])
    trained([1], Training(steps=1, batch=2, lr=0.02, weight_decay=0.0))
    assert torch.equal(torch.get_rng_state(), after)


def test_a_linear_truth_is_learned_and_read_back() -> None:
    frames, maps = scene()
    head = LinearHead([channel_moments(maps.tokens, range(6))], 3, upsample=1)
    one, target = HeadToTrain(layers=(1,), head=head), NormalsTarget()
    truths = Truths(frames, target, 16)
    train_heads(
        [one],
        {1: maps},
        range(6),
        truths,
        target,
        resolution=16,
        recipe=Training(steps=300, batch=6, lr=0.05, weight_decay=0.0),
        seed=0,
        device=CPU,
    )
    for index, (found,) in predictions([one], {1: maps}, range(6), target, size=16, device=CPU, part=4):
        # The corners are where least is interpolated.
        corners = [0, 0, -1, -1], [0, -1, 0, -1]
        assert (found[corners] * truths[index][corners]).sum(-1).min() > 0.95


def test_a_prediction_that_is_not_finite_is_none() -> None:
    _, maps = scene(2)
    head = LinearHead([channel_moments(maps.tokens, [0, 1])], 3, upsample=1)
    torch.nn.init.constant_(head.layer.bias, float("nan"))
    one = HeadToTrain(layers=(1,), head=head)
    assert [
        found for _, found in predictions([one], {1: maps}, [0, 1], NormalsTarget(), size=8, device=CPU)
    ] == [
        [None],
        [None],
    ]


def test_truths_read_each_frame_once_while_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    frames, _ = scene(3)
    read: list[int] = []

    class Counted(NormalsTarget):
        def read(self, frames: SquareFrames, index: int) -> np.ndarray:
            read.append(index)
            return super().read(frames, index)

    truths = Truths(frames, Counted(), 8)
    first = truths.batch([0, 1, 0, 1], CPU)
    assert read == [0, 1] and first.shape == (4, 8, 8, 3)
    monkeypatch.setattr("probes.dense.training.KEEP_IN_MEMORY", 0)
    truths = Truths(frames, Counted(), 8)
    assert torch.equal(truths.batch([0, 1, 0, 1], CPU), first)
    assert read == [0, 1, 0, 1, 0, 1]


def test_nearest_pixels_are_those_under_the_new_centres() -> None:
    values = np.arange(36).reshape(6, 6)
    assert nearest_pixels(values, 2).tolist() == [[values[1, 1], values[1, 4]], [values[4, 1], values[4, 4]]]
    assert nearest_pixels(values, 6).tolist() == values.tolist()
    assert nearest_pixels(values[:1, :1], 3).tolist() == [[0] * 3] * 3


def test_resizing_keeps_a_ramp_in_place() -> None:
    ramp = np.tile((np.arange(4) + 0.5)[None, :, None], (4, 1, 1))
    np.testing.assert_allclose(resized(ramp, 16)[8, 2:-2, 0], ((np.arange(16) + 0.5) / 4)[2:-2], rtol=1e-6)


def test_patch_averages_use_known_pixels_alone() -> None:
    values = np.zeros((8, 8, 1))
    values[:4, :4], values[:4, 4:], values[4:] = 1, 2, 3
    known = np.ones((8, 8), bool)
    known[0, 0] = False
    values[0, 0] = 1000
    found = patch_average(values, known, (2, 2))[..., 0]
    np.testing.assert_allclose(found[[0, 0, -1, -1], [0, -1, 0, -1]], [1, 2, 3, 3], rtol=1e-5)
    known[:4, :4] = False
    found = patch_average(values, known, (2, 2))[..., 0]
    assert found[0, 4] == pytest.approx(2, rel=1e-4) and found[0, 0] == 0
    assert found[2, 2] > 1.9
