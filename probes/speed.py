"""The speed probe: what an encoder costs at the evaluated size, in parameters, operations, time and memory.

The one probe that runs the encoder itself, on the data set's first images. Operations are counted and the same
everywhere; times are medians over batches, belong to the machine, and differ from run to run. Memory is the
device's peak on CUDA and counted elsewhere, as every row says.
"""

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from probes.data.frames import Benchmark
from probes.data.square import Fit, SquareFrames
from probes.encoders.costs import count_flops, count_peak_bytes
from probes.encoders.encoder import Encoder
from probes.encoders.features import FeatureMaps
from probes.errors import ProbeError
from probes.probe import Metric, Probe, Row, Settings, Task, Unit
from probes.results.files import identity_hash

SCENE = "all"
"""Of the single row: scenes mean nothing here."""


@dataclass(frozen=True, kw_only=True)
class SpeedConfig:
    """How it is measured."""

    size: int
    """Side of the images in px."""
    fit: Fit
    batch: int
    """Images a forward pass; fewer images than that are repeated."""
    batches: int
    """Timed forward passes; the median counts."""
    warm_up: int
    """Forward passes before the first timed one."""


class SpeedTask(Task):
    """The first images of a list, a batch of them."""

    def __init__(
        self, frames: SquareFrames, config: SpeedConfig, list_hash: str, facts: Mapping[str, Any]
    ) -> None:
        self.frames, self.config = frames, config
        self.hash = identity_hash({"list": list_hash, "config": asdict(config)})
        self.facts = {
            "items": 1,
            "scenes": 0,
            "images": len(frames),
            **facts,
            "list": list_hash,
            "train_items": 0,
            "train_scenes": 0,
        }
        self.notes = [
            f"Times are medians of {config.batches} batches of {config.batch} images of {config.size} px "
            "already on the device, and differ from machine to machine and from run to run"
        ]

    def layers(self, encoder: Encoder) -> tuple[int, ...]:
        """None: it reads no features."""
        return ()

    def score(
        self,
        encoder: Encoder,
        maps: Mapping[int, FeatureMaps],
        device: torch.device,
        *,
        progress: bool = False,
    ) -> Unit:
        """One row of an encoder; ``maps`` are not read. The encoder must be able to encode, and be alone meanwhile."""
        images = self._batch(device)
        last = (encoder.num_layers,)
        model = encoder.model
        weights = [] if model is None else list(model.parameters())
        seconds, peak = _timed(encoder, images, last, self.config)
        row: Row = {
            "item": "a batch",
            "scene": SCENE,
            "layer": None,
            "reading": "forward pass",
            "position": "kept",
            "seed": None,
            "failed": False,
            "batch": self.config.batch,
            "device": _device_name(device),
            "memory_is": "peak of the device" if peak is not None else "counted: weights and live tensors",
            "parameters": sum(p.numel() for p in weights),
            "gflops": count_flops(lambda: encoder.encode(images[:1], last)) / 1e9,
            "images_per_second": self.config.batch / seconds,
            "seconds_per_image": seconds / self.config.batch,
            "memory": peak
            if peak is not None
            else sum(p.nbytes for p in weights) + count_peak_bytes(lambda: encoder.encode(images, last)),
        }
        return Unit(rows=[row])

    def _batch(self, device: torch.device) -> Tensor:
        """Images (batch, 3, S, S) uint8 on the device, repeated where there are fewer."""
        found = [self.frames.load(index) for index in range(len(self.frames))]
        repeated = [found[index % len(found)] for index in range(self.config.batch)]
        return torch.from_numpy(np.stack(repeated)).to(device)


class SpeedProbe(Probe):
    """See the file's opening paragraph."""

    name = "speed"
    title = "Speed"
    question = "What does the encoder cost at this size: parameters, operations, time and memory?"
    metrics = (
        Metric(name="images_per_second", label="images a second", unit="img/s", digits=1),
        Metric(
            name="seconds_per_image", label="time of an image", unit="ms", better="less", digits=2, scale=1e3
        ),
        Metric(name="gflops", label="operations of an image", unit="GFLOP", better="less", digits=2),
        Metric(name="parameters", label="parameters", unit="M", better="less", digits=2, scale=1e-6),
        Metric(
            name="memory", label="memory of a batch", unit="MiB", better="less", digits=0, scale=1 / 2**20
        ),
    )
    headline = "images_per_second"
    leading = ("forward pass",)
    timed = True

    def refuses(self, benchmark: Benchmark) -> str | None:
        """Any images will do."""
        return None if benchmark.test is not None and benchmark.test.frames else "no images to score"

    def config(self, benchmark: Benchmark, settings: Settings) -> SpeedConfig:
        """Batches of 32, of 8 in the small preset."""
        small = settings.preset == "small"
        return SpeedConfig(
            size=settings.size,
            fit=settings.fit or benchmark.fit,
            batch=8 if small else 32,
            batches=5 if small else 20,
            warm_up=1 if small else 3,
        )

    def open(self, benchmark: Benchmark, train: Benchmark | None, config: SpeedConfig) -> SpeedTask:
        """Take the first images; ``train`` is not used."""
        if (reason := self.refuses(benchmark)) is not None:
            raise ProbeError(f"{benchmark.spec}: {reason}")
        frames = SquareFrames(benchmark.test.frames[: config.batch], config.size, config.fit)
        facts = {"truth": benchmark.truth, "split": benchmark.split}
        return SpeedTask(frames, config, benchmark.test.hash, facts)


def _timed(
    encoder: Encoder, images: Tensor, layers: Sequence[int], config: SpeedConfig
) -> tuple[float, int | None]:
    """Median seconds of a batch, and on CUDA the most bytes the device held."""
    cuda = images.device if images.is_cuda else None
    if cuda is not None:
        torch.cuda.reset_peak_memory_stats(cuda)
    found = []
    for number in range(config.warm_up + config.batches):
        if cuda is not None:
            torch.cuda.synchronize(cuda)
        start = time.perf_counter()
        encoder.encode(images, layers)
        if cuda is not None:
            torch.cuda.synchronize(cuda)
        if number >= config.warm_up:
            found.append(time.perf_counter() - start)
    return statistics.median(found), None if cuda is None else torch.cuda.max_memory_allocated(cuda)


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, threads: {torch.get_num_threads()}"


PROBE = SpeedProbe()
