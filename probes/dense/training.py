"""One way to train a dense head on cached features, and to read it: any target, any head, several at once.

Images are used as they are (the features are made once, so no crop or flip is drawn), heads are trained at the
target's own resolution and read at the evaluated size. A `Target` says what a pixel's truth is and what being wrong
costs; nothing here knows whether that is depth or a class.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from probes.data.square import SquareFrames
from probes.encoders.features import FeatureMaps
from probes.schedule import warm_cosine

KEEP_IN_MEMORY = 2 << 30  # bytes of truth; more is read from the files as it is asked for


class Target(ABC):
    """What is predicted at every pixel: its truth, its loss, its score, and what can be said without any feature."""

    channels: int
    """Of a head's output."""

    @abstractmethod
    def read(self, frames: SquareFrames, index: int) -> NDArray:
        """Truth (S, S) or (S, S, 3) of a frame, unknown pixels marked."""

    @abstractmethod
    def known(self, truth: NDArray) -> NDArray[np.bool_]:
        """(S, S): where the truth of `read` is known."""

    @abstractmethod
    def learn(self, truths: Iterable[NDArray]) -> dict[str, Any]:
        """Take from the training truth whatever is needed (a range, means); what was chosen, to be recorded."""

    @abstractmethod
    def activate(self, outputs: Tensor) -> Tensor:
        """A head's output (n, channels, h, w) as quantities (n, c, h, w) that may be interpolated."""

    @abstractmethod
    def loss(self, predicted: Tensor, truth: Tensor) -> Tensor:
        """Scalar, of quantities (n, c, r, r) and truth (n, r, r) or (n, r, r, 3); 0 where nothing is known."""

    @abstractmethod
    def finish(self, predicted: Tensor) -> NDArray:
        """Predictions (n, S, S) or (n, S, S, 3) of quantities (n, c, S, S)."""

    @abstractmethod
    def score(self, prediction: NDArray, truth: NDArray) -> dict[str, Any]:
        """Metrics of one frame, of which at least a pixel is known."""

    @abstractmethod
    def failure(self, truth: NDArray) -> dict[str, Any]:
        """Metrics of a frame without a prediction."""

    @abstractmethod
    def error(self, metrics: Mapping[str, Any]) -> float:
        """One number of a frame's metrics by which frames are ranked for pictures, less being better."""

    @abstractmethod
    def say(self, error: float) -> str:
        """`error` in words, for captions: ``25.1° off``."""

    @abstractmethod
    def guesses(self) -> dict[str, NDArray]:
        """Predictions (r, r) or (r, r, 3) that look at no image, by name; after `learn`."""

    @abstractmethod
    def averaged(self, truth: NDArray, grid: tuple[int, int]) -> NDArray:
        """The truth (S, S) as one value a patch of the grid can tell it: averaged there, then interpolated."""

    @abstractmethod
    def colours(self, values: NDArray, truth: NDArray) -> NDArray[np.uint8]:
        """A picture (H, W, 3) of a prediction or truth beside the truth (H, W) or (H, W, 3) it is compared with."""

    def legend(self, truth: NDArray) -> str:
        """An ``<svg>`` that says what the colours of a truth mean; empty: the caption says it."""
        return ""


class Truths:
    """Truth of frames at a resolution, by the nearest pixel; kept in memory while there is room."""

    def __init__(self, frames: SquareFrames, target: Target, resolution: int) -> None:
        self._frames, self._target, self._resolution = frames, target, resolution
        self._kept: dict[int, NDArray] = {}
        self._room = KEEP_IN_MEMORY

    def __getitem__(self, index: int) -> NDArray:
        if index in self._kept:
            return self._kept[index]
        found = nearest_pixels(self._target.read(self._frames, index), self._resolution)
        if found.nbytes <= self._room:
            self._room -= found.nbytes
            self._kept[index] = found
        return found

    def batch(self, indices: Iterable[int], device: torch.device) -> Tensor:
        """(n, r, r) or (n, r, r, 3)."""
        return torch.from_numpy(np.stack([self[int(index)] for index in indices])).to(device)


@dataclass(frozen=True, kw_only=True)
class Training:
    """How a head is trained with AdamW: a warm-up, then cosine to zero."""

    steps: int
    batch: int
    """Images a step, drawn with replacement."""
    lr: float
    """At its peak."""
    weight_decay: float
    warm_up: float = 0.1
    """Share of the steps."""


@dataclass(frozen=True, kw_only=True)
class HeadToTrain:
    """A head and the layers it reads, from shallow to deep."""

    layers: tuple[int, ...]
    head: nn.Module = field(repr=False)

    def read(self, levels: Mapping[int, Tensor], target: Target, size: int) -> Tensor:
        """Quantities (n, c, size, size) of features {layer: (n, C, h, w)}."""
        predicted = target.activate(self.head([levels[layer] for layer in self.layers]))
        return F.interpolate(predicted, size=(size, size), mode="bilinear", align_corners=False)


