"""Intervals and tests that respect how the data hang together: scenes are resampled and swapped, not items.

Items of one scene share its textures and geometry, so they are not independent; whole scenes are drawn, and
whole scenes change sides. A score is any function of items' values and weights (`Statistic`), so AUCs and mIoUs
get their intervals like means do. Nothing here knows what was measured, and nothing is drawn from a global
generator: the same input gives the same numbers.
"""

from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import lru_cache
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

LEVEL = 0.95
"""How often an interval is to cover the truth."""
SAMPLES = 4000
"""Resamples of an interval, and ways of a test where not all are counted."""
SEED = 0
"""Of all that is drawn."""
FEW_SCENES = 5
"""Below so many an interval is unreliable."""
FEWEST_TO_TEST = 6
"""Below so many scenes no swap of whole scenes is as rare as one in twenty: 2 / 2^5 > 0.05."""
BLOCK = 1 << 22
"""Weights held at once."""
TAIL = 0.005
"""Quantiles further out than this are extrapolated, not read off the resamples."""
Statistic = Callable[[NDArray, NDArray], NDArray]
"""Values (n,) or (n, k) of n items and weights (m, n) of m resamples to the score (m,) of each; a weight says how
often an item is drawn. Values may be infinite; with all weights 0 the score is nan."""


class Interval(NamedTuple):
    """A score and its interval; the ends are None where there is a single scene, so nothing to resample."""

    mean: float
    lo: float | None
    hi: float | None


def mean_statistic(values: NDArray, weights: NDArray) -> NDArray:
    """The weighted mean of values (n,) under each row of weights (m, n); infinite where an infinite one has weight."""
    finite = np.isfinite(values)
    if finite.all():
        total = weights @ values
    else:
        total = weights[:, finite] @ values[finite]
        # Inf times a weight of 0 would be nan.
        total = total + np.where(weights[:, ~finite] > 0, values[~finite], 0).sum(axis=1)
    with np.errstate(invalid="ignore"):
        return total / weights.sum(axis=1)


def interval(
    values: ArrayLike,
    groups: Iterable[Hashable],
    statistic: Statistic = mean_statistic,
    *,
    level: float = LEVEL,
    samples: int = SAMPLES,
) -> Interval:
    """The score of items with its cluster bootstrap interval over ``groups`` (scenes).

    Every resample draws as many groups as there are, with replacement, and scores all items of those drawn. The
    quantiles read off the resamples lie further out than `level` says, as far as Student's t does from the normal
    distribution (Hesterberg, What Teachers Should Know About the Bootstrap, 2015, section 5.3), with the effective
    number of groups (Kish) where they are of unequal sizes: plain percentiles cover the truth in 89 % of studies
    of 8 scenes, these in 94 to 96 %.

    Args:
        values: (n,) or (n, k), as the statistic takes them; may be infinite.
        groups: the scene of each item.
        statistic: what is scored.
        level: how often the interval is to cover the truth.
        samples: resamples.

    Returns:
        The score with both ends; without them where there is one group, or where the score is not a number.
    """
    values, member = _grouped(values, groups)

    def score(weights: NDArray) -> NDArray:
        return _scores(values, member, weights, statistic)

    found = _bootstrap(score, member, level, samples)
    # Far quantiles of few scenes are extrapolated, but errors and rates end at 0.
    if found.lo is not None and found.lo < 0 and not (score(np.eye(int(member.max()) + 1)) < 0).any():
        return found._replace(lo=0.0)
    return found


def paired_interval(
    a: ArrayLike,
    b: ArrayLike,
    groups: Iterable[Hashable],
    statistic: Statistic = mean_statistic,
    *,
    samples: int = SAMPLES,
) -> Interval:
    """Score of ``a`` minus score of ``b``, values of the same items in the same order, under the same resamples.

    Arguments as of `interval`, at its usual level. Where both scores are infinite, their difference is not a number.
    """
    (a, b), member = _paired(a, b, groups)

    def difference(weights: NDArray) -> NDArray:
        with np.errstate(invalid="ignore"):
            return _scores(a, member, weights, statistic) - _scores(b, member, weights, statistic)

    return _bootstrap(difference, member, LEVEL, samples)


def paired_test(
    a: ArrayLike,
    b: ArrayLike,
    groups: Iterable[Hashable],
    statistic: Statistic = mean_statistic,
    *,
    samples: int = SAMPLES,
) -> float | None:
    """Two-sided p of the score difference of ``a`` and ``b``, were it chance which side a scene's results are on.

    Whole scenes change sides (for means, the signs of scenes' differences flip). All 2^(G-1) ways are counted
    where these are at most ``samples``; otherwise so many are drawn, and the observed one is counted among them
    (Phipson and Smyth, Permutation P-values Should Never Be Zero, 2010).

    Returns:
        p; None below `FEWEST_TO_TEST` scenes, where it could never reach 0.05, or where the difference is no number.
    """
    (a, b), member = _paired(a, b, groups)
    scenes = int(member.max()) + 1
    if scenes < FEWEST_TO_TEST:
        return None
    both, twice = np.concatenate([a, b]), np.concatenate([member, member + scenes])
    own, exact = _sides(scenes, samples)

    def difference(own: NDArray) -> tuple[NDArray, NDArray]:
        one = _scores(both, twice, np.concatenate([own, 1 - own], axis=1), statistic)
        other = _scores(both, twice, np.concatenate([1 - own, own], axis=1), statistic)
        with np.errstate(invalid="ignore"):
            return np.abs(one - other), np.abs(one) + np.abs(other)

    found, size = difference(np.ones((1, scenes)))
    if np.isnan(found[0]):
        return None
    # Equal up to rounding counts as equal; what is no number (both sides infinite) counts against a difference.
    bar = found[0] - 1e-12 * size[0] if np.isfinite(found[0]) else found[0]
    extreme = int((~(difference(own)[0] < bar)).sum())
    return extreme / len(own) if exact else (extreme + 1) / (len(own) + 1)


