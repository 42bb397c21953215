"""A job: all that a run is made of, put together by `launch` and taken apart by the loop."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.distributed.device_mesh import DeviceMesh

import shards
from pretrain.evaluation import Evaluation
from pretrain.parallel import World
from pretrain.recipes import RunConfig
from pretrain.run_folder import RunFolder
from pretrain.signals import Signals
from pretrain.tasks import Task
from pretrain.watchdog import Watchdog


@dataclass(frozen=True, kw_only=True)
class Job:
    """All that a run is made of."""

    config: RunConfig
    dataset: shards.Dataset | shards.Mixture
    task: Task
    evaluation: Evaluation
    folder: RunFolder
    world: World
    device: torch.device
    mesh: DeviceMesh
    start: Path | None
    """checkpoint to begin with"""
    continues: bool
    """whether that is this run's own, so that the data must go on exactly where it stopped"""
    migrates: bool
    """whether it may be of other data nevertheless"""
    header: dict[str, Any]
    """what checkpoints say of the run: recipe, hash, data, versions"""
    signals: Signals
    """asked at every step, and wherever something long is about to begin"""
    watchdog: Watchdog
    """told what the ranks are at"""
