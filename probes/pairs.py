"""Pairs of images with known correspondences: what a pair is, which are taken, and the hash of the list.

Where the truth comes from is the business of `probes.depth_pairs` and `probes.track_pairs`. The choice is
deterministic: pairs are tried in the order of a hash of their names, and taken if enough points are visible and
the viewpoint angle fits.
"""

import hashlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from probes.errors import NoPairs
from probes.square import SquareImages


@dataclass(frozen=True, kw_only=True)
class PairConfig:
    """Which pairs are taken; part of the identity of a result."""

    size: int
    """Evaluated size: side in px of the square images and the unit of all errors."""
    angles: tuple[float, float] = (10.0, 60.0)
    """Least and most viewpoint angle in degrees: the median angle between both cameras' rays to a point."""
    min_queries: int = 16
    """Least visible query points of a pair."""
    pairs: int = 384
    """Pairs in all, spread evenly over the scenes (rounded up per scene)."""
    scenes: int | None = None
    """Scenes at most, drawn by a hash of their names; None = all."""

    @property
    def query_step(self) -> int:
        """Step in px of the query grid for depth: 8 up to 128 px, else 16, the same for every encoder."""
        return 8 if self.size <= 128 else 16


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Query points of image ``a`` and where they truly are in ``b``, both (n, 2) px of the evaluated size."""

    name: str
    scene: str
    a: int
    b: int
    angle: float
    queries: NDArray = field(repr=False)
    targets: NDArray = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class PairSet:
    """The pairs of one data set."""

    data: str
    """The spec the user gave."""
    truth: Literal["depth", "tracks"]
    split: str
    config: PairConfig
    images: SquareImages = field(repr=False)
    pairs: tuple[Pair, ...] = field(repr=False)
    refused: dict[str, int]
    """Why candidate pairs were not taken, counted."""
    shortest_side: int
    """Shortest side in px of the original images: a larger evaluated size means upsampling."""

    @property
    def scenes(self) -> list[str]:
        """Names of the scenes that have pairs."""
        return sorted({pair.scene for pair in self.pairs})

    @cached_property
    def hash(self) -> str:
        """SHA-256 over names, image bytes, size, queries and targets (to 1/1000 px) of all pairs."""
        digest = hashlib.sha256(f"{self.config.size} {self.images.rule}\n".encode())
        for pair in self.pairs:
            images = self.images.hashes[pair.a], self.images.hashes[pair.b]
            digest.update(f"{pair.name} {pair.scene} {images} {len(pair.queries)}\n".encode())
            digest.update(
                np.round(np.concatenate([pair.queries, pair.targets]) * 1000).astype("<i8").tobytes()
            )
        return digest.hexdigest()


def stable_order(name: str) -> bytes:
    """A sorting key that looks random but is the same everywhere."""
    return hashlib.sha256(name.encode()).digest()


def candidates(scene: str, names: Sequence[str]) -> Iterator[tuple[int, int]]:
    """All pairs of views in the order of a hash of their names; the hash also says which one is asked."""
    keyed = []
    for i in range(len(names)):
        for j in range(i + 1, len(names)):
            key = stable_order(f"{scene}\0{names[i]}\0{names[j]}")
            keyed.append((key, (i, j) if key[-1] % 2 else (j, i)))
    return (pair for _, pair in sorted(keyed))


def refusal(queries: NDArray, angle: float | None, config: PairConfig) -> str | None:
    """Why a candidate pair is not taken; None if it is."""
    if len(queries) < config.min_queries:
        return f"fewer than {config.min_queries} visible queries"
    if angle is not None and not config.angles[0] <= angle <= config.angles[1]:
        return f"viewpoint angle outside {config.angles[0]:g} to {config.angles[1]:g} degrees"
    return None


def refuse_empty(data: str, pairs: Collection[Pair], refused: dict[str, int]) -> None:
    """NoPairs with the counted reasons where no pair was taken."""
    if not pairs:
        why = ", ".join(f"{count} with {reason}" for reason, count in refused.items()) or "scenes of one view"
        raise NoPairs(f"data {data!r} has no pair of views to score: {why}")
