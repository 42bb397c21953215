"""Damaged frames give way to others of their chunk: which one, in what order, and what is written down about it.

A bad frame is never shown, the number of views never changes, and the substitute is a pure function of what
is damaged: every rank and every resumed run finds the same. This file knows nothing of batches and crops.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from shards.decode import Decoder
from shards.draw import stand_ins
from shards.format import CorruptFrame, ShardsError
from shards.reader import Dataset


class NothingReadable(ShardsError):
    """A chunk without a single readable frame."""


def read_views(
    dataset: Dataset, decoder: Decoder, chunk: int, frames: np.ndarray, damage: list[dict]
) -> Iterator[tuple[int, np.ndarray]]:
    """Read and decode frames of a chunk; for a damaged one, the frame that best takes its place.

    Yields:
        For each of `frames` the frame used and its picture (H, W, 3) uint8, valid until the next. What was
        damaged is added to `damage`, once. Raises NothingReadable where no frame of the chunk can be read.
    """
    frames, bad = frames.copy(), set()
    for i, planned in enumerate(frames.tolist()):
        failures: list[tuple[CorruptFrame, int]] = []
        picture, used = None, None
        for frame in _choices(dataset, chunk, frames, planned):
            if frame in bad:
                continue
            try:
                picture, used = _read(dataset, decoder, chunk, frame), frame
                break
            except CorruptFrame as error:
                bad.add(frame)
                failures.append((error, frame))
        damage += [event(error, chunk=chunk, frame=frame, by=used) for error, frame in failures]
        if picture is None or used is None:
            raise NothingReadable(str(failures[-1][0]))
        frames[i] = used
        yield used, picture


def _choices(dataset: Dataset, chunk: int, frames: np.ndarray, planned: int) -> Iterator[int]:
    yield planned
    try:
        overlap = dataset.covisibility(chunk)
    except CorruptFrame:
        overlap = np.zeros((dataset.frames_per_chunk[chunk],) * 2, np.uint8)
    yield from stand_ins(overlap, frames, planned).tolist()


def _read(dataset: Dataset, decoder: Decoder, chunk: int, frame: int) -> np.ndarray:
    jpeg = dataset.read_jpeg(chunk, frame)
    try:
        return decoder.decode(jpeg)
    except ValueError as error:
        raise dataset.damaged(chunk, frame, str(error)) from None


def event(error: CorruptFrame, *, chunk: int | None, frame: int | None, by: int | None) -> dict[str, Any]:
    """What a batch tells of a damaged member, ready for JSON; `by` is the frame in its place."""
    return {
        "shard": error.shard,
        "key": error.key,
        "offset": error.offset,
        "reason": error.reason,
        "chunk": chunk,
        "frame": frame,
        "by": by,
    }
