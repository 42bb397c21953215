"""The optimizer: which parameters decay, how high the learning rate is, and how it moves with step and depth.

Pure functions of the configuration, the step and the parameters' names, so that a resumed run needs no
scheduler state. Updates are counted from 0 here: update s leads from the weights after s updates to the weights
after s + 1.

The rate follows from the images that a step really sees, lanes x images per lane: not from the number of ranks,
of scenes or of accumulated passes. Its peak is base_lr x images / 256 (the linear rule of MAE), or lr where that
is given; it rises linearly over the first `warmup` of the steps and falls to 0 as half a cosine; a block of the
encoder gets layer_decay to the power of its distance from the top of it.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pretrain.errors import InputError


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW and its schedule."""

    lr: float | None = None
    """peak learning rate; None: base_lr x images per step / 256"""
    base_lr: float = 1e-4
    """learning rate per 256 images (linear rule), used where lr is None"""
    warmup: float = 0.05
    """share of the steps over which the rate rises linearly, before the cosine to 0"""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's decay rates of the first and second moment"""
    weight_decay: float = 0.05
    """on matrices only: weights of linear and convolution layers"""
    clip: float | None = None
    """largest norm of the whole gradient; None: not clipped (the norm is logged all the same)"""
    layer_decay: float = 1.0
    """share that an encoder block's rate has of the one above; the decoder learns at the full rate, and the lower
    the block, the slower. 1: all alike; 0.65 to 0.9 where --init brings weights"""
    ema: float = 0.0
    """decay of a running mean of the weights; it is evaluated beside them and saved as ema.safetensors. 0: none;
    0.9999 is usual"""

    def __post_init__(self) -> None:
        if not 0 < self.layer_decay <= 1:
            raise InputError(f"--optim.layer-decay must lie in (0, 1], not {self.layer_decay}")
        if not 0 <= self.ema < 1:
            raise InputError(f"--optim.ema must lie in [0, 1), not {self.ema}: 0 is off, 0.9999 usual")


def peak_lr(config: OptimConfig, images_per_step: int) -> float:
    """The peak learning rate: as configured, or by the linear rule from the images of one step."""
    return config.base_lr * images_per_step / 256 if config.lr is None else config.lr


def learning_rate(step: int, *, steps: int, peak: float, warmup: float) -> float:
    """The learning rate of update `step` (0-based) of `steps`: linear warm-up, then half a cosine to 0.

    `warmup` is a share of the steps. Past the last step the rate is 0.
    """
    rising = round(steps * warmup)
    if step < rising:
        return peak * (step + 1) / rising
    progress = min(1.0, (step - rising) / max(1, steps - rising))
    return peak * 0.5 * (1 + math.cos(math.pi * progress))


def layer_scales(names: Iterable[str], decay: float) -> dict[str, float]:
    """What share of the learning rate each parameter gets, by its name in the model.

    Source: BEiT (arXiv 2106.08254), as MAE fine-tunes: `decay` for the encoder's last block, one power more for
    each block below it and for class token and patch embedding, 1 for its last norm and all of the decoder.
    """
    names = list(names)
    pattern = re.compile(r"encoder\.blocks\.(\d+)\.")
    blocks = {name: int(found[1]) for name in names if (found := pattern.match(name))}
    depth = 1 + max(blocks.values(), default=-1)
    scales = {}
    for name in names:
        if name in blocks:
            distance = depth - blocks[name]
        elif name.startswith(("encoder.patch_embed.", "encoder.cls_token")):
            distance = depth + 1
        else:
            distance = 0
        scales[name] = decay**distance
    return scales


def parameter_groups(model: nn.Module, weight_decay: float, layer_decay: float = 1.0) -> list[dict[str, Any]]:
    """Matrices of linear and convolution layers, which decay, and all else, which does not.

    Biases, norms, class and mask tokens (3-D, but no matrices) do not decay. With a layer decay there are two
    such groups for every depth, highest rate first; `lr_scale` of a group is its share of the rate.
    """
    matrices = {
        id(module.weight)
        for module in model.modules()
        if isinstance(module, (nn.Linear, nn.modules.conv._ConvNd)) and module.weight.ndim >= 2
    }
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    scales = layer_scales(trained, layer_decay)
    groups = []
    for scale in sorted(set(scales.values()), reverse=True):
        own = [p for name, p in trained.items() if scales[name] == scale]
        for chosen, decay in (
            ([p for p in own if id(p) in matrices], weight_decay),
            ([p for p in own if id(p) not in matrices], 0.0),
        ):
            if chosen:
                groups.append({"params": chosen, "weight_decay": decay})
                if layer_decay < 1:
                    groups[-1]["lr_scale"] = scale
    return groups


def build_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """Fused AdamW over `parameter_groups`; call it after the model is sharded."""
    groups = parameter_groups(model, config.weight_decay, config.layer_decay)
    return torch.optim.AdamW(groups, lr=0.0, betas=config.betas, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every group its share of the learning rate `lr`."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)


def describe_schedule(config: OptimConfig, *, steps: int, images_per_step: int) -> Mapping[str, float | int]:
    """The schedule in figures: peak rate, warm-up steps, total steps."""
    return {
        "peak_lr": peak_lr(config, images_per_step),
        "warmup_steps": round(steps * config.warmup),
        "steps": steps,
    }
