"""The linear reading of frozen features: one linear layer, shared by both views, that learns to match
patches.

Protocol (RoMa's and MuM's linear probe, as far as it is public): features of both views go through the same
linear layer; the kernel exp((cos - 1) / T) with T = 0.1 compares a query's patch with every patch of the
other view; the loss is the cross-entropy of the patch that truly contains the point. Channels are first
centred and scaled by the training set's mean and deviation, a fixed affine map that the layer absorbs, so
that one learning rate suits every encoder. Tokens are (n, patches, channels) float32.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from probes.features import FeatureMaps
from probes.metrics import patch_of
from probes.pairs import Pair


@dataclass(frozen=True, kw_only=True)
class LinearConfig:
    """How the linear probe is trained; part of the identity of a result."""

    width: int = 128
    """Channels behind the layer."""
    steps: int = 400
    pairs: int = 16
    """Pairs a step."""
    queries: int = 64
    """Queries a pair and step, drawn with replacement."""
    lr: float = 3e-3
    """Peak learning rate of AdamW; a tenth of the steps warm up, then cosine to zero."""
    weight_decay: float = 0.01
    temperature: float = 0.1


class LinearProbe(nn.Module):
    """A linear layer behind a fixed standardisation of the channels; its output has unit length."""

    def __init__(self, mean: Tensor, deviation: Tensor, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("scale", 1 / deviation)
        self.layer = nn.Linear(len(mean), width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Unit vectors (..., width) of tokens (..., C)."""
        return F.normalize(self.layer((tokens - self.mean) * self.scale), dim=-1)


def train_linear(
    maps: FeatureMaps,
    pairs: Sequence[Pair],
    *,
    size: int,
    seed: int,
    config: LinearConfig,
    device: torch.device,
) -> LinearProbe:
    """Train a probe on the pairs of the training images.

    Args:
        maps: features of the training images.
        pairs: training pairs; indices into ``maps``.
        size: evaluated size in px.
        seed: of the initial layer and of the draws, so that all encoders see the same pairs.
        config: the recipe.
        device: where it is trained.
    """
    mean, deviation = _moments(maps)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        probe = LinearProbe(mean, deviation, config.width).to(device)
    optimizer = torch.optim.AdamW(probe.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    warm = max(1, config.steps // 10)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min(1, (step + 1) / warm) * (1 + np.cos(np.pi * step / config.steps)) / 2,
    )
    source = [torch.from_numpy(patch_of(pair.queries, *maps.grid, size)) for pair in pairs]
    target = [torch.from_numpy(patch_of(pair.targets, *maps.grid, size)) for pair in pairs]
    for step in range(config.steps):
        rng = np.random.Generator(np.random.Philox(key=[seed, step]))
        drawn = rng.integers(len(pairs), size=config.pairs)
        picks = [torch.from_numpy(rng.integers(len(source[i]), size=config.queries)) for i in drawn]
        asked = torch.stack([source[i][pick] for i, pick in zip(drawn, picks, strict=True)]).to(device)
        truth = torch.stack([target[i][pick] for i, pick in zip(drawn, picks, strict=True)]).to(device)
        view_a = maps.tokens([pairs[i].a for i in drawn]).to(device)
        view_b = maps.tokens([pairs[i].b for i in drawn]).to(device)
        queries = probe(view_a.gather(1, asked[..., None].expand(-1, -1, view_a.shape[-1])))
        logits = (queries @ probe(view_b).transpose(1, 2) - 1) / config.temperature
        loss = F.cross_entropy(logits.flatten(0, 1), truth.flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
    return probe.eval().requires_grad_(False)


def _moments(maps: FeatureMaps, part: int = 64) -> tuple[Tensor, Tensor]:
    """Mean and deviation (C,) of every channel over all tokens of all images."""
    total = squares = count = 0
    for start in range(0, len(maps), part):
        flat = maps.tokens(range(start, min(start + part, len(maps)))).flatten(0, 1).double()
        total, squares, count = total + flat.sum(0), squares + flat.square().sum(0), count + len(flat)
    mean = total / count
    deviation = (squares / count - mean.square()).clamp_min(0).sqrt()
    # A channel that never moves says nothing: dividing by its rounding noise would make it loud.
    deviation = torch.where(deviation > 1e-4 * deviation.max(), deviation, torch.inf)
    return mean.float(), deviation.float()
