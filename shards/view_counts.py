"""How many views each scene of a step has: drawn once for a cycle of steps, so that any step is looked up.

A lane-step holds `images` images in `scenes` scenes. The counts of a step are the same on every lane, so all
ranks do equal work. This file knows nothing of scenes that exist.
"""

from functools import lru_cache

import numpy as np

CYCLE = 1024
"""Steps after which the view counts repeat (the scenes, frames and crops do not)."""


def view_counts(images: int, scenes: int, views: tuple[int, int], uniform: np.ndarray) -> np.ndarray:
    """(T, scenes) int64 counts within `views`, each row independent and uniform but for its sum, `images`.

    `uniform` (T, scenes) are the random numbers in [0, 1) that decide.
    """
    low, high = views
    ways = _ways(images - scenes * low, scenes, high - low)
    counts = np.empty(uniform.shape, np.int64)
    left = np.full(len(uniform), images - scenes * low)
    for i in range(scenes):
        # P(this count = x) is proportional to the ways in which the rest can make up the remainder.
        rest = left[:, None] - np.arange(high - low + 1)
        weight = np.where(rest >= 0, ways[scenes - 1 - i][np.maximum(rest, 0)], 0).cumsum(1)
        counts[:, i] = (weight <= uniform[:, i, None] * weight[:, -1:]).sum(1)
        left -= counts[:, i]
    return counts + low


@lru_cache(maxsize=64)
def _ways(total: int, scenes: int, most: int) -> np.ndarray:
    """ways[n, t]: the share of draws of n numbers in 0..most that sum to t."""
    ways = np.zeros((scenes, total + 1))
    ways[0, 0] = 1
    for n in range(1, scenes):
        ways[n] = np.convolve(ways[n - 1], np.full(most + 1, 1 / (most + 1)))[: total + 1]
    return ways


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
