"""Matches of a pair that a pose is solved from: by features, by the truth on a grid, and by nothing at all.

All are two arrays (k, 2) px of the square images, row by row a point of A and its match in B. This file knows
tokens, grids and frames and no solver.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from probes.data.square import SquareFrames
from probes.matching.patch_matches import mutual_matches
from probes.metrics.correspondence import patch_centres, patch_of


class Matches(NamedTuple):
    """Points (k, 2) px of A and where each lies in B."""

    points_a: NDArray
    points_b: NDArray


def mutual_points(tokens_a: Tensor, tokens_b: Tensor, grid: tuple[int, int], size: int) -> Matches:
    """Centres of patches that are each other's most alike; tokens (h * w, C) are unit vectors."""
    index_a, index_b, _ = mutual_matches(tokens_a, tokens_b)
    centres = patch_centres(*grid, size)
    return Matches(centres[index_a.cpu().numpy()], centres[index_b.cpu().numpy()])


def soft_points(
    tokens_a: Tensor, tokens_b: Tensor, grid: tuple[int, int], size: int, *, temperature: float
) -> Matches:
    """Patches that are each other's most alike, placed between patches by the kernel's expectation around them.

    Every such pair of patches gives two matches: its centre in A with the expectation in B over the best patch and
    those around it (3 x 3), and the same the other way. An expectation over the whole image would draw all points
    to its middle, and no pose comes of that. Source of the kernel: see `probes.matching.patch_matches.soft_matches`.
    """
    index_a, index_b, _ = mutual_matches(tokens_a, tokens_b)
    centres = torch.from_numpy(patch_centres(*grid, size)).to(tokens_a)
    in_b = _expected(tokens_a[index_a], tokens_b, index_b, centres, grid, temperature)
    in_a = _expected(tokens_b[index_b], tokens_a, index_a, centres, grid, temperature)
    a, b = torch.cat([centres[index_a], in_a]), torch.cat([in_b, centres[index_b]])
    return Matches(a.double().cpu().numpy(), b.double().cpu().numpy())


def nearest_points(points_a: NDArray, points_b: NDArray, grid: tuple[int, int], size: int) -> Matches:
    """What mutual matches of patches are where features know the truth: nearest neighbours among 3-D points.

    Args:
        points_a: (h * w, 3) that A's patch centres show, see `patch_points`; rows that are not finite match nothing.
        points_b: of B, in the same frame.
        grid: h and w of both.
        size: of the square images, px.
    """
    known_a, known_b = (np.flatnonzero(np.isfinite(points).all(axis=1)) for points in (points_a, points_b))
    if not len(known_a) or not len(known_b):
        return Matches(np.empty((0, 2)), np.empty((0, 2)))
    gaps = np.square(points_a[known_a, None] - points_b[known_b]).sum(axis=-1)
    forth, back = gaps.argmin(axis=1), gaps.argmin(axis=0)
    mutual = back[forth] == np.arange(len(known_a))
    centres = patch_centres(*grid, size)
    return Matches(centres[known_a[mutual]], centres[known_b[forth[mutual]]])


def patch_points(frames: SquareFrames, index: int, grid: tuple[int, int]) -> NDArray | None:
    """World points (h * w, 3) that the patch centres of a frame show, nan where depth is 0; None without depth."""
    frame, square = frames.frames[index], frames.square(index)
    if frame.depth is None or not frame.posed:
        return None
    centres = square.outward(patch_centres(*grid, frames.size))
    column, row = centres.T.astype(int)
    depth = frame.depth()[row, column].astype(np.float64)[:, None]
    rays = np.column_stack([centres, np.ones(len(centres))]) @ np.linalg.inv(frame.intrinsics).T
    pose = frame.world_to_camera
    return np.where(depth > 0, (rays * depth - pose[:, 3]) @ pose[:, :3], np.nan)


def quantised_points(queries: NDArray, targets: NDArray, grid: tuple[int, int], size: int) -> Matches:
    """True matches (n, 2) moved to the centres of their patches, each pair of patches once."""
    cells = np.column_stack([patch_of(points, *grid, size) for points in (queries, targets)])
    cells = np.unique(cells, axis=0)
    centres = patch_centres(*grid, size)
    return Matches(centres[cells[:, 0]], centres[cells[:, 1]])


def chance_matches(grid: tuple[int, int], size: int, key: int) -> Matches:
    """Mutual matches of features that know nothing; ``key`` seeds them."""
    rng = np.random.Generator(np.random.Philox(key=key))
    tokens = torch.from_numpy(rng.normal(size=(2, grid[0] * grid[1], 32)).astype(np.float32))
    return mutual_points(*F.normalize(tokens, dim=-1), grid, size)


def _expected(
    asked: Tensor, tokens: Tensor, best: Tensor, centres: Tensor, grid: tuple[int, int], temperature: float
) -> Tensor:
    """Expected places (k, 2) of asked tokens (k, C) over the 3 x 3 patches around ``best`` (k,)."""
    height, width = grid
    steps = torch.tensor([-1, 0, 1], device=best.device)
    rows = (best // width)[:, None, None] + steps[:, None]
    columns = (best % width)[:, None, None] + steps
    inside = ((rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)).flatten(1)
    around = (rows.clamp(0, height - 1) * width + columns.clamp(0, width - 1)).flatten(1)
    cosine = (tokens[around] @ asked[..., None])[..., 0]
    weights = torch.softmax((cosine / temperature).masked_fill(~inside, -torch.inf), dim=1)
    return (weights[..., None] * centres[around]).sum(dim=1)
