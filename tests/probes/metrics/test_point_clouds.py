"""Alignment and distances of point clouds: hand-computed values, laws, and independent implementations."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from scipy.spatial.transform import Rotation

from probes.metrics.alignment import umeyama
from probes.metrics.point_clouds import align, cloud_normals, compare_clouds, icp

seeds = st.integers(0, 2**32 - 1)


def drawn(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


def plane(spacing: float = 0.1, side: int = 20) -> np.ndarray:
    x, y = np.mgrid[:side, :side] * spacing
    return np.column_stack([x.ravel(), y.ravel(), np.zeros(x.size)])


@settings(max_examples=20, deadline=None)
@given(seeds)
def test_icp_undoes_a_small_motion_of_unordered_points(seed: int) -> None:
    rng = drawn(seed)
    target = rng.uniform(size=(200, 3))
    turn = Rotation.from_rotvec(0.005 * rng.normal(size=3)).as_matrix()
    source = rng.permutation(target) @ turn.T + 0.004
    found = icp(source, target, distance=0.1)
    assert cdist(found.apply(source), target).min(axis=1).max() < 1e-9
    assert found.scale == 1.0


def test_icp_leaves_points_that_are_too_far_out_of_it() -> None:
    target = drawn(1).uniform(size=(300, 3))
    lump = np.full((40, 3), 9.0)
    source = np.concatenate([target + 0.003, lump])
    moved = icp(source, target, distance=0.1).apply(source)
    np.testing.assert_allclose(moved[:300], target, atol=1e-9)
    far = icp(lump, target, distance=0.1)
    np.testing.assert_allclose(far.apply(lump), lump)


def test_a_lifted_plane_by_hand() -> None:
    """Both distances are the height; a cloud of half the plane is accurate but not complete."""
    truth = plane()
    score = compare_clouds(truth + np.array([0, 0, 0.03]), truth)
    assert score.accuracy == score.completeness == score.overall == pytest.approx(0.03)
    assert score.accuracy_median == score.completeness_median == pytest.approx(0.03)
    assert score.normal_consistency == score.normal_consistency_median == pytest.approx(1)
    half = compare_clouds(truth[truth[:, 0] < 0.95], truth)
    assert half.accuracy == 0
    # Ten of twenty rows are missing, 0.1 to 1.0 away.
    assert half.completeness == pytest.approx(np.arange(1, 11).sum() * 0.1 / 20)
    assert half.overall == pytest.approx(half.completeness / 2)


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_distances_agree_with_all_pairs(seed: int) -> None:
    rng = drawn(seed)
    a, b = rng.normal(size=(40, 3)), rng.normal(size=(25, 3))
    gaps = cdist(a, b)
    score = compare_clouds(a, b)
    assert score.accuracy == pytest.approx(gaps.min(axis=1).mean())
    assert score.accuracy_median == pytest.approx(np.median(gaps.min(axis=1)))
    assert score.completeness == pytest.approx(gaps.min(axis=0).mean())
    assert score.completeness_median == pytest.approx(np.median(gaps.min(axis=0)))


def test_normals_of_a_plane_and_of_a_sphere() -> None:
    np.testing.assert_allclose(np.abs(cloud_normals(plane())), np.tile([0.0, 0, 1], (400, 1)), atol=1e-9)
    ball = drawn(0).normal(size=(4000, 3))
    ball /= np.linalg.norm(ball, axis=1, keepdims=True)
    cosine = np.abs((cloud_normals(ball) * ball).sum(axis=1))
    assert np.median(cosine) > 0.995
    assert not cloud_normals(ball[:2]).any()


def test_planes_at_right_angles_have_no_normal_in_common() -> None:
    flat = plane()
    upright = flat[:, [0, 2, 1]]
    score = compare_clouds(flat, upright, np.tile([0.0, 0, 1], (400, 1)), np.tile([0.0, 1, 0], (400, 1)))
    assert score.normal_consistency == 0


def test_alignment_by_similarity_then_icp_is_exact_for_a_perfect_cloud() -> None:
    rng = drawn(5)
    truth = rng.normal(size=(500, 3))
    turn = Rotation.from_rotvec(rng.normal(size=3)).as_matrix()
    moved = align(0.3 * truth @ turn.T + [1, 2, 3], truth, distance=0.1)
    np.testing.assert_allclose(moved, truth, atol=1e-9)


def test_icp_mends_a_similarity_that_wrong_correspondences_shifted() -> None:
    """Three points in ten are taken for their neighbour on a grid: the Sim(3) is 0.3 off, the clouds coincide."""
    truth = np.stack(np.meshgrid(*[np.arange(10.0)] * 3), axis=-1).reshape(-1, 3)
    predicted = truth + np.outer(drawn(6).uniform(size=1000) < 0.3, [1, 0, 0])
    alone = compare_clouds(umeyama(predicted, truth).apply(predicted), truth).accuracy_median
    assert alone > 0.25
    assert compare_clouds(align(predicted, truth, distance=0.7), truth).accuracy_median < 0.25 * alone


def test_a_collapsed_cloud_is_scored_and_not_perfect() -> None:
    truth = drawn(7).normal(size=(100, 3))
    moved = align(np.ones((100, 3)), truth, distance=0.1)
    assert compare_clouds(moved, truth).completeness > 1


def test_empty_clouds_are_refused() -> None:
    with pytest.raises(ValueError, match="0 and 400 points"):
        compare_clouds(np.empty((0, 3)), plane())
