"""Which piece of which chunk a slot shows: the order of the data, looked up at any step without a step before it.

The slots of equal size that a source has form one endless sequence of places (`shards/places.py`), and so do
the pieces of that size into which its chunks are cut for one *pass* over it (`shards/fitting.py`): place n
shows piece n of pass `n div H`, H pieces a pass. So every frame of a source is in exactly one piece of a pass,
and pieces fill their slots but for a few frames.

Pieces are in the order of their chunks: all sizes' sequences run through the chunks at one pace, so the
pieces of a chunk stand at about the same part of each and are shown by one lane within one window of steps.
Which chunk stands where is shuffled in each pass, among those of equal length.

An epoch is the whole number of steps in which the source that is passed first is passed once.

What is kept is a table of a few hundred rows, another by windows and lanes, and the chunks sorted by length:
nothing by frame, nothing by step. This file knows nothing of frames' names, overlap or pixels.
"""

from dataclasses import dataclass

import numpy as np

from shards.fitting import Type, cut
from shards.places import WINDOW, Places
from shards.streams import mix, permute
from shards.view_counts import Schedule

_GOLDEN = (5**0.5 - 1) / 2
_TRIES = 400
"""Lengths of a pass that are tried before the data are called unfit."""


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Chunks that share slots by one weight."""

    name: str
    weight: float
    rows: np.ndarray
    """(n,) int, whatever the caller knows its chunks by."""
    frames: np.ndarray
    """(n,) int, frames of each."""
    single: bool = False
    """Chunks of one frame for slots of one view, beside pools for the other sizes."""


@dataclass(frozen=True, kw_only=True)
class Slots:
    """What a lane-step shows, slot by slot."""

    sizes: np.ndarray
    """(B,) views."""
    rows: np.ndarray
    """(B,) the pools' rows."""
    pools: np.ndarray
    """(B,) numbers of the pools."""
    passes: np.ndarray
    """(B,) which pass over the pool."""
    cuts: list[tuple[int, ...]]
    """Sizes of the pieces of the chunk up to this one, which is the last; empty for an extra visit."""
    extras: np.ndarray
    """(B,) number of the extra visit within the pass and size, or -1."""

    def take(self, order: np.ndarray) -> "Slots":
        """The same slots in another order."""
        return Slots(
            sizes=self.sizes[order],
            rows=self.rows[order],
            pools=self.pools[order],
            passes=self.passes[order],
            cuts=[self.cuts[slot] for slot in order],
            extras=self.extras[order],
        )


