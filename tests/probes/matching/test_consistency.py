"""Consistency: what perfect, constant, random and merely positional features score, and the grid's convention."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from probes.benchmarks import open_benchmark
from probes.encoders.features import FeatureMaps
from probes.errors import ProbeError
from probes.matching.consistency import PROBE, ConsistencyTask, base_similarity, sample
from probes.metrics.correspondence import patch_centres
from probes.probe import Settings, Unit
from tests.probes.truth import NamedEncoder, constant_maps, noise_maps, position_maps, true_maps

GRID = (8, 8)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def task(rendered: Path) -> ConsistencyTask:
    data = open_benchmark(str(rendered))
    return PROBE.open(data, None, PROBE.config(data, Settings(size=64, preset="small", items=24)))


@pytest.fixture(scope="module")
def perfect(task: ConsistencyTask) -> Unit:
    return score(task, true_maps(task.frames, GRID))


def score(task: ConsistencyTask, maps: FeatureMaps) -> Unit:
    return task.score(NamedEncoder(), {1: maps}, CPU)


def mean(unit: Unit | list, metric: str, **wanted: object) -> float:
    rows = unit.rows if isinstance(unit, Unit) else unit
    found = [row[metric] for row in rows if all(row[key] == value for key, value in wanted.items())]
    assert found
    return float(np.mean(found))


def floor(task: ConsistencyTask, name: str, metric: str = "location_px") -> float:
    return mean(task.baselines([GRID]), metric, encoder=name)


def test_perfect_features_reach_the_floor_of_the_grid(task: ConsistencyTask, perfect: Unit) -> None:
    oracle = floor(task, "oracle (8 x 8)")
    found = mean(perfect, "location_px", reading="argmax", position="kept")
    assert oracle <= found < oracle + 1
    # Between patches they come closer than the best patch.
    soft = mean(perfect, "location_px", reading="soft-argmax", position="kept")
    assert floor(task, "oracle between patches (8 x 8)") < soft < oracle
    assert mean(perfect, "margin", reading="argmax", position="kept") > 0.6
    assert mean(perfect, "separation", reading="argmax", position="kept") > 0.98


def test_noise_is_at_chance_and_its_margin_is_nothing(task: ConsistencyTask) -> None:
    unit = score(task, noise_maps(len(task.frames), GRID))
    chance = floor(task, "chance (8 x 8)")
    assert abs(mean(unit, "location_px", reading="argmax", position="kept") - chance) < 2
    assert abs(mean(unit, "margin", reading="argmax", position="kept")) < 0.03
    assert abs(mean(unit, "separation", reading="argmax", position="kept") - 0.5) < 0.05


def test_a_constant_feature_is_perfectly_alike_and_has_no_margin(task: ConsistencyTask) -> None:
    unit = score(task, constant_maps(len(task.frames), GRID))
    assert mean(unit, "cosine", position="kept") == pytest.approx(1, abs=1e-5)
    assert mean(unit, "cosine_other", position="kept") == pytest.approx(1, abs=1e-5)
    assert mean(unit, "margin", position="kept") == pytest.approx(0, abs=1e-5)
    assert mean(unit, "separation", position="kept") == 0.5


def test_floors_golden(task: ConsistencyTask) -> None:
    """On a 2 x 2 grid over 64 px, patches stand at 16 and 48: a target in the corner is 16 px from both at best."""
    targets = np.array([[0.0, 16], [20, 20]])
    pairs, task.pairs = task.pairs, (replace(task.pairs[0], queries=targets, targets=targets),)
    try:
        rows = {row["encoder"]: row["location_px"] for row in task.baselines([(2, 2)])}
    finally:
        task.pairs = pairs
    assert rows["same position"] == 0
    assert rows["oracle (2 x 2)"] == pytest.approx((16 + np.hypot(4, 4)) / 2)
    assert rows["oracle between patches (2 x 2)"] == pytest.approx(16 / 2)
    centres = patch_centres(2, 2, 64)
    assert rows["chance (2 x 2)"] == pytest.approx(np.linalg.norm(centres[:, None] - targets, axis=2).mean())


def test_likeness_golden(task: ConsistencyTask) -> None:
    """A 2 x 2 grid and one point at its first patch: that patch is near, the three others far."""
    pair = replace(task.pairs[0], queries=np.array([[16.0, 16]]), targets=np.array([[16.0, 16]]))
    asked, there = torch.tensor([[1.0, 0]]), torch.tensor([[0.8, 0.6]])
    places = torch.tensor([[0.8, 0.6], [0.6, 0.8], [0.8, -0.6], [1.0, 0]])
    found = task._alike(asked, there, places, (2, 2), pair)
    assert found == pytest.approx(
        {"cosine": 0.8, "cosine_other": 0.8, "margin": 0, "separation": 0.5}, abs=1e-6
    )


def test_position_alone_stays_where_it_is_and_removed_it_is_nothing(task: ConsistencyTask) -> None:
    unit = score(task, position_maps(len(task.frames), GRID))
    assert mean(unit, "location_px", reading="argmax", position="kept") == pytest.approx(
        floor(task, "same position")
    )
    assert abs(mean(unit, "margin", reading="argmax", position="removed")) < 0.1


def test_units_of_location_agree(task: ConsistencyTask, perfect: Unit) -> None:
    for row in [*perfect.rows, *task.baselines([GRID])]:
        assert row["location"] == pytest.approx(row["location_px"] / 64)
        # The mean of both axes over half the side: the sum of both over the side.
        assert row["location_axis"] / np.sqrt(2) - 1e-9 <= row["location"] <= row["location_axis"] + 1e-9


def test_location_golden(task: ConsistencyTask) -> None:
    pair = task.pairs[0]
    (row,) = [r for r in task.baselines([]) if r["encoder"] == "same position" and r["item"] == pair.name]
    moved = pair.targets - pair.queries
    assert row["location_px"] == pytest.approx(np.hypot(*moved.T).mean())
    assert row["location_axis"] == pytest.approx(np.abs(moved).mean() / 32)


@given(st.integers(2, 9), st.integers(2, 9), st.integers(16, 200), st.integers(0, 999))
def test_sampling_a_map_of_coordinates_gives_the_point(rows: int, columns: int, size: int, seed: int) -> None:
    """The convention of the grid: a patch stands at its own centre. MV-FM's decode was off by up to half a patch."""
    centres = patch_centres(rows, columns, size)
    points = np.random.default_rng(seed).uniform(0, size, (20, 2))
    found = sample(torch.from_numpy(centres), (rows, columns), points, size).numpy()
    np.testing.assert_allclose(found, np.clip(points, centres.min(0), centres.max(0)), atol=1e-6 * size)


