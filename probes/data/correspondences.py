"""Where points of one frame truly lie in another: by depth, by shared tracks, or by a homography.

By depth, queries are the centres of a regular grid in frame A, warped into B by A's depth and kept where B's own
depth agrees within 5 %, so that nothing stands in between. By tracks they are the 3-D points both frames observe.
All points leave in px of the evaluated square. This file knows pairs of frames and no list of them.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from mum import cameras
from probes.data.square import SquareFrames
from probes.metrics.correspondence import patch_centres, viewing_angle


@dataclass(frozen=True, kw_only=True)
class Correspondences:
    """Visible queries of A and their targets in B, (n, 2) px of the square each."""

    queries: NDArray = field(repr=False)
    targets: NDArray = field(repr=False)
    angle: float | None
    """Viewpoint angle in degrees: the median angle between both cameras' rays to a point; None without cameras."""
    overlap: float | None
    """Share of A's points with known truth that B sees, 0 to 1; None where nothing tells."""


def query_step(size: int) -> int:
    """Step in px of the query grid for depth: 8 up to 128 px, else 16, the same for every encoder."""
    return 8 if size <= 128 else 16


class Correspondent:
    """Finds correspondences between frames of one set; depth maps of the newest frames are kept."""

    def __init__(self, frames: SquareFrames) -> None:
        self._frames = frames
        self._depths: dict[int, NDArray] = {}
        self._masks: dict[int, NDArray | None] = {}
        cells = max(1, frames.size // query_step(frames.size))
        self._grid = patch_centres(cells, cells, frames.size)

    def between(self, a: int, b: int, homography: NDArray | None = None) -> Correspondences | None:
        """Correspondences from frame ``a`` to ``b``; None where the frames know none."""
        first, second = self._frames.frames[a], self._frames.frames[b]
        if homography is not None:
            return self._by_homography(a, b, homography)
        if first.posed and second.posed and first.depth is not None and second.depth is not None:
            return self._by_depth(a, b)
        if first.tracks is not None and second.tracks is not None:
            return self._by_tracks(a, b)
        return None

    def _by_depth(self, a: int, b: int) -> Correspondences:
        frames = self._frames.frames
        squares = self._frames.square(a), self._frames.square(b)
        views = [
            (self._depth(i).astype(np.float64), frames[i].intrinsics, frames[i].world_to_camera)
            for i in (a, b)
        ]
        points = squares[0].outward(self._grid)
        warped, valid = cameras.warp_by_depth(
            torch.from_numpy(points),
            *(torch.from_numpy(np.ascontiguousarray(v)) for view in views for v in view),
        )
        targets = squares[1].inward(warped.numpy())
        kept = self._count(b, targets, valid.numpy() & squares[1].contains(targets))
        known = views[0][0][points[:, 1].astype(int), points[:, 0].astype(int)] > 0
        known, kept = (self._count(a, self._grid, found) for found in (known, kept))
        share = float(kept.sum() / max(1, known.sum()))
        return self._found(a, b, self._grid[kept], targets[kept], min(1.0, share))

    def _by_tracks(self, a: int, b: int) -> Correspondences:
        (points_a, xy_a), (points_b, xy_b) = self._frames.frames[a].tracks, self._frames.frames[b].tracks
        _, in_a, in_b = np.intersect1d(points_a, points_b, return_indices=True)
        squares = self._frames.square(a), self._frames.square(b)
        queries, targets = squares[0].inward(xy_a[in_a]), squares[1].inward(xy_b[in_b])
        kept = self._count(a, queries, squares[0].contains(queries) & squares[1].contains(targets))
        kept = self._count(b, targets, kept)
        return self._found(a, b, queries[kept], targets[kept], len(in_a) / max(1, len(points_a)))

    def _by_homography(self, a: int, b: int, homography: NDArray) -> Correspondences:
        squares = self._frames.square(a), self._frames.square(b)
        points = np.column_stack([squares[0].outward(self._grid), np.ones(len(self._grid))]) @ homography.T
        ahead = points[:, 2] > 0
        targets = squares[1].inward(points[:, :2] / np.where(ahead, points[:, 2], 1)[:, None])
        kept = ahead & squares[1].contains(targets)
        return Correspondences(
            queries=self._grid[kept], targets=targets[kept], angle=None, overlap=float(kept.mean())
        )

    def _found(self, a: int, b: int, queries: NDArray, targets: NDArray, overlap: float) -> Correspondences:
        k, pose = self._frames.intrinsics, self._frames.pose
        angle = None
        if len(queries) and all(f(i) is not None for f in (k, pose) for i in (a, b)):
            angle = viewing_angle(queries, targets, k(a), k(b), pose(a)[:, :3], pose(b)[:, :3])
        return Correspondences(queries=queries, targets=targets, angle=angle, overlap=overlap)

    def _count(self, index: int, points: NDArray, kept: NDArray) -> NDArray:
        """Which of the ``kept`` points of a square image (all inside it) its frame's mask lets count."""
        if index not in self._masks:
            if len(self._masks) >= 64:
                self._masks.pop(next(iter(self._masks)))
            self._masks[index] = self._frames.mask(index)
        mask = self._masks[index]
        if mask is None:
            return kept
        column, row = np.where(kept[:, None], points, 0).astype(int).T
        return kept & mask[row, column]

    def _depth(self, index: int) -> NDArray:
        if index not in self._depths:
            if len(self._depths) >= 64:
                self._depths.pop(next(iter(self._depths)))
            self._depths[index] = self._frames.frames[index].depth()
        return self._depths[index]
