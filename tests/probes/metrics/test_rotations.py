"""Rotations from nine numbers: the nearest ones, with true and finite gradients."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from probes.metrics.rotations import direction_angles, nearest_rotation, rotation_angles


def rotations(count: int, seed: int) -> torch.Tensor:
    return torch.from_numpy(Rotation.random(count, rng=np.random.default_rng(seed)).as_matrix())


@settings(deadline=None)
@given(st.integers(0, 10_000))
def test_it_is_a_rotation_and_none_is_nearer(seed: int) -> None:
    rng = np.random.default_rng(seed)
    matrix = torch.from_numpy(rng.normal(size=(3, 3)))
    found = nearest_rotation(matrix)
    torch.testing.assert_close(found @ found.T, torch.eye(3, dtype=torch.float64))
    assert torch.linalg.det(found) == pytest.approx(1)
    others = torch.from_numpy(Rotation.from_rotvec(rng.normal(size=(50, 3)) * 0.3).as_matrix()) @ found
    assert (others - matrix).square().sum(dim=(1, 2)).min() >= (found - matrix).square().sum() - 1e-9


def test_a_rotation_is_its_own_nearest_at_any_scale() -> None:
    true = rotations(20, 0)
    torch.testing.assert_close(nearest_rotation(true * 7), true)


@pytest.mark.parametrize("mirrored", [False, True])
def test_the_gradient_is_that_of_small_steps(mirrored: bool) -> None:
    matrices = torch.from_numpy(np.random.default_rng(3).normal(size=(6, 3, 3)))
    wanted = torch.linalg.det(matrices) < 0 if mirrored else torch.linalg.det(matrices) > 0
    chosen = matrices[wanted].requires_grad_()
    assert len(chosen)
    torch.autograd.gradcheck(nearest_rotation, chosen)


def test_equal_singular_values_have_a_gradient() -> None:
    matrix = torch.eye(3, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(nearest_rotation, matrix)
    zero = torch.zeros(3, 3, requires_grad=True)
    nearest_rotation(zero).sum().backward()
    assert zero.grad.isfinite().all()


def test_angles_equal_those_of_scipy_and_have_finite_gradients_at_their_ends() -> None:
    a, b = rotations(30, 1), rotations(30, 2)
    expected = (Rotation.from_matrix(a.numpy()) * Rotation.from_matrix(b.numpy()).inv()).magnitude()
    np.testing.assert_allclose(rotation_angles(a, b), expected, atol=1e-9)
    same = a.clone().requires_grad_()
    angles = rotation_angles(same, a)
    assert angles.max() < 1e-5
    angles.sum().backward()
    assert same.grad.isfinite().all()


def test_angles_between_directions() -> None:
    x = torch.tensor([[2.0, 0, 0]], requires_grad=True)
    others = torch.tensor([[5.0, 0, 0], [0, 3, 0], [-1, 0, 0]])
    angles = direction_angles(x.expand(3, 3), others)
    torch.testing.assert_close(angles, torch.tensor([0, torch.pi / 2, torch.pi]), atol=2e-6, rtol=0)
    angles.sum().backward()
    assert x.grad.isfinite().all()
