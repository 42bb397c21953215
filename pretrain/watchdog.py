"""The watchdog: says which rank, in which phase, holds the others up.

Every rank goes through the same phases in the same order, so the rank that has begun the fewest is the one
that the others wait for. A thread on each rank looks at its own clock alone; there is no traffic while all is
well. Where a phase lasts longer than allowed, the ranks tell each other through the store of the process
group where they are, and the lowest that can still speak says it. The watchdog reports and never ends a run.
"""

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path

import torch.distributed as dist

from pretrain.parallel import of_this_start

_TICK = 1.0
"""Seconds between two looks at the clock, at most."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a rank is."""

    rank: int
    host: str
    step: int
    """updates done"""
    phase: str
    begun: int
    """phases begun so far: the position in the order that all ranks share"""
    seconds: float
    """for how long it has been there"""
    line: str
    """file, line and function that its main thread executes"""

    def __str__(self) -> str:
        return f"step {self.step}, {self.phase}, for {self.seconds:.0f} s, at {self.line}"


class Watchdog:
    """Watches the main thread's phases from `with` on; `seconds` 0 watches nothing.

    `say` is called, from the watchdog's thread, with one sentence: after `seconds`, then each time the wait
    has doubled, and when it is over.
    """

    def __init__(
        self, seconds: float, *, rank: int, size: int, store: dist.Store, say: Callable[[str], None]
    ) -> None:
        self._limit, self._rank, self._size, self._say = seconds, rank, size, say
        self._store = store
        self._main = threading.main_thread().ident
        self._now = (0, "start", 0, time.monotonic())
        self._end = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def step(self) -> int:
        """Updates done, as last told."""
        return self._now[0]

    def phase(self, name: str, step: int) -> None:
        """A new phase begins; all ranks call this alike. Costs nothing, and waits for nobody."""
        # One assignment, so that the thread sees a whole one.
        self._now = (step, name, self._now[2] + 1, time.monotonic())

    def __enter__(self) -> "Watchdog":
        if self._limit > 0:
            self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        if self._thread:
            self._thread.join(timeout=10)

    def _watch(self) -> None:
        tick = min(_TICK, self._limit / 5)
        due, told, spoke, began = self._limit, False, False, self._now
        try:
            while not self._end.wait(tick):
                now = self._now
                if now[2] != began[2]:
                    if told:
                        self._store.set(self._key(self._rank), "")
                    if spoke:
                        self._say(f"watchdog: it goes on, after {now[3] - began[3]:.0f} s")
                    due, told, spoke, began = self._limit, False, False, now
                waited = time.monotonic() - began[3]
                if waited > due:
                    due, told = 2 * waited, True
                    spoke = self._report(began, tick) or spoke
        except RuntimeError:
            # The store is gone, and with it the run: whoever ended it says why.
            return

    def _report(self, began: tuple[int, str, int, float], tick: float) -> bool:
        """Tell the others where this rank is, give them some ticks to do the same, and speak if it is this
        rank's turn; whether it was."""
        self._store.set(self._key(self._rank), json.dumps(asdict(self._place(began))))
        places: dict[int, Place] = {}
        for _ in range(5):
            if self._end.wait(tick) or self._now[2] != began[2]:
                return False
            places = self._read()
            if len(places) == self._size:
                break
        if min(places) != self._rank:
            return False
        self._say("watchdog: " + verdict(list(places.values()), self._size))
        return True

    def _place(self, began: tuple[int, str, int, float]) -> Place:
        step, phase, number, since = began
        return Place(
            rank=self._rank,
            host=socket.gethostname(),
            step=step,
            phase=phase,
            begun=number,
            seconds=round(time.monotonic() - since, 1),
            line=_line_of(self._main),
        )

    def _read(self) -> dict[int, Place]:
        keys = [key for rank in range(self._size) if self._store.check([key := self._key(rank)])]
        told = [Place(**json.loads(value)) for value in self._store.multi_get(keys) if value]
        return {place.rank: place for place in told}

    @staticmethod
    def _key(rank: int) -> str:
        return f"rank-{rank}"


def verdict(places: Sequence[Place], size: int) -> str:
    """One sentence on who holds up whom, from the places of those ranks, of `size`, that told theirs."""
    last = min(place.begun for place in places)
    late = [place for place in places if place.begun == last]
    silent = sorted(set(range(size)) - {place.rank for place in places})
    waited = f"no progress for {max(place.seconds for place in places):.0f} s"
    if silent:
        return (
            f"{waited}: {_ranks(silent)} say{'s' * (len(silent) == 1)} nothing (stopped, dead, or blocked within a "
            f"call) and hold{'s' * (len(silent) == 1)} up {_one_of(places)}"
        )
    if len(late) < len(places):
        held = _one_of([place for place in places if place.begun > last])
        return f"{waited}: {_one_of(late)} hold{'s' * (len(late) == 1)} up {held}"
    # All in the same phase: the line at which the fewest are is told first.
    lines: dict[str, list[Place]] = {}
    for place in late:
        lines.setdefault(place.line, []).append(place)
    return f"{waited}: " + "; ".join(map(_one_of, sorted(lines.values(), key=len)[:3]))


def _one_of(places: Sequence[Place]) -> str:
    """Some ranks, and the place of the first of them."""
    first = min(places, key=lambda place: place.rank)
    hosts = sorted({place.host for place in places})
    on = hosts[0] if len(hosts) == 1 else f"{len(hosts)} hosts"
    return f"{_ranks([place.rank for place in places])} on {on} ({first})"


def _ranks(ranks: Sequence[int]) -> str:
    """Some ranks in words, the first eight by number."""
    numbers = ", ".join(map(str, sorted(ranks)[:8])) + (", ..." if len(ranks) > 8 else "")
    return f"rank{'s' * (len(ranks) > 1)} {numbers}"


def _line_of(thread: int | None) -> str:
    """What a thread of this process executes: file, line and function."""
    frame = sys._current_frames().get(thread or 0)
    if frame is None:
        return "no line"
    path = Path(frame.f_code.co_filename)
    return f"{path.parent.name}/{path.name}:{frame.f_lineno} {frame.f_code.co_name}"


def open_store(size: int) -> dist.Store:
    """A connection of the watchdog's own to the store by which the ranks found each other."""
    if size == 1:
        return dist.HashStore()
    store = dist.TCPStore(
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        is_master=False,
        timeout=timedelta(seconds=30),
    )
    return dist.PrefixStore("watchdog", of_this_start(store))
