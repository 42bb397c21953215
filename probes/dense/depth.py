"""The depth probe: how well frozen features tell the distance of every pixel in a single image.

A head gives weights of depth bins, whose mean is the depth (DINOv2's and DINOv3's recipe: 256 bins, scale-invariant
log loss). Scores are taken per image, as predicted and after three alignments, each named in its column.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from probes.data.frames import Benchmark, Frame
from probes.data.square import SquareFrames
from probes.dense.pictures import shades
from probes.dense.task import (
    SMALL_DPT,
    SMALL_LINEAR,
    DenseConfig,
    DenseTask,
    frames_to_train,
    shared_config,
)
from probes.dense.training import Target, Training, patch_average
from probes.errors import Unfed
from probes.metrics.dense import ALIGNMENTS, score_depth
from probes.probe import Metric, Probe, Settings

_SUFFIX = {"none": "", "median": "_median", "affine": "_affine", "affine disparity": "_affine_disparity"}
_WORDS = {
    "none": "",
    "median": " (median scale)",
    "affine": " (scale + shift)",
    "affine disparity": " (scale + shift of 1/d)",
}


@dataclass(frozen=True, kw_only=True)
class DepthConfig(DenseConfig):
    """See `DenseConfig`."""

    range: tuple[float, float] | None
    """Depths that count, in the data's unit; None: all, and bins over the range of the training frames."""
    bins: int
    spacing: Literal["linear", "log"]
    """Of the bins over the range."""
    loss_over: Literal["batch", "image"]
    """What the log loss is scale-invariant over; images where their scales are not comparable."""
    mean_weight: float
    """Of the squared mean log error, beside the variance's 1; 0 would not care for scale at all."""


@dataclass(kw_only=True)
class DepthTarget(Target):
    """Depth (S, S) along the camera's axis, 0 = unknown."""

    config: DepthConfig
    channels: int = field(init=False)
    _centres: Tensor | None = field(default=None, init=False)
    _mean: NDArray | None = field(default=None, init=False)
    _overall: float = field(default=1.0, init=False)

    def __post_init__(self) -> None:
        self.channels = self.config.bins

    def read(self, frames: SquareFrames, index: int) -> NDArray:
        """See `Target.read`; 0 also outside the range and the mask."""
        depth, mask = frames.depth(index), frames.mask(index)
        low, high = self.config.range or (0, np.inf)
        kept = (depth > 0) & (depth >= low) & (depth <= high) & np.isfinite(depth)
        return np.where(kept if mask is None else kept & mask, depth, 0).astype(np.float32)

    def known(self, truth: NDArray) -> NDArray[np.bool_]:
        """See `Target.known`."""
        return truth > 0

    def learn(self, truths: Iterable[NDArray]) -> dict[str, Any]:
        """The range of the bins, where the data state none, and the mean log depth at every position."""
        total = count = 0.0
        ends = []
        for truth in truths:
            known = truth > 0
            total = total + np.log(np.where(known, truth, 1))
            count = count + known
            if known.any():
                ends.append(np.quantile(truth[known], [0.01, 0.99]))
        if not ends:
            raise Unfed("no training frame has a known depth: name other data with --train-data")
        self._overall = np.exp(total.sum() / count.sum())
        mean = np.where(count > 0, np.exp(total / np.maximum(count, 1)), self._overall)
        self._mean = mean.astype(np.float32)
        low, high = self.config.range or (
            float(np.quantile([low for low, _ in ends], 0.01)) / 1.1,
            float(np.quantile([high for _, high in ends], 0.99)) * 1.1,
        )
        if self.config.spacing == "linear":
            self._centres = torch.linspace(low, high, self.config.bins)
        else:
            self._centres = torch.linspace(np.log(low), np.log(high), self.config.bins).exp()
        if self.config.range:
            return {}
        return {"depth_range": {"chosen": [low, high], "on": "training frames"}}

    def activate(self, outputs: Tensor) -> Tensor:
        """Depth (n, 1, h, w): the mean of the bins, weighted by rectified outputs plus 0.1 (AdaBins, DINOv2)."""
        weights = outputs.relu() + 0.1
        centres = self._centres.to(outputs)[:, None, None]
        return (weights * centres).sum(1, keepdim=True) / weights.sum(1, keepdim=True)

    def loss(self, predicted: Tensor, truth: Tensor) -> Tensor:
        """Root of the variance of the log error plus a part of its squared mean (Eigen et al. 2014)."""
        known = truth > 0
        error = torch.where(known, predicted[:, 0].log() - truth.where(known, 1).log(), 0)
        over = (0, 1, 2) if self.config.loss_over == "batch" else (1, 2)
        count = known.sum(over)
        mean = error.sum(over) / count.clamp_min(1)
        variance = error.square().sum(over) / count.clamp_min(1) - mean.square()
        # The root's slope at 0 is infinite.
        terms = (variance.clamp_min(0) + self.config.mean_weight * mean.square() + 1e-8).sqrt()
        return (terms * (count > 0)).sum() / (count > 0).sum().clamp_min(1)

    def finish(self, predicted: Tensor) -> NDArray:
        """See `Target.finish`."""
        return predicted[:, 0].cpu().numpy()

    def score(self, prediction: NDArray, truth: NDArray) -> dict[str, float]:
        """Errors under every alignment; RMSE and SILog as predicted, or by medians as stated."""
        known = truth > 0
        found: dict[str, float] = {}
        for alignment in ALIGNMENTS:
            errors = score_depth(prediction[known], truth[known], alignment)
            for name, value in errors.to_dict().items():
                found[name + _SUFFIX[alignment]] = value
        return {metric.source: found[metric.source] for metric in DepthProbe.metrics}

    def failure(self, truth: NDArray) -> dict[str, float]:
        """Infinite errors, and no pixel within."""
        return {m.source: np.inf if m.better == "less" else 0.0 for m in DepthProbe.metrics}

    def error(self, metrics: Mapping[str, Any]) -> float:
        """The headline."""
        return metrics[DepthProbe.headline]

    def say(self, error: float) -> str:
        """See `Target.say`."""
        return f"AbsRel {error:.2f} (median scale)"

    def guesses(self) -> dict[str, NDArray]:
        """The mean log depth of the training frames at every position, and one depth everywhere."""
        return {"mean depth": self._mean, "constant depth": np.ones_like(self._mean) * self._overall}

    def averaged(self, truth: NDArray, grid: tuple[int, int]) -> NDArray:
        """See `Target.averaged`; of log depth."""
        known = truth > 0
        return np.exp(patch_average(np.log(np.where(known, truth, 1))[..., None], known, grid)[..., 0])

    def colours(self, values: NDArray, truth: NDArray) -> NDArray[np.uint8]:
        """Near is bright, far is dark, on the log scale of the truth; predictions by its median; grey is unknown."""
        known = truth > 0
        if not known.any():
            return shades(np.zeros(values.shape), known)
        values = values.astype(np.float64)
        middle = float(np.median(values[known]))
        near, far = np.log(np.quantile(truth[known], [0.02, 0.98]))
        if not middle > 0:
            return shades(np.zeros(values.shape), np.zeros_like(known))
        aligned = np.log(np.maximum(values * (np.median(truth[known]) / middle), 1e-9))
        return shades((far - aligned) / max(far - near, 1e-6), (values > 0))


