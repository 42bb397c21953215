"""Axial rotary position tables for packs of images, and their application to queries and keys.

The numbers are timm's (`RotaryEmbeddingDinoV3`: base 100, coordinates normalised per axis to [-1, 1]), always
computed in fp32 and kept in a small cache by (grid, head width, class row, device, dtype). Row 0 is the class
token's. This file knows neither masks nor scenes.
"""

from functools import lru_cache
from typing import Any, Literal

import torch
from timm.layers import RotaryEmbeddingDinoV3
from torch import Tensor
from torch.autograd.function import once_differentiable

TEMPERATURE = 100.0

ClassRow = Literal["identity", "zero"]


@lru_cache(maxsize=64)
def rope_table(
    grid: tuple[int, int], head_dim: int, class_row: ClassRow, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """Sines and cosines of one class token and a grid of patches.

    Args:
        grid: patches (down, across).
        head_dim: width of one attention head; a multiple of 4.
        class_row: "identity" leaves the class token as it is (sine 0, cosine 1); "zero" turns its query and
            key into zeros (sine 0, cosine 0), as the released MuM decoders do between views.
        device: where the table lives.
        dtype: of the result; the angles are fp32 whatever it is.

    Returns:
        (1 + grid[0] * grid[1], 2 * head_dim): sines, then cosines. Shared by all callers: never written to.
    """
    # A table first made under inference_mode would poison the cache for training.
    with torch.inference_mode(False), torch.no_grad():
        rope = RotaryEmbeddingDinoV3(dim=head_dim, temperature=TEMPERATURE, rotate_half=True)
        patches = rope.get_embed(list(grid))
        row = torch.zeros(1, 2 * head_dim)
        if class_row == "identity":
            row[:, head_dim:] = 1.0
        return torch.cat((row, patches)).to(device=device, dtype=dtype)


def compute_dtype(reference: Tensor) -> torch.dtype:
    """The dtype in which linear layers answer here: autocast's where it is on, else the tensor's own."""
    kind = reference.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else reference.dtype


def rotate(x: Tensor, sin: Tensor, cos: Tensor) -> Tensor:
    """Rotate the two halves of the last axis against each other (RoFormer, arXiv 2104.09864, half layout).

    Args:
        x: (..., head_dim).
        sin: broadcastable to x, with the sign of its first half turned (`signed_sin`).
        cos: broadcastable to x.
    """
    first, second = x.chunk(2, dim=-1)
    return torch.addcmul(x * cos, torch.cat((second, first), dim=-1), sin)


def signed_sin(sin: Tensor) -> Tensor:
    """Move rotate-half's minus sign from every token into the table, once a forward pass."""
    first, second = sin.chunk(2, dim=-1)
    return torch.cat((-first, second), dim=-1)


class _Turn(torch.autograd.Function):
    """Rotation of queries and keys in a packed tensor, with one allocation on the way and none back."""

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, sin: Tensor, cos: Tensor) -> Tensor:
        ctx.save_for_backward(sin, cos)
        return _turn_in_place(qkv.clone(memory_format=torch.contiguous_format), sin, cos)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        # Attention has just made this gradient for us alone. Turning back is the transposed rotation.
        sin, cos = ctx.saved_tensors
        return _turn_in_place(grad.contiguous(), -sin, cos), None, None


def _turn_in_place(qkv: Tensor, sin: Tensor, cos: Tensor) -> Tensor:
    half = sin.shape[-1] // 2
    sin, cos = sin[..., half:], cos[..., half:]
    first, second = qkv[:, :, :2].chunk(2, dim=-1)
    before = first.clone()
    first.mul_(cos).addcmul_(second, sin, value=-1)
    second.mul_(cos).addcmul_(before, sin)
    return qkv


def rotate_packed(qkv: Tensor, sin: Tensor, cos: Tensor) -> Tensor:
    """Rotate queries and keys that come in one tensor with the values.

    Args:
        qkv: (I, T, 3, heads, head_dim).
        sin, cos: (T, 1, 1, head_dim), or (I, T, 1, 1, head_dim); as in `rotate`.

    Returns:
        A contiguous tensor of qkv's shape, so that attention keeps nothing but this for its backward.
    """
    if torch.compiler.is_compiling():
        return torch.cat((rotate(qkv[:, :, :2], sin, cos), qkv[:, :, 2:]), dim=2)
    return _Turn.apply(qkv, sin, cos)
