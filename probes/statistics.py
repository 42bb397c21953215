"""Intervals that respect how the data hang together: scenes are resampled, not pairs.

Pairs of one scene share its textures and geometry, so they are not independent; the bootstrap draws whole
scenes. Rows are plain dictionaries with at least ``pair``, ``scene`` and the metric. Nothing here knows
what was measured.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

FEW_SCENES = 5
Statistic = Callable[[NDArray, NDArray], NDArray]
"""Values (n,) or (n, k) of n items and weights (m, n) of m resamples to the score (m,) of each; a weight says how
often an item is drawn. Values may be infinite; with all weights 0 the score is nan."""
Row = Mapping[str, Any]


class Interval(NamedTuple):
    """A mean and its interval; the ends are None where there is a single scene, so nothing to resample."""

    mean: float
    lo: float | None
    hi: float | None


def mean_statistic(values: NDArray, weights: NDArray) -> NDArray:
    """The weighted mean of values (n,) under each row of weights (m, n)."""
    return (weights @ values) / weights.sum(axis=1)


def bootstrap_mean(
    values: Iterable[float],
    groups: Iterable[str],
    *,
    level: float = 0.95,
    samples: int = 4000,
    seed: int = 0,
) -> Interval:
    """Mean of ``values`` with a percentile bootstrap interval over ``groups`` (scenes).

    Every resample draws as many groups as there are, with replacement, and takes the mean over all values of
    the drawn groups. Seeded: the same input gives the same interval. With one group the ends are None; below
    `FEW_SCENES` groups the interval exists but is unreliable, which the caller should say.
    """
    values = np.asarray(list(values), np.float64)
    names, member = np.unique(np.asarray(list(groups)), return_inverse=True)
    if values.size == 0 or values.size != member.size:
        raise ValueError(f"{values.size} values and {member.size} groups: need as many, and at least one")
    mean = float(values.mean())
    if len(names) == 1:
        return Interval(mean, None, None)
    sums = np.bincount(member, weights=values)
    counts = np.bincount(member).astype(np.float64)
    drawn = _draws(len(names), samples, seed)
    means = (drawn @ sums) / (drawn @ counts)
    lo, hi = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(mean, float(lo), float(hi))


@lru_cache(maxsize=32)
def _draws(groups: int, samples: int, seed: int) -> NDArray:
    """How often each group is drawn in each resample (samples, groups)."""
    rng = np.random.Generator(np.random.Philox(seed))
    return rng.multinomial(groups, np.full(groups, 1 / groups), size=samples).astype(np.float64)


def paired_difference(
    rows_a: Sequence[Row],
    rows_b: Sequence[Row],
    metric: str,
    by: str = "scene",
    *,
    level: float = 0.95,
    samples: int = 4000,
    seed: int = 0,
) -> Interval:
    """Mean of ``metric`` of A minus B over the pairs both were scored on, with its interval over ``by``.

    The two must hold exactly the same pairs. A pair that occurs several times within one side (encoders
    trained from several seeds) is averaged first. ValueError if the sides differ in pairs, or if one side
    mixes readings or layers, which would average numbers that mean different things.
    """
    a, scenes = _one_value_a_pair(rows_a, metric, by, "A")
    b, _ = _one_value_a_pair(rows_b, metric, by, "B")
    if a.keys() != b.keys():
        lonely = sorted(a.keys() ^ b.keys())
        raise ValueError(
            f"a paired difference needs the same pairs on both sides: {len(lonely)} of "
            f"{len(a.keys() | b.keys())} are on one side only, the first is {lonely[0]!r}"
        )
    pairs = sorted(a)
    return bootstrap_mean(
        [a[pair] - b[pair] for pair in pairs],
        [scenes[pair] for pair in pairs],
        level=level,
        samples=samples,
        seed=seed,
    )


def _one_value_a_pair(
    rows: Sequence[Row], metric: str, by: str, side: str
) -> tuple[dict[str, float], dict[str, str]]:
    if not rows:
        raise ValueError(f"side {side} of the paired difference has no rows")
    if metric not in rows[0]:
        raise ValueError(f"rows have no metric {metric!r}; they have {', '.join(map(str, rows[0]))}")
    for column in ("reading", "layer", "position", "size"):
        kinds = {row[column] for row in rows if column in row}
        if len(kinds) > 1:
            raise ValueError(f"side {side} mixes several kinds of {column}: {sorted(map(str, kinds))}")
    values: dict[str, list[float]] = {}
    groups: dict[str, str] = {}
    for row in rows:
        values.setdefault(row["pair"], []).append(float(row[metric]))
        groups[row["pair"]] = str(row[by])
    return {pair: float(np.mean(found)) for pair, found in values.items()}, groups


def reliability(scenes: int) -> str:
    """What to say beside an interval over so many scenes; empty where there are enough."""
    if scenes == 1:
        return "one scene only: no interval can be given"
    if scenes < FEW_SCENES:
        return f"only {scenes} scenes: the interval is unreliable"
    return ""


def bins(values: NDArray, edges: Sequence[float]) -> NDArray:
    """Bin number (n,) int64 of each value for ascending ``edges``; the last edge belongs to the last bin."""
    index = np.digitize(np.asarray(values, np.float64), np.asarray(edges)) - 1
    return np.clip(index, 0, len(edges) - 2).astype(np.int64)
