"""Relative pose of two views by frozen features: how far are rotation and direction of motion from the truth?

Readings. ``poselib-mutual``: mutual nearest neighbours on the patch grid, solved by PoseLib; nothing trained.
``poselib-linear``: mutual matches of the linear probe of `probes.linear`, placed between patches by its kernel,
solved by PoseLib. ``opencv-linear``: the same matches and threshold, solved by OpenCV, because published figures
often are and the solver moves them more than many encoders do. ``head``: the learned head of `probes.pose_head`.
An inlier lies within a share of the encoder's own patch, half of one by default, which is what a patch's centre can
be off; for the linear readings the share is chosen on held-out training scenes. Beside them stand exact
correspondences, and for each grid the oracle (patches matched by the truth: what the grid alone costs perfect
features) and chance, all through the same solver. Where the truth is poses alone, the oracles are missing.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from probes.encoders import Encoder, choose_layers
from probes.errors import NoPairs, ProbeError
from probes.exhibits import Exhibit
from probes.features import FeatureMaps
from probes.frames import Benchmark
from probes.linear import LinearConfig, LinearProbe, train_linear_heads
from probes.matching import scored_pairs, why_no_points
from probes.metrics import patch_step
from probes.pairs import Pair, PairConfig, PairSet, choose_pairs
from probes.pose_head import HeadConfig, predict_poses, train_head
from probes.pose_matches import (
    Matches,
    chance_matches,
    mutual_points,
    nearest_points,
    patch_points,
    quantised_points,
    soft_points,
)
from probes.pose_metrics import Integration, auc
from probes.pose_pictures import empty_shown, pose_exhibits, shown_matches
from probes.pose_rows import METRICS, near_zero_baselines, pair_row
from probes.probe import Metric, Probe, Row, Settings, Task, Unit
from probes.solvers import PoseEstimate, PoseProblem, SolverConfig, solve_all
from probes.square import Fit, SquareFrames
from probes.training_pairs import TrainingPairs, training_pairs

TRAINED = ("poselib-linear", "opencv-linear", "head")
"""Readings that need training pairs."""
OPENCV = {"kind": "opencv", "confidence": 0.99999, "max_iterations": 1000}
"""As its users run it, but for the threshold."""


@dataclass(frozen=True, kw_only=True)
class PoseConfig:
    """What is measured and how; part of the identity of a result."""

    size: int
    fit: Fit
    layers: Literal["last", "all"] | tuple[int, ...]
    seeds: tuple[int, ...]
    """Of the trained readings and of the solvers' draws."""
    readings: tuple[str, ...]
    auc: Integration
    """Of the headline: the data's own."""
    pairs: int
    """Scored pairs at most, spread evenly over the scenes."""
    train_pairs: int
    angles: tuple[float, float] = (10.0, 60.0)
    """Least and most viewpoint angle in degrees of pairs that no list names."""
    min_queries: int = 16
    threshold: float = 0.5
    """Largest epipolar error of an inlier, in patches of the encoder's grid."""
    thresholds: tuple[float, ...] = (0.125, 0.25, 0.5)
    """What the linear readings' is chosen among, where scenes are held out."""
    solver: SolverConfig = field(default_factory=SolverConfig)
    """Its threshold is replaced by the above."""
    linear: LinearConfig = field(default_factory=LinearConfig)
    head: HeadConfig = field(default_factory=HeadConfig)

    def chosen(self, pairs: int) -> PairConfig:
        """How up to so many pairs are chosen."""
        return PairConfig(
            size=self.size, fit=self.fit, angles=self.angles, min_queries=self.min_queries, pairs=pairs
        )


