"""Consistency of features over views: are they alike where two views show the same point, and only there?

The metrics of MV-FM (Multi-View Foundation Models, arXiv 2512.15708), without the faults of their first code: the
feature of a point is sampled bilinearly, patches count as standing at their own centres (pixel centres at +0.5, not
the corners of the grid), what a grid allows at best stands beside every score, and the cosine of corresponding
features stands beside that of features that do not correspond, because a feature that is the same everywhere is
perfectly alike and worth nothing. Two readings: ``soft-argmax``, the expectation under a sharp kernel, and
``argmax``, the most alike patch. Nothing is trained; pairs are those that `probes.matching.matching` scores.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from probes.data.frames import Benchmark
from probes.data.pairs import Pair, PairSet, choose_pairs
from probes.encoders.encoder import Encoder, choose_layers
from probes.encoders.features import FeatureMaps
from probes.errors import ProbeError
from probes.exhibits import Exhibit
from probes.matching.patch_matches import nearest_neighbours, soft_matches
from probes.matching.pictures import empty_shown, match_exhibits, shown_points
from probes.matching.readers import POSITIONS, Position, Variants, variants
from probes.matching.task import PairTaskConfig, pair_columns, scored_facts, scored_pairs, why_no_points
from probes.metrics.correspondence import end_point_errors, patch_centres, patch_of, score_chance
from probes.probe import BASELINE, Metric, Probe, Row, Settings, Task, Unit

READINGS = ("soft-argmax", "argmax")
EQUAL = 1e-6
"""Cosines that differ by less count as equal."""


@dataclass(frozen=True, kw_only=True)
class ConsistencyConfig(PairTaskConfig):
    """See `PairTaskConfig`."""

    temperature: float = 0.02
    """Of the soft-argmax, as in MV-FM."""
    apart: float = 0.25
    """Patches at least so far from the true place, as a share of the image's side, do not correspond."""


