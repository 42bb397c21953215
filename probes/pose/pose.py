"""Relative pose of two views by frozen features: how far are rotation and direction of motion from the truth?

Readings. ``poselib-mutual``: mutual nearest neighbours on the patch grid, solved by PoseLib; nothing trained.
``poselib-linear``: mutual matches of the linear probe of `probes.matching.linear`, placed between patches by its
kernel, solved by PoseLib. ``opencv-linear``: the same matches and threshold, solved by OpenCV, because published
figures often are and the solver moves them more than many encoders do. ``head``: the learned head of
`probes.pose.head`. An inlier lies within a share of the encoder's own patch, half of one by default, which is what
a patch's centre can be off; for the linear readings the share is chosen on held-out training scenes. Beside them
stand exact correspondences, and for each grid the oracle (patches matched by the truth: what the grid alone costs
perfect features) and chance, all through the same solver. Where the truth is poses alone, the oracles are missing.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

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
from probes.errors import NoPairs, Unfed
from probes.exhibits import Exhibit
from probes.matching.linear import LinearConfig, LinearProbe, train_linear_heads
from probes.matching.task import lists_hash, scored_facts, scored_pairs, trained_facts, why_no_points
from probes.pose.head import HeadConfig, predict_poses, train_head
from probes.pose.matches import Matches
from probes.pose.pictures import empty_shown, pose_exhibits, shown_matches
from probes.pose.rows import METRICS, near_zero_baselines, pair_row
from probes.pose.solvers import PoseEstimate, SolverConfig
from probes.pose.solving import OPENCV, PoseConfig, PoseSolving
from probes.probe import BASELINE, Metric, Probe, Row, Settings, Task, Unit

TRAINED = ("poselib-linear", "opencv-linear", "head")
"""Readings that need training pairs."""


class PoseTask(Task):
    """Pairs of one data set with true relative poses, and training pairs."""

    def __init__(
        self, benchmark: Benchmark, scored: PairSet, trained: TrainingPairs | None, config: PoseConfig
    ) -> None:
        self.config, self.pairs = config, scored.pairs
        self.readings = tuple(r for r in config.readings if trained is not None or r not in TRAINED)
        training = trained.chosen.frames.frames if trained else ()
        self.frames = SquareFrames([*scored.frames.frames, *training], config.size, config.fit)
        self._solving = PoseSolving(self.frames, config)
        first = len(scored.frames)
        self._fitted, self._held_out = (
            [replace(pair, a=pair.a + first, b=pair.b + first) for pair in part]
            for part in ((trained.fitted, trained.held_out) if trained else ((), ()))
        )
        self.hash = lists_hash(scored, trained)
        near_zero = near_zero_baselines(scored.pairs)
        self.facts = {
            **scored_facts(benchmark, scored),
            "near_zero_baselines": near_zero,
            **trained_facts(trained),
        }
        self.notes = [
            f"AUC without a named integration is the {config.auc} one, which is this data's own.",
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
        unit, layers = Unit(rows=[]), self.layers(encoder)
        choices: dict[int, _Choice] = {}
        for seed in self.config.seeds:
            probes = self._linear(maps, layers, seed, device, progress)
            for layer in tqdm(layers, desc="layers", disable=not progress, leave=False):
                first = seed == self.config.seeds[0]
                choice = self._choose(maps, layer, probes.get(layer), seed, device)
                if first:
                    choices[layer] = choice
                if layer in probes and choice.by_threshold:
                    unit.selections[f"threshold of layer {layer}, seed {seed}"] = {
                        "chosen": choice.threshold,
                        "among": list(choice.by_threshold),
                        "by": self._judge,
                        "scores": list(choice.by_threshold.values()),
                    }
                solved = self._solve(maps[layer], probes.get(layer), choice.threshold, seed, device)
                for reading, matches, found in solved:
                    unit.rows += self._rows(reading, layer, seed, matches, found)
                    if first and layer == layers[-1] and reading == self.pictured:
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
        if len(layers) > 1 and self._held_out:
            unit.selections["layer"] = self._best_layers(choices)
        return unit

    def baselines(self, grids: Sequence[tuple[int, int]]) -> list[Row]:
        """Exact correspondences; the oracle and chance on every grid; the mean pose of the training pairs."""
        solving, seed = self._solving, self.config.seeds[0]
        rows: list[Row] = []

        def add(name: str, matches: Sequence[Matches], pixels: float) -> None:
            found = solving.poses(self.pairs, matches, pixels, seed)
            rows.extend({"encoder": name} | row for row in self._rows(BASELINE, None, None, matches, found))

        if any(len(pair.queries) for pair in self.pairs):
            add("exact correspondences", [Matches(pair.queries, pair.targets) for pair in self.pairs], 1.0)
        for grid in grids:
            shape = f"({grid[0]} x {grid[1]})"
            pixels = solving.pixels(self.config.threshold, grid)
            if any(len(pair.queries) for pair in self.pairs):
                add(f"oracle {shape}", solving.oracle(grid, self.pairs), pixels)
            add(f"chance {shape}", solving.chance(grid, self.pairs, seed), pixels)
        if self._fitted:
            pose = _mean_pose(self._fitted)
            rows += [
                {"encoder": "mean training pose"}
                | pair_row(pair, pose, reading=BASELINE, layer=None, seed=None, auc=self.config.auc)
                for pair in self.pairs
            ]
        return rows

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

    def _choose(
        self,
        maps: Mapping[int, FeatureMaps],
        layer: int,
        probe: LinearProbe | None,
        seed: int,
        device: torch.device,
    ) -> "_Choice":
        """The linear readings' threshold at a layer, and how good the layer is, by held-out pairs alone."""
        pairs, solving, usual = self._held_out, self._solving, self.config.threshold
        if not pairs:
            return _Choice(threshold=usual)
        mutual = 0.0
        if len(maps) > 1 and "poselib-mutual" in self.readings:
            matches = solving.mutual(maps[layer], pairs, device)
            mutual = solving.areas(pairs, matches, maps[layer].grid, (usual,), seed)[usual]
        if probe is None:
            return _Choice(threshold=usual, mutual=mutual)
        matches = solving.soft(maps[layer], probe, pairs, device)
        areas = solving.areas(pairs, matches, maps[layer].grid, self.config.thresholds, seed)
        return _Choice(threshold=max(areas, key=areas.__getitem__), mutual=mutual, by_threshold=areas)

    def _best_layers(self, choices: Mapping[int, "_Choice"]) -> dict[str, object]:
        """The best layer of every reading that has several, by held-out pairs alone."""
        scores = {
            "poselib-mutual": {layer: choice.mutual for layer, choice in choices.items()},
            "poselib-linear": {
                layer: max(choice.by_threshold.values(), default=0.0) for layer, choice in choices.items()
            },
        }
        scores["opencv-linear"] = scores["poselib-linear"]
        scores = {reading: found for reading, found in scores.items() if reading in self.readings}
        return {
            "best": {f"{r}, position kept": max(found, key=found.__getitem__) for r, found in scores.items()},
            "among": list(choices),
            "by": self._judge,
            "scores": {reading: list(found.values()) for reading, found in scores.items()},
        }

    @property
    def _judge(self) -> str:
        return (
            f"exact AUC@20° of PoseLib on {len(self._held_out)} pairs of {self.facts['held_out_scenes']} "
            "training scenes that nothing was trained on"
        )

    def _solve(
        self,
        maps: FeatureMaps,
        probe: LinearProbe | None,
        threshold: float,
        seed: int,
        device: torch.device,
    ) -> Iterator[tuple[str, list[Matches], list[PoseEstimate]]]:
        """Of every reading that solves: its name, and matches and poses of the scored pairs."""
        solving, pairs = self._solving, self.pairs
        if "poselib-mutual" in self.readings:
            matches = solving.mutual(maps, pairs, device)
            pixels = solving.pixels(self.config.threshold, maps.grid)
            yield "poselib-mutual", matches, solving.poses(pairs, matches, pixels, seed)
        if probe is None:
            return
        matches = solving.soft(maps, probe, pairs, device)
        pixels = solving.pixels(threshold, maps.grid)
        for reading, options in (("poselib-linear", {}), ("opencv-linear", OPENCV)):
            if reading in self.readings:
                yield reading, matches, solving.poses(pairs, matches, pixels, seed, **options)

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
        posed = any(frame.posed for frame in part.frames)
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
            raise Unfed(
                f"data {benchmark.spec!r} has nothing to train pose readings on: name other scenes with "
                "--train-data, or take --readings poselib-mutual"
            )
        chosen = choose_pairs(benchmark.spec, benchmark.test, config.chosen(config.pairs), points=False)
        scored = _posed(chosen)
        trained = None
        if wants and train is not None:
            trained = training_pairs(train, scored, config.chosen(config.train_pairs))
        return PoseTask(benchmark, scored, trained, config)


@dataclass(frozen=True, kw_only=True)
class _Choice:
    """What held-out pairs say of a layer: the threshold to take in patches, and scores."""

    threshold: float
    mutual: float = 0.0
    by_threshold: dict[float, float] = field(default_factory=dict)


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
