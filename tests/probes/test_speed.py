"""The speed probe: one row an encoder, counts that are exact, times that are times."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from probes import speed
from probes.data.frames import Benchmark, Frame, FrameList
from probes.encoders.encoder import open_encoder
from probes.errors import ProbeError
from probes.probe import Settings
from probes.speed import PROBE, SpeedTask

CPU = torch.device("cpu")
SETTINGS = Settings(size=64, preset="small")


def benchmark(count: int = 3) -> Benchmark:
    frames = [
        Frame(
            name=str(i),
            scene="s",
            height=80,
            width=90,
            image=lambda i=i: np.full((80, 90, 3), 10 * i, np.uint8),
            digest=lambda i=i: hashlib.sha256(bytes([i])).hexdigest(),
        )
        for i in range(count)
    ]
    return Benchmark(name="grey", spec="grey", test=FrameList(frames=tuple(frames)), truth="poses")


def opened(count: int = 3) -> SpeedTask:
    data = benchmark(count)
    return PROBE.open(data, None, PROBE.config(data, SETTINGS))


def test_a_row_of_exact_counts() -> None:
    encoder = open_encoder("random:test_vit", size=64)
    (row,) = opened().score(encoder, {}, CPU).rows
    hidden = encoder.model.blocks[0].mlp.fc1.out_features
    tokens, width = 17, 64
    block = tokens * width * (4 * width + 2 * hidden) + 2 * tokens**2 * width
    assert row["gflops"] == pytest.approx(2 * (16 * 768 * width + 6 * block) / 1e9)
    assert row["parameters"] == sum(p.numel() for p in encoder.model.parameters())
    assert row["memory"] > 4 * row["parameters"] + 8 * 3 * 64 * 64 * 4  # weights, and a batch as floats
    assert row["memory_is"] == "counted: weights and live tensors"
    assert row["images_per_second"] * row["seconds_per_image"] == pytest.approx(1)
    assert {metric.source for metric in PROBE.metrics} <= row.keys()
    assert (row["scene"], row["layer"], row["reading"], row["failed"]) == (
        "all",
        None,
        PROBE.leading[0],
        False,
    )


def test_counts_are_the_same_twice() -> None:
    encoder, task = open_encoder("random:test_vit", size=64), opened()
    first, second = (task.score(encoder, {}, CPU).rows[0] for _ in "ab")
    for name in ("gflops", "parameters", "memory"):
        assert first[name] == second[name]


def test_raw_pixels_have_no_weights_and_no_products() -> None:
    (row,) = opened().score(open_encoder("pixels", size=64), {}, CPU).rows
    assert (row["gflops"], row["parameters"]) == (0, 0)
    assert row["memory"] > 0


def test_the_median_counts_after_warming_up(monkeypatch: pytest.MonkeyPatch) -> None:
    durations = iter([100, 1, 2, 50, 3, 4])  # the first is the warm-up
    clock = [0.0]

    class Slow:
        num_layers, model, seen = 1, None, 0

        def encode(self, images: torch.Tensor, layers: Sequence[int]) -> dict[int, torch.Tensor]:
            self.seen += len(images)
            clock[0] += next(durations, 0)
            return {}

    monkeypatch.setattr(speed.time, "perf_counter", lambda: clock[0])
    (row,) = opened().score(Slow(), {}, CPU).rows
    assert row["seconds_per_image"] == 3 / 8


def test_few_images_are_repeated_to_a_whole_batch() -> None:
    seen = []

    class Watching:
        num_layers, model = 1, None

        def encode(self, images: torch.Tensor, layers: Sequence[int]) -> dict[int, torch.Tensor]:
            seen.append(images)
            return {}

    opened(3).score(Watching(), {}, CPU)
    assert seen[0].shape == (8, 3, 64, 64)
    assert seen[0][:, 0, 0, 0].tolist() == [0, 10, 20, 0, 10, 20, 0, 10]


def test_the_standard_preset_times_more() -> None:
    small, standard = (PROBE.config(benchmark(), replace(SETTINGS, preset=p)) for p in ("small", "standard"))
    assert (small.batch, standard.batch) == (8, 32)
    assert small.batches < standard.batches


def test_it_reads_no_features_and_is_told_apart() -> None:
    assert PROBE.timed
    assert opened().layers(open_encoder("pixels", size=64)) == ()
    assert opened().facts["images"] == 3
    assert len(opened(20).frames) == 8


def test_data_without_scored_images_is_refused() -> None:
    empty = replace(benchmark(), test=None)
    assert PROBE.refuses(empty) == "no images to score"
    with pytest.raises(ProbeError, match="grey: no images"):
        PROBE.open(empty, None, PROBE.config(empty, SETTINGS))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_memory_is_the_devices_peak() -> None:
    device = torch.device("cuda")
    encoder = open_encoder("random:test_vit", size=64, device=device)
    (row,) = opened().score(encoder, {}, device).rows
    assert row["memory_is"] == "peak of the device"
    assert row["memory"] >= 4 * row["parameters"]
