"""From rows to scores: means with intervals over scenes, and differences between encoders with their tests.

A trained reading has a row for every seed: an item's values are averaged over seeds first (of a score that is no
mean, such as an AUC, the score is averaged instead), and the scores' deviation over seeds stands beside the
interval, which resamples scenes alone. Nothing here knows what was measured.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from math import isfinite, isnan
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from probes import statistics
from probes.probe import Metric, Probe, Row
from probes.statistics import Statistic, mean_statistic

KEYS = ("probe", "data", "reading", "position", "encoder", "layer")
"""What a line of the table is one of."""
COMPARED = 3
"""Metrics whose differences are tested: the headline and the first of the others."""
LEVEL = 0.05
Verdict = Literal["better", "worse", "undecided", "too few scenes"]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One metric of one group of rows: values (n, seeds) or (n, seeds, k) of n items."""

    items: tuple[str, ...]
    scenes: tuple[str, ...] = field(repr=False)
    values: NDArray = field(repr=False)
    metric: Metric

    @cached_property
    def flat(self) -> NDArray:
        """(n,) or (n, m), as `statistic` takes them."""
        if self.metric.statistic is mean_statistic and self.values.ndim == 2:
            return self.values.mean(axis=1)
        return self.values[:, 0] if self.values.shape[1] == 1 else self.values.reshape(len(self.values), -1)

    @cached_property
    def statistic(self) -> Statistic:
        """Of `flat`: the metric's own, averaged over seeds."""
        own, seeds = self.metric.statistic, self.values.shape[1]
        if seeds == 1 or (own is mean_statistic and self.values.ndim == 2):
            return own
        shape = self.values.shape[1:]

        def over_seeds(values: NDArray, weights: NDArray) -> NDArray:
            split = values.reshape(-1, *shape)
            return np.mean([own(split[:, k], weights) for k in range(seeds)], axis=0)

        return over_seeds

    @property
    def by_seed(self) -> NDArray:
        """Score of each seed (seeds,)."""
        return score_of(self.values, self.metric.statistic)

    @cached_property
    def by_item(self) -> dict[str, float]:
        """The score that each item would give alone."""
        one = np.ones((1, 1))
        found = (
            self.flat
            if self.statistic is mean_statistic
            else [self.statistic(self.flat[k : k + 1], one)[0] for k in range(len(self.items))]
        )
        return {item: float(value) for item, value in zip(self.items, found, strict=True)}

    def only(self, items: Sequence[str]) -> "Sample":
        """Of some of the items, in that order."""
        place = {item: k for k, item in enumerate(self.items)}
        index = [place[item] for item in items]
        return Sample(
            items=tuple(items),
            scenes=tuple(self.scenes[k] for k in index),
            values=self.values[index],
            metric=self.metric,
        )


class Difference(NamedTuple):
    """Of two encoders on the same items; None where it cannot be said."""

    a: float | None
    b: float | None
    mean: float | None
    lo: float | None
    hi: float | None
    p: float | None
    items: int
    scenes: int


def score_of(values: NDArray, statistic: Statistic) -> NDArray:
    """Scores (seeds,) of values (n, seeds) or (n, seeds, k)."""
    weights = np.ones((1, len(values)))
    return np.array([statistic(values[:, k], weights)[0] for k in range(values.shape[1])])


def sample(rows: Sequence[Row], metric: Metric) -> Sample | None:
    """A metric of the rows of one encoder, layer, reading and position; None where no item has it.

    An item counts if the metric is known under every seed; failed items have infinite errors, so they count.

    Raises:
        ValueError: an item occurs twice under one seed.
    """
    found: dict[str, dict[Any, Any]] = {}
    scenes: dict[str, str] = {}
    seeds: dict[Any, None] = {}
    for row in rows:
        of_item = found.setdefault(row["item"], {})
        if row.get("seed") in of_item:
            raise ValueError(f"two rows of item {row['item']!r} and seed {row.get('seed')}")
        of_item[row.get("seed")] = row.get(metric.source)
        scenes[row["item"]] = row["scene"]
        seeds[row.get("seed")] = None
    items = sorted(item for item, of in found.items() if all(of.get(seed) is not None for seed in seeds))
    if not items:
        return None
    values = np.array([[found[item][seed] for seed in seeds] for item in items], np.float64)
    return Sample(
        items=tuple(items), scenes=tuple(scenes[item] for item in items), values=values, metric=metric
    )


def group(rows: Iterable[Row]) -> dict[tuple, list[Row]]:
    """Rows by `KEYS`, in the order of first occurrence."""
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row.get(key) for key in KEYS), []).append(row)
    return groups


def table_line(key: tuple, rows: Sequence[Row], metrics: Sequence[Metric]) -> Row:
    """A group's line: counts, then each metric's mean with the ends of its interval and its deviation over seeds."""
    line: Row = dict(zip(KEYS, key, strict=True))
    line["items"] = len({row["item"] for row in rows})
    line["scenes"] = len({row["scene"] for row in rows})
    line["failed"] = len({row["item"] for row in rows if row.get("failed")})
    for metric in metrics:
        name, found = metric.name, sample(rows, metric)
        if found is None:
            line |= {name: None, f"{name}_lo": None, f"{name}_hi": None, f"{name}_seed_sd": None}
            continue
        interval = statistics.interval(found.flat, found.scenes, found.statistic)
        by_seed = found.by_seed
        spread = float(by_seed.std(ddof=1)) if len(by_seed) > 1 and np.isfinite(by_seed).all() else None
        lo, hi = (_within(number(end), metric) for end in (interval.lo, interval.hi))
        line |= {name: number(interval.mean), f"{name}_lo": lo, f"{name}_hi": hi, f"{name}_seed_sd": spread}
        if len(found.items) != line["items"]:
            line[f"{name}_items"] = len(found.items)
    return line


