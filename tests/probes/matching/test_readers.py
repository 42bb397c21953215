"""Readers: which heads serve which readings, and over which images positions are averaged."""

import numpy as np
import pytest
import torch

from probes.data.pairs import Pair
from probes.matching.linear import LinearConfig
from probes.matching.readers import TRAINED, make_readers, variants
from probes.metrics.correspondence import patch_centres
from tests.probes.truth import noise_maps

CPU = torch.device("cpu")
GRID = (4, 4)


@pytest.fixture(scope="module")
def readers() -> dict:
    centres = patch_centres(*GRID, 32)
    pair = Pair(name="p", scene="s", a=0, b=1, angle=None, overlap=None, queries=centres, targets=centres)
    maps = {1: noise_maps(3, GRID, 8, seed=1), 2: noise_maps(3, GRID, 8, seed=2)}
    return make_readers(
        ("knn", *TRAINED),
        (1, 2),
        variants(maps, (1, 2), [0, 1]),
        [pair],
        size=32,
        seeds=(0, 1),
        recipe=LinearConfig(steps=3, pairs=2, queries=4, width=8),
        device=CPU,
    )


def test_every_layer_has_every_reading_position_and_seed(readers: dict) -> None:
    for found in readers.values():
        ways = {(way.reading, way.position, way.seed) for way in found}
        assert len(ways) == len(found) == 2 + 2 * 2 * len(TRAINED)


def test_readings_of_one_recipe_share_a_head(readers: dict) -> None:
    heads: dict[str, set[int]] = {}
    for way in readers[1]:
        if way.seed is not None:
            heads.setdefault(way.reading, set()).add(id(way.project))
    assert heads["linear"] == heads["linear-soft"]
    for other in ("linear-learned-t", "linear-layer-norm", "linear-no-norm"):
        assert not heads["linear"] & heads[other]
    assert not {id(way.project) for way in readers[2]} & heads["linear"]


def test_only_soft_readings_have_a_temperature(readers: dict) -> None:
    found = {way.reading: way.temperature for way in readers[1]}
    assert found["knn"] is found["linear"] is None
    assert found["linear-soft"] == 0.1
    assert found["linear-learned-t"] != 0.1


def test_a_match_is_the_centre_of_the_best_patch_or_between_centres(readers: dict) -> None:
    tokens = noise_maps(1, GRID, 8).tokens([0])[0]
    for way in readers[1]:
        points = way.match(tokens[:5], tokens, GRID, 32)
        assert points.shape == (5, 2)
        assert points.dtype == np.float64
        on_grid = (points % 8 == 4).all()
        assert on_grid == (way.temperature is None)
        if way.temperature is None:
            np.testing.assert_array_equal(points, patch_centres(*GRID, 32)[:5])


def test_positions_are_averaged_over_the_images_asked_for_alone() -> None:
    maps = {1: noise_maps(4, GRID, 8)}
    found = variants(maps, (1,), [1, 3])
    torch.testing.assert_close(found[1, "kept"].tokens([0, 1]), maps[1].tokens([1, 3]))
    removed = found[1, "removed"].tokens([0, 1])
    torch.testing.assert_close(removed.mean(dim=0), torch.zeros(16, 8), atol=1e-6, rtol=0)
