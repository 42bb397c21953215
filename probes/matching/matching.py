"""Dense matching by frozen features: where does the patch that looks at a point lie in another view?

Readings. ``knn``: cosine nearest neighbour on the patch grid, nothing trained. ``linear``: the trained layer of
`probes.matching.linear`, read by the most likely patch's centre, and, as ``linear-soft``, by the kernel's
expectation over all centres; ``linear-learned-t`` is the latter with the kernel's temperature learned too;
``linear-layer-norm`` and ``linear-no-norm`` normalise otherwise before the layer. Each is scored on the features as
they are and with the mean feature of every grid position over the data set removed, because features that merely
encode their position score well on pairs that look alike. Beside them stand baselines that look at no feature: same
position, chance, and the oracle on the grid. Training scenes held out say which layer is best; what is scored never
does.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from probes.data.frames import Benchmark
from probes.data.pairs import Pair, PairSet, choose_pairs
from probes.data.square import SquareFrames
from probes.data.training_pairs import TrainingPairs, training_pairs
from probes.encoders.encoder import Encoder, choose_layers
from probes.encoders.features import FeatureMaps
from probes.errors import Unfed
from probes.exhibits import Exhibit
from probes.matching.linear import LinearConfig
from probes.matching.pictures import empty_shown, match_exhibits, shown_points
from probes.matching.readers import POSITIONS, TRAINED, Reader, Variants, make_readers, variants
from probes.matching.task import (
    PairTaskConfig,
    lists_hash,
    pair_columns,
    scored_facts,
    scored_pairs,
    trained_facts,
    why_no_points,
)
from probes.metrics.correspondence import (
    end_point_errors,
    patch_centres,
    patch_of,
    patch_step,
    score_chance,
    score_pair,
)
from probes.probe import BASELINE, Metric, Probe, Row, Settings, Task, Unit

_UNASKED = ("linear-layer-norm", "linear-no-norm")  # taken only where they are named
_UNASKED_SMALL = (*_UNASKED, "linear-learned-t")


@dataclass(frozen=True, kw_only=True)
class MatchingConfig(PairTaskConfig):
    """See `PairTaskConfig`."""

    seeds: tuple[int, ...]
    train_pairs: int
    linear: LinearConfig = field(default_factory=LinearConfig)


class MatchingTask(Task):
    """Pairs of one data set, and the training pairs of its linear readings."""

    def __init__(
        self, benchmark: Benchmark, scored: PairSet, trained: TrainingPairs | None, config: MatchingConfig
    ) -> None:
        self.config, self.pairs = config, scored.pairs
        self.readings = tuple(r for r in config.readings if trained is not None or r not in TRAINED)
        self._trained = trained
        self._scored = len(scored.frames)
        training = trained.chosen.frames.frames if trained else ()
        self.frames = SquareFrames([*scored.frames.frames, *training], config.size, config.fit)
        self.hash = lists_hash(scored, trained)
        angles = [pair.angle for pair in scored.pairs if pair.angle is not None]
        self.facts = {
            **scored_facts(benchmark, scored),
            "points": sum(len(pair.queries) for pair in scored.pairs),
            "mean_angle": float(np.mean(angles)) if angles else None,
            **trained_facts(trained),
        }
        self.notes = _notes(scored, trained)

    def layers(self, encoder: Encoder) -> tuple[int, ...]:
        """As the settings ask."""
        return choose_layers(encoder, self.config.layers)

    def score(
        self,
        encoder: Encoder,
        maps: Mapping[int, FeatureMaps],
        device: torch.device,
        *,
        progress: bool = False,
    ) -> Unit:
        """Rows of every pair by every reading, layer and seed, with and without position."""
        layers = self.layers(encoder)
        scored = variants(maps, layers, range(self._scored))
        images = range(self._scored, len(self.frames))
        trained = variants(maps, layers, images) if self._trained else {}
        readers = make_readers(
            self.readings,
            layers,
            trained,
            self._trained.fitted if self._trained else (),
            size=self.config.size,
            seeds=self.config.seeds,
            recipe=self.config.linear,
            device=device,
            progress=progress,
        )
        rows: list[Row] = []
        shown = empty_shown(len(self.pairs))
        for layer in tqdm(layers, desc="layers", disable=not progress, leave=False):
            ways = readers[layer]
            for number, pair in enumerate(self.pairs):
                for way, points in self._predict(pair, ways, layer, scored, device):
                    columns = pair_columns(
                        pair, layer=layer, reading=way.reading, position=way.position, seed=way.seed
                    )
                    rows.append(columns | self._metrics(points, pair, maps[layer].grid))
                    first = way.seed in (None, self.config.seeds[0]) and way.position == "kept"
                    if layer == layers[-1] and first and way.reading == self.pictured:
                        chosen = shown_points(len(points))
                        shown[number, : len(chosen)] = points[chosen]
        selections = {}
        if len(layers) > 1 and self._trained and self._trained.held_out:
            selections["layer"] = self._best_layers(layers, readers, trained, device)
        return Unit(
            rows=rows,
            arrays={"shown": shown, "grid": np.array(maps[layers[-1]].grid)},
            selections=selections,
        )

    @property
    def pictured(self) -> str:
        """The reading whose matches are drawn."""
        return next(reading for reading in PROBE.leading if reading in self.readings)

    def baselines(self, grids: Sequence[tuple[int, int]]) -> list[Row]:
        """Same position, chance and the oracle on every grid."""
        return [row for grid in grids for pair in self.pairs for row in self._baseline(pair, grid)]

    def exhibits(self, units: Mapping[str, Unit]) -> list[Exhibit]:
        """The best, median and worst pair: the truth, then every encoder's matches."""
        errors = {label: self._pictured_errors(unit) for label, unit in units.items()}
        return match_exhibits(self.frames, self.pairs, units, errors, unit="px")

    @torch.inference_mode()
    def _predict(
        self,
        pair: Pair,
        readers: Sequence[Reader],
        layer: int,
        maps: Variants,
        device: torch.device,
    ) -> list[tuple[Reader, NDArray]]:
        """Predicted points (n, 2) of a pair by every reader of a layer."""
        grid, size = maps[layer, "kept"].grid, self.config.size
        asked = torch.from_numpy(patch_of(pair.queries, *grid, size)).to(device)
        views = {p: maps[layer, p].tokens([pair.a, pair.b]).to(device) for p in POSITIONS}
        return [
            (way, way.match(views[way.position][0][asked], views[way.position][1], grid, size))
            for way in readers
        ]

    def _best_layers(
        self,
        layers: Sequence[int],
        readers: Mapping[int, Sequence[Reader]],
        maps: Variants,
        device: torch.device,
    ) -> dict[str, Any]:
        """The layer with the least mean error on the held-out training pairs, by reading and position."""
        errors: dict[str, dict[int, list[float]]] = {}
        for layer in layers:
            for pair in self._trained.held_out:
                for way, points in self._predict(pair, readers[layer], layer, maps, device):
                    found = errors.setdefault(f"{way.reading}, position {way.position}", {})
                    found.setdefault(layer, []).append(float(end_point_errors(points, pair.targets).mean()))
        means = {
            way: {layer: float(np.mean(f)) for layer, f in found.items()} for way, found in errors.items()
        }
        return {
            "best": {way: min(found, key=found.__getitem__) for way, found in means.items()},
            "among": list(layers),
            "by": f"mean error in px on {len(self._trained.held_out)} pairs of "
            f"{self.facts['held_out_scenes']} training scenes that nothing was trained on",
            "errors": {way: [found[layer] for layer in layers] for way, found in means.items()},
        }

    def _metrics(self, points: NDArray, pair: Pair, grid: tuple[int, int]) -> dict[str, float]:
        errors = end_point_errors(points, pair.targets)
        return score_pair(errors, patch=patch_step(grid, self.config.size), size=self.config.size).to_dict()

    def _baseline(self, pair: Pair, grid: tuple[int, int]) -> Iterator[Row]:
        """The predictions that look at no feature, on one encoder's grid."""
        size = self.config.size
        centres = patch_centres(*grid, size)
        own = self._metrics(centres[patch_of(pair.queries, *grid, size)], pair, grid)
        best = self._metrics(centres[patch_of(pair.targets, *grid, size)], pair, grid)
        chance = score_chance(centres, pair.targets, patch=patch_step(grid, size), size=size).to_dict()
        columns = pair_columns(pair, layer=None, reading=BASELINE)
        for name, metrics in (("same position", own), ("chance", chance), ("oracle", best)):
            yield {"encoder": f"{name} ({grid[0]} x {grid[1]})"} | columns | metrics

    def _pictured_errors(self, unit: Unit) -> dict[str, float]:
        """Mean error of every pair by what is drawn."""
        last = max(row["layer"] for row in unit.rows)
        return {
            row["item"]: row["epe"]
            for row in unit.rows
            if (row["layer"], row["reading"], row["position"]) == (last, self.pictured, "kept")
            and row["seed"] in (None, self.config.seeds[0])
        }