class PoseTask(Task):
    """Pairs of one data set with true relative poses, and training pairs."""

    def __init__(
        self, benchmark: Benchmark, scored: PairSet, trained: TrainingPairs | None, config: PoseConfig
    ) -> None:
        self.config, self.pairs = config, scored.pairs
        self.readings = tuple(r for r in config.readings if trained is not None or r not in TRAINED)
        training = trained.chosen.frames.frames if trained else ()
        self.frames = SquareFrames([*scored.frames.frames, *training], config.size, config.fit)
        first = len(scored.frames)
        self._fitted, self._held_out = (
            [replace(pair, a=pair.a + first, b=pair.b + first) for pair in part]
            for part in ((trained.fitted, trained.held_out) if trained else ((), ()))
        )
        self.hash = hashlib.sha256(
            f"{scored.hash} {trained.chosen.hash if trained else None}".encode()
        ).hexdigest()
        near_zero = near_zero_baselines(scored.pairs)
        self.facts = {
            "items": len(scored.pairs),
            "scenes": len(scored.scenes),
            "images": first,
            "truth": benchmark.truth,
            "split": benchmark.split,
            "refused": scored.refused,
            "near_zero_baselines": near_zero,
            "list_hash": scored.hash,
            "train_items": len(self._fitted),
            "train_scenes": len({pair.scene for pair in self._fitted}),
            "train_images": len(training),
            "train_hash": trained.chosen.hash if trained else None,
            "held_out_items": len(self._held_out),
            "held_out_scenes": len({pair.scene for pair in self._held_out}),
        }
        self.notes = [
            f"AUC without a named integration is the {config.auc} one, as in this data's published figures.",
            "Translation errors are folded (a direction and its opposite are the same) but where called signed.",
        ]
        if near_zero:
            self.notes.append(
                f"{near_zero} pairs hardly move: the direction of their translation means little."
            )
        if trained and trained.dropped:
            self.notes.append(
                f"{trained.dropped} training pairs were left out: they show images that are scored."
            )

    @property
    def pictured(self) -> str:
        """The reading whose matches are drawn."""
        return next((r for r in ("poselib-linear", "poselib-mutual") if r in self.readings), self.readings[0])

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
        """Rows of every pair by every reading, layer and seed."""
        unit = Unit(rows=[])
        layers = self.layers(encoder)
        for seed in self.config.seeds:
            probes = self._linear(maps, layers, seed, device, progress)
            for layer in tqdm(layers, desc="layers", disable=not progress, leave=False):
                last = seed == self.config.seeds[0] and layer == layers[-1]
                for reading, matches, found in self._solve(maps[layer], layer, probes, seed, device, unit):
                    unit.rows += self._rows(reading, layer, seed, matches, found)
                    if last and reading == self.pictured:
                        unit.arrays["shown"] = empty_shown(len(self.pairs))
                        for number, (points, estimate) in enumerate(zip(matches, found, strict=True)):
                            shown = shown_matches(points, estimate.inliers)
                            unit.arrays["shown"][number, : len(shown)] = shown
            if "head" in self.readings:
                poses = self._by_head(maps[layers[-1]], seed, device, progress)
                unit.rows += [
                    pair_row(pair, pose, reading="head", layer=layers[-1], seed=seed, auc=self.config.auc)
                    for pair, pose in zip(self.pairs, poses, strict=True)
                ]
        return unit

    def baselines(self, grids: Sequence[tuple[int, int]]) -> list[Row]:
        """Exact correspondences; the oracle and chance on every grid; the mean pose of the training pairs."""
        size, seed = self.config.size, self.config.seeds[0]
        rows: list[Row] = []

        def add(name: str, matches: Sequence[Matches], pixels: float) -> None:
            found = self._estimates(self.pairs, matches, pixels, seed)
            rows.extend({"encoder": name} | row for row in self._rows("baseline", None, None, matches, found))

        if any(len(pair.queries) for pair in self.pairs):
            add("exact correspondences", [Matches(pair.queries, pair.targets) for pair in self.pairs], 1.0)
        for grid in grids:
            shape, pixels = f"({grid[0]} x {grid[1]})", self.config.threshold * patch_step(grid, size)
            if any(len(pair.queries) for pair in self.pairs):
                add(f"oracle {shape}", self._oracle(grid), pixels)
            keys = (hashlib.sha256(f"{seed} {pair.name}".encode()).digest()[:8] for pair in self.pairs)
            noise = [chance_matches(grid, size, int.from_bytes(key, "little")) for key in keys]
            add(f"chance {shape}", noise, pixels)
        if self._fitted:
            pose = _mean_pose(self._fitted)
            rows += [
                {"encoder": "mean training pose"}
                | pair_row(pair, pose, reading="baseline", layer=None, seed=None, auc=self.config.auc)
                for pair in self.pairs
            ]
        return rows

    def _oracle(self, grid: tuple[int, int]) -> list[Matches]:
        """Matches by the truth on a grid: by depth as perfect features would match, else by tracks."""
        points: dict[int, NDArray | None] = {}
        found = []
        for pair in self.pairs:
            for index in (pair.a, pair.b):
                if index not in points:
                    points[index] = patch_points(self.frames, index, grid)
            ends = points[pair.a], points[pair.b]
            found.append(
                quantised_points(pair.queries, pair.targets, grid, self.config.size)
                if any(end is None for end in ends)
                else nearest_points(*ends, grid, self.config.size)
            )
        return found

    def exhibits(self, units: Mapping[str, Unit]) -> list[Exhibit]:
        """The best, median and worst pair, with the matches that were solved from."""
        found: dict[str, dict[str, Row]] = {}
        for label, unit in units.items():
            last = max(row["layer"] for row in unit.rows)
            found[label] = {
                row["item"]: row
                for row in unit.rows
                if (row["reading"], row["layer"], row["seed"]) == (self.pictured, last, self.config.seeds[0])
            }
        return pose_exhibits(self.frames, self.pairs, units, found)

    def _linear(
        self,
        maps: Mapping[int, FeatureMaps],
        layers: Sequence[int],
        seed: int,
        device: torch.device,
        progress: bool,
    ) -> dict[int, LinearProbe]:
        """The linear probe of every layer; none where no reading needs it."""
        if not any(reading.endswith("-linear") for reading in self.readings):
            return {}
        heads = train_linear_heads(
            [maps[layer] for layer in layers],
            self._fitted,
            size=self.config.size,
            seed=seed,
            config=self.config.linear,
            device=device,
            progress=progress,
        )
        return dict(zip(layers, heads, strict=True))

    def _solve(
        self,
        maps: FeatureMaps,
        layer: int,
        probes: Mapping[int, LinearProbe],
        seed: int,
        device: torch.device,
        unit: Unit,
    ) -> Iterator[tuple[str, list[Matches], list[PoseEstimate]]]:
        """Of every reading that solves: its name, and matches and poses of the scored pairs."""
        step = patch_step(maps.grid, self.config.size)
        if "poselib-mutual" in self.readings:
            matches = self._mutual(maps, self.pairs, device)
            yield (
                "poselib-mutual",
                matches,
                self._estimates(self.pairs, matches, self.config.threshold * step, seed),
            )
        if layer not in probes:
            return
        share = self.config.threshold
        if self._held_out:
            areas = self._areas(maps, probes[layer], seed, device)
            share = max(areas, key=areas.__getitem__)
            unit.selections[f"threshold of layer {layer}, seed {seed}"] = {
                "chosen": share,
                "among": list(areas),
                "by": f"exact AUC@20° of PoseLib on {len(self._held_out)} pairs of "
                f"{self.facts['held_out_scenes']} training scenes that nothing was trained on",
                "scores": list(areas.values()),
            }
        matches = self._soft(maps, probes[layer], self.pairs, device)
        for reading, options in (("poselib-linear", {}), ("opencv-linear", OPENCV)):
            if reading in self.readings:
                yield reading, matches, self._estimates(self.pairs, matches, share * step, seed, **options)

    def _areas(
        self, maps: FeatureMaps, probe: LinearProbe, seed: int, device: torch.device
    ) -> dict[float, float]:
        """Score on the held-out training pairs by threshold in patches."""
        step = patch_step(maps.grid, self.config.size)
        matches = self._soft(maps, probe, self._held_out, device)
        areas = {}
        for share in self.config.thresholds:
            found = self._estimates(self._held_out, matches, share * step, seed)
            rows = [
                pair_row(pair, estimate.pose, reading="", layer=None, seed=seed, auc=self.config.auc)
                for pair, estimate in zip(self._held_out, found, strict=True)
            ]
            areas[share] = auc(np.array([row["pose_error"] for row in rows]), 20, "exact")
        return areas

    @torch.inference_mode()
    def _mutual(self, maps: FeatureMaps, pairs: Sequence[Pair], device: torch.device) -> list[Matches]:
        def normal(pair: Pair) -> Tensor:
            return F.normalize(maps.tokens([pair.a, pair.b]).to(device), dim=-1)

        return [mutual_points(*normal(pair), maps.grid, self.config.size) for pair in pairs]

    @torch.inference_mode()
    def _soft(
        self, maps: FeatureMaps, probe: LinearProbe, pairs: Sequence[Pair], device: torch.device
    ) -> list[Matches]:
        probe = probe.to(device)
        return [
            soft_points(
                *probe(maps.tokens([pair.a, pair.b]).to(device)),
                maps.grid,
                self.config.size,
                temperature=probe.temperature,
            )
            for pair in pairs
        ]

    def _estimates(
        self, pairs: Sequence[Pair], matches: Sequence[Matches], pixels: float, seed: int, **options: Any
    ) -> list[PoseEstimate]:
        intrinsics = self.frames.intrinsics
        problems = [
            PoseProblem(
                name=pair.name,
                points_a=points.points_a,
                points_b=points.points_b,
                intrinsics_a=intrinsics(pair.a),
                intrinsics_b=intrinsics(pair.b),
            )
            for pair, points in zip(pairs, matches, strict=True)
        ]
        return solve_all(problems, replace(self.config.solver, threshold=pixels, **options), seed=seed)

    def _rows(
        self,
        reading: str,
        layer: int | None,
        seed: int | None,
        matches: Sequence[Matches],
        found: Sequence[PoseEstimate],
    ) -> list[Row]:
        return [
            pair_row(
                pair,
                estimate.pose,
                reading=reading,
                layer=layer,
                seed=seed,
                auc=self.config.auc,
                matches=len(points.points_a),
                inliers=int(estimate.inliers.sum()),
            )
            for pair, points, estimate in zip(self.pairs, matches, found, strict=True)
        ]

    def _by_head(
        self, maps: FeatureMaps, seed: int, device: torch.device, progress: bool
    ) -> NDArray[np.float64]:
        recipe = self.config.head
        head = train_head(
            maps, self.frames, self._fitted, seed=seed, config=recipe, device=device, progress=progress
        )
        return predict_poses(head, maps, self.frames, self.pairs, config=recipe, device=device)


