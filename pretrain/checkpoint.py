"""Checkpoints: a folder `step-00001200` that is either whole, with finite tensors, or absent.

    distributed/        torch.distributed.checkpoint: model, optimizer and more, sharded as the ranks hold them
    model.safetensors   the whole model with its configuration in the header, which `mum` reads
    ema.safetensors     the same of the running mean of its weights, in runs that keep one
    state.json          step, images seen, loader state, configuration: readable, written last

It is written under another name and renamed when everything is on disk, so a full disk or a kill leaves the
earlier ones as they were. All ranks call these functions together. The loop decides when; nothing here knows
why.

A save takes a copy of the tensors and writes it beside the coming steps. The copy itself runs beside the next
forward and backward pass: only the update that would change what is being copied waits for it. The thread that
writes has process groups of its own (gloo), so that its messages never mix with those of the steps.
"""

import os
import re
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

from pretrain.errors import InputError
from pretrain.files import read_json, write_json

_NAME = re.compile(r"step-(\d{8,})")
_LEFT = re.compile(r"\.(step-\d{8,})\.(part|old|replaced)")

Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """When to save, and how much to keep."""

    every: int = 5000
    """steps between checkpoints; 0: only the last step, which is always saved"""
    keep: int = 3
    """how many of the newest checkpoints stay; 0: all"""
    keep_every: int = 0
    """checkpoints whose step is a multiple of this stay for good; 0: none does"""
    asynchronous: bool = True
    """write beside the coming steps instead of halting them; the last checkpoint is always waited for"""


@dataclass(frozen=True, kw_only=True)
class WeightsFile:
    """A file in a checkpoint that holds one group of its tensors whole, for others to read."""

    name: str
    """of the file, as model.safetensors"""
    group: str
    """model, or the name of something extra"""
    write: Callable[[Tensors, Path], None]
    """writes it, on rank 0 and in the saving thread: whole tensors in main memory by name, and the path"""


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


def tidy(folder: Path) -> None:
    """Clear away what a killed run left under `folder`; only for who holds the run's lock."""
    for left in list(folder.iterdir()) if folder.is_dir() else []:
        match = _LEFT.fullmatch(left.name)
        if match is None:
            continue
        if match[2] == "replaced" and not (folder / match[1]).exists():
            # Killed between two renames: it is whole, and perhaps the only one.
            left.replace(folder / match[1])
        else:
            shutil.rmtree(left, ignore_errors=True)


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


def _everyone(act: Callable[[], None], group: dist.ProcessGroup) -> str | None:
    """Run `act` here and tell every rank the first thing that went wrong on any of them, if anything did."""
    fault: str | None = None
    try:
        act()
    except dcp.CheckpointException as error:
        # What any rank met inside torch's writer; this class is no Exception.
        fault = "; ".join(sorted({_in_words(cause) for cause, _ in error.failures.values()}))
    except Exception as error:
        fault = _in_words(error)
    faults: list[str | None] = [None] * dist.get_world_size()
    dist.all_gather_object(faults, fault, group=group)
    return next((f for f in faults if f is not None), None)


def _in_words(error: BaseException) -> str:
    """An error in one line; the refusal of the disk behind it, where it is one."""
    behind: BaseException | None = error
    while behind is not None and not isinstance(behind, OSError):
        behind = behind.__cause__ or behind.__context__
    told = behind or error
    return " ".join(f"{type(told).__name__}: {told}".split())