class ConsistencyTask(Task):
    """Pairs of one data set."""

    def __init__(self, benchmark: Benchmark, scored: PairSet, config: ConsistencyConfig) -> None:
        self.config, self.pairs, self.frames = config, scored.pairs, scored.frames
        self.hash = scored.hash
        self.facts = {
            **scored_facts(benchmark, scored),
            "points": sum(len(pair.queries) for pair in scored.pairs),
            "train_items": 0,
            "train_scenes": 0,
        }
        self.notes: list[str] = []

    def layers(self, encoder: Encoder) -> tuple[int, ...]:
        """As the settings ask."""
        return choose_layers(encoder, self.config.layers)

    @torch.inference_mode()
    def score(
        self,
        encoder: Encoder,
        maps: Mapping[int, FeatureMaps],
        device: torch.device,
        *,
        progress: bool = False,
        base: Mapping[int, FeatureMaps] | None = None,
    ) -> Unit:
        """Rows of every pair by both readings, of every layer, with and without position.

        Args:
            encoder: whose maps these are.
            maps: by layer.
            device: where they are compared.
            progress: show a bar on stderr.
            base: maps of the model that the encoder was adapted from, by layer: adds ``base_similarity``.

        Raises:
            ProbeError: the base model's maps have another grid or width.
        """
        layers = self.layers(encoder)
        scored = variants(maps, layers, range(len(self.frames)))
        pictured = self.config.readings[0]
        rows: list[Row] = []
        shown = empty_shown(len(self.pairs))
        for layer in tqdm(layers, desc="layers", disable=not progress, leave=False):
            for number, pair in enumerate(self.pairs):
                extra = {}
                if base is not None:
                    extra["base_similarity"] = base_similarity(maps[layer], base[layer], (pair.a, pair.b))
                for position, reading, points, alike in self._read(pair, layer, scored, device):
                    rows.append(
                        pair_columns(pair, layer=layer, reading=reading, position=position)
                        | self._locations(end_point_errors(points, pair.targets), points, pair)
                        | alike
                        | extra
                    )
                    if (layer, position, reading) == (layers[-1], "kept", pictured):
                        chosen = shown_points(len(points))
                        shown[number, : len(chosen)] = points[chosen]
        return Unit(rows=rows, arrays={"shown": shown, "grid": np.array(maps[layers[-1]].grid)})

    def baselines(self, grids: Sequence[tuple[int, int]]) -> list[Row]:
        """Same position; on every grid chance, the best patch, and the best point between patches."""
        rows = []
        for pair in self.pairs:
            way = pair_columns(pair, layer=None, reading=BASELINE)
            moved = end_point_errors(pair.queries, pair.targets)
            rows.append({"encoder": "same position"} | way | self._locations(moved, pair.queries, pair))
            for grid in grids:
                label = f"({grid[0]} x {grid[1]})"
                centres = patch_centres(*grid, self.config.size)
                lowest, highest = centres.min(axis=0), centres.max(axis=0)
                best = {
                    "oracle": centres[patch_of(pair.targets, *grid, self.config.size)],
                    "oracle between patches": np.clip(pair.targets, lowest, highest),
                }
                for name, points in best.items():
                    found = self._locations(end_point_errors(points, pair.targets), points, pair)
                    rows.append({"encoder": f"{name} {label}"} | way | found)
                rows.append({"encoder": f"chance {label}"} | way | self._chance(centres, pair))
        return rows

    def exhibits(self, units: Mapping[str, Unit]) -> list[Exhibit]:
        """The best, median and worst pair: the truth, then where every encoder's features say the points are."""
        errors = {label: self._pictured_errors(unit) for label, unit in units.items()}
        return match_exhibits(self.frames, self.pairs, units, errors, unit="px")

    def _read(
        self, pair: Pair, layer: int, maps: Variants, device: torch.device
    ) -> Iterator[tuple[Position, str, NDArray, dict[str, float]]]:
        """Predicted points (n, 2) of a pair by every reading, and how alike its features are."""
        size = self.config.size
        for position in POSITIONS:
            found = maps[layer, position]
            grid = found.grid
            view_a, view_b = found.tokens([pair.a, pair.b]).to(device)
            asked = F.normalize(sample(view_a, grid, pair.queries, size), dim=-1)
            there = F.normalize(sample(view_b, grid, pair.targets, size), dim=-1)
            places = F.normalize(view_b, dim=-1)
            alike = self._alike(asked, there, places, grid, pair)
            for reading in self.config.readings:
                if reading == "argmax":
                    points = patch_centres(*grid, size)[nearest_neighbours(asked, places)[0].cpu().numpy()]
                else:
                    soft, _ = soft_matches(asked, places, grid, size, temperature=self.config.temperature)
                    points = soft.double().cpu().numpy()
                yield position, reading, points, alike

    def _alike(
        self, asked: Tensor, there: Tensor, places: Tensor, grid: tuple[int, int], pair: Pair
    ) -> dict[str, float]:
        """How alike the queries' features (n, C) are with those at the true places (n, C) and with patches (h * w, C)
        far from there."""
        centres = patch_centres(*grid, self.config.size)
        distance = np.linalg.norm(pair.targets[:, None] - centres[None], axis=-1)
        # On a grid so coarse that no patch is far, the farthest ones are.
        far = distance >= np.minimum(self.config.apart * self.config.size, distance.max(axis=1))[:, None]
        weights = torch.from_numpy(far / far.sum(axis=1, keepdims=True)).to(asked)
        same, other = (asked * there).sum(dim=-1), asked @ places.T
        less = same[:, None] - other
        # Equal ones count half, so that a constant feature separates like a coin.
        won = (less > EQUAL).to(less) + 0.5 * (less.abs() <= EQUAL)
        cosine, cosine_other = float(same.mean()), float((weights * other).sum(dim=1).mean())
        return {
            "separation": float((weights * won).sum(dim=1).mean()),
            "margin": cosine - cosine_other,
            "cosine": cosine,
            "cosine_other": cosine_other,
        }

    def _locations(self, errors: NDArray, points: NDArray, pair: Pair) -> dict[str, float]:
        size = self.config.size
        return {
            "location": float(errors.mean() / size),
            "location_px": float(errors.mean()),
            # MV-FM: mean over both axes, of coordinates from -1 to 1.
            "location_axis": float(np.abs(points - pair.targets).mean() / (size / 2)),
        }

    def _chance(self, centres: NDArray, pair: Pair) -> dict[str, float]:
        """The expectation when every patch is said equally often."""
        size = self.config.size
        found = score_chance(centres, pair.targets, patch=1, size=size).epe
        axis = np.abs(centres[None] - pair.targets[:, None]).mean() / (size / 2)
        return {"location": found / size, "location_px": found, "location_axis": float(axis)}

    def _pictured_errors(self, unit: Unit) -> dict[str, float]:
        """Mean error in px of every pair by what is drawn."""
        last = max(row["layer"] for row in unit.rows)
        wanted = (last, self.config.readings[0], "kept")
        return {
            row["item"]: row["location_px"]
            for row in unit.rows
            if (row["layer"], row["reading"], row["position"]) == wanted
        }