class PoseProbe(Probe):
    """Two-view relative pose."""

    name: ClassVar[str] = "pose"
    title: ClassVar[str] = "Two-view pose"
    question: ClassVar[str] = (
        "Given two photographs of a place, how did the camera turn and which way did it move between them?"
    )
    metrics: ClassVar[tuple[Metric, ...]] = METRICS
    headline: ClassVar[str] = "auc20"
    leading: ClassVar[tuple[str, ...]] = ("poselib-linear", "poselib-mutual", "head", "opencv-linear")

    def refuses(self, benchmark: Benchmark) -> str | None:
        """It needs true poses, and either a list of pairs or points to choose them by."""
        part = benchmark.test
        if part is None:
            return "it only has a training part"
        posed = any(f.intrinsics is not None and f.world_to_camera is not None for f in part.frames)
        if not posed and not any(pair.relative_pose is not None for pair in part.pairs or ()):
            return "no camera poses"
        if part.pairs is None and why_no_points(benchmark):
            return "no list of pairs, and neither depth nor tracks to choose them by"
        return None

    def config(self, benchmark: Benchmark, settings: Settings) -> PoseConfig:
        """The whole frozen list in the standard preset, 384 pairs where there is none, 192 in the small one."""
        small = settings.preset == "small"
        # Readings of other probes may be named beside this one's.
        asked = tuple(reading for reading in self.leading if reading in (settings.readings or ()))
        return PoseConfig(
            size=settings.size,
            fit=settings.fit or benchmark.fit,
            layers=settings.layers,
            seeds=settings.seeds,
            readings=asked or self.leading,
            auc=benchmark.auc,
            pairs=scored_pairs(benchmark, settings),
            train_pairs=480 if small else 9600,
            solver=SolverConfig(max_iterations=5000 if small else 20_000),
            linear=LinearConfig(steps=300) if small else LinearConfig(width=256, steps=1500, queries=256),
            head=HeadConfig(width=64, heads=4, blocks=2, steps=300, pairs=16, lr=1e-3, grid=8)
            if small
            else HeadConfig(),
        )

    def open(self, benchmark: Benchmark, train: Benchmark | None, config: PoseConfig) -> PoseTask:
        """Freeze the pairs; images that are scored are never trained on."""
        wants = any(reading in TRAINED for reading in config.readings)
        if wants and train is None and "poselib-mutual" not in config.readings:
            raise ProbeError(
                f"data {benchmark.spec!r} has nothing to train pose readings on: name other scenes with "
                "--train-data, or take --readings poselib-mutual"
            )
        chosen = choose_pairs(benchmark.spec, benchmark.test, config.chosen(config.pairs), points=False)
        scored = _posed(chosen)
        trained = None
        if wants and train is not None:
            trained = training_pairs(train, scored, config.chosen(config.train_pairs))
        return PoseTask(benchmark, scored, trained, config)


