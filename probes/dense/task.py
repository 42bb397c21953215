"""What the probes of dense prediction share: frames to score and to train on, the two readings, rows and baselines.

``linear`` is one linear layer on one encoder layer (a sweep trains one head a layer), ``dpt`` a light DPT over four.
Frozen features, fixed recipes; a tenth of the training scenes is held out, and where several layers are read the best
one is named from those alone. Beside the encoders stand guesses that look at no image, and an oracle: the truth
averaged over each patch of an encoder's grid, which is about what one linear layer could reach.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from probes.data.frames import Frame, FrameList
from probes.data.pairs import stable_order
from probes.data.square import Fit, SquareFrames
from probes.dense.heads import DPTHead, LinearHead, evenly_spaced
from probes.dense.pictures import dense_exhibits
from probes.dense.training import (
    HeadToTrain,
    Target,
    Training,
    Truths,
    nearest_pixels,
    predictions,
    train_heads,
)
from probes.encoders.encoder import Encoder, choose_layers
from probes.encoders.features import FeatureMaps
from probes.encoders.moments import Moments, channel_moments
from probes.errors import Unfed
from probes.exhibits import Exhibit
from probes.probe import BASELINE, Metric, Row, Settings, Task, Unit

READINGS = ("linear", "dpt")
LEARNED_FROM = 1024  # training frames that guesses and ranges are taken from
SHOWN = 256  # frames whose predictions are kept for pictures
SHOWN_SIZE = 96
SMALL_LINEAR = Training(steps=200, batch=16, lr=1e-2, weight_decay=1e-3)
"""The small preset's recipe: seconds on one core; twice the steps gain 0.4 degrees of 37 in normals."""
SMALL_DPT = Training(steps=150, batch=8, lr=2e-3, weight_decay=1e-3)


@dataclass(frozen=True, kw_only=True)
class DenseConfig:
    """What is read and how; part of the identity of a result."""

    size: int
    fit: Fit
    readings: tuple[str, ...]
    layers: str | tuple[int, ...]
    """Of the linear reading; the DPT's follow from the encoder's depth."""
    seeds: tuple[int, ...]
    items: int
    """Most scored frames, spread evenly over the scenes."""
    train_frames: int
    """Most training frames, likewise."""
    held_out: float
    """Share of the training scenes that no head is trained on."""
    resolution: int
    """Side in px at which heads are trained; scores are taken at ``size``."""
    upsample: int
    """How much finer than the patches the linear head's outputs are."""
    width: int
    """Channels of the DPT."""
    linear: Training
    dpt: Training


def shared_config(fit: Fit, settings: Settings) -> dict[str, Any]:
    """The fields of a `DenseConfig` that all dense probes fill alike."""
    # Readings that belong to other probes leave a dense one as it is.
    asked = tuple(r for r in READINGS if r in (settings.readings or ()))
    small = settings.preset == "small"
    return {
        "size": settings.size,
        "fit": settings.fit or fit,
        "readings": asked or READINGS,
        "layers": settings.layers if isinstance(settings.layers, str) else tuple(settings.layers),
        "seeds": tuple(settings.seeds),
        "items": settings.items or (192 if small else 5000),
        "train_frames": 384 if small else 50_000,
        "held_out": 0.1,
        "resolution": min(settings.size, 64) if small else settings.size,
        "upsample": 2 if small else 4,
        "width": 24 if small else 256,
    }


