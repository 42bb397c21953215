"""A small learned head over frozen features of two views: attention across both, then rotation and direction.

Protocol (Reloc3r-style, as MuM's two-view figures): tokens -> linear layer -> blocks that alternate attention within
a view and across to the other -> nine numbers made a rotation by SVD, and the translation's direction; the loss is
the sum of both angles, in both directions. Two things differ and are stated: it is small enough for a probe, and a
patch's place is told by its ray through the camera instead of its row and column, so that the head knows the
intrinsics, as solvers do. The direction's sign is known to it, so its translation errors need no folding. Tokens
are (n, patches, channels) float32; nothing here knows how pairs are chosen or scored.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from probes.data.pairs import Pair
from probes.data.square import SquareFrames
from probes.encoders.features import FeatureMaps
from probes.encoders.moments import channel_moments
from probes.metrics.correspondence import patch_centres
from probes.metrics.rotations import direction_angles, nearest_rotation, rotation_angles
from probes.schedule import warm_cosine

FREQUENCIES = 6
"""Octaves of the waves that tell a ray's place."""


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """How the head is built and trained; part of the identity of a result."""

    width: int = 256
    heads: int = 8
    blocks: int = 4
    steps: int = 20_000
    pairs: int = 32
    """Pairs a step, each read in both directions."""
    lr: float = 3e-4
    """Peak learning rate of AdamW, betas 0.9 and 0.95; a tenth of the steps warm up, then cosine to zero."""
    weight_decay: float = 0.05
    clip: float = 1.0
    """Largest norm of a step's gradient."""
    grid: int = 32
    """Most patches along a side: features of finer grids are averaged down to it."""


class PoseHead(nn.Module):
    """Relative pose of two views, from their tokens and rays.

    Tokens are standardised by the training images' mean and deviation of every channel, so that one learning rate
    suits every encoder.
    """

    def __init__(self, mean: Tensor, scale: Tensor, config: HeadConfig) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)
        self.tokens = nn.Linear(len(mean), config.width)
        self.rays = nn.Linear(4 * FREQUENCIES + 2, config.width)
        self.blocks = nn.ModuleList(_Block(config.width, config.heads) for _ in range(config.blocks))
        self.norm = nn.LayerNorm(config.width)
        self.each = nn.Sequential(nn.Linear(config.width, config.width), nn.GELU())
        self.out = nn.Sequential(
            nn.Linear(config.width, config.width), nn.GELU(), nn.Linear(config.width, 12)
        )

    def forward(self, tokens: Tensor, rays: Tensor) -> tuple[Tensor, Tensor]:
        """Pose of either view relative to the other.

        Args:
            tokens: (2 * n, patches, C): n first views, then their n second views.
            rays: (2 * n, patches, 2): x / z and y / z of every patch's centre.

        Returns:
            Rotations (2 * n, 3, 3) and translations (2 * n, 3) whose length means nothing: x_b = R x_a + t for the
            first n, x_a = R x_b + t for the others.
        """
        x = self.tokens((tokens - self.mean) * self.scale) + self.rays(_waves(rays))
        for block in self.blocks:
            x = block(x)
        x = self.out(self.each(self.norm(x)).mean(dim=1))
        # Most views are turned little: the untrained head starts near no turn at all.
        matrices = x[:, :9].unflatten(1, (3, 3)) + torch.eye(3, device=x.device)
        return nearest_rotation(matrices), x[:, 9:]


