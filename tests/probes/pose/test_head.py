"""The learned pose head: it learns what features tell, from training pairs alone, the same way every time."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from probes.data.frames import Frame
from probes.data.pairs import Pair
from probes.data.square import SquareFrames
from probes.encoders.features import FeatureMaps
from probes.metrics.pose import rotation_errors, translation_errors
from probes.pose.head import HeadConfig, PoseHead, predict_poses, train_head

CPU = torch.device("cpu")
SIZE, GRID = 32, (4, 4)
CONFIG = HeadConfig(width=32, heads=2, blocks=1, steps=120, pairs=8, lr=3e-3, grid=4)
INTRINSICS = np.array([[40.0, 0, 15], [0, 30, 17], [0, 0, 1]])


def setting(count: int = 24) -> tuple[SquareFrames, FeatureMaps, list[Pair]]:
    """Pairs of images whose features are their camera's turn and place, as clear as can be."""
    rng = np.random.default_rng(0)
    turns = Rotation.from_rotvec(rng.normal(size=(2 * count, 3)) * 0.4)
    places = rng.normal(size=(2 * count, 3))
    known = np.concatenate([turns.as_matrix().reshape(-1, 9), places], axis=1)
    noise = rng.normal(size=(2 * count, *GRID, 12)) * 0.05
    maps = FeatureMaps(list((known[:, None, None] + noise).astype(np.float32)))
    frames = [
        Frame(
            name=str(i), scene="s", height=SIZE, width=SIZE, image=lambda: None, digest=lambda: "",
            intrinsics=INTRINSICS,
        )
        for i in range(2 * count)
    ]  # fmt: skip
    pairs = []
    for i in range(0, 2 * count, 2):
        a, b = turns[i].as_matrix(), turns[i + 1].as_matrix()
        rotation = b @ a.T
        pose = np.column_stack([rotation, b @ (places[i] - places[i + 1])])
        nothing = np.empty((0, 2))
        pairs.append(
            Pair(
                name=str(i), scene="s", a=i, b=i + 1, angle=None, overlap=None,
                queries=nothing, targets=nothing, relative_pose=pose,
            )
        )  # fmt: skip
    return SquareFrames(frames, SIZE, "crop"), maps, pairs


def errors(predicted: np.ndarray, pairs: list[Pair]) -> tuple[float, float]:
    true = np.stack([pair.relative_pose for pair in pairs])
    rotation = rotation_errors(predicted[..., :3], true[..., :3])
    signed = translation_errors(predicted[..., 3], true[..., 3], folded=False)
    return float(np.median(rotation)), float(np.median(signed))


def test_it_learns_turns_and_signed_directions_that_features_tell() -> None:
    frames, maps, pairs = setting()
    head = train_head(maps, frames, pairs, seed=0, config=CONFIG, device=CPU)
    rotation, signed = errors(predict_poses(head, maps, frames, pairs, config=CONFIG, device=CPU), pairs)
    unlearned = train_head(
        maps, frames, pairs, seed=0, config=HeadConfig(**{**vars(CONFIG), "steps": 1}), device=CPU
    )
    before = errors(predict_poses(unlearned, maps, frames, pairs, config=CONFIG, device=CPU), pairs)
    assert rotation < 0.5 * before[0]
    assert signed < 30 < before[1]


def test_it_learns_both_directions_of_a_pair() -> None:
    frames, maps, pairs = setting()
    head = train_head(maps, frames, pairs, seed=0, config=CONFIG, device=CPU)
    back = []
    for pair in pairs:
        rotation, translation = pair.relative_pose[:, :3].T, pair.relative_pose[:, 3]
        pose = np.column_stack([rotation, -rotation @ translation])
        back.append(replace(pair, a=pair.b, b=pair.a, relative_pose=pose))
    rotation, signed = errors(predict_poses(head, maps, frames, back, config=CONFIG, device=CPU), back)
    assert rotation < 25
    assert signed < 30


