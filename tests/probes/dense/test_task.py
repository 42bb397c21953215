"""What the dense probes share, end to end on rendered scenes: lists, rows, baselines, chance, and who wins."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from probes.data.frames import Benchmark, Frame
from probes.dense import depth, normals, segmentation
from probes.dense.task import DenseTask, held_out_scenes, spread
from probes.dense.training import Training, nearest_pixels
from probes.encoders.features import FeatureMaps
from probes.errors import ProbeError
from probes.probe import Probe, Row, Settings
from tests.probes.truth import NamedEncoder, noise_maps

CPU = torch.device("cpu")
PROBES: list[Probe] = [depth.PROBE, normals.PROBE, segmentation.PROBE]
QUICK = Training(steps=80, batch=8, lr=3e-2, weight_decay=0.0)
DPT = Training(steps=6, batch=4, lr=1e-2, weight_decay=0.0)
GRID = (8, 8)


@pytest.fixture(scope="module")
def task(benchmark: Benchmark) -> Callable[..., DenseTask]:
    """Open a probe at a quick recipe."""

    def opened(probe: Probe, train: Benchmark | None = benchmark, **settings: Any) -> DenseTask:
        asked = {"size": 64, "preset": "small", "readings": ("linear",)} | settings
        config = replace(
            probe.config(benchmark, Settings(**asked)), linear=QUICK, dpt=DPT, resolution=32, width=8
        )
        return probe.open(benchmark, train, config)

    return opened


def score(probe: Probe, rows: list[Row], metric: str | None = None) -> float:
    (found,) = [m for m in probe.metrics if m.name == (metric or probe.headline)]
    values = np.array([row[found.source] for row in rows], float)
    sign = 1 if found.better == "more" else -1
    return sign * float(found.statistic(values, np.ones((1, len(values))))[0])


def perfect_maps(opened: DenseTask) -> FeatureMaps:
    """Features from which one linear layer can tell the truth of a patch: its average, finely encoded."""
    target, maps = opened._target, []
    for index in range(len(opened.frames)):
        truth = target.read(opened.frames, index)
        patches = nearest_pixels(target.averaged(truth, GRID), 8)
        if isinstance(target, depth.DepthTarget):
            bumps = np.linspace(np.log(0.3), np.log(9), 24)
            patches = np.exp(-((np.log(patches)[..., None] - bumps) ** 2) / 0.02)
        elif isinstance(target, segmentation.SegmentationTarget):
            patches = (patches[..., None] == np.arange(18)).astype(np.float32)
        maps.append(patches.astype(np.float32))
    return FeatureMaps(maps)


@pytest.mark.parametrize("probe", PROBES, ids=lambda p: p.name)
def test_perfect_features_near_the_oracle_and_noise_no_better_than_a_constant(
    probe: Probe, task: Callable[..., DenseTask]
) -> None:
    opened = task(probe)
    baselines: dict[str, list[Row]] = {}
    for row in opened.baselines([GRID]):
        baselines.setdefault(row["encoder"], []).append(row)
    constant = next(
        rows for name, rows in baselines.items() if name in ("majority class",) or "constant" in name
    )
    # Of eighteen classes a few are seen in four training scenes, so mIoU says little here.
    metric = "pixel_accuracy" if probe.name == "segmentation" else probe.headline
    floor, chance = score(probe, baselines["oracle (8 x 8)"], metric), score(probe, constant, metric)
    good = score(probe, opened.score(NamedEncoder(), {1: perfect_maps(opened)}, CPU).rows, metric)
    noise_rows = opened.score(NamedEncoder(), {1: noise_maps(len(opened.frames), GRID)}, CPU).rows
    noise = score(probe, noise_rows, metric)
    assert good > chance + 0.7 * (floor - chance)
    assert noise < chance + 0.1 * (floor - chance)


@pytest.mark.parametrize("probe", PROBES, ids=lambda p: p.name)
def test_features_of_other_images_are_at_chance(probe: Probe, task: Callable[..., DenseTask]) -> None:
    opened = task(probe)
    maps = perfect_maps(opened)._maps
    order = np.random.default_rng(0).permutation(len(maps))
    good = score(probe, opened.score(NamedEncoder(), {1: FeatureMaps(maps)}, CPU).rows)
    shuffled = opened.score(NamedEncoder(), {1: FeatureMaps([maps[i] for i in order])}, CPU).rows
    best_guess = max(
        score(probe, [row for row in opened.baselines([]) if row["encoder"] == name])
        for name in opened._target.guesses()
    )
    assert score(probe, shuffled) < best_guess + 0.1 * (good - best_guess)


@pytest.mark.parametrize("probe", PROBES, ids=lambda p: p.name)
def test_rows_are_complete_json_and_the_same_twice(probe: Probe, task: Callable[..., DenseTask]) -> None:
    opened = task(probe, readings=None, seeds=(0, 1), items=7)
    maps = {1: noise_maps(len(opened.frames), GRID)}
    unit = opened.score(NamedEncoder(), maps, CPU)
    again = task(probe, readings=None, seeds=(0, 1), items=7).score(NamedEncoder(), maps, CPU)
    assert json.dumps(unit.rows) == json.dumps(again.rows)
    assert len(unit.rows) == 7 * 2 * 2
    columns = {"item", "scene", "layer", "reading", "position", "seed", "failed", "pixels"}
    assert all(set(row) == columns | {m.source for m in probe.metrics} for row in unit.rows)
    assert {(r["reading"], r["layer"], r["seed"]) for r in unit.rows} == {
        ("linear", 1, 0),
        ("linear", 1, 1),
        ("dpt", None, 0),
        ("dpt", None, 1),
    }
    different = [[row[probe.metrics[0].source] for row in unit.rows if row["seed"] == s] for s in (0, 1)]
    assert different[0] != different[1]
    assert opened.facts["items"] == 7 and opened.facts["train_items"] == 20
    json.dumps(opened.facts)
    for reading in ("linear", "dpt"):
        assert unit.arrays[reading].shape[:3] == (7, 64, 64)


def test_training_images_are_never_scored_and_a_scene_is_held_out(
    task: Callable[..., DenseTask], benchmark: Benchmark
) -> None:
    opened = task(depth.PROBE)
    scenes = [frame.scene for frame in opened.frames.frames]
    trained, held = ({scenes[i] for i in part} for part in (opened._trained, opened._held))
    assert len(trained) == 4 and len(held) == 1 and not trained & held
    leaking = replace(
        benchmark, train=replace(benchmark.train, frames=benchmark.test.frames[:3] + benchmark.train.frames)
    )
    same = task(depth.PROBE, leaking)
    assert same.facts["train_dropped"] == 3 and len(same.notes) == 2
    assert same._trained and not set(same.frames.hashes[: len(same._scored)]) & {
        same.frames.hashes[i] for i in (*same._trained, *same._held)
    }
    with pytest.raises(ProbeError, match="among the scored"):
        task(depth.PROBE, replace(benchmark, train=benchmark.test))


def test_the_hash_follows_the_lists(task: Callable[..., DenseTask]) -> None:
    assert task(depth.PROBE).hash == task(depth.PROBE).hash
    assert task(depth.PROBE).hash != task(depth.PROBE, items=5).hash


@pytest.mark.parametrize("probe", PROBES, ids=lambda p: p.name)
def test_nothing_to_train_on_is_one_sentence(
    probe: Probe, task: Callable[..., DenseTask], benchmark: Benchmark
) -> None:
    with pytest.raises(ProbeError, match="--train-data"):
        task(probe, None)
    bare = [replace(f, depth=None, labels=None) for f in benchmark.train.frames]
    with pytest.raises(ProbeError, match="--train-data"):
        task(probe, replace(benchmark, train=replace(benchmark.train, frames=tuple(bare))))
    assert probe.refuses(benchmark) is None
    assert probe.refuses(replace(benchmark, test=replace(benchmark.test, frames=tuple(bare)))).startswith(
        "its frames"
    )


def test_readings_of_other_probes_leave_a_dense_one_as_it_is(benchmark: Benchmark) -> None:
    for asked, taken in (
        (("knn",), ("linear", "dpt")),
        (("knn", "dpt"), ("dpt",)),
        (None, ("linear", "dpt")),
    ):
        assert depth.PROBE.config(benchmark, Settings(size=64, readings=asked)).readings == taken


def test_a_sweep_names_the_best_layer_from_held_out_scenes(task: Callable[..., DenseTask]) -> None:
    opened = task(normals.PROBE, layers="all")
    encoder = NamedEncoder(num_layers=3)
    assert opened.layers(encoder) == (1, 2, 3)
    noise = [noise_maps(len(opened.frames), GRID, 16, seed) for seed in (0, 1)]
    maps = {1: noise[0], 2: perfect_maps(opened), 3: noise[1]}
    unit = opened.score(encoder, maps, CPU)
    assert unit.selections["layer"]["chosen"] == 2 and unit.selections["layer"]["among"] == [1, 2, 3]
    assert "held-out" in unit.selections["layer"]["on"]
    # A layer's numbers do not depend on which others are swept.
    alone = task(normals.PROBE, layers=(2,)).score(encoder, {2: maps[2]}, CPU)
    assert alone.rows == [row for row in unit.rows if row["layer"] == 2]
    assert "layer" not in alone.selections


def test_the_best_layer_is_not_chosen_on_scored_frames(task: Callable[..., DenseTask]) -> None:
    opened = task(normals.PROBE, layers="all")
    perfect, noise = perfect_maps(opened)._maps, noise_maps(len(opened.frames), GRID, 3)._maps
    held, scored = set(opened._held), set(opened._scored)
    maps = {
        1: FeatureMaps([noise[i] if i in held else perfect[i] for i in range(len(perfect))]),
        2: FeatureMaps([noise[i] if i in scored else perfect[i] for i in range(len(perfect))]),
    }
    unit = opened.score(NamedEncoder(num_layers=2), maps, CPU)
    best = [score(normals.PROBE, [row for row in unit.rows if row["layer"] == layer]) for layer in (1, 2)]
    assert best[0] > best[1] and unit.selections["layer"]["chosen"] == 2


def test_the_dpt_reads_four_layers(task: Callable[..., DenseTask]) -> None:
    opened = task(normals.PROBE, readings=("dpt",))
    assert opened.layers(NamedEncoder(num_layers=12)) == (3, 6, 9, 12)
    opened = task(normals.PROBE, readings=("linear", "dpt"), layers=(5,))
    assert opened.layers(NamedEncoder(num_layers=12)) == (3, 5, 6, 9, 12)


@pytest.mark.parametrize("probe", PROBES, ids=lambda p: p.name)
def test_a_head_that_breaks_is_counted_as_failed(
    probe: Probe, task: Callable[..., DenseTask], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = task(probe, items=6)
    monkeypatch.setattr(
        "probes.dense.task.train_heads", lambda heads, *a, **k: heads[0].head.layer.bias.fill_(torch.nan)
    )
    with torch.inference_mode():
        rows = opened.score(NamedEncoder(), {1: noise_maps(len(opened.frames), GRID)}, CPU).rows
    assert all(row["failed"] for row in rows) and len(rows) == 6
    metric = next(m for m in probe.metrics if m.name == probe.headline)
    assert score(probe, rows) == (-np.inf if metric.better == "less" else 0)


def test_frames_without_truth_are_said_and_not_scored(
    task: Callable[..., DenseTask], benchmark: Benchmark
) -> None:
    first, *rest = benchmark.test.frames
    blank = replace(first, depth=lambda: np.zeros((first.height, first.width), np.float32))
    changed = replace(benchmark, test=replace(benchmark.test, frames=(blank, *rest)))
    probe = depth.PROBE
    config = replace(
        probe.config(changed, Settings(size=64, preset="small", readings=("linear",))), linear=QUICK
    )
    opened = probe.open(changed, changed, config)
    unit = opened.score(NamedEncoder(), {1: noise_maps(len(opened.frames), GRID)}, CPU)
    assert len(unit.rows) == 29 and "no known pixel" in unit.notes[0] and first.name in unit.notes[0]
    assert not any(row["item"] == first.name for row in opened.baselines([GRID]))


@pytest.mark.parametrize("probe", PROBES, ids=lambda p: p.name)
def test_exhibits_show_best_median_and_worst_of_every_encoder(
    probe: Probe, task: Callable[..., DenseTask]
) -> None:
    opened = task(probe, readings=None, items=8)
    units = {
        label: opened.score(NamedEncoder(), {1: noise_maps(len(opened.frames), GRID, seed=seed)}, CPU)
        for seed, label in enumerate(("one", "two"))
    }
    shown = opened.exhibits(units)
    assert [exhibit.title for exhibit in shown] == ["Best image", "Median image", "Worst image"]
    for exhibit in shown:
        labels = [panel.label for panel in exhibit.panels if panel.label != "classes"]
        assert labels == ["image", "truth", "one", "one", "two", "two"]
        assert all(panel.content.startswith(('<img src="data:', "<svg ")) for panel in exhibit.panels)
        assert all(panel.caption.startswith(("linear: ", "dpt: ")) for panel in exhibit.panels[-4:])


def frame(scene: str, name: str) -> Frame:
    return Frame(name=name, scene=scene, height=1, width=1, image=lambda: None, digest=lambda: name)


def test_frames_are_spread_over_scenes_in_a_stable_way() -> None:
    frames = [
        frame(scene, f"{scene}/{i}") for scene, count in (("a", 20), ("b", 3), ("c", 9)) for i in range(count)
    ]
    chosen = spread(frames, 12)
    counts = {scene: sum(f.scene == scene for f in chosen) for scene in "abc"}
    assert counts["b"] == 3 and sorted(counts.values()) == [3, 4, 5]
    assert chosen == [f for f in frames if f in chosen]
    assert {f.name for f in spread(frames[::-1], 12)} == {f.name for f in chosen}
    assert {f.name for f in spread(frames, 6)} < {f.name for f in chosen}
    assert spread(frames, 32) == frames


def test_some_scenes_are_held_out_where_there_are_several() -> None:
    names = [f"s{i}" for i in range(30)]
    assert len(held_out_scenes(names * 2, 0.1)) == 3
    assert len(held_out_scenes(names[:2], 0.1)) == 1
    assert held_out_scenes(names[:1], 0.1) == set() == held_out_scenes(names, 0)