def train_heads(
    heads: Sequence[HeadToTrain],
    maps: Mapping[int, FeatureMaps],
    images: Sequence[int],
    truths: Truths,
    target: Target,
    *,
    resolution: int,
    recipe: Training,
    seed: int,
    device: torch.device,
    progress: str = "",
) -> None:
    """Train heads side by side on the same images; each as if it were alone.

    Args:
        heads: they are changed in place and left frozen.
        maps: features by layer.
        images: indices into the maps of the training images.
        truths: their truth, by the same indices.
        target: what is predicted.
        resolution: side in px at which predictions meet the truth.
        recipe: see `Training`.
        seed: of the draws, so that all encoders see the same images in the same order.
        device: where the heads are.
        progress: title of a bar on stderr; empty: none.
    """
    parameters = [parameter for one in heads for parameter in one.head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=recipe.lr, weight_decay=recipe.weight_decay)
    schedule = warm_cosine(optimizer, recipe.steps, warm=round(recipe.warm_up * recipe.steps))
    layers = sorted({layer for one in heads for layer in one.layers})
    for step in tqdm(range(recipe.steps), desc=progress, disable=not progress, leave=False):
        rng = np.random.Generator(np.random.Philox(key=[seed, step]))
        drawn = [images[i] for i in rng.integers(len(images), size=recipe.batch)]
        truth = truths.batch(drawn, device)
        levels = read_levels(maps, layers, drawn, device)
        optimizer.zero_grad(set_to_none=True)
        for one in heads:
            target.loss(one.read(levels, target, resolution), truth).backward()
        optimizer.step()
        schedule.step()
    for one in heads:
        one.head.eval().requires_grad_(False)


@torch.inference_mode()
def predictions(
    heads: Sequence[HeadToTrain],
    maps: Mapping[int, FeatureMaps],
    images: Sequence[int],
    target: Target,
    *,
    size: int,
    device: torch.device,
    part: int = 16,
) -> Iterator[tuple[int, list[NDArray | None]]]:
    """Every image with each head's prediction (S, S) or (S, S, 3); None where it is not finite."""
    layers = sorted({layer for one in heads for layer in one.layers})
    for start in range(0, len(images), part):
        some = images[start : start + part]
        levels = read_levels(maps, layers, some, device)
        found = []
        for one in heads:
            raw = one.read(levels, target, size)
            finite = torch.isfinite(raw).flatten(1).all(1).tolist()
            found.append([p if ok else None for p, ok in zip(target.finish(raw), finite, strict=True)])
        for place, index in enumerate(some):
            yield index, [each[place] for each in found]


def read_levels(
    maps: Mapping[int, FeatureMaps], layers: Sequence[int], images: Sequence[int], device: torch.device
) -> dict[int, Tensor]:
    """Features {layer: (n, C, h, w)} of some images."""
    return {
        layer: maps[layer].tokens(images).to(device).transpose(1, 2).unflatten(2, maps[layer].grid)
        for layer in layers
    }


def nearest_pixels(values: NDArray, resolution: int) -> NDArray:
    """(r, r, ...) of values (S, S, ...): those of the pixels in which the centres of the new ones lie."""
    rows, columns = (
        ((np.arange(resolution) + 0.5) * side / resolution).astype(np.int64) for side in values.shape[:2]
    )
    return np.ascontiguousarray(values[rows[:, None], columns[None]])


def resized(values: NDArray, size: int) -> NDArray[np.float32]:
    """(size, size, c) of values (h, w, c), bilinear."""
    x = torch.from_numpy(np.ascontiguousarray(values, np.float32)).permute(2, 0, 1)[None]
    x = F.interpolate(x, size=(size, size), mode="bilinear", align_corners=False)
    return x[0].permute(1, 2, 0).numpy()


def patch_average(values: NDArray, known: NDArray[np.bool_], grid: tuple[int, int]) -> NDArray[np.float32]:
    """Values (S, S, c) averaged over each patch's known pixels, and interpolated between patch centres to (S, S, c).

    Patches without a known pixel take no part; where only they would speak, the answer is 0.
    """
    size, channels = len(values), values.shape[2]
    rows, columns = (np.floor((np.arange(size) + 0.5) * cells / size).astype(np.int64) for cells in grid)
    patch = (rows[:, None] * grid[1] + columns)[known]
    count = np.bincount(patch, minlength=grid[0] * grid[1]).reshape(*grid, 1)
    sums = [np.bincount(patch, values[known][:, c], grid[0] * grid[1]) for c in range(channels)]
    mean = np.stack(sums, axis=-1).reshape(*grid, channels) / np.maximum(count, 1)
    found = resized(np.concatenate([mean, count > 0], axis=-1), size)
    return found[..., :-1] / np.maximum(found[..., -1:], 1e-6)
