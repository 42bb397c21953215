"""Matches that poses are solved from: mutual, placed between patches, true on a grid, and by chance."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from probes.data.frames import Frame
from probes.data.square import SquareFrames
from probes.pose.matches import (
    chance_matches,
    mutual_points,
    nearest_points,
    patch_points,
    quantised_points,
    soft_points,
)
from tests.trees.world import project, render_world

GRID, SIZE = (4, 4), 64


def one_hot(places: list[int]) -> torch.Tensor:
    return torch.eye(16)[places]


def test_mutual_points_are_the_centres_of_alike_patches() -> None:
    # Patch k of A looks like patch 15 - k of B, but for 3 and 4 of A, which look alike.
    places = list(range(15, -1, -1))
    places[3] = places[4]
    found = mutual_points(one_hot(places), one_hot(list(range(16))), GRID, SIZE)
    assert len(found.points_a) == 15
    np.testing.assert_allclose(found.points_a[0], [8, 8])
    np.testing.assert_allclose(found.points_b[0], [56, 56])


def test_soft_points_lie_between_the_patches_that_are_alike() -> None:
    tokens_b = one_hot(list(range(16)))
    tokens_a = tokens_b.clone()
    # A's patch 5 looks half like B's 5 and half like its right neighbour, and a little like a far one.
    tokens_a[5] = F.normalize(tokens_b[5] * 1.001 + tokens_b[6] + 0.9 * tokens_b[15], dim=0)
    found = soft_points(tokens_a, tokens_b, GRID, SIZE, temperature=0.02)
    half = len(found.points_a) // 2
    (place,) = np.flatnonzero((found.points_a[:half] == [24, 24]).all(axis=1))
    np.testing.assert_allclose(found.points_b[place], [32, 24], atol=0.3)
    np.testing.assert_allclose(found.points_b[place + half], [24, 24])


def test_a_patch_in_the_corner_has_no_neighbours_beyond() -> None:
    # All patches but the corner look alike: at the corner the kernel sees four patches, not nine.
    tokens = torch.zeros(16, 2)
    tokens[:, 1] = 1
    tokens[0] = torch.tensor([1.0, 0.0])
    found = soft_points(tokens, tokens, GRID, SIZE, temperature=1.0)
    (corner,) = np.flatnonzero((found.points_a[: len(found.points_a) // 2] == [8, 8]).all(axis=1))
    e = np.e
    # Weights e for itself and 1 for each of three neighbours, at 8 and 24 px.
    expected = (8 * (e + 1) + 24 * 2) / (e + 3)
    np.testing.assert_allclose(found.points_b[corner], [expected, expected], atol=1e-4)


def world_frames() -> tuple[SquareFrames, list]:
    world = render_world(3, size=(72, 96), seed=4)
    frames = [
        Frame(
            name=str(number),
            scene="world",
            height=72,
            width=96,
            image=lambda view=view: view.image,
            digest=lambda number=number: str(number),
            intrinsics=view.intrinsics,
            world_to_camera=view.world_to_camera,
            depth=lambda view=view: view.depth,
        )
        for number, view in enumerate(world.views)
    ]
    return SquareFrames(frames, SIZE, "squash"), list(world.views)


def test_true_matches_of_a_grid_look_at_the_same_place() -> None:
    frames, views = world_frames()
    grid = (16, 16)
    points = [patch_points(frames, index, grid) for index in (0, 1)]
    xy, z = project(points[0], views[0].intrinsics, views[0].world_to_camera)
    np.testing.assert_allclose(frames.square(0).inward(xy)[:2], [[2, 2], [6, 2]], atol=1e-6)
    assert (z > 0).all()
    found = nearest_points(*points, grid, SIZE)
    assert len(found.points_a) > 60
    # The truth's warp of A's centres falls near the matched centres of B.
    index = [int((y // 4) * 16 + x // 4) for x, y in found.points_a]
    warped, _ = project(points[0][index], views[1].intrinsics, views[1].world_to_camera)
    off = np.linalg.norm(frames.square(1).inward(warped) - found.points_b, axis=1)
    assert np.median(off) < 2
    assert np.quantile(off, 0.9) < 4


def test_patches_without_depth_match_nothing() -> None:
    frames, _ = world_frames()
    points = patch_points(frames, 0, GRID)
    unknown = points.copy()
    unknown[3] = np.nan
    assert len(nearest_points(unknown, points, GRID, SIZE).points_a) == 15
    assert len(nearest_points(np.full_like(points, np.nan), points, GRID, SIZE).points_a) == 0


def test_tracks_are_moved_to_patch_centres_and_counted_once() -> None:
    queries = np.array([[1.0, 1], [15, 15], [17, 1]])
    targets = np.array([[63.0, 63], [50, 50], [1, 1]])
    found = quantised_points(queries, targets, GRID, SIZE)
    assert found.points_a.tolist() == [[8, 8], [24, 8]]
    assert found.points_b.tolist() == [[56, 56], [8, 8]]


@pytest.mark.parametrize("key", [1, 2])
def test_chance_is_the_same_for_the_same_key(key: int) -> None:
    found, again, other = (chance_matches((8, 8), SIZE, k) for k in (key, key, key + 2))
    np.testing.assert_array_equal(found.points_b, again.points_b)
    assert found.points_b.shape != other.points_b.shape or (found.points_b != other.points_b).any()
    assert 10 < len(found.points_a) < 50