def _within(end: float | None, metric: Metric) -> float | None:
    """An end of an interval: widened for few scenes it may pass what no score can. Failures stay infinite."""
    if end is None or not isfinite(end):
        return end
    least, most = metric.bounds
    return min(max(end, least), most)


def compared(probe: Probe) -> list[Metric]:
    """The metrics whose differences are tested, the headline first."""
    named = {metric.name: metric for metric in probe.metrics}
    rest = [metric for name, metric in named.items() if name != probe.headline]
    return [named[probe.headline], *rest][:COMPARED]


def difference(a: Sample, b: Sample) -> Difference | None:
    """Of A minus B over the items that both have; None where they share none."""
    theirs = set(b.items)
    shared = [item for item in a.items if item in theirs]
    if not shared:
        return None
    a, b = _as_many_seeds(a.only(shared), b.only(shared))
    one = np.ones((1, len(shared)))
    left, right = (float(side.statistic(side.flat, one)[0]) for side in (a, b))
    interval = statistics.paired_interval(a.flat, b.flat, a.scenes, a.statistic)
    p = statistics.paired_test(a.flat, b.flat, a.scenes, a.statistic)
    mean = left - right if isfinite(left) or isfinite(right) else None
    return Difference(
        number(left), number(right), number(mean), number(interval.lo), number(interval.hi), number(p),
        len(shared), len(set(a.scenes)),
    )  # fmt: skip


def verdict(found: Difference, p_holm: float | None, metric: Metric) -> Verdict:
    """What the corrected test says of A against B."""
    if found.scenes < statistics.FEWEST_TO_TEST:
        return "too few scenes"
    if p_holm is None or p_holm >= LEVEL or not found.mean:
        return "undecided"
    return "better" if (found.mean > 0) == (metric.better == "more") else "worse"


def difference_lines(lines: list[tuple[Row, Difference, Metric, bool]]) -> list[Row]:
    """Lines with the corrected p values and verdicts.

    Args:
        lines: what each is of (with ``probe`` and ``data``), its difference, its metric, and whether it is of the
            family that the summary rests on. Holm's correction is over each family: of one probe, data set and
            metric, the leading reading apart from all others.
    """
    families: dict[tuple, list[int]] = {}
    for k, (of, _, metric, leads) in enumerate(lines):
        families.setdefault((of["probe"], of["data"], metric.name, leads), []).append(k)
    corrected: dict[int, float | None] = {}
    for members in families.values():
        corrected |= dict(zip(members, statistics.holm([lines[k][1].p for k in members]), strict=True))
    return [
        {
            **of,
            "metric": metric.name,
            "items": found.items,
            "scenes": found.scenes,
            "a": found.a,
            "b": found.b,
            "difference": found.mean,
            "lo": found.lo,
            "hi": found.hi,
            "p": found.p,
            "p_holm": corrected[k],
            "verdict": verdict(found, corrected[k], metric),
        }
        for k, (of, found, metric, _) in enumerate(lines)
    ]


def encoder_pairs(labels: Sequence[str]) -> list[tuple[str, str]]:
    """All pairs of encoders, those with the first one first."""
    return list(combinations(labels, 2))


def final_layer(
    layers: Iterable[int | None], selections: Sequence[Mapping[str, Any]], of: Mapping[str, Any]
) -> int | None:
    """The layer that stands for an encoder: the one chosen on held-out training scenes, else the last.

    Args:
        layers: those it was scored at.
        selections: of all units, each with ``probe``, ``data``, ``encoder`` and what was ``selected``; a ``layer``
            there is a number, or a dictionary with the number as ``chosen``, or with numbers as ``best``, by
            ``READING, position POSITION``.
        of: probe, data, encoder, reading and position in question.
    """
    known = [layer for layer in layers if layer is not None]
    for selection in selections:
        if all(selection.get(key) == of[key] for key in ("probe", "data", "encoder")):
            chosen = selection["selected"].get("layer")
            if isinstance(chosen, Mapping):
                best = chosen.get("best", {})
                chosen = best.get(f"{of['reading']}, position {of['position']}", chosen.get("chosen"))
            if chosen in known:
                return chosen
    return max(known, default=None)


def number(value: float | None) -> float | None:
    """A float, infinity included; None for nan."""
    return None if value is None or isnan(value) else float(value)


def _as_many_seeds(a: Sample, b: Sample) -> tuple[Sample, Sample]:
    # Both sides of a resample go through one statistic, so one that averages seeds must meet as many on both.
    if a.values.shape[1] == b.values.shape[1]:
        return a, b
    count = int(np.lcm(a.values.shape[1], b.values.shape[1]))
    return tuple(
        Sample(
            items=s.items,
            scenes=s.scenes,
            metric=s.metric,
            values=np.repeat(s.values, count // s.values.shape[1], axis=1),
        )
        for s in (a, b)
    )
