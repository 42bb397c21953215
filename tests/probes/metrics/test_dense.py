"""Depth, normal and class errors against values worked out by hand and against torchmetrics and scipy."""

import numpy as np
import pytest
import torch
import torchmetrics
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial.transform import Rotation

from probes.metrics.dense import (
    ALIGNMENTS,
    align_depth,
    angles_between,
    class_accuracy_statistic,
    class_pixels,
    miou_statistic,
    pixel_accuracy_statistic,
    score_depth,
    score_normals,
)


def depths(seed: int = 0, count: int = 500) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.uniform(0.5, 9, count)
    return truth * rng.lognormal(0.1, 0.2, count) + 0.3, truth


def test_depth_errors_worked_out_by_hand() -> None:
    score = score_depth(np.array([1.0, 2.0, 4.4]), np.array([1.0, 4.0, 4.0]))
    assert score.abs_rel == pytest.approx((0 + 0.5 + 0.1) / 3)
    assert score.delta1 == pytest.approx(2 / 3)
    assert score.rmse == pytest.approx(np.sqrt((0 + 4 + 0.16) / 3))
    g = np.log([1, 0.5, 1.1])
    assert score.silog == pytest.approx(np.sqrt((g**2).mean() - g.mean() ** 2))


def test_a_ratio_of_exactly_a_quarter_is_not_within_delta1() -> None:
    assert score_depth(np.array([1.25]), np.array([1.0])).delta1 == 0
    assert score_depth(np.array([1.0]), np.array([1.25])).delta1 == 0


def test_depth_errors_agree_with_torchmetrics() -> None:
    predicted, truth = depths()
    score = score_depth(predicted, truth)
    a, b = torch.from_numpy(predicted), torch.from_numpy(truth)
    assert score.abs_rel == pytest.approx(float(torchmetrics.functional.mean_absolute_percentage_error(a, b)))
    assert score.rmse == pytest.approx(float(torchmetrics.functional.mean_squared_error(a, b, squared=False)))
    # The weighted form of Eigen et al. with all of the mean taken away is the deviation.
    assert score.silog == pytest.approx(float((a.log() - b.log()).std(correction=0)))


def test_affine_alignment_agrees_with_scipy() -> None:
    predicted, truth = depths()
    line = stats.linregress(predicted, truth)
    fitted = np.maximum(line.slope * predicted + line.intercept, truth.min())
    np.testing.assert_allclose(align_depth(predicted, truth, "affine"), fitted, rtol=1e-9)
    line = stats.linregress(1 / predicted, 1 / truth)
    fitted = np.maximum(line.slope / predicted + line.intercept, 1 / truth.max())
    np.testing.assert_allclose(align_depth(predicted, truth, "affine disparity"), 1 / fitted, rtol=1e-9)


@given(st.floats(0.01, 100), st.integers(0, 9))
def test_what_an_alignment_undoes_costs_nothing(scale: float, seed: int) -> None:
    _, truth = depths(seed, 50)
    changed = {
        "none": truth,
        "median": scale * truth,
        "affine": scale * truth + 1,
        "affine disparity": 1 / (scale / truth + 0.2),
    }
    for alignment in ALIGNMENTS:
        score = score_depth(changed[alignment], truth, alignment)
        assert score.abs_rel == pytest.approx(0, abs=1e-9), alignment
        assert score.delta1 == 1


@given(st.floats(0.01, 100))
def test_a_common_factor_changes_neither_silog_nor_median_aligned_errors(scale: float) -> None:
    predicted, truth = depths()
    assert score_depth(scale * predicted, truth).silog == pytest.approx(score_depth(predicted, truth).silog)
    a, b = (score_depth(p, truth, "median") for p in (predicted, scale * predicted))
    assert (a.abs_rel, a.rmse) == pytest.approx((b.abs_rel, b.rmse))


def test_medians_are_aligned_not_means() -> None:
    aligned = align_depth(np.array([1.0, 2.0, 30.0]), np.array([1.0, 4.0, 5.0]), "median")
    assert aligned.tolist() == [2, 4, 60]


def test_a_fitted_line_stays_among_possible_depths() -> None:
    x, y = np.array([1.0, 2, 3]), np.array([1.0, 1.1, 9])
    # The line through them is 3.7 + 4 (x - 2), and -0.3 at the first.
    np.testing.assert_allclose(align_depth(x, y, "affine"), [1, 3.7, 7.7])
    np.testing.assert_allclose(align_depth(1 / x, 1 / y, "affine disparity"), [1, 1 / 3.7, 1 / 7.7])


def test_a_constant_depth_is_fitted_by_the_mean() -> None:
    _, truth = depths()
    np.testing.assert_allclose(align_depth(np.full_like(truth, 0.3), truth, "affine"), truth.mean())


