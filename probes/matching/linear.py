"""The linear reading of frozen features: one linear layer, shared by both views, that learns to match patches.

Protocol (RoMa's and MuM's linear probe, as far as it is public): features of both views go through the same
linear layer; the kernel exp((cos - 1) / T) compares a query's patch with every patch of the other view; the loss
is the cross-entropy of the patch that truly contains the point. Channels are first centred and scaled by the
training images' mean and deviation ("batch"), a fixed affine map that the layer absorbs, so that one learning rate
suits every encoder; or every token is normalised by itself ("layer"), or nothing is done ("none"). Tokens are
(n, patches, channels) float32. Heads of several layers are trained side by side on the same draws: none sees
another, so each becomes what it would be alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from probes.data.pairs import Pair
from probes.encoders.features import FeatureMaps
from probes.encoders.moments import channel_moments
from probes.metrics.correspondence import patch_of
from probes.schedule import warm_cosine

Norm = Literal["none", "layer", "batch"]
AT_ONCE = 1 << 28  # bytes of tokens of the heads that are trained side by side


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
    """Of the kernel; where it is learned, what it starts from."""
    learn_temperature: bool = False
    norm: Norm = "batch"


class LinearProbe(nn.Module):
    """A linear layer, behind a norm of its own where it asks for one; its output has unit length."""

    def __init__(self, layer: nn.Linear, *, layer_norm: bool, temperature: float) -> None:
        super().__init__()
        self.layer, self.layer_norm = layer, layer_norm
        self.temperature = temperature
        """Of the kernel it was trained with, as it was at the end."""

    def forward(self, tokens: Tensor) -> Tensor:
        """Unit vectors (..., width) of tokens (..., C)."""
        return F.normalize(self.layer(_by_token(tokens) if self.layer_norm else tokens), dim=-1)


def train_linear_heads(
    variants: Sequence[FeatureMaps],
    pairs: Sequence[Pair],
    *,
    size: int,
    seed: int,
    config: LinearConfig,
    device: torch.device,
    progress: bool = False,
) -> list[LinearProbe]:
    """Train a probe on each of several features of the same images, such as layers.

    Args:
        variants: features of images, among them those of the pairs.
        pairs: training pairs; indices into ``variants``. No other image is looked at.
        size: evaluated size in px.
        seed: of the initial layer and of the draws, so that all encoders see the same pairs.
        config: the recipe.
        device: where they are trained.
        progress: show a bar on stderr.
    """
    like: dict[tuple[tuple[int, int], int], list[int]] = {}
    for index, maps in enumerate(variants):
        like.setdefault((maps.grid, maps.tokens([0]).shape[-1]), []).append(index)
    probes: dict[int, LinearProbe] = {}
    for (grid, channels), members in like.items():
        together = max(1, AT_ONCE // (4 * config.pairs * grid[0] * grid[1] * channels))
        for start in range(0, len(members), together):
            part = members[start : start + together]
            found = _train([variants[i] for i in part], pairs, size, seed, config, device, progress)
            probes.update(zip(part, found, strict=True))
    return [probes[index] for index in range(len(variants))]


def _train(
    variants: Sequence[FeatureMaps],
    pairs: Sequence[Pair],
    size: int,
    seed: int,
    config: LinearConfig,
    device: torch.device,
    progress: bool,
) -> list[LinearProbe]:
    """Heads of maps that share grid and channels; the leading axis of all tensors is the head."""
    images = sorted({index for pair in pairs for index in (pair.a, pair.b)})
    affine = [_affine(maps, images, config.norm) for maps in variants]
    mean, scale = (torch.stack(found).to(device) for found in zip(*affine, strict=True))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        first = nn.Linear(mean.shape[-1], config.width)
    heads = len(variants)
    weight = nn.Parameter(first.weight.detach().expand(heads, -1, -1).clone().to(device))
    bias = nn.Parameter(first.bias.detach().expand(heads, -1).clone().to(device))
    log_temperature = nn.Parameter(torch.full((heads,), float(np.log(config.temperature)), device=device))
    groups: list[dict] = [{"params": [weight, bias]}]
    if config.learn_temperature:
        groups.append({"params": [log_temperature], "weight_decay": 0.0})  # decay would pull it towards 1
    optimizer = torch.optim.AdamW(groups, lr=config.lr, weight_decay=config.weight_decay)
    schedule = warm_cosine(optimizer, config.steps, warm=config.steps // 10)
    grid = variants[0].grid
    source = [torch.from_numpy(patch_of(pair.queries, *grid, size)) for pair in pairs]
    target = [torch.from_numpy(patch_of(pair.targets, *grid, size)) for pair in pairs]

    def layer() -> tuple[Tensor, Tensor]:
        """The trained layer with the standardisation before it, as one: (heads, width, C) and (heads, width)."""
        scaled = weight * scale[:, None]
        return scaled, bias - (scaled @ mean[..., None]).squeeze(-1)

    def project(tokens: Tensor, scaled: Tensor, shift: Tensor) -> Tensor:
        flat = tokens.flatten(1, 2)
        found = torch.baddbmm(shift[:, None], flat, scaled.transpose(1, 2))
        return F.normalize(found.unflatten(1, tokens.shape[1:3]), dim=-1)

    for step in tqdm(range(config.steps), desc="linear probe", disable=not progress, leave=False):
        rng = np.random.Generator(np.random.Philox(key=[seed, step]))
        drawn = rng.integers(len(pairs), size=config.pairs)
        picks = [torch.from_numpy(rng.integers(len(source[i]), size=config.queries)) for i in drawn]
        asked = torch.stack([source[i][pick] for i, pick in zip(drawn, picks, strict=True)])
        truth = torch.stack([target[i][pick] for i, pick in zip(drawn, picks, strict=True)]).to(device)
        rows = torch.arange(len(drawn))[:, None]
        view_a = torch.stack([maps.tokens([pairs[i].a for i in drawn])[rows, asked] for maps in variants])
        view_b = torch.stack([maps.tokens([pairs[i].b for i in drawn]) for maps in variants])
        views = [view.to(device) for view in (view_a, view_b)]
        if config.norm == "layer":
            views = [_by_token(view) for view in views]
        queries, places = (project(view, *layer()) for view in views)
        cosine = queries @ places.transpose(-2, -1)
        logits = cosine / log_temperature.exp()[:, None, None, None]
        losses = F.cross_entropy(
            logits.flatten(0, 2), truth.expand(heads, -1, -1).flatten(), reduction="none"
        )
        optimizer.zero_grad(set_to_none=True)
        losses.unflatten(0, (heads, -1)).mean(dim=1).sum().backward()
        optimizer.step()
        schedule.step()
    return [
        _finished(*(part.detach()[head] for part in (*layer(), log_temperature)), config)
        for head in range(heads)
    ]


def _finished(weight: Tensor, bias: Tensor, log_temperature: Tensor, config: LinearConfig) -> LinearProbe:
    layer = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    layer.weight, layer.bias = nn.Parameter(weight.clone()), nn.Parameter(bias.clone())
    temperature = float(log_temperature.exp()) if config.learn_temperature else config.temperature
    probe = LinearProbe(layer, layer_norm=config.norm == "layer", temperature=temperature)
    return probe.eval().requires_grad_(False)


def _by_token(tokens: Tensor) -> Tensor:
    return F.layer_norm(tokens, tokens.shape[-1:])


def _affine(maps: FeatureMaps, images: Sequence[int], norm: Norm) -> tuple[Tensor, Tensor]:
    """What is subtracted of every channel (C,) and what it is then multiplied with (C,)."""
    if norm != "batch":
        channels = maps.tokens(images[:1]).shape[-1]
        return torch.zeros(channels), torch.ones(channels)
    mean, deviation = channel_moments(maps.tokens, images)
    return mean.float(), (1 / deviation).float()
