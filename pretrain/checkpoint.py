"""Checkpoints: a folder `step-00001200` that is either whole or absent.

    distributed/        torch.distributed.checkpoint: model and optimizer, sharded as the ranks hold them
    model.safetensors   the whole model with its configuration in the header, which `mum` reads
    state.json          step, images seen, loader state, configuration: readable, written last

It is written under another name and renamed when everything is on disk, so a full disk or a kill leaves the
earlier ones as they were. All ranks call these functions together. The loop decides when; nothing here knows
why.
"""

import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

from pretrain.errors import InputError
from pretrain.files import read_json, write_json

_NAME = re.compile(r"step-(\d{8,})")


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """When to save, and how much to keep."""

    every: int = 5000
    """steps between checkpoints; 0: only the last step, which is always saved"""
    keep: int = 3
    """how many of the newest checkpoints stay; 0: all"""


class SaveFailedError(InputError):
    """A checkpoint could not be written; the earlier ones are whole."""


def complete(folder: Path) -> list[Path]:
    """The whole checkpoints under `folder`, oldest first."""
    if not folder.is_dir():
        return []
    found = [p for p in folder.iterdir() if _NAME.fullmatch(p.name) and (p / "state.json").is_file()]
    return sorted(found, key=step_of)


def newest(folder: Path) -> Path | None:
    """The newest whole checkpoint under `folder`, or None."""
    found = complete(folder)
    return found[-1] if found else None


def step_of(path: Path) -> int:
    """The number of updates that a checkpoint folder's name tells."""
    match = _NAME.fullmatch(path.name)
    if match is None:
        raise InputError(f"{path} is not a checkpoint folder (they are named like step-00001200)")
    return int(match[1])


def resolve(path: Path) -> Path:
    """A checkpoint folder from what a user names: such a folder, or a run, whose newest one is meant."""
    if (path / "state.json").is_file():
        return path
    found = newest(path / "checkpoints")
    if found is None:
        raise InputError(f"{path} is neither a checkpoint (no state.json) nor a run with a whole checkpoint")
    return found


def _everyone(act: Callable[[], None], fault: str | None = None) -> str | None:
    """Run `act` here and tell every rank the first thing that went wrong on any of them, if anything did."""
    if fault is None:
        try:
            act()
        except dcp.CheckpointException as error:
            # What any rank met inside torch's writer; this class is no Exception.
            fault = "; ".join(sorted({_in_words(cause) for cause, _ in error.failures.values()}))
        except Exception as error:
            fault = _in_words(error)
    faults: list[str | None] = [None] * dist.get_world_size()
    dist.all_gather_object(faults, fault)
    return next((f for f in faults if f is not None), None)


def _in_words(error: BaseException) -> str:
    """An error in one line; the refusal of the disk behind it, where it is one."""
    behind: BaseException | None = error
    while behind is not None and not isinstance(behind, OSError):
        behind = behind.__cause__ or behind.__context__
    told = behind or error
    return " ".join(f"{type(told).__name__}: {told}".split())


def save(
    folder: Path,
    *,
    step: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: dict[str, Any],
    write_model: Callable[[Path], None],
    keep: int,
) -> Path:
    """Write the checkpoint of `step` under `folder`, then drop all but the newest `keep`.

    `write_model` writes model.safetensors to the path it is given; it is called on rank 0 only. Raises
    SaveFailedError on every rank if anything failed on any; what was half written is removed.
    """
    final = folder / f"step-{step:08d}"
    part = folder / f".step-{step:08d}.part"
    first = dist.get_rank() == 0

    def prepare() -> None:
        if first:
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)

    def write_tensors() -> None:
        weights, moments = get_state_dict(model, optimizer)
        dcp.save({"model": weights, "optimizer": moments}, checkpoint_id=part / "distributed")

    def finish() -> None:
        if first:
            write_model(part / "model.safetensors")
            write_json(part / "state.json", {"step": step} | state)
            _sync(part)
            if final.exists():
                shutil.rmtree(final)
            part.replace(final)

    fault = None
    for act in (prepare, write_tensors, finish):
        fault = _everyone(act, fault)
        if fault is not None:
            free = shutil.disk_usage(folder).free >> 20 if folder.exists() else 0
            if first:
                shutil.rmtree(part, ignore_errors=True)
            last = newest(folder)
            kept = f"the newest whole one is {last}" if last else "there is no earlier one"
            raise SaveFailedError(
                f"the checkpoint of step {step} could not be saved in {folder}, where {free} MB were free "
                f"({fault}); {kept}"
            )
    if first:
        for old in complete(folder)[:-keep] if keep > 0 else []:
            shutil.rmtree(old, ignore_errors=True)
    return final


def _sync(folder: Path) -> None:
    """Bring every file below `folder` to the disk, so that the rename cannot outrun the data."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


def load(path: Path, *, model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Bring model and optimizer to a checkpoint's state, on any number of ranks; gives its state.json."""
    weights, moments = get_state_dict(model, optimizer)
    tensors = {"model": weights, "optimizer": moments}
    dcp.load(tensors, checkpoint_id=path / "distributed")
    set_state_dict(model, optimizer, model_state_dict=tensors["model"], optim_state_dict=tensors["optimizer"])
    return read_json(path / "state.json")
