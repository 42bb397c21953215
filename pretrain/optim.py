"""The optimizer: which parameters decay, how high the learning rate is, and how it moves with the step.

Pure functions of the configuration and the step, so that a resumed run needs no scheduler state. Updates are
counted from 0 here: update s leads from the weights after s updates to the weights after s + 1.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


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


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups: matrices of linear and convolution layers, which decay, and all else, which does not.

    Biases, norms, class and mask tokens (3-D, but no matrices) do not decay.
    """
    matrices = {
        id(module.weight)
        for module in model.modules()
        if isinstance(module, (nn.Linear, nn.modules.conv._ConvNd)) and module.weight.ndim >= 2
    }
    trained = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if id(p) in matrices], "weight_decay": weight_decay},
        {"params": [p for p in trained if id(p) not in matrices], "weight_decay": 0.0},
    ]


def build_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """Fused AdamW over `parameter_groups`; call it after the model is sharded."""
    groups = parameter_groups(model, config.weight_decay)
    return torch.optim.AdamW(groups, lr=0.0, betas=config.betas, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every group the learning rate `lr`."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def describe_schedule(config: OptimConfig, *, steps: int, images_per_step: int) -> Mapping[str, float | int]:
    """The schedule in figures: peak rate, warm-up steps, total steps."""
    return {
        "peak_lr": peak_lr(config, images_per_step),
        "warmup_steps": round(steps * config.warmup),
        "steps": steps,
    }
