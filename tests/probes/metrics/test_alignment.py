"""Least-squares alignment: it finds what was done to the points, never a mirror, and nothing beats it."""

import numpy as np
import pytest
from evo.core.geometry import umeyama_alignment
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from probes.metrics.alignment import umeyama


@settings(deadline=None)
@given(st.integers(0, 10_000), st.floats(0.01, 100))
def test_it_undoes_what_was_done(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    points, rotation, move = rng.normal(size=(9, 3)), Rotation.random(rng=rng).as_matrix(), rng.normal(size=3)
    found = umeyama(points, scale * points @ rotation.T + move)
    assert found.scale == pytest.approx(scale)
    np.testing.assert_allclose(found.rotation, rotation, atol=1e-9)
    np.testing.assert_allclose(found.translation, move, atol=1e-7 * max(1, scale))


@pytest.mark.parametrize("scale", [True, False])
def test_it_agrees_with_evo_on_noisy_points(scale: bool) -> None:
    rng = np.random.default_rng(1)
    source = rng.normal(size=(20, 3))
    target = 3 * source @ Rotation.random(rng=rng).as_matrix().T + rng.normal(size=(20, 3))
    rotation, move, factor = umeyama_alignment(source.T, target.T, with_scale=scale)
    found = umeyama(source, target, scale=scale)
    assert found.scale == pytest.approx(factor)
    np.testing.assert_allclose(found.rotation, rotation, atol=1e-12)
    np.testing.assert_allclose(found.translation, move, atol=1e-12)


def test_a_mirrored_set_is_met_by_a_rotation_not_a_reflection() -> None:
    source = np.random.default_rng(0).normal(size=(12, 3))
    assert np.linalg.det(umeyama(source, source * [1, 1, -1]).rotation) == pytest.approx(1)


def test_points_that_all_coincide_are_carried_to_the_middle() -> None:
    target = np.array([[0.0, 0, 0], [2, 0, 0], [0, 4, 0]])
    np.testing.assert_allclose(umeyama(np.ones((3, 3)), target).apply(np.ones(3)), target.mean(axis=0))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (np.zeros((3, 2)), r"two \(n, 3\) arrays, got \(3, 2\)"),
        (np.full((3, 3), np.nan), "finite points"),
    ],
)
def test_what_cannot_be_aligned_is_refused(source: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        umeyama(source, np.zeros_like(source))
