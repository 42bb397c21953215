"""What a probe is: lists of things to score, frozen before any encoder is seen; then, of an encoder's features, rows.

A `Probe` opens a `Task` on a benchmark: its frames, its items (pairs, frames, sequences), its training part. The
task scores one encoder at a time from feature maps alone and returns a `Unit`: rows with a number for every item,
what was selected and how, and arrays for pictures. Units are what is cached, split over processes and continued
after a kill; tables, intervals and tests are made of their rows by `probes.statistics`, and pages by
`probes.report`. This file knows no probe and no benchmark.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any, ClassVar, Literal

import torch
from numpy.typing import NDArray

from probes.data.frames import Benchmark
from probes.data.square import Fit, SquareFrames
from probes.encoders.encoder import Encoder
from probes.encoders.features import FeatureMaps
from probes.exhibits import Exhibit
from probes.statistics import Statistic, mean_statistic

BASELINE = "baseline"
"""The reading of rows that look at no feature."""
Row = dict[str, Any]
"""One item under one encoder, layer, reading and variant. Every row has

    item      str, stable id, unique within its data;   scene   str, what the bootstrap resamples
    layer     int from 1, or None where several layers or none are read
    reading   str: how the features were read, such as knn, linear, dpt, poselib-linear
    position  "kept" or "removed": whether the mean feature of every position was subtracted
    seed      int, or None where nothing was trained or drawn
    failed    bool: no prediction; its errors are then infinite, so it counts as a failure

then covariates (`angle`, `overlap`, `points` ..., equal for all encoders), then the probe's metrics by name.
The suite adds ``probe``, ``data`` and ``encoder`` in front. Values are JSON types; infinity is allowed.
"""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A column of a probe's rows, or a statistic of one, and how it is read."""

    name: str
    """Of the score in tables: epe, auc5_exact, miou."""
    label: str
    """In words, for charts and heads: ``mean error``, ``AUC@5° (exact)``."""
    unit: str = ""
    better: Literal["less", "more"] = "more"
    digits: int = 3
    scale: float = 1.0
    """Shown values are multiplied by it (100 for percent); stored ones are not."""
    column: str = ""
    """The rows' column it is made of; empty: `name`. A column may hold a list of numbers a row."""
    statistic: Statistic = field(default=mean_statistic, repr=False)
    """Of the items' values to the score; by default their mean."""

    @property
    def source(self) -> str:
        """The rows' column it is made of."""
        return self.column or self.name

    @property
    def bounds(self) -> tuple[float, float]:
        """Stored values that no score can pass: those of a share or an angle."""
        most = {"%": 100, "°": 180}.get(self.unit)
        return (-inf, inf) if most is None else (0.0, most / self.scale)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the user asked of every probe; a probe's own recipe is its config."""

    size: int
    """Evaluated size in px: side of the square images."""
    fit: Fit | None = None
    """None: the benchmark's own rule."""
    preset: Literal["small", "standard"] = "standard"
    layers: Literal["last", "all"] | tuple[int, ...] = "last"
    """Layers that single-layer readings are scored at."""
    seeds: tuple[int, ...] = (0,)
    """Of every trained reading, and of whatever is drawn."""
    items: int | None = None
    """Most scored items (pairs, frames, sequences) of each data set; None: the preset's own."""
    readings: tuple[str, ...] | None = None
    """Readings to take of those a probe knows; None: all."""


@dataclass(kw_only=True)
class Unit:
    """What one probe found of one encoder on one data set."""

    rows: list[Row] = field(repr=False)
    arrays: dict[str, NDArray] = field(default_factory=dict, repr=False)
    """What pictures need, such as predicted points by item; small."""
    selections: dict[str, Any] = field(default_factory=dict)
    """What was chosen, on what and among what (a layer on held-out training scenes); JSON types."""
    notes: list[str] = field(default_factory=list)


class Task(ABC):
    """A probe on one benchmark: the frozen lists, waiting for encoders."""

    frames: SquareFrames
    """All frames whose features are read, the scored ones first."""
    hash: str
    """SHA-256 over its lists: what was scored, what was trained on."""
    facts: dict[str, Any]
    """Counts for the report: items, scenes, images, and whatever describes the lists; JSON types."""
    notes: list[str]
    """What a reader of the scores must know."""

    @abstractmethod
    def layers(self, encoder: Encoder) -> tuple[int, ...]:
        """Layers it reads of an encoder, ascending, from 1; all come from one forward pass."""

    @abstractmethod
    def score(
        self,
        encoder: Encoder,
        maps: Mapping[int, FeatureMaps],
        device: torch.device,
        *,
        progress: bool = False,
    ) -> Unit:
        """Score an encoder from its feature maps, by layer; indices are those of `frames`.

        Everything drawn comes from the settings' seeds and the items' names, nothing from a global generator.
        """

    def baselines(self, grids: Sequence[tuple[int, int]]) -> list[Row]:
        """Rows of predictions that look at no feature, and of the best that each grid allows, with ``encoder``."""
        return []

    def exhibits(self, units: Mapping[str, Unit]) -> list[Exhibit]:
        """Pictures for the report, of all encoders by label: best, median and worst items, never picked by hand."""
        return []


class Probe(ABC):
    """A kind of score; one instance each, listed in `probes.units`."""

    name: ClassVar[str]
    """On the command line: matching."""
    title: ClassVar[str]
    """In the report: Dense matching."""
    question: ClassVar[str]
    """What it asks, for someone who has never seen the project."""
    metrics: ClassVar[tuple[Metric, ...]]
    headline: ClassVar[str]
    """Name of the metric that the summary shows."""
    leading: ClassVar[tuple[str, ...]]
    """All its readings, in the order in which the summary prefers them."""
    takes_base: ClassVar[bool] = False
    """Whether its tasks' `score` also takes ``base``, the feature maps of the model that encoders were made from."""
    timed: ClassVar[bool] = False
    """Whether it measures time: scored alone, with the encoder itself, and never the same twice."""

    @property
    def headline_metric(self) -> Metric:
        """The metric that the summary shows."""
        return next(metric for metric in self.metrics if metric.name == self.headline)

    @abstractmethod
    def refuses(self, benchmark: Benchmark) -> str | None:
        """Why it cannot score a benchmark, such as "no labels"; None if it can."""

    @abstractmethod
    def config(self, benchmark: Benchmark, settings: Settings) -> Any:
        """Its complete recipe, a frozen dataclass of JSON types; part of the identity of a result."""

    @abstractmethod
    def open(self, benchmark: Benchmark, train: Benchmark | None, config: Any) -> Task:
        """Freeze the lists.

        Args:
            benchmark: its test part is scored.
            train: its train part is trained on (often the same benchmark); None: only readings that need no
                training are taken.
            config: of `config`.

        Raises:
            ProbeError: nothing to score. Images that are scored are never trained on.
        """
