"""Batches' pixels in memory that workers and trainer share and use again and again, so that no page is fresh.

A fresh buffer costs a page fault every 4 KB, in the worker and again in the trainer. Here each worker has a few
slots for good: it fills a free one, its number travels to the trainer, and the slot is free again once the last
tensor or array over it is gone there. A worker without a free slot sends its batch the usual way, so no batch in
use is ever overwritten. The memory is inherited by fork and needs no room in /dev/shm. This file knows
nothing of what a batch is made of.
"""

import itertools
import mmap
import os
import weakref
from typing import Any

import numpy as np
import torch

_RINGS: "weakref.WeakValueDictionary[int, Ring]" = weakref.WeakValueDictionary()
_NUMBERS = itertools.count()


class Ring:
    """`each` slots for each of `owners` processes forked from the one that makes it.

    A slot holds `shape` = (n, h, w) pictures: (n, 3, h, w) uint8, channels innermost in memory.
    """

    def __init__(self, *, owners: int, each: int, shape: tuple[int, int, int]) -> None:
        self.each, self.shape = each, (*shape, 3)
        self.number = next(_NUMBERS)
        slots, size = owners * each, int(np.prod(self.shape))
        stride = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        # A byte a slot says whether it is in use: set by its worker, cleared by the trainer.
        self._memory = mmap.mmap(-1, slots * stride + slots)
        whole = np.frombuffer(self._memory, np.uint8)
        self._slots = whole[: slots * stride].reshape(slots, stride)[:, :size]
        self._in_use = whole[slots * stride :]
        self._turn = 0
        _RINGS[self.number] = self

    def take(self, owner: int) -> int | None:
        """A free slot of a process, now in use; None where it has none."""
        # In turn, so that every page is touched early and memory stays as it is from then on.
        for turn in range(self._turn, self._turn + self.each):
            slot = owner * self.each + turn % self.each
            if not self._in_use[slot]:
                self._turn = turn + 1
                self._in_use[slot] = 1
                return slot
        return None

    def release(self, slot: int) -> None:
        """Give a slot back."""
        self._in_use[slot] = 0

    def array(self, slot: int) -> np.ndarray:
        """A slot's memory (n, h, w, 3), for whoever took the slot to fill."""
        return self._slots[slot].reshape(self.shape)

    def lease(self, slot: int) -> torch.Tensor:
        """A slot's pictures (n, 3, h, w), which give it back with the last view of them."""
        return pictures(np.asarray(_Lease(self, slot)))

    @property
    def in_use(self) -> int:
        """Slots that are filled, on their way or held."""
        return int(self._in_use.sum())


def pictures(array: np.ndarray) -> torch.Tensor:
    """The memory (n, h, w, 3) as (n, 3, h, w)."""
    return torch.from_numpy(array).permute(0, 3, 1, 2)


class Sent:
    """What a worker sends in the place of an object whose field `field` lies in a slot: arrives as the object."""

    def __init__(self, whole: Any, field: str, ring: Ring, slot: int) -> None:
        setattr(whole, field, None)
        self._parts = whole, field, ring.number, slot

    def __reduce__(self) -> tuple:
        return _received, self._parts


def _received(whole: Any, field: str, number: int, slot: int) -> Any:
    setattr(whole, field, _RINGS[number].lease(slot))
    return whole


class _Lease:
    """Lives as long as any array or tensor over a slot, then gives it back."""

    def __init__(self, ring: Ring, slot: int) -> None:
        self._ring, self._slot, self._process = ring, slot, os.getpid()

    @property
    def __array_interface__(self) -> dict[str, Any]:
        return self._ring.array(self._slot).__array_interface__

    def __del__(self) -> None:
        # A process forked meanwhile has a copy of this object, and no say.
        if os.getpid() == self._process:
            self._ring.release(self._slot)
