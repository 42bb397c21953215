"""Matching on rendered scenes: what perfect features, noise, mere position and nothing at all score."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from probes.benchmarks import open_benchmark
from probes.data.frames import Benchmark, FrameList, FramePair
from probes.encoders.features import FeatureMaps
from probes.errors import ProbeError
from probes.matching.linear import LinearConfig
from probes.matching.matching import PROBE, MatchingTask
from probes.probe import Settings, Unit
from tests.probes.truth import NamedEncoder, noise_maps, position_maps, true_maps
from tests.trees import megadepth1500

GRID = (8, 8)
CPU = torch.device("cpu")


def open_task(data: Benchmark, train: Benchmark | None = None, **changes: object) -> MatchingTask:
    config = PROBE.config(data, Settings(size=64, preset="small", items=24))
    linear = LinearConfig(steps=40, pairs=8, queries=32, width=48)
    return PROBE.open(data, train, replace(config, train_pairs=24, linear=linear, **changes))


@pytest.fixture(scope="module")
def data(rendered: Path) -> Benchmark:
    return open_benchmark(str(rendered))


@pytest.fixture(scope="module")
def task(data: Benchmark) -> MatchingTask:
    return open_task(data, data)


@pytest.fixture(scope="module")
def perfect(task: MatchingTask) -> Unit:
    return task.score(NamedEncoder(), {1: true_maps(task.frames, GRID)}, CPU)


def knn(task: MatchingTask, maps: FeatureMaps) -> Unit:
    task.readings, readings = ("knn",), task.readings
    try:
        return task.score(NamedEncoder(), {1: maps}, CPU)
    finally:
        task.readings = readings


def mean(rows: Sequence[dict], metric: str, **wanted: object) -> float:
    found = [row[metric] for row in rows if all(row[key] == value for key, value in wanted.items())]
    assert found
    return float(np.mean(found))


def floor(task: MatchingTask, name: str, metric: str) -> float:
    return mean(task.baselines([GRID]), metric, encoder=f"{name} (8 x 8)")


def test_perfect_features_reach_the_floor_of_the_grid(task: MatchingTask, perfect: Unit) -> None:
    oracle = floor(task, "oracle", "epe")
    assert floor(task, "oracle", "pck_patch") == 1
    found = mean(perfect.rows, "epe", reading="knn", position="kept")
    assert oracle <= found < oracle + 1
    assert mean(perfect.rows, "pck_patch", reading="knn", position="kept") > 0.95


def test_noise_scores_at_chance(task: MatchingTask) -> None:
    rows = knn(task, noise_maps(len(task.frames), GRID)).rows
    assert abs(mean(rows, "epe", position="kept") - floor(task, "chance", "epe")) < 2
    assert abs(mean(rows, "pck_patch", position="kept") - floor(task, "chance", "pck_patch")) < 0.03


def test_truth_of_shuffled_images_is_matched_at_chance(task: MatchingTask) -> None:
    order = np.random.Generator(np.random.Philox(key=[1, 0])).permutation(task.facts["images"])
    maps = true_maps(task.frames, GRID)
    rest = range(len(order), len(task.frames))
    rows = knn(task, FeatureMaps.joined([maps.part(order), maps.part(rest)])).rows
    scene = {index: task.frames.frames[at].scene for index, at in enumerate(order)}
    apart = {pair.name for pair in task.pairs if scene[pair.a] != scene[pair.b]}
    assert len(apart) > 10
    found = mean([row for row in rows if row["item"] in apart], "epe", position="kept")
    assert abs(found - floor(task, "chance", "epe")) < 4


def test_position_removed_takes_away_a_feature_that_is_only_position(task: MatchingTask) -> None:
    rows = knn(task, position_maps(len(task.frames), GRID)).rows
    assert mean(rows, "epe", position="kept") == pytest.approx(floor(task, "same position", "epe"))
    assert abs(mean(rows, "epe", position="removed") - floor(task, "chance", "epe")) < 2


def test_same_position_is_the_distance_that_points_moved(task: MatchingTask) -> None:
    # Queries stand at the centres of an 8 x 8 grid, so no rounding comes between.
    moved = [np.linalg.norm(pair.targets - pair.queries, axis=1).mean() for pair in task.pairs]
    assert floor(task, "same position", "epe") == pytest.approx(np.mean(moved))


def test_the_linear_readings_learn_from_scenes_that_are_not_scored(task: MatchingTask, perfect: Unit) -> None:
    assert mean(perfect.rows, "pck_patch", reading="linear", position="kept") > 0.8
    assert not {task.frames.names[i] for p in task.pairs for i in (p.a, p.b)} & {
        frame.name for frame in task.frames.frames[task.facts["images"] :]
    }


def test_every_pair_has_a_row_for_every_reading_and_variant(task: MatchingTask, perfect: Unit) -> None:
    names = sorted(pair.name for pair in task.pairs)
    for reading in ("knn", "linear", "linear-soft"):
        for position in ("kept", "removed"):
            rows = [r for r in perfect.rows if (r["reading"], r["position"]) == (reading, position)]
            assert sorted(row["item"] for row in rows) == names
    assert len(perfect.rows) == 6 * len(names)
    json.dumps(perfect.rows)
    assert {metric.name for metric in PROBE.metrics} <= set(perfect.rows[0])


def test_the_same_again_is_the_same(task: MatchingTask, perfect: Unit) -> None:
    again = task.score(NamedEncoder(), {1: true_maps(task.frames, GRID)}, CPU)
    assert again.rows == perfect.rows
    np.testing.assert_array_equal(again.arrays["shown"], perfect.arrays["shown"])


def test_a_layer_is_chosen_on_held_out_training_scenes_only(data: Benchmark) -> None:
    task = open_task(data, data, layers="all", readings=("knn", "linear"), angles=(0.0, 180.0))
    assert task.facts["held_out_scenes"] == 1
    scored, count = task.facts["images"], len(task.frames)
    good, bad = true_maps(task.frames, GRID), noise_maps(count, GRID, 512)

    def unit(first: FeatureMaps, second: FeatureMaps) -> Unit:
        return task.score(NamedEncoder(num_layers=2), {1: first, 2: second}, CPU)

    def half(test: FeatureMaps, train: FeatureMaps) -> FeatureMaps:
        return FeatureMaps.joined([test.part(range(scored)), train.part(range(scored, count))])

    # Layer 1 is good where it is scored, layer 2 where it may be looked at.
    found = unit(half(good, bad), half(bad, good))
    assert found.selections["layer"]["best"]["knn, position kept"] == 2
    assert found.selections["layer"]["best"]["linear, position kept"] == 2
    assert sorted({row["layer"] for row in found.rows}) == [1, 2]
    assert mean(found.rows, "epe", layer=1, reading="knn", position="kept") < mean(
        found.rows, "epe", layer=2, reading="knn", position="kept"
    )


def test_seeds_have_rows_of_their_own_where_something_is_trained(data: Benchmark) -> None:
    task = open_task(data, data, seeds=(0, 1), readings=("knn", "linear", "linear-learned-t"))
    maps = noise_maps(len(task.frames), GRID, 16)
    rows = task.score(NamedEncoder(), {1: maps}, CPU).rows
    assert {row["seed"] for row in rows if row["reading"] == "knn"} == {None}
    for reading in ("linear", "linear-learned-t"):
        assert {row["seed"] for row in rows if row["reading"] == reading} == {0, 1}


def test_the_evaluated_size_is_the_unit_of_errors(data: Benchmark) -> None:
    small, large = (
        PROBE.open(data, None, PROBE.config(data, Settings(size=size, preset="small", items=60)))
        for size in (64, 128)
    )
    assert floor(large, "same position", "epe") == pytest.approx(
        2 * floor(small, "same position", "epe"), rel=0.1
    )
    assert any("were enlarged" in note for note in large.notes)


def test_without_training_data_only_untrained_readings_are_taken(data: Benchmark) -> None:
    assert open_task(data).readings == ("knn",)
    with pytest.raises(ProbeError, match=r"nothing to train linear readings on.*--train-data"):
        open_task(data, readings=("linear",))


def test_images_that_are_scored_are_never_trained_on(data: Benchmark) -> None:
    with pytest.raises(ProbeError, match="are also scored"):
        open_task(data, replace(data, train=data.test))


def test_the_recipe_follows_the_preset_and_the_list(data: Benchmark) -> None:
    small = PROBE.config(data, Settings(size=64, preset="small"))
    standard = PROBE.config(data, Settings(size=448))
    assert small.pairs < standard.pairs == 384
    assert "linear-learned-t" in standard.readings
    listed = FrameList(
        frames=data.test.frames,
        pairs=tuple(FramePair(name=str(i), scene="s", a=0, b=1) for i in range(1500)),
    )
    assert PROBE.config(replace(data, test=listed), Settings(size=448)).pairs == 1500
    assert PROBE.config(data, Settings(size=64, items=7)).pairs == 7
    # Readings of other probes may stand beside this one's.
    asked = Settings(size=64, readings=("poselib-linear", "knn"))
    assert PROBE.config(data, asked).readings == ("knn",)


def test_data_without_truth_are_refused_with_the_reason(data: Benchmark) -> None:
    blind = FrameList(frames=tuple(replace(frame, depth=None) for frame in data.test.frames))
    assert "no true correspondences" in PROBE.refuses(replace(data, test=blind))
    assert PROBE.refuses(data) is None


def test_flat_scenes_are_matched_by_their_homographies(data: Benchmark) -> None:
    shift = np.array([[1.0, 0, 8], [0, 1, 0], [0, 0, 1]])
    frames = tuple(
        replace(frame, depth=None, intrinsics=None, world_to_camera=None) for frame in data.test.frames[:2]
    )
    listed = FrameList(frames=frames, pairs=(FramePair(name="flat", scene="s", a=0, b=1, homography=shift),))
    flat = replace(data, test=listed)
    assert PROBE.refuses(flat) is None
    found = open_task(flat)
    (row,) = [r for r in found.baselines([GRID]) if r["encoder"] == "same position (8 x 8)"]
    assert (row["epe"], row["angle"], row["points"]) == (8, None, 56)


def test_pictures_show_best_median_and_worst_with_every_encoder(task: MatchingTask, perfect: Unit) -> None:
    noise = task.score(NamedEncoder(), {1: noise_maps(len(task.frames), GRID)}, CPU)
    shown = task.exhibits({"truth-teller": perfect, "noise": noise})
    assert [exhibit.title for exhibit in shown] == ["Best pair", "Median pair", "Worst pair"]
    for exhibit in shown:
        assert [panel.label for panel in exhibit.panels] == ["truth", "truth-teller", "noise"]
        assert all("http" not in panel.content.replace("http://www.w3.org", "") for panel in exhibit.panels)
        dashed = [panel.content.count("stroke-dasharray") for panel in exhibit.panels]
        assert dashed[0] == 0
        assert dashed[1] < dashed[2]


def test_tracks_of_a_model_of_photographs_are_matched(testdata: Callable[[str], Path]) -> None:
    fountain = open_benchmark(f"colmap:{testdata('data/real/strecha_fountain_p11')}")
    assert PROBE.refuses(fountain) is None
    task = open_task(fountain)
    assert task.facts["truth"] == "tracks"
    rows = task.score(NamedEncoder(), {1: noise_maps(len(task.frames), GRID)}, CPU).rows
    assert all(row["points"] >= 16 and 10 <= row["angle"] <= 60 for row in rows)


def test_the_pairs_of_a_list_are_matched_in_squashed_images_with_other_focal_lengths(tmp_path: Path) -> None:
    megadepth1500.write(tmp_path)
    listed = open_benchmark(f"megadepth1500:{tmp_path}")
    task = PROBE.open(listed, None, PROBE.config(listed, Settings(size=64)))
    assert task.frames.fit == "squash"
    assert len(task.pairs) + sum(task.facts["refused"].values()) == len(listed.test.pairs)
    assert {pair.overlap for pair in task.pairs} <= {pair.overlap for pair in listed.test.pairs}
    rows = knn(task, true_maps(task.frames, GRID)).rows
    oracle = floor(task, "oracle", "epe")
    assert oracle <= mean(rows, "epe", position="kept") < oracle + 1.5
