"""The segmentation probe: how well frozen features tell the class of every pixel.

Cross-entropy on interpolated logits; pixels are counted per image and divided once over the data set (mIoU as
ADE20K's users compute it), so intervals resample whole scenes and divide anew.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from probes.data.frames import IGNORED, Benchmark, Frame
from probes.data.square import SquareFrames
from probes.dense.pictures import class_colours, class_legend
from probes.dense.task import (
    SMALL_DPT,
    SMALL_LINEAR,
    DenseConfig,
    DenseTask,
    frames_to_train,
    shared_config,
)
from probes.dense.training import Target, Training, patch_average
from probes.errors import ProbeError, Unfed
from probes.metrics.dense import (
    class_accuracy_statistic,
    class_pixels,
    miou_statistic,
    pixel_accuracy_statistic,
)
from probes.probe import Metric, Probe, Settings
from probes.statistics import Statistic


@dataclass(frozen=True, kw_only=True)
class SegmentationConfig(DenseConfig):
    """See `DenseConfig`."""

    classes: tuple[str, ...]


@dataclass(kw_only=True)
class SegmentationTarget(Target):
    """Class ids (S, S), `IGNORED` = unknown."""

    classes: tuple[str, ...]
    channels: int = field(init=False)
    _counts: NDArray | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.channels = len(self.classes)

    def read(self, frames: SquareFrames, index: int) -> NDArray:
        """See `Target.read`; unknown also outside the mask. ProbeError where an id has no class."""
        labels, mask = frames.labels(index), frames.mask(index)
        found = labels if mask is None else np.where(mask, labels, np.uint8(IGNORED))
        beyond = found[(found != IGNORED) & (found >= self.channels)]
        if beyond.size:
            raise ProbeError(
                f"{frames.names[index]} holds the class id {int(beyond[0])}, but its data names {self.channels} classes"
            )
        return found

    def known(self, truth: NDArray) -> NDArray[np.bool_]:
        """See `Target.known`."""
        return truth != IGNORED

    def learn(self, truths: Iterable[NDArray]) -> dict[str, Any]:
        """How often each class is seen at every position."""
        counts: NDArray | None = None
        for truth in truths:
            if counts is None:
                counts = np.zeros((*truth.shape, self.channels), np.int32)
            rows, columns = np.nonzero(truth != IGNORED)
            counts[rows, columns, truth[rows, columns]] += 1
        self._counts = counts
        return {}

    def activate(self, outputs: Tensor) -> Tensor:
        """As they are: logits."""
        return outputs

    def loss(self, predicted: Tensor, truth: Tensor) -> Tensor:
        """Cross-entropy, averaged over known pixels."""
        total = F.cross_entropy(predicted, truth.long(), ignore_index=IGNORED, reduction="sum")
        return total / (truth != IGNORED).sum().clamp_min(1)

    def finish(self, predicted: Tensor) -> NDArray:
        """See `Target.finish`."""
        return predicted.argmax(1).byte().cpu().numpy()

    def score(self, prediction: NDArray, truth: NDArray) -> dict[str, Any]:
        """Pixels of each class; the scores are statistics of them over the data set."""
        return {"class_pixels": class_pixels(prediction, truth, self.channels, IGNORED).tolist()}

    def failure(self, truth: NDArray) -> dict[str, Any]:
        """No pixel right and none predicted."""
        true = np.bincount(truth[truth != IGNORED].astype(np.int64), minlength=self.channels)
        return {"class_pixels": [0] * (2 * self.channels) + true.tolist()}

    def error(self, metrics: Mapping[str, Any]) -> float:
        """Share of wrong pixels."""
        return 1 - float(pixel_accuracy_statistic(np.array([metrics["class_pixels"]]), np.ones((1, 1)))[0])

    def say(self, error: float) -> str:
        """See `Target.say`."""
        return f"{100 * error:.0f} % of pixels wrong"

    def guesses(self) -> dict[str, NDArray]:
        """The most frequent class of the training frames, over all and at every position."""
        everywhere = self._counts.sum(axis=(0, 1)).argmax()
        return {
            "majority class": np.full(self._counts.shape[:2], everywhere, np.uint8),
            "majority class per position": self._counts.argmax(axis=-1).astype(np.uint8),
        }

    def averaged(self, truth: NDArray, grid: tuple[int, int]) -> NDArray:
        """See `Target.averaged`; of the share of every class that occurs."""
        known = truth != IGNORED
        occur = np.unique(truth[known])
        shares = patch_average((truth[..., None] == occur).astype(np.float32), known, grid)
        return occur[shares.argmax(axis=-1)]

    def colours(self, values: NDArray, truth: NDArray) -> NDArray[np.uint8]:
        """A colour a class; white is unlabelled."""
        return class_colours(values)

    def legend(self, truth: NDArray) -> str:
        """The classes that occur, the largest first."""
        counts = np.bincount(truth[truth != IGNORED].astype(np.int64), minlength=self.channels)
        order = np.argsort(-counts, kind="stable")[: (counts > 0).sum()]
        return class_legend([(int(number), self.classes[number]) for number in order])


def _share(name: str, label: str, statistic: Statistic) -> Metric:
    return Metric(
        name=name,
        label=label,
        unit="%",
        scale=100,
        digits=1,
        column="class_pixels",
        statistic=statistic,
    )


class SegmentationProbe(Probe):
    """See the file's opening."""

    name = "segmentation"
    title = "Semantic segmentation"
    question = "Do frozen features tell what every pixel shows?"
    metrics = (
        _share("miou", "mIoU over the data set", miou_statistic),
        _share("class_accuracy", "mean accuracy of classes", class_accuracy_statistic),
        _share("pixel_accuracy", "pixel accuracy", pixel_accuracy_statistic),
    )
    headline = "miou"
    leading = ("linear", "dpt")

    def refuses(self, benchmark: Benchmark) -> str | None:
        """It needs labels with named classes."""
        frames = benchmark.test.frames if benchmark.test else ()
        if not any(map(_has_labels, frames)):
            return "its frames have no labels"
        return None if benchmark.classes else "its label ids have no names"

    def config(self, benchmark: Benchmark, settings: Settings) -> SegmentationConfig:
        """Standard: DINOv3's linear recipe; small: the same heads in seconds."""
        small = settings.preset == "small"
        return SegmentationConfig(
            **shared_config(benchmark.fit, settings),
            linear=SMALL_LINEAR if small else Training(steps=40_000, batch=16, lr=1e-3, weight_decay=1e-4),
            dpt=SMALL_DPT if small else Training(steps=40_000, batch=16, lr=5e-4, weight_decay=1e-2),
            classes=benchmark.classes,
        )

    def open(self, benchmark: Benchmark, train: Benchmark | None, config: SegmentationConfig) -> DenseTask:
        """See `Probe.open`."""
        trained = frames_to_train(self.name, train.train if train else None, _has_labels, "labels")
        if train.classes != benchmark.classes:
            raise Unfed(
                f"{train.spec} and {benchmark.spec} do not name the same classes ({len(train.classes)} and "
                f"{len(benchmark.classes)}): train on data with the same labels"
            )
        return DenseTask(
            [frame for frame in benchmark.test.frames if _has_labels(frame)],
            trained,
            SegmentationTarget(classes=config.classes),
            config,
            headline=self.headline_metric,
            facts={"truth": "labels", "split": benchmark.split, "classes": len(config.classes)},
            shown="Each class has its colour; white is unlabelled.",
        )


def _has_labels(frame: Frame) -> bool:
    return frame.labels is not None


PROBE = SegmentationProbe()