class MatchingProbe(Probe):
    """Dense matching."""

    name: ClassVar[str] = "matching"
    title: ClassVar[str] = "Dense matching"
    question: ClassVar[str] = (
        "Given a point in one photograph, where does the encoder's feature say that it lies in another one?"
    )
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric(name="epe", label="mean error", unit="px", better="less", digits=2),
        Metric(name="robust", label="within 32 px at 448", unit="%", digits=1, scale=100),
        Metric(name="pck_patch", label="within a patch", unit="%", digits=1, scale=100),
        Metric(name="median", label="median error", unit="px", better="less", digits=2),
        Metric(name="pck1", label="within 1 px", unit="%", digits=1, scale=100),
        Metric(name="pck3", label="within 3 px", unit="%", digits=1, scale=100),
        Metric(name="pck5", label="within 5 px", unit="%", digits=1, scale=100),
    )
    headline: ClassVar[str] = "epe"
    leading: ClassVar[tuple[str, ...]] = (
        *("linear", "linear-soft", "linear-learned-t", "knn", "linear-layer-norm", "linear-no-norm"),
    )

    def refuses(self, benchmark: Benchmark) -> str | None:
        """It needs true correspondences in the scored part."""
        return why_no_points(benchmark)

    def config(self, benchmark: Benchmark, settings: Settings) -> MatchingConfig:
        """The whole frozen list in the standard preset, 384 pairs where there is none, 192 in the small one."""
        small = settings.preset == "small"
        unasked = _UNASKED_SMALL if small else _UNASKED
        default = tuple(reading for reading in self.leading if reading not in unasked)
        # Readings of other probes may be named beside this one's.
        asked = tuple(reading for reading in self.leading if reading in (settings.readings or ()))
        return MatchingConfig(
            size=settings.size,
            fit=settings.fit or benchmark.fit,
            layers=settings.layers,
            seeds=settings.seeds,
            readings=asked or default,
            pairs=scored_pairs(benchmark, settings),
            train_pairs=480 if small else 960,
            linear=LinearConfig(steps=300) if small else LinearConfig(width=256, steps=1500, queries=256),
        )

    def open(self, benchmark: Benchmark, train: Benchmark | None, config: MatchingConfig) -> MatchingTask:
        """Freeze the pairs; images that are scored are never trained on."""
        wants = any(reading in TRAINED for reading in config.readings)
        if wants and train is None and "knn" not in config.readings:
            raise Unfed(
                f"data {benchmark.spec!r} has nothing to train linear readings on: name other scenes with "
                "--train-data, or take --readings knn"
            )
        scored = choose_pairs(benchmark.spec, benchmark.test, config.chosen(config.pairs))
        trained = None
        if wants and train is not None:
            trained = training_pairs(train, scored, config.chosen(config.train_pairs))
        return MatchingTask(benchmark, scored, trained, config)


def _notes(scored: PairSet, trained: TrainingPairs | None) -> list[str]:
    notes = []
    shortest = min(scored.frames.square(index).side for index in range(len(scored.frames)))
    if shortest < scored.config.size:
        notes.append(
            f"{scored.data}: its images are smaller ({shortest} px) than the evaluated size "
            f"({scored.config.size} px) and were enlarged."
        )
    if trained and trained.dropped:
        notes.append(
            f"{trained.dropped} training pairs were left out because they show images that are scored."
        )
    return notes


PROBE = MatchingProbe()