def _posed(chosen: PairSet) -> PairSet:
    """The pairs whose true pose and intrinsics are known; NoPairs where there is none."""
    kept = [
        pair
        for pair in chosen.pairs
        if pair.relative_pose is not None
        and np.isfinite(pair.relative_pose).all()
        and all(chosen.frames.intrinsics(index) is not None for index in (pair.a, pair.b))
    ]
    lost = len(chosen.pairs) - len(kept)
    if not kept:
        raise NoPairs(f"data {chosen.data!r} has no pair with a true pose: {lost} lack pose or intrinsics")
    refused = chosen.refused | ({"no true pose or intrinsics": lost} if lost else {})
    return replace(chosen.only(kept), refused=refused)


def _mean_pose(pairs: Sequence[Pair]) -> NDArray:
    """The rotation (3, 3) with the least mean squared distance from all, and the mean direction: (3, 4)."""
    poses = np.stack([pair.relative_pose for pair in pairs])
    left, _, right = np.linalg.svd(poses[..., :3].sum(axis=0))
    left[:, 2] *= np.sign(np.linalg.det(left @ right))
    lengths = np.linalg.norm(poses[..., 3], axis=1, keepdims=True)
    direction = (poses[..., 3] / np.where(lengths > 0, lengths, 1)).sum(axis=0)
    return np.column_stack([left @ right, direction])


PROBE = PoseProbe()
