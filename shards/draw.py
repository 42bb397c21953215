"""Drawing views: which frames of a chunk are seen together, and how much they overlap.

A chunk's overlap is uint8 (N, N) and symmetric, 254 times the share that two frames see of each other, 255
where nobody knows. This file knows nothing of epochs or files; its only randomness is the generator it is
given.
"""

from functools import lru_cache

import numpy as np

from shards.format import UNKNOWN

DRAWINGS = ("connected", "uniform")

_FULL = 254
# Draws span a factor 2e5, overlaps 254: a group of 1e8 comes first, and tiers 1e17 apart never mix.
_LEAST_DRAW, _MOST_DRAW, _OWN_GROUP, _TIER = 1e-4, 20.0, 1e8, 1e-17


def draw(
    overlap: np.ndarray,
    count: int,
    rng: np.random.Generator,
    *,
    order: np.ndarray,
    group: int,
    drawing: str,
    band: tuple[float, float],
) -> tuple[np.ndarray, float]:
    """Choose `count` of a chunk's N frames.

    `order` is a permutation of the N frames whose first `group` entries belong to this visit: they are used
    before others where overlap allows, and the first of them is the anchor. `uniform` takes them in that
    order, overlap aside. `connected` grows a set from the anchor: see `grow`.

    Returns:
        (count,) int64 distinct frames, the anchor first, and their mean known overlap over pairs (nan: none
        known).
    """
    if drawing == "uniform":
        frames = order[:count]
    else:
        own = np.zeros(len(order), bool)
        own[order[:group]] = True
        frames = grow(overlap, count, rng, anchor=int(order[0]), own=own, band=band)
    return frames.astype(np.int64), mean_overlap(overlap, frames)


def grow(
    overlap: np.ndarray,
    count: int,
    rng: np.random.Generator,
    *,
    anchor: int,
    own: np.ndarray,
    band: tuple[float, float],
) -> np.ndarray:
    """Grow a connected set of `count` frames from `anchor`.

    Each next frame has its largest overlap with the frames chosen so far inside `band`: enough to be
    connected, not so much as to be a duplicate. Of those, frames marked in `own` (N,) come first, and among
    equals the chance of a frame is proportional to that overlap. Where no frame lies in the band it is
    widened by a tenth at a time, and where nothing is known to overlap any frame will do; so a chunk of
    unknown overlap is drawn uniformly.
    """
    table = _weights(*band)
    # Dividing a weight by a standard exponential and taking the largest draws in proportion to the weights.
    chances = np.where(own, _OWN_GROUP, 1.0) / np.clip(
        rng.standard_exponential((count, len(own))), _LEAST_DRAW, _MOST_DRAW
    )
    chosen = np.empty(count, np.int64)
    chosen[0] = anchor
    known, best = _known(overlap), np.zeros(len(own), np.uint8)
    for i in range(1, count):
        last = chosen[i - 1]
        chances[i:, last] = 0
        np.maximum(best, known[last], out=best)
        chosen[i] = (table.take(best) * chances[i]).argmax()
    return chosen


def mean_overlap(overlap: np.ndarray, frames: np.ndarray) -> float:
    """Mean over the pairs of distinct frames whose overlap is known, in 0..1; nan where none is."""
    part = overlap[frames[:, None], frames]
    part.ravel()[:: len(frames) + 1] = UNKNOWN
    pairs = np.count_nonzero(part != UNKNOWN)
    return int(_known(part).sum(dtype=np.int64)) / (pairs * _FULL) if pairs else float("nan")


def stand_ins(overlap: np.ndarray, frames: np.ndarray, bad: int) -> np.ndarray:
    """All frames that may take the place of `bad` among `frames`, best first.

    First those not drawn, by their mean overlap with the rest of the sequence (unknown as none, ties by
    number); then, where those run out, the rest of the sequence itself. Deterministic, since the bad frame is
    the same everywhere.
    """
    rest = frames[frames != bad]
    score = _known(overlap[:, rest]).sum(1, dtype=np.int64)
    outside = np.setdiff1d(np.arange(len(overlap)), frames)
    return np.concatenate([outside[np.argsort(-score[outside], kind="stable")], rest])


def _known(overlap: np.ndarray) -> np.ndarray:
    """Unknown as 0."""
    return overlap * (overlap != UNKNOWN)


@lru_cache(maxsize=16)
def _weights(low: float, high: float) -> np.ndarray:
    """(256,) weight of a frame whose largest overlap with the chosen ones is that byte."""
    share = np.arange(256) / _FULL
    widened = np.ceil(np.maximum(low - share, share - high).clip(0).round(6) * 10)
    weights = np.where(widened > 0, _TIER**widened, share)
    weights[0] = _TIER**12
    return weights
