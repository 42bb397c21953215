"""Signals that ask a run to stop: noted on whichever rank they reach, known to all ranks at the same moment.

A handler only notes. What the ranks have noted is then reduced over them in a group of its own on the CPU,
begun before a step's work and read after it, so that no step waits for it. SIGTERM and SIGINT end a run;
SIGUSR1 is the scheduler's warning that its time is almost over, and asks to be queued again.
Nothing here knows what is done about a request.
"""

import os
import signal
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist

HEARD = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
"""What is listened to; of several that come together the last in this row is told."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """A signal that asked the run to stop, and the rank that it reached."""

    signal: str
    rank: int

    def __str__(self) -> str:
        return f"{self.signal} on rank {self.rank}"

    def exit_code(self, environment: Mapping[str, str] = os.environ) -> int:
        """128 and the signal's number, as shells have it; under torchrun 0.

        torchrun takes any other code for a crash: it would start the run anew, or end the ranks that still
        write. status.json says there how the run ended.
        """
        return 0 if "TORCHELASTIC_RUN_ID" in environment else 128 + signal.Signals[self.signal]


class Signals:
    """Listens from `with` on; every rank calls `begin` and `answer` alike, in the same order."""

    def __init__(self) -> None:
        # Its own group: the ranks may be in the midst of another one's collective.
        self._group = dist.new_group(backend="gloo")
        self._noted = 0
        self._sent = torch.zeros((), dtype=torch.int64)
        self._work: dist.Work | None = None
        self._before: dict[signal.Signals, Any] = {}
        self.agreed: Request | None = None
        """what all ranks know of; once it is there it stays"""

    def __enter__(self) -> "Signals":
        # Python delivers signals to the main thread only, and lets no other one listen.
        if threading.current_thread() is threading.main_thread():
            for number in HEARD:
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._noted = max(self._noted, HEARD.index(signal.Signals(number)) + 1)
        if number == signal.SIGINT:
            # Whoever asks twice from the keyboard does not want to wait.
            signal.signal(signal.SIGINT, signal.SIG_DFL)

    def begin(self) -> None:
        """Begin to ask all ranks whether one of them was signalled, without waiting."""
        if self.agreed is not None:
            return
        # The largest wins: the signal counts first, then the rank.
        size = dist.get_world_size()
        self._sent.fill_(self._noted * size + dist.get_rank() if self._noted else 0)
        self._work = dist.all_reduce(self._sent, op=dist.ReduceOp.MAX, group=self._group, async_op=True)

    def answer(self) -> Request | None:
        """What the ranks noted before their last `begin`: the same on all of them, None while nothing came."""
        if self._work is not None:
            self._work.wait()
            self._work = None
            kind, rank = divmod(int(self._sent), dist.get_world_size())
            if kind:
                self.agreed = Request(signal=HEARD[kind - 1].name, rank=rank)
        return self.agreed

    def poll(self) -> Request | None:
        """Ask all ranks and wait for the answer."""
        self.begin()
        return self.answer()