class Coverage:
    """The table. `steps_per_epoch` is the epoch; `steps_per_pass[pool]`, `repeats[pool]` (share of views that
    are shown a second time), `share[pool]` (of all slots) and `share_of_views[pool]` say what it does to each pool.

    Raises UnfitError (`pool`, `needed`) for a pool none of whose chunks can fill any slot, or that cannot be
    covered.
    """

    def __init__(self, pools: list[Pool], schedule: Schedule, *, lanes: int, seed: np.ndarray) -> None:
        self.pools, self.schedule, self.lanes, self._seed = pools, schedule, lanes, seed
        self._places = Places(schedule, _shares(pools, schedule), lanes=lanes, seed=seed)
        self.steps_per_pass, cuts = [], []
        for number, pool in enumerate(pools):
            steps, types = self._fit(number, pool)
            self.steps_per_pass.append(steps)
            cuts.append(types)
        counted = [s for s, p in zip(self.steps_per_pass, pools, strict=True) if not p.single]
        self.steps_per_epoch = min(counted or self.steps_per_pass)
        self._per_epoch = self._slots_before(self.steps_per_epoch)
        self._per_pass = np.stack(
            [self._slots_before(s)[:, p] for p, s in enumerate(self.steps_per_pass)], axis=1
        )
        self._tabulate(cuts)
        sizes, total = schedule.sizes, self._per_epoch.sum()
        self.share = [float(n) for n in self._per_epoch.sum(0) / total]
        shown = (self._per_epoch * sizes[:, None]).sum(0)
        self.share_of_views = [float(n) for n in shown / shown.sum()]
        shown = (self._per_pass * sizes[:, None]).sum(0)
        self.repeats = [
            float(n / pool.frames.sum(dtype=np.int64) - 1) for n, pool in zip(shown, pools, strict=True)
        ]

    def at(self, step: int, lane: int) -> Slots:
        """What the lane shows at the step, slots in ascending size."""
        epoch, within = divmod(step, self.steps_per_epoch)
        kinds, pools, place = self._places.at(epoch, within, lane, self.steps_per_epoch)
        passes, place = np.divmod(epoch * self._per_epoch[kinds, pools] + place, self._per_pass[kinds, pools])
        block, number = self._piece(kinds, pools, place)
        kind = self._block_type[block]
        extra = kind < 0
        group, position = self._type_group[kind], self._type_first[kind] + number
        for slot in np.flatnonzero(extra):
            group[slot], position[slot] = self._extra(kinds[slot], pools[slot], int(number[slot]))
        keys = ~mix(self._seed + passes.astype(np.uint64), group.astype(np.uint64))
        chunk = permute(position, self._group_count[group], keys)
        return Slots(
            sizes=self.schedule.sizes[kinds],
            rows=self._rows[self._group_start[group] + chunk],
            pools=pools,
            passes=passes,
            cuts=[
                () if e else self._type_cuts[k][: b + 1]
                for e, k, b in zip(
                    extra.tolist(), kind.tolist(), self._block_piece[block].tolist(), strict=True
                )
            ],
            extras=np.where(extra, number, -1),
        )

    def _slots_before(self, steps: int) -> np.ndarray:
        """(K, pools) slots of each size that each pool has in the first steps of an epoch."""
        return self._places.before(steps).sum(0)

    def _piece(
        self, kinds: np.ndarray, pools: np.ndarray, place: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The block whose piece stands at these places of a pass, and its number in the block."""
        cells = self._cells
        cell = np.searchsorted(self._cell_start, self._base[kinds, pools] + place, side="right") - 1
        rank = self._base[kinds, pools] + place - self._cell_start[cell]
        cell %= cells
        # The blocks of all these slots in one row, each slot's after the other's.
        first, count = self._first_block[kinds, pools], self._blocks_of[kinds, pools]
        slot = np.repeat(np.arange(len(kinds)), count)
        ends = count.cumsum()
        blocks = np.arange(ends[-1]) - np.repeat(ends - count, count) + first[slot]
        begun = self._begun(blocks, cell[slot])
        here = (self._begun(blocks, cell[slot] + 1) - begun).cumsum()
        before = np.concatenate([[0], here])[ends - count]
        found = np.searchsorted(here, before + rank, side="right")
        return blocks[found], begun[found] + before + rank - np.concatenate([[0], here])[found]

    def _begun(self, blocks: np.ndarray, cell: np.ndarray) -> np.ndarray:
        """How many pieces of a block stand before a cell."""
        return (cell * self._block_count[blocks] + self._block_phase[blocks]) // self._cells

    def _fit(self, number: int, pool: Pool) -> tuple[int, list[Type]]:
        """The fewest steps in which all frames of the pool find a slot, nearly, and how its chunks are cut."""
        sizes, cycle = self.schedule.sizes, len(self.schedule.of_step)
        views = float((self._slots_before(cycle)[:, number] * sizes).sum()) / cycle
        if not views:
            raise UnfitError(pool)
        lengths = dict(zip(*(a.tolist() for a in np.unique(pool.frames, return_counts=True)), strict=True))
        steps = max(1, round(pool.frames.sum(dtype=np.int64) / views))
        for tried in range(_TRIES):
            slots = dict(zip(sizes.tolist(), self._slots_before(steps)[:, number].tolist(), strict=True))
            types, uncovered = cut(lengths, slots, int(sizes[0]))
            if not uncovered:
                return steps, types
            # Longer strides after a while: some data leave most of every step to repeats.
            steps += max(1, int(uncovered / views * (1 + tried / 10)))
        raise UnfitError(pool)

    def _tabulate(self, cuts: list[list[Type]]) -> None:
        """Fold all types of all pools into flat tables."""
        sizes = self.schedule.sizes
        order, lengths = [], []
        for pool in self.pools:
            by_length = np.argsort(pool.frames, kind="stable")
            order.append(pool.rows[by_length])
            lengths.append(pool.frames[by_length])
        self._rows = np.concatenate(order)
        owner = np.repeat(np.arange(len(self.pools)), [len(o) for o in order])
        length = np.concatenate(lengths)
        border = np.flatnonzero((np.diff(owner, prepend=-1) != 0) | (np.diff(length, prepend=-1) != 0))
        self._group_start = border.astype(np.int64)
        self._group_count = np.diff(border, append=len(owner)).astype(np.int64)
        self._group_frames = length[border].astype(np.int64)
        self._group_end = np.cumsum(self._group_frames * self._group_count)
        group_pool = owner[border]
        self._last_group = np.searchsorted(group_pool, np.arange(len(self.pools)), side="right") - 1
        group_of = {
            (int(p), int(n)): g for g, (p, n) in enumerate(zip(group_pool, self._group_frames, strict=True))
        }
        self._first_group = np.array(
            [
                [
                    np.searchsorted(group_pool, p) + np.searchsorted(self._group_frames[group_pool == p], s)
                    for p in range(len(self.pools))
                ]
                for s in sizes
            ]
        )

        blocks: dict[tuple[int, int], list[tuple[int, int, int]]] = {}
        self._type_cuts: list[tuple[int, ...]] = []
        first, groups = [], []
        used = np.zeros(len(border), np.int64)
        for number, types in enumerate(cuts):
            for kind in types:
                group = group_of[number, kind.frames]
                first.append(int(used[group]))
                groups.append(group)
                used[group] += kind.count
                for piece, (_, size) in enumerate(kind.pieces):
                    at = (int(np.searchsorted(sizes, size)), number)
                    blocks.setdefault(at, []).append((kind.count, len(self._type_cuts), piece))
                self._type_cuts.append(tuple(own for own, _ in kind.pieces))
        self._type_first, self._type_group = np.array(first), np.array(groups)
        # Every size's sequence goes through its blocks at an even pace, in cells: pieces of a chunk share one.
        self._cells = self.lanes * -(-max(self.steps_per_pass) // WINDOW)
        shape = (len(sizes), len(self.pools))
        self._base, self._first_block, self._blocks_of, self._extras = (
            np.zeros(shape, np.int64) for _ in range(4)
        )
        flat: list[tuple[int, int, int]] = []
        starts = []
        end = 0
        for at in np.ndindex(shape):
            own = blocks.get(at, [])
            self._extras[at] = self._per_pass[at] - sum(count for count, _, _ in own)
            own = [*own, (int(self._extras[at]), -1, -1)]
            self._base[at], self._first_block[at], self._blocks_of[at] = end, len(flat), len(own)
            flat += own
            end += int(self._per_pass[at])
        self._block_count, self._block_type, self._block_piece = np.array(flat).T.copy()
        # By type, not by block: the pieces of a chunk keep together.
        self._block_phase = (self._block_type * _GOLDEN % 1 * self._cells).astype(np.int64)
        cell = np.arange(self._cells)[:, None]
        for at in np.ndindex(shape):
            own = np.arange(self._first_block[at], self._first_block[at] + self._blocks_of[at])
            starts.append(self._base[at] + self._begun(own, cell).sum(1))
        self._cell_start = np.concatenate(starts)

    def _extra(self, kind: int, pool: int, number: int) -> tuple[int, int]:
        """Group and place in it of the chunk that an extra visit shows: spread evenly over the frames of all
        chunks that are large enough."""
        first, last = int(self._first_group[kind, pool]), int(self._last_group[pool])
        before = int(self._group_end[first - 1]) if first else 0
        extras = int(self._extras[kind, pool])
        at = before + (2 * number + 1) * (int(self._group_end[last]) - before) // (2 * extras)
        group = int(np.searchsorted(self._group_end, at, side="right"))
        begins = int(self._group_end[group - 1]) if group else 0
        return group, (at - begins) // int(self._group_frames[group])


class UnfitError(Exception):
    """A pool whose chunks cannot fill slots."""

    def __init__(self, pool: Pool) -> None:
        super().__init__(pool.name)
        self.pool = pool


def _shares(pools: list[Pool], schedule: Schedule) -> np.ndarray:
    """(K, pools) share of the slots of each size that a pool gets.

    By weight, for all sizes alike; a pool without a chunk of so many frames gets none of a size, and more of
    the smaller ones as long as its weight allows.
    """
    slots = schedule.of_step.sum(0).astype(float)
    shares = np.zeros((len(slots), len(pools)))
    for single in (False, True):
        kind = np.array([pool.single == single for pool in pools])
        mine = (schedule.sizes == 1) if single else (schedule.sizes > 1) | ~any(p.single for p in pools)
        weight = np.array([pool.weight for pool in pools]) * kind
        if not weight.sum():
            continue
        quota = slots[mine].sum() * weight / weight.sum()
        for size in np.flatnonzero(mine)[::-1]:
            able = kind & [int(pool.frames.max(initial=0)) >= schedule.sizes[size] for pool in pools]
            wanted = quota.clip(0) * able
            if not wanted.sum() > 1e-9 * slots.sum():
                wanted = weight * able
            if not wanted.sum():
                wanted = kind * 1.0
            shares[size] = wanted / wanted.sum()
            quota = quota - slots[size] * shares[size]
    return shares