class ConsistencyProbe(Probe):
    """Multi-view consistency."""

    name: ClassVar[str] = "consistency"
    title: ClassVar[str] = "Multi-view consistency"
    question: ClassVar[str] = (
        "Are the features of one point of the world alike in two photographs, and unlike those of other points?"
    )
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric(name="location", label="location error", unit="% of side", better="less", digits=2, scale=100),
        Metric(name="separation", label="other points less alike", unit="%", digits=1, scale=100),
        Metric(name="margin", label="cosine margin"),
        Metric(name="cosine", label="cosine, same point"),
        Metric(name="cosine_other", label="cosine, other points", better="less"),
        Metric(name="location_px", label="location error", unit="px", better="less", digits=2),
        Metric(name="location_axis", label="location error per axis, side = 2", better="less", digits=4),
        Metric(name="base_similarity", label="cosine with the base model"),
    )
    takes_base = True
    headline: ClassVar[str] = "location"
    leading: ClassVar[tuple[str, ...]] = READINGS

    def refuses(self, benchmark: Benchmark) -> str | None:
        """It needs true correspondences in the scored part."""
        return why_no_points(benchmark)

    def config(self, benchmark: Benchmark, settings: Settings) -> ConsistencyConfig:
        """As many pairs as matching scores."""
        asked = tuple(reading for reading in READINGS if reading in (settings.readings or ()))
        return ConsistencyConfig(
            size=settings.size,
            fit=settings.fit or benchmark.fit,
            layers=settings.layers,
            readings=asked or READINGS,
            pairs=scored_pairs(benchmark, settings),
        )

    def open(self, benchmark: Benchmark, train: Benchmark | None, config: Any) -> ConsistencyTask:
        """Freeze the pairs; there is nothing to train."""
        chosen = choose_pairs(benchmark.spec, benchmark.test, config.chosen(config.pairs))
        return ConsistencyTask(benchmark, chosen, config)


def sample(tokens: Tensor, grid: tuple[int, int], points: NDArray, size: int) -> Tensor:
    """Features (n, C) at points (n, 2) px of a square image, between the patches' centres.

    Beyond the outermost centres they are those of the border. Tokens are (h * w, C), row by row.
    """
    where = torch.from_numpy(np.asarray(points, np.float64) * 2 / size - 1).to(tokens)
    image = tokens.unflatten(0, grid).permute(2, 0, 1)[None]
    found = F.grid_sample(
        image, where[None, None], mode="bilinear", padding_mode="border", align_corners=False
    )
    return found[0, :, 0].T


def base_similarity(maps: FeatureMaps, base: FeatureMaps, images: Sequence[int]) -> float:
    """Mean cosine of an encoder's features with its base model's, over all patches of some images.

    Raises:
        ProbeError: grids or widths differ.
    """
    ours, theirs = maps.tokens(images), base.tokens(images)
    if maps.grid != base.grid or ours.shape != theirs.shape:
        raise ProbeError(
            f"features of {maps.grid[0]} x {maps.grid[1]} x {ours.shape[-1]} cannot be compared with a base model's of "
            f"{base.grid[0]} x {base.grid[1]} x {theirs.shape[-1]}: name the model that the encoder was adapted from"
        )
    return float(F.cosine_similarity(ours, theirs, dim=-1).mean())


PROBE = ConsistencyProbe()
