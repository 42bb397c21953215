"""What the probes of pairs share (matching, consistency, two-view pose): their data, lists, facts and columns.

Pairs are chosen by `probes.data.pairs`, those that are trained on by `probes.data.training_pairs`; what is read of
their features and how it is scored is a probe's own.
"""

import hashlib
from dataclasses import dataclass
from typing import Any, Literal

from probes.data.frames import Benchmark
from probes.data.pairs import Pair, PairConfig, PairSet
from probes.data.square import Fit
from probes.data.training_pairs import TrainingPairs
from probes.probe import Row, Settings


@dataclass(frozen=True, kw_only=True)
class PairTaskConfig:
    """What every probe of pairs is told; part of the identity of a result."""

    size: int
    fit: Fit
    layers: Literal["last", "all"] | tuple[int, ...]
    readings: tuple[str, ...]
    pairs: int
    """Scored pairs at most, spread evenly over the scenes."""
    angles: tuple[float, float] = (10.0, 60.0)
    """Least and most viewpoint angle in degrees of pairs that no list names."""
    min_queries: int = 16

    def chosen(self, pairs: int) -> PairConfig:
        """How up to so many pairs are chosen."""
        return PairConfig(
            size=self.size, fit=self.fit, angles=self.angles, min_queries=self.min_queries, pairs=pairs
        )


def why_no_points(benchmark: Benchmark) -> str | None:
    """Why pairs of a benchmark have no true correspondences; None if some may have."""
    part = benchmark.test
    if part is None:
        return "it only has a training part"
    if any(pair.homography is not None for pair in part.pairs or ()):
        return None
    if any((frame.posed and frame.depth is not None) or frame.tracks is not None for frame in part.frames):
        return None
    return "no depth with cameras, no tracks and no homographies, so no true correspondences"


def scored_pairs(benchmark: Benchmark, settings: Settings) -> int:
    """How many pairs are scored at most: a frozen list whole, 384 where there is none, 192 in the small preset."""
    listed = benchmark.test.pairs if benchmark.test else None
    if settings.preset == "small":
        most = 192
    else:
        most = 384 if listed is None else len(listed)
    return min(most, settings.items or most)


def lists_hash(scored: PairSet, trained: TrainingPairs | None) -> str:
    """SHA-256 over the pairs that are scored and those that are trained on."""
    return hashlib.sha256(f"{scored.hash} {trained.chosen.hash if trained else None}".encode()).hexdigest()


def scored_facts(benchmark: Benchmark, scored: PairSet) -> dict[str, Any]:
    """What `Task.facts` says of the scored pairs."""
    return {
        "items": len(scored.pairs),
        "scenes": len(scored.scenes),
        "images": len(scored.frames),
        "truth": benchmark.truth,
        "split": benchmark.split,
        "refused": scored.refused,
        "list_hash": scored.hash,
    }


def trained_facts(trained: TrainingPairs | None) -> dict[str, Any]:
    """What `Task.facts` says of the training pairs, of which some are held out."""
    fitted, held_out = (trained.fitted, trained.held_out) if trained else ((), ())
    return {
        "train_items": len(fitted),
        "train_scenes": len({pair.scene for pair in fitted}),
        "train_images": len(trained.chosen.frames) if trained else 0,
        "train_hash": trained.chosen.hash if trained else None,
        "held_out_items": len(held_out),
        "held_out_scenes": len({pair.scene for pair in held_out}),
    }


def pair_columns(
    pair: Pair,
    *,
    layer: int | None,
    reading: str,
    position: Literal["kept", "removed"] = "kept",
    seed: int | None = None,
    failed: bool = False,
) -> Row:
    """The columns of a pair's row before its metrics, see `probes.probe.Row`."""
    return {
        "item": pair.name,
        "scene": pair.scene,
        "layer": layer,
        "reading": reading,
        "position": position,
        "seed": seed,
        "failed": failed,
        "angle": pair.angle,
        "overlap": pair.overlap,
        "points": len(pair.queries),
    }
