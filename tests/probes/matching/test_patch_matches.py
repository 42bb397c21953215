"""Matches of patches against what writing them out gives."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from probes.benchmarks import open_benchmark
from probes.data.square import SquareFrames
from probes.matching.patch_matches import ROWS, mutual_matches, nearest_neighbours, soft_matches
from probes.metrics.correspondence import patch_centres
from tests.probes.truth import true_maps, true_points


def tokens(count: int, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(count, 8, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_nearest_neighbours_are_the_largest_products_also_over_several_parts() -> None:
    a, b = tokens(ROWS + 70, 0), tokens(50, 1)
    index, cosine = nearest_neighbours(a, b)
    product = a @ b.T
    assert torch.equal(index, product.argmax(dim=1))
    torch.testing.assert_close(cosine, product.amax(dim=1))


def test_mutual_matches_are_those_that_agree_both_ways() -> None:
    a = F.normalize(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.9, 0.1]]), dim=-1)
    b = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    index_a, index_b, cosine = mutual_matches(a, b)
    assert (index_a.tolist(), index_b.tolist()) == ([0, 1], [1, 0])
    assert cosine.tolist() == pytest.approx([1, 1])


def test_mutual_matches_written_out() -> None:
    a, b = tokens(40, 6), tokens(30, 7)
    product = (a @ b.T).numpy()
    wanted = [
        (i, j) for i, j in np.ndindex(40, 30) if product[i, j] == product[i].max() == product[:, j].max()
    ]
    index_a, index_b, _ = mutual_matches(a, b)
    assert list(zip(index_a.tolist(), index_b.tolist(), strict=True)) == wanted
    assert 5 < len(wanted) < 30


def test_soft_matches_are_the_expectation_under_the_kernel() -> None:
    a, b = tokens(5, 2), tokens(12, 3)
    points, confidence = soft_matches(a, b, (3, 4), 24, temperature=0.1)
    kernel = np.exp(((a @ b.T).double().numpy() - 1) / 0.1)
    weights = kernel / kernel.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(points.numpy(), weights @ patch_centres(3, 4, 24), atol=1e-4)
    np.testing.assert_allclose(confidence.numpy(), weights.max(axis=1), atol=1e-5)


def test_a_cold_kernel_is_the_nearest_neighbour() -> None:
    a, b = tokens(20, 4), tokens(16, 5)
    points, confidence = soft_matches(a, b, (4, 4), 32, temperature=1e-5)
    np.testing.assert_allclose(
        points.numpy(), patch_centres(4, 4, 32)[nearest_neighbours(a, b)[0]], atol=1e-3
    )
    assert confidence.min() > 0.99


def test_the_nearest_neighbour_of_true_features_is_the_nearest_point(rendered) -> None:
    split = open_benchmark(str(rendered)).test
    frames = SquareFrames(split.frames[:5], 64, "crop")
    maps = true_maps(frames, (8, 8))
    a, b = maps.tokens([0, 1])
    points_a, points_b = (true_points(frames, index, (8, 8)).reshape(-1, 3) for index in (0, 1))
    distance = np.linalg.norm(points_a[:, None] - points_b[None], axis=-1)
    spacing = np.linalg.norm(np.diff(points_b.reshape(8, 8, 3), axis=1), axis=-1)
    near = distance.min(axis=1) < np.median(spacing)
    assert near.sum() > 20
    found = nearest_neighbours(a, b)[0].numpy()
    assert (found == distance.argmin(axis=1))[near].mean() > 0.97
