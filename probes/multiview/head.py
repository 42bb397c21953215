"""A small head that reads frozen features of several views together: a pose and a depth map for every view.

The plan of VGGT (arXiv 2503.11651, section 3) as MuM's multi-view evaluation uses it, smaller: frozen tokens ->
linear layer -> blocks that alternate attention within a frame and within a scene -> a camera token a frame to its
pose, patch tokens to depth. Two things are given to it, so that seconds of training tell encoders apart, where
VGGT's plan alone needs days: intrinsics, as the direction of every patch's ray, and correspondences: a linear
layer matches every patch softly with those of the reference (trained as the linear matching probe is), and the
moments of how rays move stand beside the camera token. Tokens are packed, (frames, patches, channels), with the
views of each scene contiguous and the first of them its reference. Poses are camera-to-reference, (3, 4) [R | c];
lengths are in a unit of the scene's own. This file knows no data set and no training.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mum.attention import SceneLayout
from mum.block import Block
from mum.rope import compute_dtype, rope_table, signed_sin
from probes.encoders.moments import Moments
from probes.metrics.rotations import nearest_rotation

_MOMENTS = 18
_LOUDER = 10.0  # rays move by a tenth or two: moments as large as the normed tokens beside them


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """Shape of the head; part of the identity of a result."""

    width: int = 768
    """Channels of a token."""
    depth: int = 12
    """Blocks of both kinds together: within a frame, within a scene, within a frame, ..."""
    heads: int = 12
    match_width: int = 128
    """Channels in which patches are matched."""
    grid: int = 64
    """Patches a side at most: what the linear layers make of finer grids is averaged."""
    cells: int = 4
    """Depths a side of a patch."""
    temperature: float = 0.1
    """Of matching, to begin with; it is learned."""


class Reading(NamedTuple):
    """What the head says of a pack of I frames."""

    poses: Tensor
    """(I, 3, 4) camera to the reference; the reference's own is the identity."""
    log_depth: Tensor
    """(I, H, W) natural logarithms of depths, H, W = `MultiviewHead.resolution`."""
    match_logits: Tensor
    """(I, h * w, h * w): patches of each frame against those of its reference."""