def holm(p: Sequence[float | None]) -> list[float | None]:
    """Holm's adjustment of p-values that are judged together: each may be held against 0.05 by itself then.

    None, where no test could be made, stays None and counts as no comparison. Source: Holm, A Simple Sequentially
    Rejective Multiple Test Procedure, 1979.
    """
    adjusted: list[float | None] = [None] * len(p)
    made = sorted((value, index) for index, value in enumerate(p) if value is not None)
    worst = 0.0
    for rank, (value, index) in enumerate(made):
        worst = max(worst, min(1.0, value * (len(made) - rank)))
        adjusted[index] = worst
    return adjusted


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


# -- inside


def _grouped(values: ArrayLike, groups: Iterable[Hashable]) -> tuple[NDArray, NDArray]:
    """Values as an array, and the number of each item's group."""
    values = np.asarray(values, np.float64)
    numbers: dict[Hashable, int] = {}
    member = np.array([numbers.setdefault(group, len(numbers)) for group in groups], np.int64)
    if values.ndim == 0 or len(values) == 0 or len(values) != len(member):
        raise ValueError(f"values {values.shape} and {len(member)} groups: need as many, and at least one")
    return values, member


def _paired(
    a: ArrayLike, b: ArrayLike, groups: Iterable[Hashable]
) -> tuple[tuple[NDArray, NDArray], NDArray]:
    a, member = _grouped(a, groups)
    b = np.asarray(b, np.float64)
    if a.shape != b.shape:
        raise ValueError(f"a comparison needs the same items on both sides: values {a.shape} and {b.shape}")
    return (a, b), member


def _scores(values: NDArray, member: NDArray, weights: NDArray, statistic: Statistic) -> NDArray:
    """Scores (m,) under weights (m, groups)."""
    if statistic is mean_statistic:
        # The mean over items is that over groups by their sizes: the same number from far smaller matrices.
        sizes = np.bincount(member)
        return mean_statistic(np.bincount(member, weights=values) / sizes, weights * sizes)
    block = max(1, BLOCK // len(values))
    parts = [
        statistic(values, weights[start : start + block, member]) for start in range(0, len(weights), block)
    ]
    return np.concatenate(parts)


def _bootstrap(score: Callable[[NDArray], NDArray], member: NDArray, level: float, samples: int) -> Interval:
    sizes = np.bincount(member)
    mean = float(score(np.ones((1, len(sizes))))[0])
    if len(sizes) == 1 or np.isnan(mean):
        return Interval(mean, None, None)
    found = score(_draws(len(sizes), samples))
    found = found[~np.isnan(found)]
    effective = max(2.0, float(sizes.sum() ** 2 / (sizes**2).sum()))
    reach = (effective / (effective - 1)) ** 0.5 * student_t((1 + level) / 2, round(effective - 1, 6))
    wanted = NormalDist().cdf(-reach)
    tail = max(wanted, min(TAIL, (1 - level) / 2))
    stretch = 1.0 if tail == wanted else reach / -NormalDist().inv_cdf(tail)
    # Between two resamples an end is the outer one: no interpolation, which infinite scores would not survive.
    lo = float(np.quantile(found, tail, method="lower"))
    hi = float(np.quantile(found, 1 - tail, method="higher"))
    if stretch > 1 and np.isfinite(mean):
        lo, hi = mean - (mean - lo) * stretch, mean + (hi - mean) * stretch
    return Interval(mean, lo, hi)


@lru_cache(maxsize=8)
def _draws(groups: int, samples: int) -> NDArray:
    """How often each group is drawn in each resample (samples, groups)."""
    rng = np.random.Generator(np.random.Philox(SEED))
    return rng.multinomial(groups, np.full(groups, 1 / groups), size=samples).astype(np.float64)


@lru_cache(maxsize=8)
def _sides(scenes: int, samples: int) -> tuple[NDArray, bool]:
    """Which scenes (ways, scenes) stay on their side, 0 or 1, and whether these are all ways up to a swap of all."""
    if 2 ** (scenes - 1) <= samples:
        ways = np.arange(2 ** (scenes - 1))
        return 1.0 - (ways[:, None] >> np.arange(scenes) & 1), True
    rng = np.random.Generator(np.random.Philox(SEED))
    return rng.integers(0, 2, (samples, scenes)).astype(np.float64), False


@lru_cache(maxsize=256)
def student_t(probability: float, freedom: float) -> float:
    """Quantile of Student's t for a probability of at least 1/2 and 1 or more degrees of freedom.

    With t = sqrt(freedom) tan(angle) the density is cos(angle)^(freedom - 1): smooth, so summed by trapezoids.
    """
    angle = np.linspace(0, np.pi / 2, 20001)
    density = np.cos(angle) ** (freedom - 1)
    below = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return float(freedom**0.5 * np.tan(np.interp(2 * probability - 1, below / below[-1], angle)))
