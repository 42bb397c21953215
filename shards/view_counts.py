"""How many views each scene of a step has: drawn once for a cycle of steps, so that any step is looked up.

A lane-step holds `images` images in `scenes` scenes. The counts of a step are the same on every lane, so all
ranks do equal work. This file knows nothing of scenes that exist.
"""

from functools import lru_cache

import numpy as np

CYCLE = 256
"""Steps after which the view counts repeat (the scenes, frames and crops do not)."""


def view_counts(
    images: int,
    scenes: int,
    views: tuple[int, int],
    uniform: np.ndarray,
    weights: tuple[float, ...] | None = None,
) -> np.ndarray:
    """(T, scenes) int64 counts within `views`, each row independent and uniform but for its sum, `images`.

    `uniform` (T, scenes) are the random numbers in [0, 1) that decide. `weights` are the chances of the counts
    low .. high, if not equal.
    """
    low, high = views
    chances = weights or (1.0,) * (high - low + 1)
    ways = _ways(images - scenes * low, scenes, chances)
    counts = np.empty(uniform.shape, np.int64)
    left = np.full(len(uniform), images - scenes * low)
    for i in range(scenes):
        # P(this count = x) is proportional to the ways in which the rest can make up the remainder.
        rest = left[:, None] - np.arange(high - low + 1)
        weight = np.where(rest >= 0, ways[scenes - 1 - i][np.maximum(rest, 0)], 0) * chances
        weight = weight.cumsum(1)
        counts[:, i] = (weight <= uniform[:, i, None] * weight[:, -1:]).sum(1)
        left -= counts[:, i]
    return counts + low


def in_even_order(counts: np.ndarray) -> np.ndarray:
    """The rows of `counts` in an order in which every count comes up at an even pace.

    Any stretch of steps then asks for views in nearly the same proportions, and so for the same chunks in all
    sizes (`shards/places.py`): each step is the one that keeps the sums so far nearest to their share.
    """
    sizes = np.unique(counts)
    excess = (counts[:, :, None] == sizes).sum(1).astype(float)
    excess -= excess.mean(0)
    order, total, left = [], np.zeros(len(sizes)), np.zeros(len(counts))
    for _ in range(len(counts)):
        row = int((((total + excess) ** 2).sum(1) + left).argmin())
        left[row] = np.inf
        order.append(row)
        total += excess[row]
    return counts[order]


@lru_cache(maxsize=64)
def _ways(total: int, scenes: int, chances: tuple[float, ...]) -> np.ndarray:
    """ways[n, t]: the share of draws of n numbers, 0.. with these chances, that sum to t."""
    ways = np.zeros((scenes, total + 1))
    ways[0, 0] = 1
    for n in range(1, scenes):
        ways[n] = np.convolve(ways[n - 1], np.array(chances) / sum(chances))[: total + 1]
    return ways


def chances_for(
    images: int, scenes: int, views: tuple[int, int], held: np.ndarray, spare: float = 1.25
) -> tuple[float, ...] | None:
    """Chances of the view counts low .. high that suit scenes of these sizes; None where equal ones do.

    `held[n]` is the share of all frames that lie in scenes of at most n frames. Such scenes can be shown in no
    more than n views, so as large a share of all views must come in such counts, and a little to spare. The
    chances are raised for them as far as that asks, and as the mean, images / scenes, allows.
    """
    low, high = views
    sizes = np.arange(low, high + 1)
    wanted, chances = (
        np.minimum(held[np.minimum(sizes, len(held) - 1)] * spare, 1.0)[:-1],
        np.ones(len(sizes)),
    )
    for _ in range(200):
        rest = images - scenes * low - (sizes - low)
        ways = _ways.__wrapped__(images - scenes * low, scenes, tuple(chances))[scenes - 1]
        shown = np.where(rest >= 0, ways[np.maximum(rest, 0)], 0) * chances * sizes
        short = wanted - (shown / shown.sum()).cumsum()[:-1]
        if not len(short) or short.max() <= 0:
            break
        chances[: int(short.argmax()) + 1] *= 1.1
    else:
        chances = chances.round(6)
    return None if (chances == 1).all() else tuple(chances.tolist())


class Schedule:
    """The view counts of every step of an epoch, by size.

    `sizes` (K,) are the view counts that occur, ascending; `of_step[t]` (K,) how many scenes of each size a
    lane has at step t of the cycle. Steps are counted from the beginning of the epoch.
    """

    def __init__(self, counts: np.ndarray) -> None:
        self.sizes = np.unique(counts)
        self.of_step = (counts[:, :, None] == self.sizes).sum(1)
        self._before = np.concatenate([np.zeros((1, len(self.sizes)), np.int64), self.of_step.cumsum(0)])

    def at(self, step: int) -> np.ndarray:
        """(K,) scenes of each size in a lane at the step."""
        return self.of_step[step % len(self.of_step)]

    def before(self, step: int) -> np.ndarray:
        """(K,) scenes of each size that a lane had before the step."""
        cycles, rest = divmod(step, len(self.of_step))
        return cycles * self._before[-1] + self._before[rest]
