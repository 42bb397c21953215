"""How much of one view another one sees: from shared 3-D points, or from depth and poses; and cutting by it.

Overlap is a float matrix (N, N): row i, column j = the share of what view i sees that view j sees too.
On disk it is symmetric, the smaller of the two directions (a detail inside a wide view overlaps it little:
what a patch shows there, it hardly shows here), as uint8 round(254 x overlap), 255 where nobody knows. This
file knows nothing of files and pictures.
"""

from collections.abc import Sequence

import numpy as np

from shards.format import MAX_FRAMES, UNKNOWN

_PAIRS_AT_ONCE = 1 << 22


def overlap_from_tracks(points: Sequence[np.ndarray]) -> np.ndarray:
    """O_ij = |P_i and P_j| / |P_i| of the sets of point ids that the views see; (N, N) float64.

    The overlap of MegaDepth's scene files (D2-Net). `points[i]` is (n_i,) integer ids, repeats allowed. A
    view without points overlaps nothing, itself included.
    """
    count = len(points)
    unique = [np.unique(np.asarray(p)) for p in points]
    views = np.repeat(np.arange(count), [len(p) for p in unique])
    ids = np.concatenate([*unique, np.empty(0, np.int64)])
    order = np.argsort(ids, kind="stable")
    views, ids = views[order], ids[order]
    starts = np.flatnonzero(np.r_[True, ids[1:] != ids[:-1]]) if len(ids) else np.empty(0, np.int64)
    lengths = np.diff(np.r_[starts, len(ids)])
    # the product of the sparse incidence matrix with its transpose: tracks of one length make one array
    shared = np.zeros(count * count, np.int64)
    for length in np.unique(lengths):
        rows = starts[lengths == length]
        step = max(1, _PAIRS_AT_ONCE // int(length) ** 2)
        for at in range(0, len(rows), step):
            seen = views[rows[at : at + step, None] + np.arange(length)]
            pairs = seen[:, :, None] * count + seen[:, None, :]
            shared += np.bincount(pairs.ravel(), minlength=count * count)
    shared = shared.reshape(count, count)
    return shared / np.maximum(np.diagonal(shared), 1)[:, None]


def overlap_from_depth(
    depths: Sequence[np.ndarray],
    intrinsics: np.ndarray,
    world_to_camera: np.ndarray,
    *,
    grid: tuple[int, int] = (24, 32),
    tolerance: float = 0.05,
) -> np.ndarray:
    """Share of view i's points that land inside view j at the depth seen there; (N, N) float64.

    `depths` N arrays (h, w) float32 (0 = unknown), `intrinsics` (N, 3, 3) in pixels of those arrays,
    `world_to_camera` (N, 3, 4). Points are taken on a `grid` of rows and columns where depth is known; one is
    seen in j if its depth there is within `tolerance` of the stored one (relative). A view without known
    depth overlaps nothing.
    """
    count = len(depths)
    overlap = np.zeros((count, count))
    rotation, translation = world_to_camera[:, :, :3], world_to_camera[:, :, 3]
    heights = np.array([d.shape[0] for d in depths])[:, None]
    widths = np.array([d.shape[1] for d in depths])[:, None]
    flat = np.concatenate([np.ravel(d) for d in depths])
    start = np.r_[0, np.cumsum((heights * widths).ravel())[:-1]][:, None]
    for i, depth in enumerate(depths):
        rows = ((np.arange(grid[0]) + 0.5) * depth.shape[0] / grid[0]).astype(int)
        columns = ((np.arange(grid[1]) + 0.5) * depth.shape[1] / grid[1]).astype(int)
        y, x = (a.ravel() for a in np.meshgrid(rows, columns, indexing="ij"))
        z = depth[y, x].astype(np.float64)
        y, x, z = y[z > 0], x[z > 0], z[z > 0]
        if not len(z):
            continue
        rays = np.linalg.inv(intrinsics[i]) @ np.stack([x + 0.5, y + 0.5, np.ones(len(x))])
        world = rotation[i].T @ (rays * z - translation[i][:, None])
        seen = intrinsics @ (rotation @ world + translation[:, :, None])  # (N, 3, n)
        ahead = seen[:, 2] > 1e-9
        scale = 1 / np.where(ahead, seen[:, 2], 1)
        u, v = np.floor(seen[:, 0] * scale), np.floor(seen[:, 1] * scale)
        inside = ahead & (u >= 0) & (v >= 0) & (u < widths) & (v < heights)
        there = flat[start + np.where(inside, v * widths + u, 0).astype(np.int64)]
        agrees = np.abs(seen[:, 2] - there) < tolerance * there
        overlap[i] = (inside & agrees).mean(1)
    return overlap


def symmetric(overlap: np.ndarray) -> np.ndarray:
    """The smaller of the two directions, (N, N)."""
    return np.minimum(overlap, overlap.T)


def to_bytes(overlap: np.ndarray | None, count: int) -> np.ndarray:
    """(N, N) uint8 as stored: round(254 x overlap), 255 off the diagonal where `overlap` is None."""
    if overlap is None:
        stored = np.full((count, count), UNKNOWN, np.uint8)
    else:
        stored = np.rint(254 * np.clip(overlap, 0, 1)).astype(np.uint8)
    np.fill_diagonal(stored, 254)
    return stored


def mean_overlap(stored: np.ndarray) -> float:
    """Mean over the pairs of different views whose overlap is known; nan where there are none."""
    pairs = stored[np.triu_indices(len(stored), 1)]
    pairs = pairs[pairs != UNKNOWN]
    return float(pairs.mean() / 254) if len(pairs) else float("nan")


def cut(overlap: np.ndarray | None, count: int, most: int = MAX_FRAMES) -> list[np.ndarray]:
    """Cut a scene of `count` views into chunks of nearly equal size, at most `most`: arrays of view numbers.

    Where the overlap is known (symmetric), each chunk grows from the free view with most overlap by the one
    that overlaps the chunk most; otherwise views that follow one another stay together. Inside a chunk the
    scene's order is kept.
    """
    chunks = -(-count // most)
    sizes = [len(part) for part in np.array_split(np.arange(count), chunks)]
    if overlap is None or chunks == 1:
        return [np.array(part) for part in np.array_split(np.arange(count), chunks)]
    free = np.ones(count, bool)
    cuts = []
    for size in sizes:
        left = np.flatnonzero(free)
        first = left[np.argmax(overlap[np.ix_(left, left)].sum(1))]
        members = [first]
        free[first] = False
        near = overlap[first].copy()
        while len(members) < size:
            following = int(np.argmax(np.where(free, near, -1)))
            members.append(following)
            free[following] = False
            near += overlap[following]
        cuts.append(np.sort(members))
    return cuts
