"""What is told before a run: the dry run of a command, and the list of recipes, as text or as JSON values.

Figures come from `launch` (data, folder, schedule) and `estimate` (cost); here they are only put together and
put into words.
"""

import textwrap
from collections.abc import Mapping
from typing import Any

import torch

from pretrain.estimate import estimate
from pretrain.launch import Prepared
from pretrain.optim import describe_schedule
from pretrain.recipes import RECIPES, RunConfig, to_dict
from pretrain.tasks import MaskedViews

WIDTH = 110
"""Columns of the text."""
RECOMPUTE = ("none", "selective", "block")
"""What --parallel.recompute may be, by falling memory."""


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested mapping with its paths as keys."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        path = f"{prefix}{key}"
        found |= flat(value, f"{path}.") if isinstance(value, Mapping) else {path: value}
    return found


def differences(recipe: str, config: RunConfig) -> dict[str, dict[str, Any]]:
    """The fields in which a configuration differs from its recipe: the value here, and the recipe's."""
    own, here = flat(to_dict(RECIPES[recipe]())), flat(to_dict(config))
    return {
        path: {"here": value, "recipe": own.get(path)}
        for path, value in here.items()
        if value != own.get(path)
    }


def dry_run(prepared: Prepared) -> dict[str, Any]:
    """All that --dry-run tells; JSON values. InputError where the model does not fit the ranks."""
    config = prepared.command.config
    return {
        "config": to_dict(config),
        "differences": differences(prepared.command.recipe, config),
        **prepared.figures(),
        **estimate(
            config,
            prepared.task,
            ranks=prepared.world.size,
            schedule=prepared.plan.coverage.schedule,
            recompute=RECOMPUTE,
        ),
    }


def dry_run_in_words(prepared: Prepared) -> str:
    """The same for people."""
    told, config = dry_run(prepared), prepared.command.config
    changed = told["differences"]
    pretended = f"; the {prepared.world.size} ranks were pretended" if prepared.command.world else ""
    lines = [f"{prepared.sentence()}.", f"Nothing was written{pretended}.", ""]
    lines += _rows(cost_in_words(told, config) | _data(prepared, told))
    lines += ["", f"configuration ({len(changed)} of its fields not as in the recipe)"]
    for path, value in flat(told["config"]).items():
        mark, was = ("*", f"   (recipe: {changed[path]['recipe']})") if path in changed else (" ", "")
        lines.append(f"{mark} {path} = {value}{was}")
    return "\n".join(lines)


def cost_in_words(told: Mapping[str, Any], config: RunConfig) -> dict[str, str]:
    """Topic to text, of the figures of `estimate`."""
    memory, tokens = told["memory"], told["tokens_per_pass"]
    passes, images = told["passes_per_step"], told["images_per_pass"]
    own, precision = config.parallel.recompute, config.precision
    others = "".join(
        f", {_gb(size)} with {kind}" for kind, size in told["peak_bytes_by_recompute"].items() if kind != own
    )
    many = f"{told['ranks']} x " if told["ranks"] > 1 else ""
    stay, one = told["checkpoints_kept"], told["checkpoint_bytes"]
    mean = f"running mean {_gb(memory['average_bytes'])}, " if memory["average_bytes"] else ""
    return {
        "model": f"{config.model.name}, {told['parameters'] / 1e6:.1f} M parameters, "
        f"{told['forward_gflop_per_image']:.1f} GFLOP an image forward, {told['training_gflop_per_image']:.1f} with "
        "the backward pass",
        "a step": f"{config.images_per_step} images; on a rank {passes} pass{'es' * (passes > 1)} of {images} images, "
        f"{tokens['encoder']:,} tokens in the encoder and {tokens['decoder']:,} in the decoder",
        "memory": f"{_gb(memory['peak_bytes'])} a rank at the highest point with --parallel.recompute {own}{others}: "
        f"weights {_gb(memory['weights_bytes'])}, gradients {_gb(memory['gradients_bytes'])}, moments "
        f"{_gb(memory['moments_bytes'])}, {mean}{memory['image_bytes'] / 1e6:.1f} MB for each image of a pass, the "
        "rest gathered and cast copies; tensors only, with fused attention and blocks not compiled",
        "checkpoint": f"{_gb(one)} each, {_gb(one * stay)} for the {stay} on disk at the end",
        "speed": f"at {told['assumed_mfu']:.0%} of the {precision} peak, which is assumed and not measured: "
        + ", ".join(
            f"{many}{name} {speed['images_per_s']:,.0f} images/s ({_long(speed['hours'])})"
            for name, speed in told["speed"].items()
        ),
    }


def _data(prepared: Prepared, told: Mapping[str, Any]) -> dict[str, str]:
    begins = {"begins": told["initial"]} if told["initial"] else {}
    return begins | {
        "data": f"{told['epochs']:g} epochs of {told['steps_per_epoch']:,} steps over {len(prepared.plan.chunks):,} "
        f"chunks ({told['skipped_chunks']} too small)",
        "learning": f"peak lr {told['peak_lr']:g} after {told['warmup_steps']:,} of {told['steps']:,} steps",
    }


def recipe_figures(name: str) -> dict[str, Any]:
    """What `list` tells of a recipe: what it trains on and what it takes, on one rank; JSON values."""
    config = RECIPES[name]()
    task = MaskedViews(config, torch.device("cpu"))
    return {
        "recipe": name,
        "what": (RECIPES[name].__doc__ or "").splitlines()[0],
        "model": config.model.name,
        "parameters": task.parameters(),
        "size": config.data.size,
        "views": list(config.data.views),
        "images_per_step": config.images_per_step,
        "images": config.images_per_step * config.steps,
        "lanes": config.data.lanes,
        "precision": config.precision,
        **describe_schedule(config.optim, steps=config.steps, images_per_step=config.images_per_step),
        **estimate(config, task, ranks=1),
    }


def recipe_in_words(name: str) -> str:
    """The same for people, in a few lines."""
    told, config = recipe_figures(name), RECIPES[name]()
    low, high = config.data.views
    rows = {
        "trains on": f"{config.data.size} px, {low} to {high} views, {told['images'] / 1e6:,.1f} M images in "
        f"{told['steps']:,} steps of {config.images_per_step:,} in {config.data.lanes} lanes, peak lr "
        f"{told['peak_lr']:g}, {config.precision}"
    }
    return "\n".join(
        [f"{name}: {told['what']}", *("    " + row for row in _rows(rows | cost_in_words(told, config)))]
    )


def _rows(topics: Mapping[str, str]) -> list[str]:
    """Topics on the left, their texts wrapped on the right."""
    width = max(map(len, topics)) + 2
    lines = []
    for topic, text in topics.items():
        lines += textwrap.wrap(
            text,
            WIDTH - 4,
            initial_indent=topic.ljust(width),
            subsequent_indent=" " * width,
            break_on_hyphens=False,
        )
    return lines


def _long(hours: float) -> str:
    return f"{hours:,.0f} h" if hours >= 10 else f"{hours:.1f} h" if hours >= 1 else f"{hours * 60:.1f} min"


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