def test_training_again_gives_the_same_head_and_another_seed_another_one() -> None:
    frames, maps, pairs = setting(6)
    short = HeadConfig(**{**vars(CONFIG), "steps": 3})
    heads = [train_head(maps, frames, pairs, seed=seed, config=short, device=CPU) for seed in (0, 0, 1)]
    first, again, other = (
        predict_poses(head, maps, frames, pairs, config=short, device=CPU) for head in heads
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_it_reads_nothing_but_the_images_of_its_pairs() -> None:
    frames, maps, pairs = setting(6)
    short = HeadConfig(**{**vars(CONFIG), "steps": 2})
    spoiled = FeatureMaps.joined(
        [maps.part(range(8)), FeatureMaps([np.full((*GRID, 12), np.nan, np.float32)] * 4)]
    )
    heads = [train_head(m, frames, pairs[:4], seed=0, config=short, device=CPU) for m in (maps, spoiled)]
    first, other = (predict_poses(h, maps, frames, pairs, config=short, device=CPU) for h in heads)
    np.testing.assert_array_equal(first, other)


def test_poses_are_rotations_with_directions_whatever_the_batch() -> None:
    frames, maps, pairs = setting(5)
    short = HeadConfig(**{**vars(CONFIG), "steps": 1})
    head = train_head(maps, frames, pairs, seed=0, config=short, device=CPU)
    whole = predict_poses(head, maps, frames, pairs, config=short, device=CPU)
    parts = predict_poses(head, maps, frames, pairs, config=short, device=CPU, batch=2)
    np.testing.assert_allclose(whole, parts, atol=1e-5)
    rotation = whole[..., :3]
    np.testing.assert_allclose(
        rotation @ rotation.transpose(0, 2, 1), np.broadcast_to(np.eye(3), rotation.shape), atol=1e-5
    )
    np.testing.assert_allclose(np.linalg.norm(whole[..., 3], axis=1), 1)


def test_swapping_the_views_swaps_the_two_answers() -> None:
    torch.manual_seed(0)
    head = PoseHead(torch.zeros(12), torch.ones(12), CONFIG).eval()
    tokens, rays = torch.randn(6, 16, 12), torch.randn(6, 16, 2)
    forth = head(tokens, rays)
    back = head(tokens.roll(3, dims=0), rays.roll(3, dims=0))
    for one, other in zip(forth, back, strict=True):
        torch.testing.assert_close(one, other.roll(3, dims=0), atol=1e-5, rtol=1e-4)


def test_either_view_and_its_rays_matter() -> None:
    torch.manual_seed(0)
    head = PoseHead(torch.zeros(12), torch.ones(12), CONFIG).eval()
    tokens, rays = torch.randn(2, 16, 12), torch.randn(2, 16, 2)
    first = head(tokens, rays)[0][0]
    for changed in ((tokens.index_fill(0, torch.tensor([1]), 0), rays), (tokens, rays * 0.5)):
        assert (head(*changed)[0][0] - first).abs().max() > 1e-5


@pytest.mark.parametrize("fine", [(8, 8), (7, 7)])
def test_finer_grids_are_averaged_down(fine: tuple[int, int]) -> None:
    frames, _, pairs = setting(4)
    rng = np.random.default_rng(0)
    maps = FeatureMaps([rng.normal(size=(*fine, 12)).astype(np.float32) for _ in range(8)])
    short = HeadConfig(**{**vars(CONFIG), "steps": 1})
    head = train_head(maps, frames, pairs, seed=0, config=short, device=CPU)
    assert predict_poses(head, maps, frames, pairs, config=short, device=CPU).shape == (4, 3, 4)


def test_a_channel_that_never_moves_does_no_harm() -> None:
    frames, maps, pairs = setting(4)
    still = FeatureMaps(
        [np.concatenate([maps.tokens([i])[0].reshape(*GRID, 12), np.ones((*GRID, 1))], -1) for i in range(8)]
    )
    short = HeadConfig(**{**vars(CONFIG), "steps": 2})
    head = train_head(still, frames, pairs, seed=0, config=short, device=CPU)
    assert np.isfinite(predict_poses(head, still, frames, pairs, config=short, device=CPU)).all()
