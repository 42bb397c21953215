"""Several datasets behind the reading interface of one, each with a weight: chunks are numbered one after the other.

The plan gives every dataset its share of the scenes of all steps (`shards/coverage.py`); here lies only who has
which chunk. This file knows nothing of steps and lanes.
"""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from shards.chunk import Chunk
from shards.format import CorruptFrame, ShardsError
from shards.plan import Part
from shards.reader import Dataset, open_dataset


def open_mixture(places: Sequence[str | Path]) -> "Dataset | Mixture":
    """Open what `FOLDER`, `URL`, `FOLDER=WEIGHT` ... name: one dataset, or their mixture.

    Without weights a mixture is drawn from in proportion to the datasets' training frames, so that all are passed
    once in an epoch. ShardsError where some have a weight and others none.
    """
    named = [_split(str(place)) for place in places]
    if len(named) == 1:
        return open_dataset(named[0][0])
    if not named:
        raise ShardsError("no dataset is named")
    given = [weight for _, weight in named if weight is not None]
    if given and len(given) < len(named):
        without = next(place for place, weight in named if weight is None)
        raise ShardsError(
            f"{without} has no weight and others have: write {without}=1, or give none a weight"
        )
    twice = sorted({place for place, _ in named if [p for p, _ in named].count(place) > 1})
    if twice:
        raise ShardsError(f"{twice[0]} is named twice: name it once, with the sum of the weights")
    opened = [open_dataset(place) for place, _ in named]
    weights = given or [float(d.frames_per_chunk[d.select("train")].sum()) for d in opened]
    return Mixture(opened, weights)


def _split(place: str) -> tuple[str, float | None]:
    """The place and its weight, if a positive number follows the last equals sign and no such folder exists."""
    head, sign, tail = place.rpartition("=")
    if not sign or not head or Path(place).exists():
        return place, None
    try:
        weight = float(tail)
    except ValueError:
        return place, None
    if not 0 < weight < float("inf"):
        raise ShardsError(f"the weight of {head} must be a positive number, not {tail}")
    return head, weight


def members(dataset: "Dataset | Mixture") -> list[tuple[int, Dataset]]:
    """The datasets that a dataset is made of, each with its first chunk's number; of one dataset itself."""
    if isinstance(dataset, Mixture):
        return [(part.first, one) for part, one in zip(dataset.parts, dataset.datasets, strict=True)]
    return [(0, dataset)]


class Mixture:
    """Datasets with weights. Reads as a Dataset; `parts` tells the plan whose chunks are whose."""

    def __init__(self, datasets: Sequence[Dataset], weights: Sequence[float]) -> None:
        self.datasets, self.weights = tuple(datasets), tuple(map(float, weights))
        self._first = np.cumsum([0, *(one.num_chunks for one in self.datasets)])
        self.parts = tuple(
            Part(name=str(one.root), weight=weight, first=int(first), end=int(end))
            for one, weight, first, end in zip(
                self.datasets, self.weights, self._first[:-1], self._first[1:], strict=True
            )
        )
        self.root = " and ".join(str(one.root) for one in self.datasets)
        named = [[one.hash, weight] for one, weight in zip(self.datasets, self.weights, strict=True)]
        self.hash = hashlib.sha256(json.dumps(named).encode()).hexdigest()
        """Names the bytes and the weights."""
        self.frames_per_chunk = np.concatenate([one.frames_per_chunk for one in self.datasets])
        self.scene_hash = np.concatenate([one.scene_hash for one in self.datasets])
        self.overlap = np.concatenate([one.overlap for one in self.datasets])

    def __reduce__(self) -> tuple:
        return (Mixture, (self.datasets, self.weights))

    def __repr__(self) -> str:
        return f"Mixture({self.root!r}: {self.num_chunks} chunks, {self.num_frames} frames)"

    @property
    def num_chunks(self) -> int:
        """C."""
        return int(self._first[-1])

    @property
    def num_frames(self) -> int:
        """Frames in all chunks."""
        return sum(one.num_frames for one in self.datasets)

    @property
    def sources(self) -> list[str]:
        """Names of the sources they were built from."""
        return sorted({source for one in self.datasets for source in one.sources})

    def select(self, split: Literal["train", "val"] | None = None) -> np.ndarray:
        """(k,) int64 numbers of a split's chunks, ascending."""
        return np.concatenate(
            [one.select(split) + first for one, first in zip(self.datasets, self._first[:-1], strict=True)]
        )

    def has(self, kind: int) -> np.ndarray:
        """(C,) bool: chunks with all bits of `kind` set."""
        return np.concatenate([one.has(kind) for one in self.datasets])

    def home(self, chunk: int) -> tuple[Dataset, int]:
        """The dataset that has a chunk, and the chunk's number there."""
        number = int(np.searchsorted(self._first, chunk, side="right")) - 1
        return self.datasets[number], int(chunk) - int(self._first[number])

    def meta(self, chunk: int) -> dict[str, Any]:
        """As `Dataset.meta`, and so on below."""
        dataset, own = self.home(chunk)
        return dataset.meta(own)

    def covisibility(self, chunk: int) -> np.ndarray:
        """(N, N) uint8 overlap."""
        dataset, own = self.home(chunk)
        return dataset.covisibility(own)

    def chunk(self, chunk: int) -> Chunk:
        """Everything about a chunk but its pixels, under its number here."""
        dataset, own = self.home(chunk)
        return dataclasses.replace(dataset.chunk(own), number=int(chunk))

    def read_jpeg(self, chunk: int, frame: int) -> bytes:
        """A frame's JPEG file."""
        dataset, own = self.home(chunk)
        return dataset.read_jpeg(own, frame)

    def read_image(self, chunk: int, frame: int) -> np.ndarray:
        """(H, W, 3) uint8 RGB."""
        dataset, own = self.home(chunk)
        return dataset.read_image(own, frame)

    def read_depth(self, chunk: int, frame: int) -> np.ndarray | None:
        """(H, W) float32 depth."""
        dataset, own = self.home(chunk)
        return dataset.read_depth(own, frame)

    def read_labels(self, chunk: int, frame: int) -> np.ndarray | None:
        """(H, W) uint8 class ids."""
        dataset, own = self.home(chunk)
        return dataset.read_labels(own, frame)

    def damaged(self, chunk: int, frame: int, reason: str) -> CorruptFrame:
        """The error for a frame that is no sound picture."""
        dataset, own = self.home(chunk)
        return dataset.damaged(own, frame, reason)
