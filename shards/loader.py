"""The loader: one rank's micro-batches from any step on, prefetched by worker processes.

It has no state. A micro-batch is a function of its number: step = number // micro_batches_per_step, lanes =
the rank's, `lanes_at_once` of them concatenated. Workers compute the same plan and read only their own
frames (`shards/microbatch.py`), so neither their number nor the ranks' changes what is in a batch or the
order of batches, and resuming is starting at another number.
"""

import dataclasses
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils import data

from shards.format import ShardsError
from shards.microbatch import Batch, MicroBatches
from shards.mixture import Mixture, members
from shards.plan import DataConfig, Plan
from shards.prefetch import Prefetch
from shards.reader import Dataset
from shards.storage import Url

STATE_VERSION = 2


class Loader:
    """Iterate over one rank's micro-batches, from `start_step` on, without end.

    Rank r of `world` serves the lanes v with v mod world = r in ascending order, `lanes_at_once` of them to a
    micro-batch (all that it has, if it has fewer), `micro_batches_per_step` to a step. `cameras=False` leaves
    the chunks' meta unread. Raises ShardsError, with the mend, where the data, the ranks or the lanes do not
    fit.
    """

    def __init__(
        self,
        dataset: Dataset | Mixture,
        config: DataConfig,
        *,
        rank: int = 0,
        world: int = 1,
        lanes_at_once: int = 1,
        workers: int = 0,
        start_step: int = 0,
        split: str | None = "train",
        cameras: bool = True,
        prefetch: int = 2,
    ) -> None:
        if world < 1 or config.lanes % world:
            legal = ", ".join(str(n) for n in range(1, config.lanes + 1) if config.lanes % n == 0)
            raise ShardsError(
                f"{world} ranks cannot share {config.lanes} lanes evenly: use one of {legal} ranks"
            )
        if not 0 <= rank < world:
            raise ShardsError(f"rank {rank} is not one of {world}")
        own = range(rank, config.lanes, world)
        at_once = min(lanes_at_once, len(own))
        if at_once < 1 or len(own) % at_once:
            raise ShardsError(
                f"{lanes_at_once} lanes at once do not divide the {len(own)} lanes"
                f" that each of {world} ranks serves"
            )
        self.plan = Plan(dataset, config, split)
        self.start_step, self.workers, self.prefetch = start_step, workers, prefetch
        groups = [tuple(own[i : i + at_once]) for i in range(0, len(own), at_once)]
        self.micro_batches_per_step = len(groups)
        self._batches = MicroBatches(self.plan, groups, cameras=cameras)

    def __iter__(self) -> Iterator[Batch]:
        # Forked workers share their batches' memory with this process; others send copies.
        forked = self.workers > 0 and sys.platform == "linux"
        in_ring = forked or not self.workers
        source = data.DataLoader(
            self._batches.with_ring(self.workers, self.prefetch) if in_ring else self._batches,
            sampler=_From(self.start_step * self.micro_batches_per_step),
            batch_size=None,
            num_workers=self.workers,
            prefetch_factor=self.prefetch if self.workers else None,
            multiprocessing_context="fork" if forked else None,
            worker_init_fn=_heed_the_parent_alone,
            pin_memory=torch.cuda.is_available(),
            # Its own, or torch would draw the workers' seed from the trainer's generator.
            generator=torch.Generator(),
        )
        # Its workers are forked here, before there are threads.
        batches = iter(source)
        far = [self._prefetch(first, one) for first, one in members(self.plan.dataset) if _is_far(one)]
        try:
            for batch in batches:
                if isinstance(batch, Exception):
                    raise batch
                for prefetch in far:
                    prefetch.advance(batch.step)
                yield batch
        finally:
            for prefetch in far:
                prefetch.close()

    def _prefetch(self, first: int, dataset: Dataset) -> Prefetch:
        """What brings the chunks of a dataset far away before they are needed; its first one is the plan's
        number `first`."""
        lanes = [lane for group in self._batches.groups for lane in group]

        def chunks(step: int) -> list[int]:
            own = np.concatenate([self.plan.chunks_of(step, lane) for lane in lanes]) - first
            return own[(own >= 0) & (own < dataset.num_chunks)].tolist()

        return Prefetch(
            chunks,
            lambda chunk, needed: dataset.fetch(chunk, needed=needed) is not None,
            dataset.files.forecast(),
            self.start_step,
        )

    def state(self, step: int) -> dict[str, Any]:
        """What must be equal for a run to go on at `step`, as JSON: integers and hashes, the same on every
        rank."""
        config = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in dataclasses.asdict(self.plan.config).items()
        }
        return {
            "version": STATE_VERSION,
            "step": step,
            "data": self.plan.dataset.hash,
            "config": config,
            "plan": self.plan.hash(step),
        }

    def check(self, state: dict[str, Any], *, migrate: bool = False) -> None:
        """Refuse to go on from a state that is not this loader's: ShardsError says what differs.

        With `migrate` the data may be others, and so may be the batches; all else must agree.
        """
        if state.get("version") != STATE_VERSION:
            raise ShardsError(
                f"the loader's state has version {state.get('version')}, this one is {STATE_VERSION}"
            )
        ours = self.state(int(state["step"]))
        differ = []
        migrates = migrate and state["data"] != ours["data"]
        if state["data"] != ours["data"] and not migrates:
            differ.append(f"data had hash {state['data'][:12]} and has {ours['data'][:12]}")
        for name in dict.fromkeys([*state["config"], *ours["config"]]):
            was, now = state["config"].get(name), ours["config"].get(name)
            if was != now:
                differ.append(f"{name} was {was} and is {now}")
        if not differ and not migrates and state["plan"] != ours["plan"]:
            differ.append(
                "the plan of its next steps is another (a damaged overlap matrix, or another version)"
            )
        if differ:
            raise ShardsError(
                f"the batches from step {state['step']} on would not be those of the interrupted run:"
                f" {'; '.join(differ)}; go on with what it began with, or begin a new run"
                + (", or go on with other data by --migrate" if state["data"] != ours["data"] else "")
            )


def _heed_the_parent_alone(_worker: int) -> None:
    """Launchers and terminals signal whole groups of processes. A worker that dies of it takes its parent along,
    which may want to finish its step and save first; the parent's own SIGTERM is what ends workers."""
    for number in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM,))
        threading.Thread(target=_end_with_the_parents_word, daemon=True).start()


def _end_with_the_parents_word() -> None:
    while signal.sigwaitinfo((signal.SIGTERM,)).si_pid != os.getppid():
        pass
    os._exit(0)


def _is_far(dataset: Dataset) -> bool:
    return isinstance(dataset, Dataset) and isinstance(dataset.files, Url)


class _From(data.Sampler[int]):
    """The numbers from `first` on."""

    def __init__(self, first: int) -> None:
        self.first = first

    def __iter__(self) -> Iterator[int]:
        number = self.first
        while True:
            yield number
            number += 1
