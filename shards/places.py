"""Which place of a source's sequence a slot has: sources take turns by weight, chunks stay with a lane for a while.

A *slot* is a place for one scene in one lane-step. The slots of equal size (views) that a source has in an epoch
are numbered: by *windows* of steps, in a window lane after lane, and within a lane's window in shuffled order. What
the source shows at neighbouring numbers is thus shown by one lane and within one window, so a chunk need be
downloaded, as a rule, to one machine and once. Epochs of a single window are shuffled whole.

Sources share the slots of every size by their weights, lane by lane as evenly as integers go, and the lanes are out
of step with one another such that the sum is as even. Nothing is kept by step. This file knows nothing of chunks.
"""

import numpy as np

from shards.streams import mix, permute
from shards.view_counts import Schedule

WINDOW = 1024
"""Steps of a window: with 96 images of chunks of 96 frames a lane sees a thousand chunks in it, some 7 GB."""

_Counts = tuple[np.ndarray, np.ndarray, np.ndarray]

_ONE = 1 << 32
_GOLDEN = (5**0.5 - 1) / 2


class Places:
    """`shares` (K, P) is the part of the slots of each of the schedule's K sizes that each of P sources gets."""

    def __init__(self, schedule: Schedule, shares: np.ndarray, *, lanes: int, seed: np.ndarray) -> None:
        self.schedule, self.lanes, self._seed = schedule, lanes, seed
        rest = shares[:, ::-1].cumsum(1)[:, ::-1]
        parts = np.divide(shares, rest, out=np.zeros_like(shares), where=rest > 0)
        self._parts = np.rint(parts * _ONE).astype(np.int64)
        """Of what the sources before it leave, the part that a source takes, in units of 2**-32."""
        self._phases = _phases(lanes, *shares.shape)
        self._counted: tuple[tuple[int, int], _Counts] | None = None
        """The window that was asked for last, as steps come in their order."""

    def before(self, steps: int) -> np.ndarray:
        """(V, K, P) slots of each lane, size and source in the first steps of an epoch."""
        sources = self._parts.shape[1]
        rest = np.tile(self.schedule.before(steps), (self.lanes, 1))
        taken = np.empty((*rest.shape, sources), np.int64)
        for source in range(sources - 1):
            taken[..., source] = rest * self._parts[:, source] + self._phases[..., source] >> 32
            rest -= taken[..., source]
        taken[..., -1] = rest
        return taken

    def at(self, epoch: int, step: int, lane: int, steps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The slots of a lane at a step of an epoch of so many steps: sizes (by number), sources, and places.

        The places of a size and source are, over all lanes and steps of the epoch, the numbers from 0 on.
        """
        of_step = self.schedule.at(step)
        kinds = np.repeat(np.arange(len(of_step)), of_step)
        number = np.arange(len(kinds)) - np.repeat(of_step.cumsum() - of_step, of_step)
        sources, place = self._share_out(kinds, self.schedule.before(step)[kinds] + number, lane)
        window = step // WINDOW if steps > WINDOW else 0
        earlier, first, length = self._between(window, steps)
        place -= earlier[lane, kinds, sources]
        first, length = first[lane, kinds, sources], length[lane, kinds, sources]
        name = (window * self.lanes + lane) * len(of_step) + kinds
        if steps <= WINDOW:
            place, first, length = place + first, 0 * first, self._between(0, steps)[2].sum(0)[kinds, sources]
            name = kinds
        keys = mix(mix(self._seed + np.uint64(epoch), sources.astype(np.uint64)), name.astype(np.uint64))
        return kinds, sources, first + permute(place, length, keys)

    def _share_out(self, kinds: np.ndarray, place: np.ndarray, lane: int) -> tuple[np.ndarray, np.ndarray]:
        """Source of the slots at these places of the lane's sequences, and their places in the source's own."""
        sources = self._parts.shape[1]
        source, rest = np.full(len(kinds), sources - 1), place.copy()
        open_slots = np.ones(len(kinds), bool)
        for number in range(sources - 1):
            part, phase = self._parts[kinds, number], self._phases[lane, kinds, number]
            before, after = rest * part + phase >> 32, (rest + 1) * part + phase >> 32
            mine = open_slots & (after > before)
            source[mine] = number
            open_slots &= ~mine
            rest = np.where(mine, before, np.where(open_slots, rest - before, rest))
        return source, rest

    def _between(self, window: int, steps: int) -> _Counts:
        """(V, K, P) each: slots that a lane had before the window, the first number of its own in the window, and
        how many it has there."""
        counted = self._counted
        if counted is None or counted[0] != (window, steps):
            begin = window * WINDOW
            earlier = self.before(begin)
            own = self.before(min(begin + WINDOW, steps)) - earlier
            counted = (window, steps), (earlier, earlier.sum(0) + own.cumsum(0) - own, own)
            self._counted = counted
        return counted[1]


def _phases(lanes: int, sizes: int, sources: int) -> np.ndarray:
    """(V, K, P) in units of 2**-32: for a size and source the lanes' phases are v / V in some order.

    Then the lanes' shares, each rounded down, add up to the share of all, rounded down (Hermite's identity). The
    orders are those of a lattice, so that they do not conspire from one source to the next.
    """
    lane = np.arange(lanes)[:, None, None]
    kind, source = np.arange(sizes)[None, :, None], np.arange(sources)[None, None, :]
    step = max(1, round(lanes * _GOLDEN))
    while np.gcd(step, lanes) > 1:
        step += 1
    turns = np.array([pow(step, number, lanes) if lanes > 1 else 0 for number in range(sources)])
    order = (lane * turns[source] + kind) % lanes
    return order * _ONE // lanes + np.int64(kind * _GOLDEN % 1 * _ONE) // lanes
