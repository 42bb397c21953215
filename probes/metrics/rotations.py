"""Rotations that a network predicts: the rotation nearest to any nine numbers, with a gradient that stays finite.

Matrices are (..., 3, 3) tensors. Knows no cameras and no heads.
"""

import torch
from torch import Tensor

_LEAST = 1e-6
"""Least sum of two singular values that a gradient is divided by: below it the nearest rotation is not defined."""


def nearest_rotation(matrices: Tensor) -> Tensor:
    """The rotations (..., 3, 3) with the least sum of squared differences from the matrices (..., 3, 3).

    Source: Levinson et al., An analysis of SVD for deep rotation estimation, NeurIPS 2020 (SVDO+). The gradient is
    that of the whole map, which needs no singular value to differ from another, while those of U and V do.
    """
    return _NearestRotation.apply(matrices)


def rotation_angles(predicted: Tensor, true: Tensor) -> Tensor:
    """Angles (...) in radians, 0 to pi, between rotations (..., 3, 3); its gradient is finite everywhere."""
    between = predicted @ true.transpose(-2, -1)
    skew = between - between.transpose(-2, -1)
    axis = torch.stack((skew[..., 2, 1], skew[..., 0, 2], skew[..., 1, 0]), dim=-1)
    trace = between.diagonal(dim1=-2, dim2=-1).sum(dim=-1)
    return torch.atan2(_length(axis), trace - 1)


def direction_angles(predicted: Tensor, true: Tensor) -> Tensor:
    """Angles (...) in radians, 0 to pi, between vectors (..., 3); its gradient is finite everywhere."""
    return torch.atan2(_length(torch.linalg.cross(predicted, true, dim=-1)), (predicted * true).sum(dim=-1))


def _length(vectors: Tensor) -> Tensor:
    # The root's slope at 0 is infinite; a millionth of a radian is nothing.
    return (vectors.square().sum(dim=-1) + 1e-12).sqrt()


class _NearestRotation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, matrices: Tensor) -> Tensor:
        left, singular, right = torch.linalg.svd(matrices)
        signs = torch.ones_like(singular)
        signs[..., 2] = torch.linalg.det(left @ right)
        right, singular = signs[..., None] * right, signs * singular
        ctx.save_for_backward(left, singular, right)
        return left @ right

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> Tensor:
        # M = U S W with W a rotation too, R = U W; a change P of M, seen from U and W, turns R by the
        # antisymmetric (P - P^T) / (s_i + s_j).
        left, singular, right = ctx.saved_tensors
        inner = left.transpose(-2, -1) @ grad @ right.transpose(-2, -1)
        sums = singular[..., :, None] + singular[..., None, :]
        turn = (inner - inner.transpose(-2, -1)) / sums.clamp_min(_LEAST)
        return left @ turn @ right