def _metric(name: str, label: str, alignment: str, **how: Any) -> Metric:
    return Metric(name=name + _SUFFIX[alignment], label=label + _WORDS[alignment], **how)


class DepthProbe(Probe):
    """See the file's opening."""

    name = "depth"
    title = "Depth of one image"
    question = "Do frozen features of a single image tell how far away every pixel is?"
    metrics = (
        *(_metric("abs_rel", "AbsRel", alignment, better="less") for alignment in ALIGNMENTS),
        *(
            _metric("delta1", "δ < 1.25", alignment, unit="%", scale=100, digits=1)
            for alignment in ALIGNMENTS
        ),
        _metric("rmse", "RMSE", "none", better="less"),
        _metric("rmse", "RMSE", "median", better="less"),
        _metric("silog", "SILog", "none", better="less", scale=100, digits=1),
    )
    headline = "abs_rel_median"
    leading = ("linear", "dpt")

    def refuses(self, benchmark: Benchmark) -> str | None:
        """It needs depth."""
        frames = benchmark.test.frames if benchmark.test else ()
        return None if any(map(_has_depth, frames)) else "its frames have no depth"

    def config(self, benchmark: Benchmark, settings: Settings) -> DepthConfig:
        """Standard: DINOv3's linear recipe and probe3d's DPT; small: the same heads in seconds."""
        small = settings.preset == "small"
        return DepthConfig(
            **shared_config(benchmark.fit, settings),
            linear=SMALL_LINEAR if small else Training(steps=38_400, batch=16, lr=3e-4, weight_decay=1e-3),
            dpt=SMALL_DPT if small else Training(steps=20_000, batch=8, lr=5e-4, weight_decay=1e-2),
            range=benchmark.depth_range,
            bins=64 if small else 256,
            spacing="linear" if benchmark.depth_range else "log",
            loss_over="batch" if benchmark.unit else "image",
            mean_weight=0.15,
        )

    def open(self, benchmark: Benchmark, train: Benchmark | None, config: DepthConfig) -> DenseTask:
        """See `Probe.open`."""
        if train and benchmark.unit and train.unit and train.unit != benchmark.unit:
            raise Unfed(
                f"{benchmark.spec} measures depth in {benchmark.unit} and {train.spec} in {train.unit}: train on data "
                "of one unit"
            )
        notes = []
        if not benchmark.unit:
            notes.append(
                f"{benchmark.spec}: the scale of its depths is not stated, so the errors after an alignment count."
            )
        return DenseTask(
            [frame for frame in benchmark.test.frames if _has_depth(frame)],
            frames_to_train(self.name, train.train if train else None, _has_depth, "depth"),
            DepthTarget(config=config),
            config,
            headline=self.headline_metric,
            facts={"truth": "depth", "split": benchmark.split, "unit": benchmark.unit or "not stated"},
            shown="Near is bright, far is dark, on the scale of the true depth; predictions are shown with its median.",
            notes=notes,
        )


def _has_depth(frame: Frame) -> bool:
    return frame.depth is not None


PROBE = DepthProbe()