class DenseTask(Task):
    """One dense probe on one benchmark."""

    def __init__(
        self,
        test: Sequence[Frame],
        train: Sequence[Frame],
        target: Target,
        config: DenseConfig,
        *,
        headline: Metric,
        facts: Mapping[str, Any],
        shown: str,
        notes: Sequence[str] = (),
    ) -> None:
        """Freeze the lists.

        Args:
            test: frames with truth, of which some are scored.
            train: frames with truth, of which some are trained on.
            target: what is predicted.
            config: the recipe.
            headline: what the best layer is chosen by, on held-out training scenes.
            facts: what the benchmark says of itself.
            shown: how its pictures are read, for the report.
            notes: what a reader of the scores must know.

        Raises:
            ProbeError: nothing to train on.
        """
        self._target, self._config, self._headline, self._shown = target, config, headline, shown
        scored = spread(test, config.items)
        digests = {frame.digest() for frame in scored}
        candidates = spread(train, config.train_frames)
        trained = [frame for frame in candidates if frame.digest() not in digests]
        dropped = len(candidates) - len(trained)
        if not trained:
            raise Unfed("none of the training frames is left: all of them are among the scored ones")
        held = held_out_scenes([frame.scene for frame in trained], config.held_out)
        self.frames = SquareFrames([*scored, *trained], config.size, config.fit)
        self._scored = range(len(scored))
        behind = range(len(scored), len(self.frames))
        self._trained = [i for i in behind if self.frames.frames[i].scene not in held]
        self._held = [i for i in behind if self.frames.frames[i].scene in held]
        self._truths = Truths(self.frames, target, config.resolution)
        lists = {
            "list": FrameList(frames=tuple(scored)).hash,
            "train_list": FrameList(frames=tuple(trained)).hash,
        }
        self.hash = hashlib.sha256(
            f"{lists} {sorted(held)} {config.size} {self.frames.rule}".encode()
        ).hexdigest()
        self.facts = {
            "items": len(scored),
            "scenes": len({frame.scene for frame in scored}),
            "images": len(scored),
            **facts,
            "hash": lists["list"],
            "train_items": len(self._trained),
            "train_scenes": len({self.frames.frames[i].scene for i in self._trained}),
            "train_hash": lists["train_list"],
            "held_out_scenes": len(held),
        }
        self.notes = list(notes)
        if dropped:
            self.facts["train_dropped"] = dropped
            self.notes.append(f"{dropped} training images are among the scored ones and were left out.")

    def layers(self, encoder: Encoder) -> tuple[int, ...]:
        """The linear reading's, and the four of the DPT."""
        found: set[int] = set()
        if "linear" in self._config.readings:
            found |= set(choose_layers(encoder, self._config.layers))
        if "dpt" in self._config.readings:
            found |= set(evenly_spaced(encoder.num_layers))
        return tuple(sorted(found))

    def score(
        self,
        encoder: Encoder,
        maps: Mapping[int, FeatureMaps],
        device: torch.device,
        *,
        progress: bool = False,
    ) -> Unit:
        """See `Task.score`."""
        unit = Unit(rows=[], selections=dict(self._learned))
        moments = {layer: channel_moments(found.tokens, self._trained) for layer, found in maps.items()}
        for seed in self._config.seeds:
            for reading in self._config.readings:
                heads = self._heads(reading, encoder, moments, seed, device)
                train_heads(
                    heads,
                    maps,
                    self._trained,
                    self._truths,
                    self._target,
                    resolution=self._config.resolution,
                    recipe=self._config.linear if reading == "linear" else self._config.dpt,
                    seed=seed,
                    device=device,
                    progress=f"train {reading}" if progress else "",
                )
                first = seed == self._config.seeds[0]
                self._score(unit, reading, heads, maps, seed, device, keep=first)
                if first and len(heads) > 1 and self._held:
                    unit.selections["layer"] = self._best_layer(heads, maps, device)
        blank = [name for name in self._scored_names if name not in {row["item"] for row in unit.rows}]
        if blank:
            unit.notes.append(
                f"{len(blank)} frames have no known pixel and no score, the first is {blank[0]}."
            )
        return unit

    def baselines(self, grids: Sequence[tuple[int, int]]) -> list[Row]:
        """Guesses that look at no image, and the oracle of each grid."""
        _ = self._learned
        size = self._config.size
        guesses = {name: self._enlarged(guess) for name, guess in self._target.guesses().items()}
        rows = []
        for index in self._scored:
            truth = self._target.read(self.frames, index)
            if not self._target.known(truth).any():
                continue
            told = dict(guesses)
            for grid in dict.fromkeys((min(h, size), min(w, size)) for h, w in grids):
                told[f"oracle ({grid[0]} x {grid[1]})"] = self._target.averaged(truth, grid)
            rows += [
                self._row(index, truth, prediction, reading=BASELINE, layer=None, seed=None)
                | {"encoder": name}
                for name, prediction in told.items()
            ]
        return rows

    def exhibits(self, units: Mapping[str, Unit]) -> list[Exhibit]:
        """Best, median and worst frame."""
        return dense_exhibits(self.frames, self._target, units, self._config.readings, SHOWN, self._shown)

    # -- parts of a score

    @cached_property
    def _learned(self) -> dict[str, Any]:
        some = self._trained[:: -(-len(self._trained) // LEARNED_FROM)]
        return self._target.learn(self._truths[index] for index in some)

    @property
    def _scored_names(self) -> list[str]:
        return [self.frames.names[index] for index in self._scored]

    def _heads(
        self,
        reading: str,
        encoder: Encoder,
        moments: Mapping[int, Moments],
        seed: int,
        device: torch.device,
    ) -> list[HeadToTrain]:
        if reading == "linear":
            read = [(layer,) for layer in choose_layers(encoder, self._config.layers)]
        else:
            read = [evenly_spaced(encoder.num_layers)]
        heads = []
        for layers in read:
            # Each from the same seed, so that a head does not depend on which others are trained beside it.
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                own = [moments[layer] for layer in layers]
                channels = self._target.channels
                head = (
                    LinearHead(own, channels, upsample=self._config.upsample)
                    if reading == "linear"
                    else DPTHead(own, channels, width=self._config.width)
                )
            heads.append(HeadToTrain(layers=layers, head=head.to(device)))
        return heads

    def _score(
        self,
        unit: Unit,
        reading: str,
        heads: Sequence[HeadToTrain],
        maps: Mapping[int, FeatureMaps],
        seed: int,
        device: torch.device,
        *,
        keep: bool,
    ) -> None:
        """Add the rows of every scored frame; with ``keep`` also small predictions of the deepest head."""
        side = min(self._config.size, SHOWN_SIZE)
        kept = []
        by_head: list[list[Row]] = [[] for _ in heads]
        for index, found in predictions(
            heads, maps, self._scored, self._target, size=self._config.size, device=device
        ):
            truth = self._target.read(self.frames, index)
            if keep and index < SHOWN:
                blank = np.zeros_like(truth) if found[-1] is None else found[-1]
                kept.append(nearest_pixels(blank, side))
            if not self._target.known(truth).any():
                continue
            for one, prediction, rows in zip(heads, found, by_head, strict=True):
                layer = one.layers[0] if reading == "linear" else None
                rows.append(self._row(index, truth, prediction, reading=reading, layer=layer, seed=seed))
        unit.rows += [row for rows in by_head for row in rows]
        if keep:
            stack = np.stack(kept)
            unit.arrays[reading] = stack.astype(np.float16) if stack.dtype.kind == "f" else stack

    def _row(
        self, index: int, truth: NDArray, prediction: NDArray | None, *, reading: str, **fields: Any
    ) -> Row:
        known = self._target.known(truth)
        return {
            "item": self.frames.names[index],
            "scene": self.frames.frames[index].scene,
            "reading": reading,
            "position": "kept",
            "failed": prediction is None,
            **fields,
            "pixels": int(known.sum()),
            **(self._target.failure(truth) if prediction is None else self._target.score(prediction, truth)),
        }

    def _best_layer(
        self, heads: Sequence[HeadToTrain], maps: Mapping[int, FeatureMaps], device: torch.device
    ) -> dict[str, Any]:
        """The layer whose head reads frames of held-out training scenes best; a record, no score depends on it."""
        found: list[list[Any]] = [[] for _ in heads]
        for index, each in predictions(
            heads, maps, self._held, self._target, size=self._config.size, device=device
        ):
            truth = self._target.read(self.frames, index)
            if not self._target.known(truth).any():
                continue
            for column, prediction in zip(found, each, strict=True):
                metrics = (
                    self._target.failure(truth)
                    if prediction is None
                    else self._target.score(prediction, truth)
                )
                column.append(metrics[self._headline.source])
        means = [
            float(self._headline.statistic(np.array(column), np.ones((1, len(column))))[0])
            for column in found
        ]
        best = int(np.argmin(means) if self._headline.better == "less" else np.argmax(means))
        layers = [one.layers[0] for one in heads]
        return {
            "chosen": layers[best],
            "among": layers,
            "by": self._headline.name,
            "values": means,
            "on": f"{len(self._held)} frames of held-out training scenes",
        }

    def _enlarged(self, guess: NDArray) -> NDArray:
        """A guess (r, r, ...) at the evaluated size, by the nearest pixel."""
        return nearest_pixels(guess, self._config.size)


def frames_to_train(
    name: str, train: FrameList | None, has_truth: Callable[[Frame], bool], truth: str
) -> list[Frame]:
    """The training frames that have truth; ProbeError where there are none."""
    found = [frame for frame in train.frames if has_truth(frame)] if train else []
    if not found:
        why = f"have no {truth}" if train and train.frames else "are missing"
        raise Unfed(
            f"{name} trains a head, but training frames {why}: name data with {truth} with --train-data"
        )
    return found


def spread(frames: Sequence[Frame], most: int) -> list[Frame]:
    """At most so many frames, evenly over the scenes, by a hash of their names; in their own order."""
    if len(frames) <= most:
        return list(frames)
    scenes: dict[str, list[int]] = {}
    for index in sorted(range(len(frames)), key=lambda i: stable_order(frames[i].name)):
        scenes.setdefault(frames[index].scene, []).append(index)
    turns = sorted(
        (turn, stable_order(scene), index)
        for scene, members in scenes.items()
        for turn, index in enumerate(members)
    )
    return [frames[index] for index in sorted(index for _, _, index in turns[:most])]


def held_out_scenes(scenes: Sequence[str], share: float) -> set[str]:
    """A share of the scenes, at least one of two or more, by a hash of their names."""
    names = sorted(set(scenes), key=stable_order)
    return set(names[: max(1, round(share * len(names)))]) if len(names) > 1 and share > 0 else set()