@pytest.mark.parametrize("alignment", ALIGNMENTS)
def test_unknown_depths_are_refused(alignment: str) -> None:
    with pytest.raises(ValueError, match="positive"):
        score_depth(np.array([1.0, 2.0]), np.array([0.0, 2.0]), alignment)
    with pytest.raises(ValueError, match="positive"):
        score_depth(np.array([-1.0, 2.0]), np.array([1.0, 2.0]), alignment)


def test_normal_errors_worked_out_by_hand() -> None:
    truth = np.tile([0.0, 0.0, -1.0], (4, 1))
    turned = [Rotation.from_euler("x", angle, degrees=True).apply([0, 0, -2.0]) for angle in (0, 10, 25, 85)]
    score = score_normals(np.array(turned), truth)
    assert score.angle == pytest.approx(30)
    assert score.angle_median == pytest.approx(17.5)
    assert score.angle_rmse == pytest.approx(np.sqrt((100 + 625 + 7225) / 4))
    assert (score.within11, score.within22, score.within30) == (0.5, 0.5, 0.75)


def test_angles_agree_with_torchmetrics_and_keep_small_ones() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 300, 3))
    cosine = torchmetrics.functional.cosine_similarity(torch.from_numpy(a), torch.from_numpy(b), "none")
    np.testing.assert_allclose(angles_between(a, b), np.degrees(np.arccos(cosine.numpy())), atol=1e-3)
    tiny = np.radians(1e-7)
    assert angles_between([1, 0, 0], [np.cos(tiny), np.sin(tiny), 0]) == pytest.approx(1e-7, rel=1e-3)


def score(statistic, predicted: list[np.ndarray], truth: list[np.ndarray], classes: int) -> float:
    values = np.stack([class_pixels(p, t, classes, 255) for p, t in zip(predicted, truth, strict=True)])
    return float(statistic(values, np.ones((1, len(values))))[0])


def test_class_scores_worked_out_by_hand() -> None:
    truth = [np.array([[0, 0], [1, 255]]), np.array([[1, 1], [1, 1]])]
    predicted = [np.array([[0, 1], [1, 1]]), np.array([[1, 1], [1, 0]])]
    # Class 0: 1 right, 2 predicted, 2 true; class 1: 4 right, 5 predicted, 5 true; class 2 never occurs.
    assert score(miou_statistic, predicted, truth, 3) == pytest.approx((1 / 3 + 4 / 6) / 2)
    assert score(class_accuracy_statistic, predicted, truth, 3) == pytest.approx((1 / 2 + 4 / 5) / 2)
    assert score(pixel_accuracy_statistic, predicted, truth, 3) == pytest.approx(5 / 7)


def test_miou_is_not_the_mean_of_the_images() -> None:
    truth = [np.zeros(9, int), np.ones(1, int)]
    predicted = [np.zeros(9, int), np.zeros(1, int)]
    assert score(miou_statistic, predicted, truth, 2) == pytest.approx((9 / 10 + 0) / 2)
    assert score(miou_statistic, predicted, truth, 2) != pytest.approx((1 + 0) / 2)


def test_class_scores_agree_with_torchmetrics() -> None:
    rng = np.random.default_rng(1)
    truth = [rng.integers(0, 5, (16, 16)) for _ in range(6)]
    predicted = [np.where(rng.random((16, 16)) < 0.6, t, rng.integers(0, 5, (16, 16))) for t in truth]
    for t in truth:
        t[:3] = 255
    a, b = (torch.from_numpy(np.stack(x)) for x in (predicted, truth))
    shared = {"num_classes": 5, "ignore_index": 255}
    functional = torchmetrics.functional.classification
    for statistic, theirs in (
        (miou_statistic, functional.multiclass_jaccard_index(a, b, **shared)),
        (class_accuracy_statistic, functional.multiclass_accuracy(a, b, **shared)),
        (pixel_accuracy_statistic, functional.multiclass_accuracy(a, b, average="micro", **shared)),
    ):
        assert score(statistic, predicted, truth, 5) == pytest.approx(float(theirs), abs=1e-6)


@given(st.lists(st.integers(0, 3), min_size=5, max_size=5).filter(any))
def test_weights_are_repetitions(weights: list[int]) -> None:
    rng = np.random.default_rng(2)
    values = np.stack([class_pixels(*rng.integers(0, 3, (2, 20)), 3, 255) for _ in range(5)])
    repeated = np.repeat(values, weights, axis=0)
    for statistic in (miou_statistic, class_accuracy_statistic, pixel_accuracy_statistic):
        expected = statistic(repeated, np.ones((1, len(repeated))))
        np.testing.assert_allclose(statistic(values, np.array([weights])), expected)


def test_nothing_drawn_is_nan_without_a_warning() -> None:
    values = class_pixels(np.array([0]), np.array([0]), 2, 255)[None]
    for statistic in (miou_statistic, class_accuracy_statistic, pixel_accuracy_statistic):
        assert np.isnan(statistic(values, np.zeros((2, 1)))).all()


def test_a_class_beyond_the_list_is_refused() -> None:
    with pytest.raises(ValueError, match="class 7"):
        class_pixels(np.array([0]), np.array([7]), 3, 255)