def test_sampling_is_bilinear_golden() -> None:
    tokens = torch.tensor([[0.0], [1.0], [10.0], [11.0]])
    points = np.array([[4.0, 4], [8, 8], [6, 4], [0, 0]])
    assert sample(tokens, (2, 2), points, 16)[:, 0].tolist() == pytest.approx([0, 5.5, 0.25, 0])


def test_similarity_to_the_base_model_is_a_column_only_where_it_is_given(
    task: ConsistencyTask, perfect: Unit
) -> None:
    assert "base_similarity" not in perfect.rows[0]
    maps = noise_maps(len(task.frames), GRID)
    turned = FeatureMaps([-2 * maps.tokens([i])[0].unflatten(0, GRID).numpy() for i in range(len(maps))])
    unit = task.score(NamedEncoder(), {1: maps}, CPU, base={1: turned})
    assert mean(unit, "base_similarity") == pytest.approx(-1)
    assert base_similarity(maps, maps, [0, 1]) == pytest.approx(1)
    with pytest.raises(ProbeError, match=r"8 x 8 x 64 cannot be compared .* 4 x 4 x 64"):
        base_similarity(maps, noise_maps(2, (4, 4)), [0])


def test_every_pair_has_a_row_for_every_reading_layer_and_variant(task: ConsistencyTask) -> None:
    maps = {layer: noise_maps(len(task.frames), GRID, 8, seed=layer) for layer in (1, 2)}
    task.config, config = replace(task.config, layers="all"), task.config
    try:
        rows = task.score(NamedEncoder(num_layers=2), maps, CPU).rows
    finally:
        task.config = config
    keys = {(row["item"], row["reading"], row["layer"], row["position"]) for row in rows}
    assert len(keys) == len(rows) == len(task.pairs) * 8
    json.dumps(rows)


def test_the_same_again_is_the_same_and_pictures_are_drawn(task: ConsistencyTask, perfect: Unit) -> None:
    assert score(task, true_maps(task.frames, GRID)).rows == perfect.rows
    shown = task.exhibits({"truth-teller": perfect})
    assert [exhibit.title for exhibit in shown] == ["Best pair", "Median pair", "Worst pair"]
    assert [panel.label for panel in shown[0].panels] == ["truth", "truth-teller"]


def test_the_pairs_are_those_of_matching(task: ConsistencyTask, rendered: Path) -> None:
    from probes.matching.matching import PROBE as MATCHING

    data = open_benchmark(str(rendered))
    matching = MATCHING.open(data, None, MATCHING.config(data, Settings(size=64, preset="small", items=24)))
    assert [pair.name for pair in matching.pairs] == [pair.name for pair in task.pairs]
