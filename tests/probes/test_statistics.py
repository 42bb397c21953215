"""Intervals over scenes, paired tests, and what both promise, by simulation."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from probes.statistics import (
    bins,
    holm,
    interval,
    mean_statistic,
    paired_interval,
    paired_test,
    reliability,
    student_t,
)

INF = float("inf")


def median_statistic(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    order = np.argsort(values)
    share = np.cumsum(weights[:, order], axis=1) / weights.sum(axis=1, keepdims=True)
    return values[order][(share < 0.5).sum(axis=1)]


def mean_by_items(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return mean_statistic(values, weights)


def test_the_mean_is_over_items_not_scenes() -> None:
    assert interval([1, 1, 1, 5], ["a", "a", "a", "b"]).mean == 2


def test_one_scene_gives_no_interval() -> None:
    assert interval([1.0, 2.0], ["a", "a"]) == (1.5, None, None)


def test_the_same_input_gives_the_same_interval_and_leaves_the_global_generator_alone() -> None:
    values, scenes = np.arange(20.0), [str(i % 5) for i in range(20)]
    np.random.seed(0)
    before = np.random.get_state()[1].tolist()
    assert interval(values, scenes) == interval(values, scenes)
    assert np.random.get_state()[1].tolist() == before


def test_names_of_scenes_do_not_matter() -> None:
    values, scenes = np.arange(20.0) ** 2, [i % 5 for i in range(20)]
    assert interval(values, scenes) == interval(values, [f"scene {9 - scene}" for scene in scenes])


def test_scenes_are_resampled_whole() -> None:
    # Eight scenes, constant within: the score of a resample is a multiple of 1/8, however many items there are.
    values, scenes = np.repeat([0.0] * 4 + [1.0] * 4, 50), np.repeat(np.arange(8), 50)
    assert {interval(values, scenes).lo * 8, interval(values, scenes).hi * 8} <= set(range(9))


def test_resamples_pool_the_items_of_their_scenes() -> None:
    # Drawing both scenes gives 0.99, not the 0.5 of a mean of scene means; at level 0 the ends are the median.
    assert interval([0.0] + [1.0] * 99, ["a"] + ["b"] * 99, level=0).lo == 0.99


def test_the_interval_narrows_as_scenes_are_added() -> None:
    values = np.random.default_rng(0).normal(size=400)
    few, many = interval(values[:20], range(20)), interval(values, range(400))
    assert many.hi - many.lo < 0.4 * (few.hi - few.lo)


def test_ends_are_students_where_items_are_their_own_scenes() -> None:
    values = np.random.default_rng(3).normal(size=40)
    expected = stats.t.interval(0.95, 39, values.mean(), stats.sem(values))
    np.testing.assert_allclose(interval(values, range(40))[1:], expected, atol=0.04)


def test_a_score_within_bounds_has_ends_within_them_at_eight_scenes() -> None:
    found = interval([0, 0, 0, 0, 0, 0, 0, 1], range(8))
    assert (found.lo, found.mean) == (0, 0.125)


def test_an_error_that_is_never_below_0_has_no_end_below_it() -> None:
    assert interval([0, 0, 0, 1], range(4)).lo == 0
    assert interval([0, 0, 0, -1], range(4)).lo < -0.25
    assert paired_interval([0, 0, 0, 1], [0] * 4, range(4)).lo < 0  # a difference may well be


def test_other_statistics_than_the_mean_are_resampled_by_scene_too() -> None:
    # A median is that of all items of the drawn scenes: with constant scenes it is always one of their values.
    values, scenes = np.repeat([1.0, 4, 9, 16, 25, 36, 49, 64, 81], 7), np.repeat(np.arange(9), 7)
    found = interval(values, scenes, median_statistic)
    assert found.mean == 25
    assert {found.lo, found.hi} <= set(values)
    assert found.lo < 25 < found.hi


def test_the_short_way_to_a_mean_gives_the_same_numbers() -> None:
    rng = np.random.default_rng(5)
    values, scenes = rng.normal(size=60), rng.integers(0, 7, 60)
    slow = interval(values, scenes, mean_by_items)
    np.testing.assert_allclose(slow, interval(values, scenes), rtol=1e-12)
    b = values + rng.normal(size=60)
    slow = paired_test(values, b, scenes, mean_by_items)
    assert slow == paired_test(values, b, scenes)


def test_values_of_several_columns_reach_the_statistic_whole() -> None:
    # Intersection and union of a class by image: the score is the ratio of sums, not the mean of ratios.
    values = np.array([[1.0, 2], [0, 8], [3, 3], [1, 7]])
    found = interval(values, range(4), lambda v, w: (w @ v[:, 0]) / (w @ v[:, 1]))
    assert found.mean == 0.25


def test_an_infinite_item_makes_the_mean_infinite_but_no_number_nan() -> None:
    found = interval([1.0, 2, 3, INF], "abcd")
    assert (found.mean, found.hi) == (INF, INF)
    assert np.isfinite(found.lo)  # resamples that miss the failure
    # A failed item is one of many to a median, which stays finite.
    assert np.isfinite(interval([1.0, 2, 3, 4, 5, 6, 7, 8, INF], range(9), median_statistic)[:2]).all()


def test_a_difference_of_two_infinite_scores_is_no_number() -> None:
    a = [1.0, 2, 3, 4, 5, INF]
    found = paired_interval(a, a[::-1], range(6))
    assert np.isnan(found.mean)
    assert found[1:] == (None, None)
    assert paired_test(a, a[::-1], range(6)) is None


def test_a_side_that_alone_fails_is_infinitely_worse_yet_one_scene_proves_nothing() -> None:
    a, b = [INF, 1.0, 1, 1, 1, 1, 1], [1.0] * 7
    assert paired_interval(a, b, range(7)).mean == INF
    assert paired_test(a, b, range(7)) == 1


def test_a_paired_difference_cancels_what_items_share() -> None:
    scenes = [s for s in "abcdef" for _ in range(4)]
    b = np.arange(24.0) * 10
    assert paired_interval(b + 1, b, scenes) == (1, 1, 1)


def test_differences_of_other_statistics_are_of_scores_not_of_items() -> None:
    a, b = np.array([1.0, 2, 9]), np.array([4.0, 0, 1])
    assert (
        paired_interval(a, b, "aab", median_statistic).mean == 1
    )  # 2 - 1; the median difference of items is 2


@pytest.mark.parametrize("call", [paired_interval, paired_test])
def test_sides_of_other_items_are_refused(call: object) -> None:
    with pytest.raises(ValueError, match="same items on both sides"):
        call([1.0, 2], [1.0], "ab")


def test_as_many_groups_as_values_are_needed() -> None:
    with pytest.raises(ValueError, match="need as many"):
        interval([1.0, 2], "a")
    with pytest.raises(ValueError, match="at least one"):
        interval([], [])


def test_the_test_flips_scenes_as_scipy_does() -> None:
    rng = np.random.default_rng(7)
    a = rng.normal(size=9)
    b = a + rng.normal(0.5, 1, 9)
    expected = stats.permutation_test(
        (a - b,), np.mean, permutation_type="samples", n_resamples=10**4, vectorized=False
    ).pvalue
    assert paired_test(a, b, range(9)) == pytest.approx(expected)


def test_a_clear_difference_in_six_scenes_is_the_rarest_of_all_swaps() -> None:
    a, b, scenes = np.arange(12.0), np.arange(12.0) - 1, np.repeat(np.arange(6), 2)
    assert paired_test(a, b, scenes) == 2 / 2**6


def test_too_few_scenes_are_not_tested() -> None:
    assert paired_test(np.arange(50.0), np.arange(50.0) - 1, np.repeat(np.arange(5), 10)) is None


def test_many_scenes_are_tested_by_drawn_swaps() -> None:
    rng = np.random.default_rng(8)
    a = rng.normal(size=300)
    assert paired_test(a, a + 0.001, np.arange(300) // 3, samples=999) == 1 / 1000
    assert paired_test(a, a, np.arange(300) // 3) == 1


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.integers(-4, 4), min_size=7, max_size=7),
    st.lists(st.integers(1, 5), min_size=7, max_size=7),
)
def test_over_all_relabellings_p_is_small_as_rarely_as_it_says(scenes: list[int], sizes: list[int]) -> None:
    # The law that makes the test exact: whatever the data, at most 5 % of the relabellings have p <= 0.05.
    a, groups = np.repeat(np.array(scenes, float), sizes), np.repeat(np.arange(7), sizes)
    small = 0
    for way in range(2**7):
        swap = np.array([way >> scene & 1 for scene in groups], bool)
        small += paired_test(np.where(swap, 0, a), np.where(swap, a, 0), groups) <= 0.05
    assert small / 2**7 <= 0.05


def test_holm_by_hand() -> None:
    # Sorted 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1, each at least the one before; None is no comparison.
    assert holm([0.03, None, 0.01, 0.04, 0.02]) == pytest.approx([0.06, None, 0.04, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1, 1]
    assert holm([]) == []


@pytest.mark.parametrize("freedom", [1, 2, 3.7, 7, 49])
def test_students_quantiles_are_scipys(freedom: float) -> None:
    assert student_t(0.975, freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-4)


def test_few_scenes_are_said_to_be_few() -> None:
    assert "no interval" in reliability(1)
    assert "unreliable" in reliability(4)
    assert reliability(5) == ""


def test_bins_keep_the_last_edge() -> None:
    assert bins(np.array([10, 19.9, 20, 60]), [10, 20, 40, 60]).tolist() == [0, 0, 1, 2]


# -- simulated studies: scenes of unequal sizes whose items hang together

STUDIES = 1000


def studies(scenes: int, kind: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Studies of items around a score of 0, and the scene of each; half the spread is between scenes or more."""
    rng = np.random.Generator(np.random.Philox([scenes, len(kind)]))
    for _ in range(STUDIES):
        sizes = np.maximum(2, np.exp(rng.normal(2.7, 0.6, scenes))).astype(int)
        groups = np.repeat(np.arange(scenes), sizes)
        if kind == "normal":
            yield rng.normal(size=scenes)[groups] + rng.normal(size=len(groups)), groups
        elif kind == "errors":  # skewed, as errors in px are: a scene's level times an item's
            yield rng.gamma(4, 0.25, scenes)[groups] * rng.gamma(2, 0.5, len(groups)) - 1, groups
        else:  # right or wrong, at a rate of the scene's own
            yield (rng.random(len(groups)) < rng.beta(2, 2, scenes)[groups]) - 0.5, groups


