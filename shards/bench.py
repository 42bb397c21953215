"""How fast this machine reads, decodes and loads a dataset, and which of the three is its limit.

Every round does the same frames three times in turn: reads them (crc checked), decodes them whole from memory,
and loads them as training does. Figures are medians over the rounds, ratios medians of ratios, so that a
neighbour's load counts for all alike. Then worker processes load for a while. This file knows nothing of the
command line.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from shards.decode import Decoder
from shards.loader import Loader
from shards.microbatch import MicroBatches
from shards.plan import DataConfig, Plan
from shards.reader import Dataset

_IMAGES = 64
_MOST_VIEWS = 12
_FEWEST_ROUNDS = 3


@dataclass(frozen=True, kw_only=True)
class Speed:
    """What `bench` finds. Rates are frames a second."""

    frame_bytes: float
    """Mean size of the JPEGs read."""
    pixels: float
    """Mean pixels of the stored pictures."""
    size: int
    """Side of the crops, px."""
    read: float
    """One process reading and checking, mostly from the system's cache where the data was read before."""
    decode: float
    """One process decoding whole pictures from memory."""
    load: float
    """One process loading: read, check, decode, crop, resize, flip, pack."""
    load_to_decode: float
    """Median ratio of `load` to `decode`."""
    workers: int
    """Worker processes in `load_workers`."""
    load_workers: float
    """All workers together, as the training process receives their batches."""
    cores: int
    """Cores that this process may use."""

    @property
    def scaling(self) -> float:
        """How many single processes the workers are worth."""
        return self.load_workers / self.load


def settings(dataset: Dataset, size: int, images: int = _IMAGES) -> DataConfig:
    """Batches like those of training, from scenes as large as the dataset's."""
    most = min(_MOST_VIEWS, int(dataset.frames_per_chunk.max(initial=1)))
    return DataConfig(size=size, images_per_lane=images, views=(min(2, most), most), lanes=1)


def measure(
    dataset: Dataset,
    *,
    size: int,
    seconds: float,
    workers: int,
    cores: int,
    progress: Callable[[float], None] = lambda share: None,
) -> Speed:
    """Measure for about `seconds`, half of them in this process; `progress` is told the share that is done.

    Raises ShardsError where no batch can be drawn from the dataset.
    """
    config = settings(dataset, size)
    plan = Plan(dataset, config, split=None)
    batches = MicroBatches(plan, [(0,)], cameras=False).with_ring(0, 0)
    decoder, rows = Decoder(), []
    bytes_read, pixels = [], []
    begin = time.perf_counter()
    while len(rows) <= _FEWEST_ROUNDS or time.perf_counter() - begin < seconds / 2:
        *times, jpegs, area = _round(plan, batches, decoder, len(rows))
        rows.append(times)
        bytes_read.append(statistics.mean(map(len, jpegs)))
        pixels.append(area)
        progress(min((time.perf_counter() - begin) / seconds, 0.5))
    # The first round warms up.
    read, decode, load = (np.array(column[1:]) for column in zip(*rows, strict=True))
    together = statistics.median(
        rates(dataset, config, workers, seconds / 2, lambda share: progress(0.5 + share / 2))
    )
    return Speed(
        frame_bytes=statistics.mean(bytes_read),
        pixels=statistics.mean(pixels),
        size=size,
        read=float(np.median(_IMAGES / read)),
        decode=float(np.median(_IMAGES / decode)),
        load=float(np.median(_IMAGES / load)),
        load_to_decode=float(np.median(decode / load)),
        workers=workers,
        load_workers=together,
        cores=cores,
    )


def _round(
    plan: Plan, batches: MicroBatches, decoder: Decoder, number: int
) -> tuple[float, float, float, list[bytes], float]:
    """Seconds of reading, decoding and loading a step's frames, their bytes, and their mean area in pixels."""
    members = step_members(plan, number)
    start = time.perf_counter()
    jpegs = [plan.dataset.read_jpeg(chunk, frame) for chunk, frame in members]
    read = time.perf_counter()
    areas = [decoder.decode(jpeg).size / 3 for jpeg in jpegs]
    decoded = time.perf_counter()
    batch = batches[number]
    end = time.perf_counter()
    if isinstance(batch, Exception):
        raise batch
    return read - start, decoded - read, end - decoded, jpegs, statistics.mean(areas)


def step_members(plan: Plan, number: int) -> list[tuple[int, int]]:
    """(chunk, frame) of every image of lane 0 at a step, in order."""
    part = plan.lane_step(number, 0)
    return list(zip(np.repeat(part.chunks, part.views).tolist(), part.frames.tolist(), strict=True))


def rates(
    dataset: Dataset,
    config: DataConfig,
    workers: int,
    seconds: float,
    progress: Callable[[float], None] = lambda share: None,
) -> Iterator[float]:
    """Images a second that `workers` processes deliver, in slices of a few batches each."""
    loader = Loader(dataset, config, workers=workers, split=None, cameras=False)
    batches, batches_a_slice = iter(loader), 4 * workers
    try:
        # What was prefetched while nobody asked would come for nothing.
        for _ in islice(batches, (loader.prefetch + 1) * workers):
            pass
        begin = start = time.perf_counter()
        while start - begin < seconds:
            for _ in islice(batches, batches_a_slice):
                pass
            end = time.perf_counter()
            yield batches_a_slice * config.images_per_lane / (end - start)
            start = end
            progress(min((end - begin) / seconds, 1.0))
    finally:
        batches.close()


def verdict(speed: Speed) -> str:
    """One sentence: what limits loading on this machine, and what to do about it."""
    rate = f"{speed.load_workers:,.0f} images/s of {speed.size} px"
    if speed.read < max(2 * speed.load, speed.load_workers):
        return (
            f"Reading is the limit of {rate}: one reader brings {speed.read:,.0f} frames/s; put the data on a"
            " faster or nearer disk, or store smaller pictures (build --short-side)."
        )
    if speed.workers < speed.cores and speed.scaling > 0.7 * speed.workers:
        return (
            f"Decoding is the limit of {rate}, and {speed.workers} of {speed.cores} cores"
            f" work: use more workers (each brings about {speed.load_workers / speed.workers:,.0f})."
        )
    if speed.scaling < 0.7 * min(speed.workers, speed.cores):
        return (
            f"The cores are shared or busy: {speed.workers} workers bring {rate}, worth {speed.scaling:.1f}"
            " processes alone; free the cores, or use fewer workers."
        )
    side = speed.pixels**0.5
    if side > 2 * speed.size:
        return (
            f"Decoding is the limit of {rate}, all {speed.cores} cores used: the pictures are far larger than"
            " the crops, build with a smaller --short-side."
        )
    return (
        f"Decoding is the limit of {rate}, all {speed.cores} cores used, at {speed.load_to_decode:.2f} of the"
        " decoder's own speed: only more cores or smaller pictures (build --short-side) bring more."
    )
