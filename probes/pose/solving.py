"""From features to poses of pairs by matches and a solver, and what the truth and chance give on the same grids.

The recipe of the whole probe is here too, because its thresholds and budgets are mostly the solver's. Nothing here
knows which pairs are scored or how an error is counted, but for the choice of a threshold on held-out pairs.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from probes.data.pairs import Pair
from probes.data.square import SquareFrames
from probes.encoders.features import FeatureMaps
from probes.matching.linear import LinearConfig, LinearProbe
from probes.matching.task import PairTaskConfig
from probes.metrics.correspondence import patch_step
from probes.metrics.pose import Integration, auc
from probes.pose.head import HeadConfig
from probes.pose.matches import (
    Matches,
    chance_matches,
    mutual_points,
    nearest_points,
    patch_points,
    quantised_points,
    soft_points,
)
from probes.pose.rows import pair_row
from probes.pose.solvers import PoseEstimate, PoseProblem, SolverConfig, solve_all

OPENCV = {"kind": "opencv", "confidence": 0.99999, "max_iterations": 1000}
"""As its users run it, but for the threshold."""


@dataclass(frozen=True, kw_only=True)
class PoseConfig(PairTaskConfig):
    """See `PairTaskConfig`."""

    seeds: tuple[int, ...]
    """Of the trained readings and of the solvers' draws."""
    auc: Integration
    """Of the headline: the data's own."""
    train_pairs: int
    threshold: float = 0.5
    """Largest epipolar error of an inlier, in patches of the encoder's grid."""
    thresholds: tuple[float, ...] = (0.125, 0.25, 0.5)
    """What the linear readings' is chosen among, where scenes are held out."""
    solver: SolverConfig = field(default_factory=SolverConfig)
    """Its threshold is replaced by the above."""
    linear: LinearConfig = field(default_factory=LinearConfig)
    head: HeadConfig = field(default_factory=HeadConfig)


class PoseSolving:
    """Matches and poses of pairs of one set of frames, by one recipe."""

    def __init__(self, frames: SquareFrames, config: PoseConfig) -> None:
        self.frames, self.config = frames, config

    @torch.inference_mode()
    def mutual(self, maps: FeatureMaps, pairs: Sequence[Pair], device: torch.device) -> list[Matches]:
        """Mutual matches by the features themselves."""

        def unit(pair: Pair) -> Tensor:
            return F.normalize(maps.tokens([pair.a, pair.b]).to(device), dim=-1)

        return [mutual_points(*unit(pair), maps.grid, self.config.size) for pair in pairs]

    @torch.inference_mode()
    def soft(
        self, maps: FeatureMaps, probe: LinearProbe, pairs: Sequence[Pair], device: torch.device
    ) -> list[Matches]:
        """Mutual matches by the linear probe, placed between patches by its kernel."""
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

    def oracle(self, grid: tuple[int, int], pairs: Sequence[Pair]) -> list[Matches]:
        """Matches by the truth on a grid: by depth as perfect features would match, else by tracks."""
        points: dict[int, NDArray | None] = {}
        found = []
        for pair in pairs:
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

    def chance(self, grid: tuple[int, int], pairs: Sequence[Pair], seed: int) -> list[Matches]:
        """Mutual matches of features that know nothing, drawn by the pairs' names."""
        keys = (hashlib.sha256(f"{seed} {pair.name}".encode()).digest()[:8] for pair in pairs)
        return [chance_matches(grid, self.config.size, int.from_bytes(key, "little")) for key in keys]

    def poses(
        self, pairs: Sequence[Pair], matches: Sequence[Matches], pixels: float, seed: int, **options: Any
    ) -> list[PoseEstimate]:
        """Solve every pair, with inliers up to ``pixels``; ``options`` change the recipe's solver."""
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

    def pixels(self, share: float, grid: tuple[int, int]) -> float:
        """A threshold in patches of a grid as one in px."""
        return share * patch_step(grid, self.config.size)

    def areas(
        self,
        pairs: Sequence[Pair],
        matches: Sequence[Matches],
        grid: tuple[int, int],
        shares: Sequence[float],
        seed: int,
    ) -> dict[float, float]:
        """Exact AUC@20° of pairs by threshold in patches: what choices are made by, on held-out pairs alone."""
        found = {}
        for share in shares:
            estimates = self.poses(pairs, matches, self.pixels(share, grid), seed)
            rows = [
                pair_row(pair, estimate.pose, reading="", layer=None, seed=seed, auc=self.config.auc)
                for pair, estimate in zip(pairs, estimates, strict=True)
            ]
            found[share] = auc(np.array([row["pose_error"] for row in rows]), 20, "exact")
        return found