@pytest.mark.parametrize("kind", ["normal", "errors", "rates"])
@pytest.mark.parametrize("scenes", [8, 12, 20, 50])
def test_intervals_cover_the_truth_in_93_to_97_percent_of_studies(scenes: int, kind: str) -> None:
    hits = 0
    for values, groups in studies(scenes, kind):
        found = interval(values, groups, samples=2000)
        hits += found.lo <= 0 <= found.hi
    assert 0.93 <= hits / STUDIES <= 0.97


@pytest.mark.parametrize("scenes", [8, 20])
def test_paired_intervals_of_another_statistic_cover_too(scenes: int) -> None:
    # Two encoders of equal merit by the share of items under a threshold, in scenes that are hard for both.
    under: list[int] = []
    for values, groups in studies(scenes, "normal"):
        rng = np.random.Generator(np.random.Philox([len(values), len(under)]))
        a, b = (
            values + rng.normal(size=scenes)[groups] * 0.7 + rng.normal(size=len(values)) for _ in range(2)
        )
        found = paired_interval(a, b, groups, lambda v, w: (w @ (v < 0.3)) / w.sum(axis=1), samples=400)
        under.append(found.lo <= 0 <= found.hi)
        if len(under) == 300:
            break
    assert 0.92 <= np.mean(under) <= 0.98


@pytest.mark.parametrize("scenes", [6, 8, 12, 20, 50])
def test_false_alarms_are_at_most_5_percent(scenes: int) -> None:
    # Two encoders of equal merit: what a scene costs them, and an item, is drawn for each alike.
    alarms = 0
    for number, (shared, groups) in enumerate(studies(scenes, "errors")):
        rng = np.random.Generator(np.random.Philox([scenes, number]))
        a, b = (shared * rng.gamma(4, 0.25, scenes)[groups] * rng.gamma(2, 0.5, len(groups)) for _ in "ab")
        alarms += paired_test(a, b, groups, samples=999) <= 0.05
    # The law above is exact; a simulation of so many studies strays by its own two standard errors.
    assert alarms / STUDIES <= 0.05 + 2 * (0.05 * 0.95 / STUDIES) ** 0.5


def test_a_difference_that_is_there_is_found() -> None:
    found = 0
    for number, (a, groups) in enumerate(studies(20, "normal")):
        rng = np.random.Generator(np.random.Philox(number))
        b = a + 0.7 + 0.8 * rng.normal(size=20)[groups] + rng.normal(size=len(a))
        found += paired_test(a, b, groups, samples=1000) <= 0.05
        if number == 199:
            break
    assert found / 200 > 0.8
