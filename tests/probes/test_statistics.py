"""Intervals over scenes and paired differences."""

import numpy as np
import pytest

from probes.statistics import bins, bootstrap_mean, paired_difference, reliability


def rows(values: dict[str, float], **columns: object) -> list[dict]:
    return [{"pair": pair, "scene": pair[0], "epe": value, **columns} for pair, value in values.items()]


def test_the_mean_is_over_values_not_scenes() -> None:
    assert bootstrap_mean([1, 1, 1, 5], ["a", "a", "a", "b"]).mean == 2


def test_one_scene_gives_no_interval() -> None:
    assert bootstrap_mean([1.0, 2.0], ["a", "a"]) == (1.5, None, None)


def test_the_same_input_gives_the_same_interval() -> None:
    values, scenes = np.arange(20.0), [str(i % 5) for i in range(20)]
    assert bootstrap_mean(values, scenes) == bootstrap_mean(values, scenes)


def test_scenes_are_resampled_whole() -> None:
    # Two scenes, constant within: a resample's mean can only be 0, 0.5 or 1, however many pairs there are.
    interval = bootstrap_mean([0.0] * 50 + [1.0] * 50, ["a"] * 50 + ["b"] * 50)
    assert (interval.lo, interval.hi) == (0.0, 1.0)


def test_resamples_pool_the_pairs_of_their_scenes() -> None:
    # Drawing both scenes gives 0.99, not the 0.5 of a mean of scene means; at level 0 the ends are the median.
    assert bootstrap_mean([0.0] + [1.0] * 99, ["a"] + ["b"] * 99, level=0).lo == 0.99


def test_the_interval_narrows_as_scenes_are_added() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=400)
    few = bootstrap_mean(values[:20], range(20))
    many = bootstrap_mean(values, range(400))
    assert many.hi - many.lo < 0.4 * (few.hi - few.lo)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(200):
        scene = rng.normal(size=40)
        values = scene[:, None] + rng.normal(size=(40, 3))
        interval = bootstrap_mean(values.ravel(), np.repeat(np.arange(40), 3), samples=500)
        hits += interval.lo <= 0 <= interval.hi
    assert 0.89 <= hits / 200 <= 0.99


def test_paired_difference_cancels_what_pairs_share() -> None:
    a = rows({f"{s}{i}": 10 * i + 1 for s in "abcdef" for i in range(4)})
    b = rows({f"{s}{i}": 10 * i for s in "abcdef" for i in range(4)})
    assert paired_difference(a, b, "epe") == (1, 1, 1)


def test_paired_difference_averages_seeds_first() -> None:
    a = rows({"a1": 1, "b1": 3}) + rows({"a1": 3, "b1": 5})
    assert paired_difference(a, rows({"a1": 0, "b1": 0}), "epe").mean == 3


def test_paired_difference_refuses_other_pairs() -> None:
    with pytest.raises(ValueError, match="2 of 3 are on one side only, the first is 'a2'"):
        paired_difference(rows({"a1": 1, "a2": 2}), rows({"a1": 1, "b1": 2}), "epe")


def test_paired_difference_refuses_mixed_readings() -> None:
    mixed = rows({"a1": 1}, reading="knn") + rows({"a1": 1}, reading="linear")
    with pytest.raises(ValueError, match="side A mixes several kinds of reading"):
        paired_difference(mixed, rows({"a1": 1}), "epe")


def test_few_scenes_are_said_to_be_few() -> None:
    assert "no interval" in reliability(1)
    assert "unreliable" in reliability(4)
    assert reliability(5) == ""


def test_bins_keep_the_last_edge() -> None:
    assert bins(np.array([10, 19.9, 20, 60]), [10, 20, 40, 60]).tolist() == [0, 0, 1, 2]
