"""Damaged frames give way to others of their chunk: which one, in what order, and what is written down about it.

A bad frame is never shown, the number of views never changes, and the substitute is a pure function of what
is damaged: every rank and every resumed run finds the same. This file knows nothing of batches and crops.
"""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np

from shards.draw import stand_ins
from shards.format import CorruptFrame, ShardsError
from shards.reader import Dataset

Shown = TypeVar("Shown")


class NothingReadable(ShardsError):
    """A chunk without a single readable frame."""


def read_views(
    dataset: Dataset,
    show: Callable[[bytes, int], Shown],
    chunk: int,
    frames: np.ndarray,
    damage: list[dict],
) -> Iterator[tuple[int, Shown]]:
    """Read and show frames of a chunk; for a damaged one, the frame that best takes its place.

    `show(jpeg, i)` is given the bytes for the i-th view, and raises ValueError where they are no picture.

    Yields:
        For each of `frames` the frame used and what `show` made of it. What was damaged is added to `damage`,
        once. Raises NothingReadable where no frame of the chunk can be read.
    """
    frames, bad = frames.copy(), set()
    for i, planned in enumerate(frames.tolist()):
        failures: list[tuple[CorruptFrame, int]] = []
        shown, used = None, None
        for frame in _choices(dataset, chunk, frames, planned):
            if frame in bad:
                continue
            try:
                shown, used = _read(dataset, show, chunk, frame, i), frame
                break
            except CorruptFrame as error:
                bad.add(frame)
                failures.append((error, frame))
        damage += [event(error, chunk=chunk, frame=frame, by=used) for error, frame in failures]
        if shown is None or used is None:
            raise NothingReadable(str(failures[-1][0]))
        frames[i] = used
        yield used, shown


def _choices(dataset: Dataset, chunk: int, frames: np.ndarray, planned: int) -> Iterator[int]:
    yield planned
    try:
        overlap = dataset.covisibility(chunk)
    except CorruptFrame:
        overlap = np.zeros((dataset.frames_per_chunk[chunk],) * 2, np.uint8)
    yield from stand_ins(overlap, frames, planned).tolist()


def _read(dataset: Dataset, show: Callable[[bytes, int], Shown], chunk: int, frame: int, view: int) -> Shown:
    jpeg = dataset.read_jpeg(chunk, frame)
    try:
        return show(jpeg, view)
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
