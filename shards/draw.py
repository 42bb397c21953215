"""Drawing views: which frames of a chunk are seen together, and how much they overlap.

A chunk's overlap is uint8 (N, N) and symmetric, 254 times the share that two frames see of each other, 255
where nobody knows. This file knows nothing of epochs or files; its only randomness is the keys it is given.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from shards.format import UNKNOWN
from shards.streams import mix

DRAWINGS = ("connected", "window", "anchor_topk", "uniform")

_FULL, _USED, _INSIDE = 254, 255, 254
# Draws span a factor 1e5 and weights within a tier 254: tiers 1e17 apart never mix.
_TIER = 1e-17
_DRAWS, _STRIDE = 1024, 389


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Which frames go together. The first frame of a set is its anchor, drawn evenly from all.

    `connected`: the largest overlap of each next frame with those before it lies inside `band`: enough to be
    connected, not so much as to be a duplicate; among such frames the chance is proportional to that overlap.
    Where none lies in the band it is widened by a tenth at a time. `window`: any frames at most `window` x S
    places from the anchor in the scene's order, S the number of views. `anchor_topk`: any of the `topk`
    frames that overlap the anchor most. Where these run out, the reach is doubled. `uniform`: any frames.
    Where nothing is known to overlap any frame will do.
    """

    drawing: str = "connected"
    band: tuple[float, float] = (0.1, 0.8)
    window: float = 2.0
    topk: int = 48


def grow(
    overlaps: Sequence[np.ndarray],
    cuts: Sequence[Sequence[int]],
    keys: np.ndarray,
    rule: Rule,
    begun: Sequence[np.ndarray] | None = None,
) -> list[np.ndarray]:
    """Divide the frames of R chunks into sets of the sizes that `cuts` tells, each drawn by the rule from what
    the sets before it left; no chunk's result depends on the others.

    `overlaps` are R matrices (N, N); the sum of a chunk's sizes is at most its N. `begun` are frames that
    belong to the first set of a chunk already; they are not counted in its size. `keys` (R,) uint64 decide.

    Returns:
        R int64 arrays: the frames drawn, set after set.
    """
    lengths = [sum(sizes) for sizes in cuts]
    # Longest first, so that the chunks that still grow are always the first rows.
    order = sorted(range(len(cuts)), key=lambda row: -lengths[row])
    overlaps, cuts, keys = [overlaps[row] for row in order], [cuts[row] for row in order], keys[order]
    begun = begun and [begun[row] for row in order]
    growing = np.searchsorted(-np.array(lengths)[order], -np.arange(max(lengths))).tolist()
    rows, most = np.arange(len(cuts)), max(map(len, overlaps))
    # The turns at which a chunk draws an anchor, and the size of the set that then begins.
    anchors: list[list[tuple[int, int]]] = [[] for _ in range(max(lengths) + 1)]
    # `best` is the byte that decides a frame's weight: its overlap with the set so far, or 255 when it is gone.
    known = np.full((len(cuts), most, most), _USED, np.uint8)
    best = np.full((len(cuts), most), _USED, np.uint8)
    for row, (overlap, sizes) in enumerate(zip(overlaps, cuts, strict=True)):
        count, turn, members = len(overlap), 0, begun[row] if begun else ()
        own = known[row, :count, :count]
        own[:] = _known(overlap)
        np.fill_diagonal(own, _USED)
        best[row, :count] = 0
        for number, size in enumerate(sizes):
            if number or not len(members):
                anchors[turn].append((row, size))
            turn += size
        if len(members):
            best[row, :count] = _first_bytes(own, int(members[0]), len(members) + sizes[0], rule)
            if rule.drawing == "connected":
                best[row, :count] = own[members].max(0)
            best[row, members] = _USED
    draws = _draws(keys, most)
    table, connected = _weights(rule.drawing, *rule.band), rule.drawing == "connected"
    flat, base = known.reshape(-1, most), rows * most
    drawn = np.empty((len(anchors), len(cuts)), np.int64)
    weights, added = np.empty(best.shape), np.empty_like(best)
    for turn, some in enumerate(growing):
        for row, _ in anchors[turn]:
            best[row][best[row] != _USED] = 0
        now, chances, picked = best[:some], weights[:some], drawn[turn, :some]
        table.take(now, out=chances, mode="clip")
        # A window into the draws that is another at every turn.
        at = turn * _STRIDE % _DRAWS
        chances *= draws[:some, at : at + most]
        chances.argmax(1, out=picked)
        if connected:
            flat.take(base[:some] + picked, axis=0, out=added[:some], mode="clip")
            np.maximum(now, added[:some], out=now)
            continue
        now[rows[:some], picked] = _USED
        for row, size in anchors[turn]:
            count = len(overlaps[row])
            first = _first_bytes(known[row, :count, :count], int(picked[row]), size, rule)
            np.maximum(best[row, :count], first, out=best[row, :count])
    place = {row: at for at, row in enumerate(order)}
    return [drawn[:length, place[row]] for row, length in enumerate(lengths)]


