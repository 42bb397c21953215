"""Matches between two views by their patches' features: nearest, mutually nearest, or expected places.

Tokens are unit vectors, (n, C) and (m, C) float32 on one device, row by row of the patch grid, so that their
product is their cosine. Rows are taken in parts: the whole matrix of products is never held, nor any copy of the
tokens. This file knows tokens and grids, no frame and no truth.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from probes.metrics.correspondence import patch_centres

ROWS = 1024
"""Queries whose products are held at once."""


def nearest_neighbours(tokens_a: Tensor, tokens_b: Tensor) -> tuple[Tensor, Tensor]:
    """The most alike token of B for every token of A: index (n,) int64 and cosine (n,)."""
    parts = [cosine.max(dim=1) for cosine in _cosines(tokens_a, tokens_b)]
    return torch.cat([part.indices for part in parts]), torch.cat([part.values for part in parts])


def mutual_matches(tokens_a: Tensor, tokens_b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs of tokens that are each other's most alike.

    Returns:
        Indices into A, ascending, and into B, (k,) int64 each, and their cosine (k,); k may be 0.
    """
    forth, cosine = nearest_neighbours(tokens_a, tokens_b)
    back, _ = nearest_neighbours(tokens_b, tokens_a)
    index_a = torch.arange(len(tokens_a), device=tokens_a.device)
    mutual = back[forth] == index_a
    return index_a[mutual], forth[mutual], cosine[mutual]


def soft_matches(
    tokens_a: Tensor, tokens_b: Tensor, grid_b: tuple[int, int], size: int, *, temperature: float
) -> tuple[Tensor, Tensor]:
    """Where each token of A lies in B as the expectation over all patch centres of B under the cosine kernel.

    The kernel is exp((cosine - 1) / temperature), normalised over B (RoMa, supplement; T = 0.1 there).

    Args:
        tokens_a: (n, C), all patches of A or those that are asked for.
        tokens_b: (h * w, C), all patches of B.
        grid_b: h and w.
        size: side of B's square image in px.
        temperature: of the kernel.

    Returns:
        Points (n, 2) px float32 in B and confidence (n,): the weight of the most likely patch, 0 to 1.
    """
    centres = torch.from_numpy(patch_centres(*grid_b, size)).to(tokens_b)
    points, confidence = [], []
    for cosine in _cosines(tokens_a, tokens_b):
        weights = torch.softmax(cosine / temperature, dim=1)
        points.append(weights @ centres)
        confidence.append(weights.amax(dim=1))
    return torch.cat(points), torch.cat(confidence)


def _cosines(tokens_a: Tensor, tokens_b: Tensor) -> Iterator[Tensor]:
    transposed = tokens_b.T
    for part in tokens_a.split(ROWS):
        yield part @ transposed
