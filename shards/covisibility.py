"""How much of one view another one sees: from shared 3-D points, depth and poses, poses alone, or time.

Overlap is a float matrix (N, N): row i, column j = the share of what view i sees that view j sees too, nan
where nobody knows. On disk it is symmetric, the smaller of the two directions (a detail inside a wide view
overlaps it little: what a patch shows there, it hardly shows here), as uint8 round(254 x overlap), 255 where
nobody knows. This file knows nothing of files and pictures.
"""

from collections.abc import Sequence

import numpy as np

from shards.format import UNKNOWN

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
    pairs: list[np.ndarray] = []
    for length in np.unique(lengths):
        rows = starts[lengths == length]
        step = max(1, _PAIRS_AT_ONCE // int(length) ** 2)
        for at in range(0, len(rows), step):
            seen = views[rows[at : at + step, None] + np.arange(length)]
            pairs.append((seen[:, :, None] * count + seen[:, None, :]).ravel())
            if sum(map(len, pairs)) > count * count:  # the sums cost as much, so not for every few pairs
                shared += np.bincount(np.concatenate(pairs), minlength=count * count)
                pairs = []
    if pairs:
        shared += np.bincount(np.concatenate(pairs), minlength=count * count)
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
    `world_to_camera` (N, 3, 4). Points are taken on a `grid` of rows and columns where depth is known, coarser
    by up to four where there are more than 400 views; one is seen in j if its depth there is within `tolerance`
    of the stored one (relative). A view without known depth overlaps nothing.
    """
    count = len(depths)
    coarser = min(4.0, max(1.0, count / 400))  # the work grows with the square of the views
    grid = round(grid[0] / coarser), round(grid[1] / coarser)
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


def overlap_from_poses(
    intrinsics: np.ndarray,
    world_to_camera: np.ndarray,
    sizes: np.ndarray,
    *,
    grid: tuple[int, int] = (6, 8),
    distances: tuple[float, ...] = (0.5, 1.0, 2.0),
) -> np.ndarray:
    """Share of view i's frustum that lies in view j's, seen from a like side; (N, N) float64.

    A stand-in where there is neither depth nor track. `intrinsics` (N, 3, 3), `world_to_camera` (N, 3, 4),
    `sizes` (N, 2) height and width in the intrinsics' pixels. Each view is given points on a `grid` of rows
    and columns at `distances` times the distance at which it looks (`viewing_distances`). A point within
    view j counts (1 + cos a) / 2, with a the angle between the two lines of sight: the share of a
    randomly turned surface seen by i that faces j, too.
    """
    count = len(intrinsics)
    rotation, translation = world_to_camera[:, :, :3], world_to_camera[:, :, 3]
    centres = -np.einsum("nji,nj->ni", rotation, translation)
    looks_at = viewing_distances(world_to_camera)
    rows, columns = (((np.arange(n) + 0.5) / n) for n in grid)
    place = np.stack([a.ravel() for a in np.meshgrid(columns, rows)] + [np.ones(grid[0] * grid[1])])
    overlap = np.zeros((count, count))
    for i in range(count):
        pixels = place * np.array([sizes[i][1], sizes[i][0], 1])[:, None]
        rays = rotation[i].T @ np.linalg.inv(intrinsics[i]) @ pixels
        steps = looks_at[i] * np.asarray(distances)
        points = centres[i][:, None] + (rays[:, None] * steps[:, None]).reshape(3, -1)
        seen = intrinsics @ (rotation @ points + translation[:, :, None])  # (N, 3, n)
        ahead = seen[:, 2] > 1e-9
        scale = 1 / np.where(ahead, seen[:, 2], 1)
        u, v = seen[:, 0] * scale, seen[:, 1] * scale
        inside = ahead & (u >= 0) & (v >= 0) & (u < sizes[:, 1:]) & (v < sizes[:, :1])
        here, there = points - centres[i][:, None], points - centres[:, :, None]
        lengths = np.linalg.norm(here, axis=0) * np.linalg.norm(there, axis=1)
        cosine = np.einsum("in,kin->kn", here, there) / np.maximum(lengths, 1e-12)
        overlap[i] = (inside * (1 + cosine) / 2).mean(1)
    return overlap


def viewing_distances(world_to_camera: np.ndarray) -> np.ndarray:
    """(N,) how far along its optical axis each view looks, guessed from where the axes pass each other.

    The median over the views whose axes it passes ahead of both at more than 3 degrees, for a view with at
    least three such; the scene's median for the others. Where no two axes meet (all look one way), the median
    distance between the cameras.
    """
    rotation, translation = world_to_camera[:, :, :3], world_to_camera[:, :, 3]
    centres, axes = -np.einsum("nji,nj->ni", rotation, translation), rotation[:, 2]
    cosine = np.clip(axes @ axes.T, -1, 1)
    between = centres[None] - centres[:, None]  # i -> j
    along = np.einsum("ijk,ik->ij", between, axes)  # of axis i
    back = np.einsum("ijk,jk->ij", between, axes)  # of axis j
    sine = 1 - cosine**2
    safe = np.where(sine > 0, sine, 1)
    mine, other = (along - back * cosine) / safe, (along * cosine - back) / safe
    meets = (sine > np.sin(np.radians(3)) ** 2) & (mine > 0) & (other > 0)
    if not meets.any():
        apart = np.linalg.norm(between, axis=2)[np.triu_indices(len(axes), 1)]
        return np.full(len(axes), float(np.median(apart)) if len(apart) and apart.max() > 0 else 1.0)
    looks_at = np.full(len(axes), float(np.median(mine[meets])))
    for i in np.flatnonzero(meets.sum(1) >= 3):
        looks_at[i] = np.median(mine[i, meets[i]])
    return looks_at


def overlap_from_time(times: np.ndarray, *, fade: float = 8.0) -> np.ndarray:
    """exp(-gap / fade) with the gap in steps: one, the median between neighbours in time; (N, N) float64.

    A stand-in where there is nothing else, and no measurement. `times` (N,) are seconds, or the numbers of
    frames that were taken in even steps. The usual band of 0.1 to 0.8 then spans 2 to 18 steps.
    """
    times = np.asarray(times, np.float64)
    steps = np.diff(np.sort(times))
    step = float(np.median(steps[steps > 0])) if (steps > 0).any() else 1.0
    return np.exp(-np.abs(times[:, None] - times) / (fade * step))


def symmetric(overlap: np.ndarray) -> np.ndarray:
    """The smaller of the two directions, (N, N); the known one where the other is nan."""
    return np.fmin(overlap, overlap.T)


def to_bytes(overlap: np.ndarray | None, count: int) -> np.ndarray:
    """(N, N) uint8 as stored: round(254 x overlap), 255 off the diagonal where it is nan or there is none."""
    stored = np.full((count, count), UNKNOWN, np.uint8)
    if overlap is not None:
        known = ~np.isnan(overlap)
        stored[known] = np.rint(254 * np.clip(overlap[known], 0, 1))
    np.fill_diagonal(stored, 254)
    return stored


def mean_overlap(stored: np.ndarray) -> float:
    """Mean over the pairs of different views whose overlap is known; nan where there are none."""
    pairs = stored[np.triu_indices(len(stored), 1)]
    pairs = pairs[pairs != UNKNOWN]
    return float(pairs.mean() / 254) if len(pairs) else float("nan")