def _draws(keys: np.ndarray, most: int) -> np.ndarray:
    """(R, 1024 + most) chances: a weight times its chance is the largest of all as often as the weight's share.

    The first `most` columns come once more at the end, so that a window may begin anywhere.
    """
    words = mix(np.arange(_DRAWS // 4, dtype=np.uint64), keys[:, None])
    draws = np.empty((len(keys), _DRAWS + most))
    draws[:, :_DRAWS] = _inverse_exponentials().take(words.view("<u2") >> 4)
    draws[:, _DRAWS:] = draws[:, :most]
    return draws


@lru_cache(maxsize=1)
def _inverse_exponentials() -> np.ndarray:
    """(4096,) one by quantiles of the exponential distribution, rounded to be the same on every processor."""
    return 1 / np.round(-np.log1p(-(np.arange(4096) + 0.5) / 4096), 9)


def _first_bytes(known: np.ndarray, anchor: int, size: int, rule: Rule) -> np.ndarray:
    """(N,) uint8: the bytes of weight that an anchor gives to a set of `size` frames."""
    if rule.drawing == "connected":
        return known[anchor]
    if rule.drawing == "uniform":
        return np.zeros(len(known), np.uint8)
    if rule.drawing == "window":
        away = np.abs(np.arange(len(known)) - anchor) / max(1.0, rule.window * size)
    else:
        away = np.empty(len(known))
        away[np.argsort(-known[anchor].astype(np.int64), kind="stable")] = np.arange(len(known)) / rule.topk
    doubled = np.ceil(np.log2(np.maximum(away, 1)))
    return (_INSIDE - np.minimum(doubled, 9)).astype(np.uint8)


def overlap_of(overlap: np.ndarray, frames: np.ndarray, band: tuple[float, float]) -> tuple[float, float]:
    """How a drawn set overlaps.

    Returns:
        Mean over the pairs of distinct frames whose overlap is known, in 0..1 (nan where none is), and the
        share of frames after the first whose largest overlap with those before them lies outside `band` (nan
        where nothing is known).
    """
    part = overlap[frames[:, None], frames]
    part.ravel()[:: len(frames) + 1] = UNKNOWN
    pairs = np.count_nonzero(part != UNKNOWN)
    if not pairs:
        return float("nan"), float("nan")
    known = _known(part)
    nearest = (known * _below(len(frames))).max(1)[1:] / _FULL
    outside = np.count_nonzero((nearest < band[0]) | (nearest > band[1])) / len(nearest)
    return int(known.sum(dtype=np.int64)) / (pairs * _FULL), outside


@lru_cache(maxsize=128)
def _below(count: int) -> np.ndarray:
    return np.tri(count, dtype=np.uint8)


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
def _weights(drawing: str, low: float, high: float) -> np.ndarray:
    """(256,) weight of a frame by its byte; 0 for a frame that is gone."""
    byte = np.arange(256)
    if drawing == "connected":
        share = byte / _FULL
        widened = np.ceil(np.maximum(low - share, share - high).clip(0).round(6) * 10)
        weights = np.where(widened > 0, _TIER**widened, share)
    else:
        weights = _TIER ** np.minimum(_INSIDE - byte, 11.0).clip(0)
    weights[0] = _TIER**12
    weights[_USED] = 0
    return weights