class Saver:
    """Writes the checkpoints of one run, one at a time, and drops those that are not to be kept.

    All ranks make one together, and call `save` and `close` together. `extra` names further tensors that live as
    long as the run and are changed in place, sharded or not: they are kept beside the model, and `load` fills
    them.
    """

    def __init__(
        self,
        folder: Path,
        config: CheckpointConfig,
        *,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        extra: Mapping[str, Tensors] | None = None,
    ) -> None:
        self._folder, self._config = folder, config
        self._model, self._optimizer, self._extra = model, optimizer, dict(extra or {})
        self._first = dist.get_rank() == 0
        self._group = dist.new_group(backend="gloo")
        self._alone = dist.new_group([0], backend="gloo")
        pinned = torch.cuda.is_available()
        self._stager = DefaultStager(
            StagingOptions(
                use_pinned_memory=pinned,
                use_shared_memory=False,
                use_async_staging=True,
                use_non_blocking_copy=pinned,
            )
        )
        self._staged: Future[Any] | None = None
        self._thread: threading.Thread | None = None
        self._step = 0
        self._fault: str | None = None
        self._news: list[str] = []
        self.trouble = ""
        """why the newest save failed, in a sentence; empty if it did not"""

    def save(
        self, step: int, *, state: Mapping[str, Any], files: Sequence[WeightsFile] = (), last: bool = False
    ) -> None:
        """Begin the checkpoint of `step`, after the one under way, if one is, has ended.

        `state` goes into state.json as it is. A save that fails is told by `news` and harms nothing; the `last`
        one is waited for, and SaveFailedError raised on every rank if anything failed on any.
        """
        self._settle()
        weights, moments = get_state_dict(self._model, self._optimizer)
        tensors = {"model": weights, "optimizer": moments, **self._extra}
        if torch.cuda.is_available():
            # The copy runs on a stream of its own, which does not know of the update before it.
            torch.cuda.synchronize()
        self._staged = staged = self._stager.stage({"tensors": tensors, "finite": _finite(tensors)})
        told = {"step": step, **state, "extra": sorted(self._extra), "finite": True}
        self._step, self._fault = step, None
        # No pool: a pool's threads are joined when Python exits, and one may wait for a rank that is dead.
        self._thread = threading.Thread(
            target=self._write, args=(staged, told, tuple(files)), name="checkpoint", daemon=True
        )
        self._thread.start()
        if last:
            self._settle(goes_on=False)
            if self.trouble:
                raise SaveFailedError(self.trouble)
        elif not self._config.asynchronous:
            self._settle()

    def before_update(self) -> None:
        """Wait until weights and moments may be changed: the save under way has its copy of them."""
        if self._staged is not None:
            wait([self._staged])
            self._staged = None

    def news(self) -> list[str]:
        """What is to be told since the last call, a sentence each: saves that failed."""
        if self._thread is not None and not self._thread.is_alive():
            self._settle()
        news, self._news = self._news, []
        return news

    def close(self) -> None:
        """Wait for the save under way."""
        self._settle()
        self._stager.close()

    def _settle(self, *, goes_on: bool = True) -> None:
        """Wait for the save under way, and note how it ended."""
        if self._thread is None:
            return
        self._thread.join()
        self._thread = self._staged = None
        self.trouble = ""
        if self._fault is not None:
            free = shutil.disk_usage(self._folder).free >> 20 if self._folder.exists() else 0
            last = newest(self._folder)
            kept = f"the newest whole one is {last}" if last else "there is no earlier one"
            self.trouble = (
                f"the checkpoint of step {self._step} could not be saved in {self._folder}, where {free} MB were "
                f"free ({self._fault}); {kept}"
            )
            if goes_on:
                self._news.append(f"{self.trouble}; the run goes on, and tries again at its next save")

    def _write(self, staged: Future[Any], state: dict[str, Any], files: Sequence[WeightsFile]) -> None:
        """The saving thread: all of them act together, and end with the same `_fault`."""
        final = self._folder / f"step-{self._step:08d}"
        part = self._folder / f".{final.name}.part"

        def prepare() -> None:
            if self._first:
                shutil.rmtree(part, ignore_errors=True)
                part.mkdir(parents=True)

        def check() -> None:
            if not staged.result()["finite"]:
                raise ValueError(f"rank {dist.get_rank()} holds numbers that are not finite")

        def write_tensors() -> None:
            tensors = staged.result()["tensors"]
            dcp.save(tensors, checkpoint_id=part / "distributed", process_group=self._group)

        def finish() -> None:
            if self._first:
                for file in files:
                    file.write(self._whole(part / "distributed", file.group), part / file.name)
                write_json(part / "state.json", state)
                _sync(part)
                replaced = final.with_name(f".{final.name}.replaced")
                if final.exists():
                    final.replace(replaced)
                part.replace(final)
                shutil.rmtree(replaced, ignore_errors=True)

        fault: str | None = None
        try:
            for act in (prepare, check, write_tensors, finish):
                fault = _everyone(act, self._group)
                if fault is not None:
                    break
        except BaseException as error:
            # A rank that died: the steps learn of it by themselves.
            fault = _in_words(error)
        self._fault = fault
        if self._first:
            shutil.rmtree(part, ignore_errors=True)
            if fault is None:
                for old in outdated(complete(self._folder), self._config):
                    _remove(old)

    def _whole(self, folder: Path, group: str) -> dict[str, torch.Tensor]:
        """One group of the tensors that were just written, whole; so what is on the disk is legible too."""
        reader = dcp.FileSystemReader(folder)
        prefix = f"{group}."
        tensors = {
            key.removeprefix(prefix): torch.empty(entry.size, dtype=entry.properties.dtype)
            for key, entry in reader.read_metadata().state_dict_metadata.items()
            if key.startswith(prefix) and isinstance(entry, TensorStorageMetadata)
        }
        dcp.load({group: tensors}, storage_reader=reader, process_group=self._alone)
        return tensors


