"""A scene's views -> chunks of at most 96: connected by overlap where the scene is, and of nearly equal size.

The graph has an edge where two views' overlap would not be stored as 0. Each of its connected parts is halved
again and again: views are taken in the order in which a set grows from the edge of the part by the view that
overlaps it most, and the largest connected rest of that order is one half, everything else the other, so that
both are connected whatever the graph. This file knows nothing of frames, tracks and files.
"""

import numpy as np

from shards.format import MAX_FRAMES

SMALL_SCENE = 24
"""A scene with fewer frames is kept, and flagged: long sequences draw most of it at once."""

_LEAST = 0.5 / 254
"""Overlap that is stored as 0 is none."""


def cut(overlap: np.ndarray | None, count: int, most: int = MAX_FRAMES) -> list[np.ndarray]:
    """Cut a scene of `count` views into chunks of at most `most`: arrays of view numbers, ascending.

    `overlap` is (count, count), symmetric, nan = unknown, or None where nothing is known. A scene that fits is
    one chunk. Where nothing is known, views that follow one another stay together. Otherwise every chunk is
    connected by known overlap, with two exceptions: views in small parts that overlap no other go with the
    views beside them in the scene's order, and a chunk of a single view is avoided even where its views then
    hang together through another chunk only. Chunks come in the order of their first views.
    """
    if count <= most:
        return [np.arange(count)]
    if overlap is None:
        return np.array_split(np.arange(count), -(-count // most))
    weights = np.where(overlap > _LEAST, overlap, 0).astype(np.float32)  # nan compares as False
    np.fill_diagonal(weights, 0)
    _tie_small_parts(weights, min(SMALL_SCENE, most))
    chunks: list[np.ndarray] = []
    for part in _connected_parts(weights > 0):
        chunks += _halve(weights, part, most)
    chunks = [np.sort(chunk) for chunk in chunks]
    return sorted(chunks, key=lambda chunk: int(chunk[0]))


def _tie_small_parts(weights: np.ndarray, fewest: int) -> None:
    """Give the views of a part smaller than `fewest` faint edges to their neighbours in the scene's order."""
    small = [part for part in _connected_parts(weights > 0) if len(part) < fewest]
    for view in np.concatenate([*small, np.empty(0, np.int64)]):
        for beside in (view - 1, view + 1):
            if 0 <= beside < len(weights) and not weights[view, beside]:
                weights[view, beside] = weights[beside, view] = 1e-6


def _connected_parts(edges: np.ndarray) -> list[np.ndarray]:
    """The vertices of each connected part of a graph, (n, n) bool."""
    parts = []
    left = np.ones(len(edges), bool)
    while left.any():
        reached = np.zeros(len(edges), bool)
        front = np.array([int(left.argmax())])
        while len(front):
            reached[front] = True
            front = np.flatnonzero(edges[front].any(0) & ~reached)
        left &= ~reached
        parts.append(np.flatnonzero(reached))
    return parts


def _halve(weights: np.ndarray, part: np.ndarray, most: int) -> list[np.ndarray]:
    """A connected part, halved until every piece fits."""
    chunks = []
    waiting = [(part, 1)]
    while waiting:
        views, wanted = waiting.pop()
        wanted = max(wanted, -(-len(views) // most))
        if wanted == 1:
            chunks.append(views)
            continue
        first, second, share = _two_halves(weights[np.ix_(views, views)], most, wanted)
        waiting += [(views[first], wanted - share), (views[second], share)]
    return chunks


def _two_halves(weights: np.ndarray, most: int, wanted: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Two connected halves of a connected graph, as near as can be to whole shares of `wanted` equal chunks.

    Returns the vertices of both and how many of the chunks the second one is worth.
    """
    count = len(weights)
    order = _grow(weights, start=int(_grow(weights, start=0)[-1]))  # from the far side of wherever
    rest = _largest_rests(weights, order)
    single = np.minimum(rest, count - rest) == 1
    if count > 2 and single.all():  # a star: nothing else is connected
        at = round(count * (wanted // 2) / wanted)
        return np.sort(order[at:]), np.sort(order[:at]), wanted // 2
    shares = np.clip(np.rint(rest * wanted / count), 1, wanted - 1)
    surplus = -(-rest // most) - (-(count - rest) // most) - wanted  # chunks more than wanted
    uneven = np.maximum(np.abs(rest - count * shares / wanted) - 0.5, 0)
    lopsided = np.abs(2 * rest - count)
    best = int(np.lexsort((lopsided, uneven, np.maximum(surplus, 0), single))[0])
    second = _largest_part(weights > 0, order[best + 1 :])
    first = np.setdiff1d(np.arange(count), second)
    return first, second, int(shares[best])


def _grow(weights: np.ndarray, start: int) -> np.ndarray:
    """All vertices in the order in which a set grows from `start` by the one with most weight to it."""
    near = np.zeros(len(weights))
    free = np.ones(len(weights), bool)
    order = np.empty(len(weights), np.int64)
    following = start
    for place in range(len(weights)):
        order[place] = following
        free[following] = False
        near += weights[following]
        following = int(np.argmax(np.where(free, near, -1)))
    return order


def _largest_rests(weights: np.ndarray, order: np.ndarray) -> np.ndarray:
    """(n - 1,) int64: the size of the largest connected part of order[k + 1:], k = 0, 1, ..."""
    count = len(order)
    label = np.full(count, -1)
    size = np.zeros(count, np.int64)
    largest = np.zeros(count, np.int64)
    for place in range(count - 1, 0, -1):  # vertices come back, the last one first, and join what they touch
        vertex = order[place]
        touched = np.unique(label[weights[vertex] > 0])
        touched = touched[touched >= 0]
        label[vertex] = vertex
        size[vertex] = 1 + size[touched].sum()
        if len(touched):
            label[np.isin(label, touched)] = vertex
        largest[place - 1] = max(largest[place], size[vertex])
    return largest[:-1]


def _largest_part(edges: np.ndarray, vertices: np.ndarray) -> np.ndarray:
    vertices = np.sort(vertices)
    parts = _connected_parts(edges[np.ix_(vertices, vertices)])
    return vertices[max(parts, key=len)]
