"""What the probes of several views share: sequences to score and to train on, one head for both, its predictions.

A sequence is a fixed list of frames of one scene (`probes.data.sequences`); the head (`probes.multiview.head`) is
trained on sequences of the training part that show no scored image. Nothing is chosen: the recipe is fixed. What is
made of the predictions is a probe's own.
"""

import hashlib
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray

from probes.data.frames import Benchmark, FrameSequence
from probes.data.sequences import SequenceConfig, choose_sequences
from probes.data.square import Fit, SquareFrames
from probes.encoders.encoder import Encoder, choose_layers
from probes.encoders.features import FeatureMaps
from probes.errors import Unfed
from probes.multiview.head import HeadConfig
from probes.multiview.training import TrainingConfig, predict, train_head
from probes.probe import Row, Settings, Task, Unit

READINGS = ("head",)
_SMALL = TrainingConfig(
    head=HeadConfig(width=64, depth=2, heads=4, match_width=96, grid=8, cells=4),
    steps=500,
    frames=12,
    views=(2, 6),
    lr=3e-3,
    weight_decay=0.01,
)


@dataclass(frozen=True, kw_only=True)
class MultiviewConfig:
    """What is read and how; part of the identity of a result."""

    size: int
    fit: Fit
    layers: str | tuple[int, ...]
    """That heads are trained on: ``last`` or block numbers. A sweep over all layers is left to cheaper readings."""
    seeds: tuple[int, ...]
    frames: int
    """Of a sequence that no list names."""
    least: int
    """Fewer frames make no sequence."""
    sequences: int
    """Scored ones at most."""
    train_sequences: int
    training: TrainingConfig


def shared_config(benchmark: Benchmark, settings: Settings) -> dict[str, Any]:
    """The fields of a `MultiviewConfig` that all its probes fill alike."""
    small = settings.preset == "small"
    return {
        "size": settings.size,
        "fit": settings.fit or benchmark.fit,
        "layers": "last" if settings.layers == "all" else settings.layers,
        "seeds": tuple(settings.seeds),
        "frames": 10,
        "least": 3,
        "sequences": settings.items or (32 if small else 2000),
        "train_sequences": 160 if small else 2000,
        "training": _SMALL if small else TrainingConfig(),
    }


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What the head says of one sequence, in its first frame's camera and in a unit of its own."""

    world_to_camera: NDArray
    """(n, 3, 4) float64."""
    depth: NDArray
    """(n, H, W) float32."""


class MultiviewTask(Task):
    """A probe of several views on one benchmark."""

    def __init__(
        self,
        name: str,
        benchmark: Benchmark,
        train: Benchmark | None,
        config: MultiviewConfig,
        *,
        depth: bool,
    ) -> None:
        """Freeze the lists.

        Args:
            name: of the probe, for messages.
            benchmark: its test part is scored.
            train: its train part is trained on.
            config: the recipe.
            depth: whether every frame must have depth; else the head learns of it where there is some.

        Raises:
            ProbeError: nothing to score or to train on.
        """
        if train is None or train.train is None:
            raise Unfed(
                f"data {benchmark.spec!r} has nothing to train on: name other scenes with --train-data "
                f"({name} trains a head)"
            )
        self.config = config

        def chosen(count: int) -> SequenceConfig:
            return SequenceConfig(
                size=config.size,
                fit=config.fit,
                frames=config.frames,
                least=config.least,
                sequences=count,
                depth=depth,
            )

        self.scored = choose_sequences(benchmark.spec, benchmark.test, chosen(config.sequences))
        self._train = choose_sequences(
            train.spec,
            train.train,
            chosen(config.train_sequences),
            without=frozenset(self.scored.frames.hashes),
        )
        self._train_range = train.depth_range
        self.frames = SquareFrames(
            [*self.scored.frames.frames, *self._train.frames.frames], config.size, config.fit
        )
        self.hash = hashlib.sha256(f"{self.scored.hash} {self._train.hash}".encode()).hexdigest()
        self.facts = {
            "items": len(self.scored.sequences),
            "scenes": len(self.scored.scenes),
            "images": len(self.scored.frames),
            "sequences": len(self.scored.sequences),
            "frames_per_sequence": sorted({len(s.frames) for s in self.scored.sequences}),
            "truth": benchmark.truth,
            "split": benchmark.split,
            "list_hash": self.scored.hash,
            "refused": self.scored.refused,
            "train_items": len(self._train.sequences),
            "train_scenes": len(self._train.scenes),
            "train_hash": self._train.hash,
            "train_refused": self._train.refused,
        }
        self.notes = [
            "The multi-view head is given the intrinsics and correspondences of a linear layer; MuM's, after VGGT, "
            "is not, and is trained for days: compare encoders, not papers."
        ]
        short = sum(len(s.frames) < config.frames for s in self.scored.sequences)
        if short:
            self.notes.append(
                f"{short} of {len(self.scored.sequences)} sequences of {benchmark.spec} have fewer than "
                f"{config.frames} frames."
            )
        dropped = self._train.refused.get("images that are scored", 0)
        if dropped:
            self.notes.append(f"{dropped} training images are among the scored ones and were left out.")

    def layers(self, encoder: Encoder) -> tuple[int, ...]:
        """The last, or those that the settings name."""
        return choose_layers(encoder, self.config.layers)

    def predictions(
        self,
        encoder: Encoder,
        maps: Mapping[int, FeatureMaps],
        device: torch.device,
        *,
        progress: bool,
    ) -> Iterator[tuple[int, int, FrameSequence, Prediction]]:
        """Layer, seed, sequence and what the head says of it, of all of them."""
        for layer in self.layers(encoder):
            for seed in self.config.seeds:
                head = train_head(
                    encoder,
                    layer,
                    maps[layer],
                    self._train,
                    len(self.scored.frames),
                    depth_range=self._train_range,
                    seed=seed,
                    config=self.config.training,
                    device=device,
                    progress=progress,
                )
                found = predict(head, maps[layer], self.scored, device)
                for sequence, (poses, depth) in zip(self.scored.sequences, found, strict=True):
                    yield layer, seed, sequence, Prediction(world_to_camera=poses, depth=depth)

    def score(
        self,
        encoder: Encoder,
        maps: Mapping[int, FeatureMaps],
        device: torch.device,
        *,
        progress: bool = False,
    ) -> Unit:
        """See `Task.score`."""
        unit = Unit(rows=[])
        shown = (self.layers(encoder)[-1], self.config.seeds[0])
        for layer, seed, sequence, prediction in self.predictions(encoder, maps, device, progress=progress):
            common = {"layer": layer, "reading": READINGS[0], "position": "kept", "seed": seed}
            unit.rows += [common | row for row in self.rows_of(sequence, prediction)]
            if (layer, seed) == shown:
                unit.arrays |= self.kept(sequence, prediction)
        return unit

    @abstractmethod
    def rows_of(self, sequence: FrameSequence, prediction: Prediction) -> list[Row]:
        """Rows of one sequence: item, scene, failed, covariates and metrics."""

    @abstractmethod
    def kept(self, sequence: FrameSequence, prediction: Prediction) -> dict[str, NDArray]:
        """What its pictures need, by names that start with the sequence's."""


def why_no_sequences(benchmark: Benchmark, *, depth: bool) -> str | None:
    """Why a benchmark has nothing to read together; None if it has."""
    frames = benchmark.test.frames if benchmark.test else ()
    posed = [frame for frame in frames if frame.posed]
    if not posed:
        return "its frames have no cameras"
    if depth and not any(frame.depth is not None for frame in posed):
        return "its frames have no depth"
    return None