class MultiviewHead(nn.Module):
    """Poses and depth maps from frozen tokens.

    Args:
        moments: of every channel over the training frames.
        grid: rows and columns of the encoder's patches.
        config: its shape.
    """

    def __init__(self, moments: Moments, grid: tuple[int, int], config: HeadConfig) -> None:
        super().__init__()
        self.config, self.grid, width = config, grid, config.width
        self.inner_grid = (min(grid[0], config.grid), min(grid[1], config.grid))
        """Rows and columns of patches inside the head."""
        self.register_buffer("mean", moments.mean.float())
        self.register_buffer("scale", 1 / moments.deviation.float())
        self.match = nn.Linear(len(moments.mean), config.match_width)
        self.sharpness = nn.Parameter(torch.tensor(1 / config.temperature).log())
        self.embed = nn.Linear(len(moments.mean), width)
        self.moved = nn.Sequential(nn.Linear(5, width), nn.GELU(), nn.Linear(width, width))
        # The reference frame and all others have tokens of their own (VGGT, section 3.3).
        self.camera_tokens = nn.Parameter(0.02 * torch.randn(2, 1, width))
        self.blocks = nn.ModuleList(Block(width, config.heads, 1e-5) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width)
        self.pose = nn.Sequential(
            nn.Linear(2 * width + _MOMENTS, 2 * width), nn.GELU(), nn.Linear(2 * width, 12)
        )
        self.smooth = nn.Conv2d(width, width // 2, 3, padding=1)
        self.depths = nn.Conv2d(width // 2, config.cells**2, 1)
        for layer in (self.pose[-1], self.depths):
            nn.init.normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
        with torch.no_grad():
            self.pose[-1].bias[[0, 4, 8]] = 1.0  # all cameras look where the reference looks

    @property
    def resolution(self) -> tuple[int, int]:
        """Rows and columns of the depth maps it predicts."""
        return self.inner_grid[0] * self.config.cells, self.inner_grid[1] * self.config.cells

    def forward(self, tokens: Tensor, rays: Tensor, views: Sequence[int]) -> Reading:
        """Poses and depth maps of all frames.

        Args:
            tokens: (I, patches, C) frozen features, row by row.
            rays: (I, h * w, 2) x/z and y/z of the rays through the centres of the head's own patches.
            views: frames of each scene, in pack order; their sum is I.
        """
        tokens = (tokens - self.mean) * self.scale
        starts = torch.tensor([0, *views[:-1]], device=tokens.device).cumsum(0)
        first = starts.repeat_interleave(torch.tensor(views, device=tokens.device))
        is_reference = first == torch.arange(len(tokens), device=tokens.device)
        unit = F.normalize(self._inner(self.match(tokens)), dim=-1)
        logits = unit @ unit[first].mT * self.sharpness.exp()
        weights = logits.softmax(dim=-1).to(rays.dtype)
        there, certain = weights @ rays[first], weights.square().sum(dim=-1, keepdim=True)
        x = self._inner(self.embed(tokens)) + self.moved(torch.cat((rays, there - rays, certain), dim=-1))
        x = torch.cat((self.camera_tokens[1 - is_reference.long()].to(x.dtype), x), dim=1)
        x = self._alternate(x, tuple(views))
        pooled = torch.cat(
            (x[:, 0], x[:, 1:].mean(dim=1), ray_moments(rays, there, certain).to(x.dtype)), dim=1
        )
        return Reading(self._poses(pooled, is_reference), self._log_depth(x[:, 1:]), logits)

    def _inner(self, x: Tensor) -> Tensor:
        """Patches of the encoder's grid as those of the head's own."""
        if self.inner_grid == self.grid:
            return x
        return F.adaptive_avg_pool2d(x.mT.unflatten(2, self.grid), self.inner_grid).flatten(2).mT

    def _alternate(self, x: Tensor, views: tuple[int, ...]) -> Tensor:
        layout = SceneLayout(views, x.shape[1], x.device)
        by_count = layout.sorted()
        if by_count is not None:
            layout, order, inverse = by_count
            x = x[order]
        head_dim = self.config.width // self.config.heads
        sin, cos = rope_table(self.inner_grid, head_dim, "identity", x.device, compute_dtype(x)).chunk(
            2, dim=-1
        )
        table = signed_sin(sin)[:, None, None], cos[:, None, None]
        for index, block in enumerate(self.blocks):
            x = block(x, *table, layout if index % 2 else None)
        return self.norm(x if by_count is None else x[inverse])

    def _poses(self, pooled: Tensor, is_reference: Tensor) -> Tensor:
        numbers = self.pose(pooled).float()
        poses = torch.cat(
            (nearest_rotation(numbers[:, :9].unflatten(1, (3, 3))), numbers[:, 9:, None]), dim=2
        )
        return torch.where(is_reference[:, None, None], torch.eye(3, 4, device=poses.device), poses)

    def _log_depth(self, patches: Tensor) -> Tensor:
        maps = F.gelu(self.smooth(patches.mT.unflatten(2, self.inner_grid)))
        return F.pixel_shuffle(self.depths(maps), self.config.cells).squeeze(1).float()


def ray_moments(rays: Tensor, there: Tensor, certain: Tensor) -> Tensor:
    """How rays move from a frame to its reference, in 18 numbers: what a rotation is solved from (Wahba, 1965).

    Args:
        rays: (I, P, 2) x/z and y/z of patches.
        there: (I, P, 2) of what they match in the reference.
        certain: (I, P, 1) weights.

    Returns:
        (I, 18): the mean of (unit ray there - unit ray) x unit ray, weighted and not.
    """
    here, moved = (F.normalize(F.pad(part, (0, 1), value=1.0), dim=-1) for part in (rays, there))
    moved = moved - here
    weighted = (moved * certain / certain.sum(dim=1, keepdim=True)).mT @ here
    return _LOUDER * torch.cat((weighted, moved.mT @ here / rays.shape[1]), dim=1).flatten(1)
