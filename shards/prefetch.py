"""Chunks of a URL's dataset brought into the node's cache before the workers ask for them, as the plan says.

A few threads in the training process run ahead of the steps that were consumed, for as long as the cache has
room for what comes without giving up what comes sooner; and they announce what is needed when, so that the
cache evicts what is needed last. Whatever they fail to bring the workers fetch for themselves, and tell of.
This file knows chunk numbers and steps, nothing of networks or pixels.
"""

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Sequence

from shards.forecast import Forecast
from shards.format import ShardsError

STREAMS = 4
"""Chunks that one training process downloads at a time."""

_MOST_STEPS, _MOST_NEEDS = 1024, 8192
"""How far ahead the plan is read."""


class Prefetch:
    """Threads that fetch what the steps from `start` on need; `advance` as steps are consumed, then `close`.

    `chunks(step)` names a step's chunks, `fetch(chunk, steps until it is needed)` brings one and says whether
    there was room for it.
    """

    def __init__(
        self,
        chunks: Callable[[int], Sequence[int]],
        fetch: Callable[[int, int], bool],
        forecast: Forecast,
        start: int,
        *,
        streams: int = STREAMS,
    ) -> None:
        self._chunks, self._fetch, self._forecast = chunks, fetch, forecast
        self._step, self._read = start, start
        self._needs: deque[tuple[int, int]] = deque()
        """(step, chunk) of all that is needed from the consumed step on, in order."""
        self._next = 0
        """Position in `_needs` of the first that no thread has taken."""
        self._full, self._closed = False, False
        self._changed = threading.Condition()
        self._threads = [threading.Thread(target=self._plan, name="prefetch-plan", daemon=True)]
        self._threads += [
            threading.Thread(target=self._bring, name=f"prefetch-{n}", daemon=True) for n in range(streams)
        ]
        for thread in self._threads:
            thread.start()

    def advance(self, step: int) -> None:
        """The trainer has the batches of the steps before `step`, and some of that step."""
        with self._changed:
            if step > self._step:
                self._step, self._full = step, False
                self._changed.notify_all()

    def close(self) -> None:
        """Stop the threads, of which one may still be waiting for the network, and take back what was announced."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        planning, *fetching = self._threads
        planning.join()  # or it might announce after all
        for thread in fetching:
            thread.join(1.0)
        self._forecast.withdraw()

    def _plan(self) -> None:
        """Read the plan ahead, forget what is past, announce the rest."""
        announced = -1
        while True:
            with self._changed:
                while not self._closed and announced == self._step:
                    self._changed.wait()
                if self._closed:
                    return
                step = self._step
                while self._needs and self._needs[0][0] < step:
                    self._needs.popleft()
                    self._next = max(0, self._next - 1)
                self._read = max(self._read, step)
            while self._read < step + _MOST_STEPS and len(self._needs) < _MOST_NEEDS and not self._closed:
                fresh = [(self._read, int(chunk)) for chunk in self._chunks(self._read)]
                with self._changed:
                    self._needs += fresh
                    self._read += 1
                    self._changed.notify_all()
                if self._step != step:
                    break
            else:
                announced = step
            with self._changed:
                needs = list(self._needs)
            with contextlib.suppress(OSError):  # a cache that was taken away, or a full disk
                self._forecast.announce(step, needs)

    def _bring(self) -> None:
        """Take the next need that nobody has taken, and fetch it."""
        while True:
            with self._changed:
                while not self._closed and (self._full or self._next >= len(self._needs)):
                    self._changed.wait()
                if self._closed:
                    return
                needed, chunk = self._needs[self._next]
                self._next += 1
                now = self._step
            try:
                room = self._fetch(chunk, max(0, needed - now))
            except (ShardsError, OSError):
                continue  # whoever needs it meets the same trouble, and can say so
            if not room:
                with self._changed:
                    # Room comes with the next step at the earliest; begin again with what is then missing.
                    self._full, self._next = self._step == now, 0
