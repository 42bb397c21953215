"""The multi-view head: what each output means, and what must not change it."""

import pytest
import torch

from probes.encoders.moments import Moments
from probes.multiview.head import HeadConfig, MultiviewHead, Reading, ray_moments

CONFIG = HeadConfig(width=16, depth=2, heads=2, match_width=8, grid=3, cells=2)
CHANNELS = 5


@pytest.fixture
def head() -> MultiviewHead:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        found = MultiviewHead(Moments(torch.zeros(CHANNELS), torch.ones(CHANNELS)), (3, 3), CONFIG)
        for parameter in found.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    return found.eval()


def pack(frames: int, patches: int = 9) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randn(frames, patches, CHANNELS, generator=generator)
    return tokens, torch.randn(frames, 9, 2, generator=generator)


def close(a: Reading, b: Reading) -> None:
    for one, other in zip(a, b, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_shapes_rotations_and_the_reference(head: MultiviewHead) -> None:
    found = head(*pack(5), (2, 3))
    assert found.poses.shape == (5, 3, 4) and found.log_depth.shape == (5, 6, 6) == (5, *head.resolution)
    assert found.match_logits.shape == (5, 9, 9)
    torch.testing.assert_close(found.poses[[0, 2]], torch.eye(3, 4).expand(2, -1, -1))
    rotations = found.poses[:, :, :3]
    torch.testing.assert_close(rotations @ rotations.mT, torch.eye(3).expand(5, -1, -1), atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.linalg.det(rotations), torch.ones(5))
    assert (rotations[1] - torch.eye(3)).abs().max() > 0.01


@torch.inference_mode()
def test_scenes_of_a_pack_do_not_see_each_other(head: MultiviewHead) -> None:
    tokens, rays = pack(9)
    views, start = (4, 2, 3), 0
    whole = head(tokens, rays, views)
    for count in views:
        part = slice(start, start + count)
        close(head(tokens[part], rays[part], (count,)), Reading(*(x[part] for x in whole)))
        start += count


@torch.inference_mode()
def test_order_of_the_other_views_means_nothing_and_the_reference_does(head: MultiviewHead) -> None:
    tokens, rays = pack(4)
    found = head(tokens, rays, (4,))
    order = [0, 3, 1, 2]
    close(head(tokens[order], rays[order], (4,)), Reading(*(x[order] for x in found)))
    swapped = head(tokens[[1, 0, 2, 3]], rays[[1, 0, 2, 3]], (4,))
    assert (swapped.poses[2] - found.poses[2]).abs().max() > 1e-3


@torch.inference_mode()
def test_views_of_one_scene_help_each_other(head: MultiviewHead) -> None:
    tokens, rays = pack(3)
    alone, together = head(tokens[:2], rays[:2], (2,)), head(tokens, rays, (3,))
    assert (together.log_depth[1] - alone.log_depth[1]).abs().max() > 1e-4


@torch.inference_mode()
def test_finer_grids_are_averaged_and_still_channels_are_ignored() -> None:
    moments = Moments(torch.zeros(CHANNELS), torch.tensor([1.0, 1, 1, 1, torch.inf]))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        head = MultiviewHead(moments, (6, 6), CONFIG)
    tokens, rays = pack(2, 36)
    assert head.inner_grid == (3, 3) and head.resolution == (6, 6)
    found = head(tokens, rays, (2,))
    louder = tokens.clone()
    louder[..., 4] += 100
    close(head(louder, rays, (2,)), found)


def test_before_training_nothing_is_claimed() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        head = MultiviewHead(Moments(torch.zeros(CHANNELS), torch.ones(CHANNELS)), (3, 3), CONFIG)
    found = head(*pack(3), (3,))
    assert (found.poses[:, :, :3] - torch.eye(3)).abs().max() < 0.3
    loss = found.poses.sum() + found.log_depth.sum() + found.match_logits.sum()
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in head.parameters() if p.grad is not None)


def test_ray_moments_by_hand() -> None:
    rays = torch.tensor([[[0.0, 0.0], [1.0, 0.0]]])
    certain = torch.tensor([[[3.0], [1.0]]])
    assert not ray_moments(rays, rays, certain).any()
    there = torch.tensor([[[0.75, 0.0], [1.0, 0.0]]])
    # The first ray (0, 0, 1) goes to (0.6, 0, 0.8); the second stays.
    moved = torch.tensor([0.6, 0.0, -0.2])
    expected = torch.zeros(3, 3)
    expected[:, 2] = moved
    found = ray_moments(rays, there, certain)[0].unflatten(0, (6, 3))
    torch.testing.assert_close(found[:3], 10 * 0.75 * expected)
    torch.testing.assert_close(found[3:], 10 * 0.5 * expected)