def outdated(found: Sequence[Path], config: CheckpointConfig) -> list[Path]:
    """Which of these checkpoints, oldest first, are not to be kept. The newest, which is finite, always is."""
    old = found[: -config.keep] if config.keep > 0 else []
    return [path for path in old if config.keep_every == 0 or step_of(path) % config.keep_every]


def _finite(values: Any) -> torch.Tensor:
    """Whether all this rank holds of nested tensors is finite: a scalar, without waiting for the device."""
    sums: list[torch.Tensor] = []

    def walk(value: Any) -> None:
        if isinstance(value, Mapping):
            for inner in value.values():
                walk(inner)
        elif isinstance(value, torch.Tensor):
            held = value.to_local() if hasattr(value, "to_local") else value
            if held.is_floating_point():
                # A sum is finite where its terms are, and costs a fraction of asking each.
                sums.append(held.detach().sum(dtype=torch.float32))

    walk(values)
    device = next((s.device for s in sums if s.device.type != "cpu"), torch.device("cpu"))
    return torch.stack([s.to(device, non_blocking=True) for s in sums]).isfinite().all()


def _remove(path: Path) -> None:
    """Delete a checkpoint so that a kill on the way leaves none that looks whole."""
    gone = path.with_name(f".{path.name}.old")
    shutil.rmtree(gone, ignore_errors=True)
    path.replace(gone)
    shutil.rmtree(gone, ignore_errors=True)


def _sync(folder: Path) -> None:
    """Bring every file below `folder` to the disk, so that the rename cannot outrun the data."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


def load(
    path: Path,
    *,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    extra: Mapping[str, Tensors] | None = None,
) -> dict[str, Any]:
    """Bring model and optimizer to a checkpoint's state, on any number of ranks; gives its state.json.

    Of `extra`, as it was given to `Saver`, what the checkpoint holds is filled in place; state["extra"] names it.
    """
    state = read_json(path / "state.json")
    weights, moments = get_state_dict(model, optimizer)
    more = {name: dict(held) for name, held in (extra or {}).items() if name in state.get("extra", ())}
    tensors = {"model": weights, "optimizer": moments, **more}
    dcp.load(tensors, checkpoint_id=path / "distributed")
    set_state_dict(model, optimizer, model_state_dict=tensors["model"], optim_state_dict=tensors["optimizer"])
    return state
