"""What a run will take, in figures, before it begins: arithmetic, tokens, memory, disk, time.

Floating-point operations are the model's closed form over the view counts that the run will draw; memory is
found by `footprint`; speed is a device's peak times a share of it that is assumed and said, since nothing was
measured. Bytes are bytes, GB are 1e9 of them. Nothing here reads data or prints.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mum.masking import count_decoded, count_kept, reference_views
from pretrain.devices import peak_flops
from pretrain.footprint import footprint
from pretrain.parallel import lanes_per_pass
from pretrain.recipes import RunConfig
from pretrain.tasks import MaskedViews
from shards.data_config import DataConfig
from shards.view_counts import CYCLE, Schedule, view_counts

ASSUMED_MFU = 0.4
"""Share of a device's peak that the expected speed assumes."""
GPUS = ("A100", "L40S", "H100", "H200", "B200")
"""Devices whose speed is told, by the names of `pretrain/devices.py`."""


def likely_schedule(config: DataConfig) -> Schedule:
    """The view counts as they are drawn where every scene has enough frames: for want of the data."""
    uniform = np.random.Generator(np.random.Philox(0)).random((CYCLE, config.multi_view_scenes))
    counts = view_counts(config.scene_images, config.multi_view_scenes, config.views, uniform)
    return Schedule(np.pad(counts, ((0, 0), (0, config.single_images)), constant_values=1))


def training_flops_per_image(task: MaskedViews, schedule: Schedule) -> float:
    """Forward and backward pass of one image, in the mean of the view counts."""
    scenes = schedule.of_step.mean(0)
    pack = sum(n * task.flops([int(size)]) for size, n in zip(schedule.sizes, scenes, strict=True))
    return 3 * pack / float(scenes @ schedule.sizes)


def tokens_per_pass(config: RunConfig, task: MaskedViews, views: tuple[int, ...]) -> dict[str, int]:
    """Tokens that the encoder and the decoder see in one forward pass over packs of these view counts."""
    model, images = config.model, sum(views)
    kept = count_kept(task.tokens, model.mask_ratio)
    decoded = count_decoded(task.tokens - kept, model.decode_fraction)
    whole = len(reference_views(views, model.decode_fraction)[0]) if model.reference_view else 0
    return {
        "encoder": images * (1 + kept) + whole * (task.tokens - kept),
        "decoder": images * (1 + kept + decoded),
    }


def checkpoint_bytes(config: RunConfig, parameters: int) -> int:
    """A checkpoint on disk: weights, AdamW's two moments and the running mean, if any; both kinds of weights again
    for `mum` to read."""
    kinds = 2 if config.optim.ema else 1
    return 4 * parameters * (2 * kinds + 2)


def checkpoints_kept(config: RunConfig) -> int:
    """Checkpoints on disk when the run ends."""
    every, keep, forever = config.checkpoint.every, config.checkpoint.keep, config.checkpoint.keep_every
    saved = {*range(every, config.steps + 1, every), config.steps} if every else {config.steps}
    newest = sorted(saved)[-keep:] if keep else saved
    return len({*newest, *(step for step in saved if forever and step % forever == 0)})


def estimate(
    config: RunConfig,
    task: MaskedViews,
    *,
    ranks: int,
    schedule: Schedule | None = None,
    recompute: Sequence[str] = (),
) -> dict[str, Any]:
    """The figures of a run on so many ranks; JSON values.

    `schedule` is the data's own; None takes the likely one. `recompute` names kinds of recomputation under which
    the memory is told too. InputError where ranks and model do not fit.
    """
    schedule = schedule or likely_schedule(config.data)
    at_once = lanes_per_pass(config.parallel, lanes=config.data.lanes, size=ranks)
    passes = config.data.lanes // ranks // at_once
    views = tuple(int(v) for v in np.repeat(schedule.sizes, schedule.at(0))) * at_once
    flops = training_flops_per_image(task, schedule)
    found = memory(config, task, views, ranks=ranks, passes=passes)
    by_recompute = {config.parallel.recompute: found["peak_bytes"]}
    for kind in recompute:
        if kind not in by_recompute:
            other = dataclasses.replace(config, parallel=dataclasses.replace(config.parallel, recompute=kind))
            one = memory(other, task, views, ranks=ranks, passes=passes)
            by_recompute[kind] = one["peak_bytes"]
    return {
        "ranks": ranks,
        "forward_gflop_per_image": round(flops / 3e9, 2),
        "training_gflop_per_image": round(flops / 1e9, 2),
        "passes_per_step": passes,
        "images_per_pass": sum(views),
        "tokens_per_pass": tokens_per_pass(config, task, views),
        "memory": found,
        "peak_bytes_by_recompute": by_recompute,
        "checkpoint_bytes": checkpoint_bytes(config, task.parameters()),
        "checkpoints_kept": checkpoints_kept(config),
        "assumed_mfu": ASSUMED_MFU,
        "speed": speed(config, flops, ranks=ranks),
    }


def memory(
    config: RunConfig, task: MaskedViews, views: tuple[int, ...], *, ranks: int, passes: int
) -> dict[str, int]:
    """Bytes of one rank at the highest point of a step, and what they consist of."""
    found = footprint(config, task, views, ranks=ranks, passes=passes)
    return {f"{name}_bytes": value for name, value in dataclasses.asdict(found).items()}


def speed(config: RunConfig, flops: float, *, ranks: int) -> Mapping[str, Mapping[str, float]]:
    """For each known GPU: images/s of one and of all ranks at the assumed share of its peak, and the run's hours."""
    told = {}
    for name in GPUS:
        peak = peak_flops(name, config.precision)
        if peak is None:
            continue
        one = ASSUMED_MFU * peak / flops
        images = config.steps * config.images_per_step
        told[name] = {
            "images_per_s_per_rank": round(one, 1),
            "images_per_s": round(one * ranks, 1),
            "hours": round(images / (one * ranks) / 3600, 4),
        }
    return told
