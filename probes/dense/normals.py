"""The normals probe: how well frozen features tell which way the surface at every pixel faces, in the camera's frame.

Truth is the benchmark's own, or made of its depth by `probes.dense.depth_normals`. Angles are scored per image
(probe3d, section A: mean angle, RMSE, and shares below 11.25, 22.5 and 30 degrees).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from probes.data.frames import Benchmark, Frame
from probes.data.square import SquareFrames
from probes.dense.depth_normals import TOLERANCE, normals_from_depth
from probes.dense.task import (
    SMALL_DPT,
    SMALL_LINEAR,
    DenseConfig,
    DenseTask,
    frames_to_train,
    shared_config,
)
from probes.dense.training import Target, Training, patch_average
from probes.metrics.dense import score_normals
from probes.probe import Metric, Probe, Settings

TOWARDS = np.array([0.0, 0.0, -1.0], np.float32)


@dataclass(frozen=True, kw_only=True)
class NormalsConfig(DenseConfig):
    """See `DenseConfig`."""

    radius: int
    """Of the window in px of the original image, where normals are made of depth."""
    tolerance: float
    """Of the plane's fit there."""


@dataclass(kw_only=True)
class NormalsTarget(Target):
    """Unit normals (S, S, 3) towards the camera, (0, 0, 0) = unknown."""

    channels: int = 3
    _total: NDArray | None = field(default=None, init=False)

    def read(self, frames: SquareFrames, index: int) -> NDArray:
        """See `Target.read`; unknown also outside the mask."""
        normals, mask = frames.normals(index), frames.mask(index)
        return normals if mask is None else np.where(mask[..., None], normals, 0)

    def known(self, truth: NDArray) -> NDArray[np.bool_]:
        """See `Target.known`."""
        return (truth != 0).any(axis=-1)

    def learn(self, truths: Iterable[NDArray]) -> dict[str, Any]:
        """The sum of the normals at every position."""
        self._total = sum(truth.astype(np.float64) for truth in truths)
        return {}

    def activate(self, outputs: Tensor) -> Tensor:
        """As they are: vectors of any length."""
        return outputs

    def loss(self, predicted: Tensor, truth: Tensor) -> Tensor:
        """1 - cosine, averaged over known pixels."""
        known = (truth != 0).any(-1)
        cosine = F.cosine_similarity(predicted, truth.movedim(-1, 1), dim=1)
        return ((1 - cosine) * known).sum() / known.sum().clamp_min(1)

    def finish(self, predicted: Tensor) -> NDArray:
        """See `Target.finish`."""
        return _unit(predicted.movedim(1, -1).cpu().numpy())

    def score(self, prediction: NDArray, truth: NDArray) -> dict[str, float]:
        """See `Target.score`."""
        known = self.known(truth)
        return score_normals(prediction[known], truth[known]).to_dict()

    def failure(self, truth: NDArray) -> dict[str, float]:
        """Infinite angles, and no pixel within."""
        return {m.source: np.inf if m.better == "less" else 0.0 for m in NormalsProbe.metrics}

    def error(self, metrics: Mapping[str, Any]) -> float:
        """The headline."""
        return metrics[NormalsProbe.headline]

    def say(self, error: float) -> str:
        """See `Target.say`."""
        return f"{error:.1f}° off on average"

    def guesses(self) -> dict[str, NDArray]:
        """The mean normal of the training frames at every position, and over all."""
        overall = _unit(self._total.sum(axis=(0, 1)))
        return {
            "mean normal": _unit(self._total).astype(np.float32),
            "constant normal": np.broadcast_to(overall, self._total.shape).astype(np.float32),
        }

    def averaged(self, truth: NDArray, grid: tuple[int, int]) -> NDArray:
        """See `Target.averaged`."""
        return _unit(patch_average(truth, self.known(truth), grid))

    def colours(self, values: NDArray, truth: NDArray) -> NDArray[np.uint8]:
        """Right is red, up is green, towards the camera is blue; dark grey is unknown."""
        values = values.astype(np.float32)
        known = (values != 0).any(axis=-1, keepdims=True)
        shown = (values * np.array([1, -1, -1], np.float32) + 1) / 2
        return np.round(np.where(known, shown, 0.25) * 255).clip(0, 255).astype(np.uint8)


class NormalsProbe(Probe):
    """See the file's opening."""

    name = "normals"
    title = "Surface normals of one image"
    question = "Do frozen features of a single image tell which way every surface faces?"
    metrics = (
        Metric(name="angle", label="mean angle", unit="°", better="less", digits=1),
        Metric(name="angle_median", label="median angle", unit="°", better="less", digits=1),
        Metric(name="angle_rmse", label="RMSE of angles", unit="°", better="less", digits=1),
        Metric(name="within11", label="within 11.25°", unit="%", scale=100, digits=1),
        Metric(name="within22", label="within 22.5°", unit="%", scale=100, digits=1),
        Metric(name="within30", label="within 30°", unit="%", scale=100, digits=1),
    )
    headline = "angle"
    leading = ("linear", "dpt")

    def refuses(self, benchmark: Benchmark) -> str | None:
        """It needs normals, or depth with intrinsics."""
        frames = benchmark.test.frames if benchmark.test else ()
        return (
            None
            if any(map(_has_normals, frames))
            else "its frames have neither normals nor depth with intrinsics"
        )

    def config(self, benchmark: Benchmark, settings: Settings) -> NormalsConfig:
        """Standard: probe3d's steps and learning rate; small: the same heads in seconds."""
        small = settings.preset == "small"
        standard = Training(steps=20_000, batch=8, lr=5e-4, weight_decay=1e-2)
        return NormalsConfig(
            **shared_config(benchmark.fit, settings),
            linear=SMALL_LINEAR if small else standard,
            dpt=SMALL_DPT if small else standard,
            # Rendered depth is exact; what a sensor or stereo measured is not.
            radius=1 if small else 2,
            tolerance=TOLERANCE if small else 0.01,
        )

    def open(self, benchmark: Benchmark, train: Benchmark | None, config: NormalsConfig) -> DenseTask:
        """See `Probe.open`."""
        test = [frame for frame in benchmark.test.frames if _has_normals(frame)]
        trained = frames_to_train(self.name, train.train if train else None, _has_normals, "normals or depth")
        own = sum(frame.normals is not None for frame in test)
        return DenseTask(
            [_with_normals(frame, config) for frame in test],
            [_with_normals(frame, config) for frame in trained],
            NormalsTarget(),
            config,
            headline=self.headline_metric,
            facts={
                "truth": "normals" if own == len(test) else "normals made of depth",
                "split": benchmark.split,
                "frames_with_own_normals": own,
            },
            shown="Red faces right, green faces up, blue faces the camera.",
        )


def _has_normals(frame: Frame) -> bool:
    return frame.normals is not None or (frame.depth is not None and frame.intrinsics is not None)


def _with_normals(frame: Frame, config: NormalsConfig) -> Frame:
    if frame.normals is not None:
        return frame
    return replace(frame, normals=partial(_made, frame, config.radius, config.tolerance))


def _made(frame: Frame, radius: int, tolerance: float) -> NDArray[np.float32]:
    return normals_from_depth(frame.depth(), frame.intrinsics, radius=radius, tolerance=tolerance)


def _unit(vectors: NDArray) -> NDArray:
    """Unit vectors (..., 3); towards the camera where there is no direction."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.where(length > 1e-12, vectors / np.maximum(length, 1e-12), TOWARDS)


PROBE = NormalsProbe()
