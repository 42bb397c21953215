"""Heads: what they give, where they put it, and which layers they read."""

import numpy as np
import pytest
import torch

from probes.dense.heads import DPTHead, LinearHead, evenly_spaced
from probes.encoders.features import FeatureMaps
from probes.encoders.moments import Moments, channel_moments


def moments(channels: int) -> Moments:
    return Moments(torch.zeros(channels), torch.ones(channels))


def test_a_channel_that_never_moves_is_silent() -> None:
    maps = np.random.default_rng(0).normal(size=(2, 4, 4, 3)).astype(np.float32)
    maps[..., 1] = 7
    head = LinearHead([channel_moments(FeatureMaps(list(maps)).tokens, [0, 1])], 2, upsample=1)
    x = torch.from_numpy(maps).permute(0, 3, 1, 2)
    moved = x.clone()
    moved[:, 1] += 50
    assert torch.equal(head([x]), head([moved]))


@pytest.mark.parametrize(
    ("depth", "layers"),
    [(24, (6, 12, 18, 24)), (6, (2, 3, 5, 6)), (2, (1, 1, 2, 2)), (1, (1, 1, 1, 1))],
)
def test_layers_are_evenly_spaced_and_end_at_the_last(depth: int, layers: tuple[int, ...]) -> None:
    assert evenly_spaced(depth) == layers


def test_the_linear_head_is_linear_and_keeps_places() -> None:
    head = LinearHead([moments(3)], 1, upsample=4)
    torch.nn.init.ones_(head.layer.weight)
    # A ramp along x stays one: its value at a pixel is that of the place, away from the border.
    ramp = torch.arange(8.0).add(0.5).expand(1, 3, 8, 8) / 3
    out = head([ramp])[0, 0]
    assert out.shape == (32, 32)
    torch.testing.assert_close(out[0, 2:-2], ((torch.arange(32) + 0.5) / 4)[2:-2])
    torch.testing.assert_close(head([2 * ramp]), 2 * head([ramp]))


@pytest.mark.parametrize("grid", [(4, 4), (7, 7), (5, 8)])
def test_the_dpt_takes_any_grid(grid: tuple[int, int]) -> None:
    head = DPTHead([moments(6)] * 4, 5, width=8)
    assert head([torch.zeros(2, 6, *grid)] * 4).shape == (2, 5, 4 * grid[0], 4 * grid[1])


def test_the_dpt_uses_every_level() -> None:
    torch.manual_seed(0)
    head = DPTHead([moments(6)] * 4, 2, width=8)
    levels = [torch.randn(1, 6, 4, 4, requires_grad=True) for _ in range(4)]
    head(levels).square().sum().backward()
    assert all(level.grad.abs().sum() > 0 for level in levels)