class _Block(nn.Module):
    """Attention within each view, attention to the other view, and an MLP; norms before each."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.within, self.across = _Attention(width, heads), _Attention(width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norms[0](x)
        x = x + self.within(y, y)
        y = self.norms[1](x)
        # Views are stacked, the first ones and then the second ones: half a turn swaps them.
        x = x + self.across(y, y.roll(len(y) // 2, dims=0))
        return x + self.mlp(self.norms[2](x))


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key_value = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.query(x), *self.key_value(other).chunk(2, dim=-1))
        )
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def train_head(
    maps: FeatureMaps,
    frames: SquareFrames,
    pairs: Sequence[Pair],
    *,
    seed: int,
    config: HeadConfig,
    device: torch.device,
    progress: bool = False,
) -> PoseHead:
    """Train a head on pairs of training images.

    Args:
        maps: features of images, among them those of the pairs.
        frames: the same images, with intrinsics.
        pairs: training pairs with `relative_pose`; indices into ``maps`` and ``frames``. No other image is read.
        seed: of the initial weights and of the draws, so that all encoders see the same pairs.
        config: the recipe.
        device: where it is trained.
        progress: show a bar on stderr.
    """
    reader = _Reader(maps, frames, config, device)
    images = sorted({index for pair in pairs for index in (pair.a, pair.b)})
    mean, deviation = channel_moments(reader.tokens, images)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = PoseHead(mean.float(), (1 / deviation).float(), config).to(device)
    optimizer = torch.optim.AdamW(
        head.parameters(), lr=config.lr, weight_decay=config.weight_decay, betas=(0.9, 0.95)
    )
    schedule = warm_cosine(optimizer, config.steps, warm=config.steps // 10)
    rotations, translations = _both_ways(pairs, device)
    for step in tqdm(range(config.steps), desc="pose head", disable=not progress, leave=False):
        rng = np.random.Generator(np.random.Philox(key=[seed, step]))
        drawn = rng.integers(len(pairs), size=config.pairs)
        rotation, translation = head(*reader.read([pairs[i] for i in drawn]))
        picks = torch.from_numpy(np.concatenate([drawn, drawn + len(pairs)])).to(device)
        loss = (
            rotation_angles(rotation, rotations[picks]) + direction_angles(translation, translations[picks])
        ).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(head.parameters(), config.clip)
        optimizer.step()
        schedule.step()
    return head.eval().requires_grad_(False)


@torch.inference_mode()
def predict_poses(
    head: PoseHead,
    maps: FeatureMaps,
    frames: SquareFrames,
    pairs: Sequence[Pair],
    *,
    config: HeadConfig,
    device: torch.device,
    batch: int = 32,
) -> NDArray[np.float64]:
    """Poses (n, 3, 4) of second views relative to first ones, x_b = R x_a + t with |t| = 1."""
    reader, found = _Reader(maps, frames, config, device), []
    for start in range(0, len(pairs), batch):
        part = pairs[start : start + batch]
        rotation, translation = (x[: len(part)].double().cpu() for x in head(*reader.read(part)))
        translation = F.normalize(translation, dim=-1)
        found.append(torch.cat([rotation, translation[..., None]], dim=-1).numpy())
    return np.concatenate(found)


class _Reader:
    """Tokens and rays of pairs, on a grid that is not too fine."""

    def __init__(
        self, maps: FeatureMaps, frames: SquareFrames, config: HeadConfig, device: torch.device
    ) -> None:
        self._maps, self._frames, self._device = maps, frames, device
        self._grid = tuple(min(side, config.grid) for side in maps.grid)
        self._places = np.column_stack(
            [patch_centres(*self._grid, frames.size), np.ones(self._grid[0] * self._grid[1])]
        )

    def read(self, pairs: Sequence[Pair]) -> tuple[Tensor, Tensor]:
        """Tokens (2 * n, patches, C) and rays (2 * n, patches, 2): all first views, then all second ones."""
        indices = [*(pair.a for pair in pairs), *(pair.b for pair in pairs)]
        rays = np.stack([self._rays(index) for index in indices])
        return self.tokens(indices).to(self._device), torch.from_numpy(rays).float().to(self._device)

    def tokens(self, indices: Sequence[int]) -> Tensor:
        """(n, patches, C) on the head's grid."""
        tokens = self._maps.tokens(indices)
        if self._grid == self._maps.grid:
            return tokens
        maps = tokens.transpose(1, 2).unflatten(2, self._maps.grid)
        return F.adaptive_avg_pool2d(maps, self._grid).flatten(2).transpose(1, 2)

    def _rays(self, index: int) -> NDArray:
        rays = self._places @ np.linalg.inv(self._frames.intrinsics(index)).T
        return rays[:, :2] / rays[:, 2:]


def _both_ways(pairs: Sequence[Pair], device: torch.device) -> tuple[Tensor, Tensor]:
    """True rotations (2 * n, 3, 3) and translations (2 * n, 3) of unit length: a to b of all, then b to a."""
    poses = torch.from_numpy(np.stack([pair.relative_pose for pair in pairs]))
    rotation, translation = poses[..., :3], poses[..., 3:]
    back = rotation.transpose(1, 2)
    both = torch.cat([translation, -back @ translation])[..., 0]
    return torch.cat([rotation, back]).float().to(device), F.normalize(both, dim=-1).float().to(device)


def _waves(rays: Tensor) -> Tensor:
    """Rays (..., 2) with their waves (..., 2 + 4 * FREQUENCIES)."""
    octaves = 2.0 ** torch.arange(FREQUENCIES, device=rays.device)
    phase = (rays[..., None] * octaves).flatten(-2)
    return torch.cat([rays, phase.sin(), phase.cos()], dim=-1)
