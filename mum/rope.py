"""Axial rotary position tables for packs of images, and their application to queries and keys.

The numbers are timm's (`RotaryEmbeddingDinoV3`: base 100, coordinates normalised per axis to [-1, 1]), always
computed in fp32 and kept in a small cache by (grid, head width, class row, device, dtype). Row 0 is the class
token's. This file knows neither masks nor scenes.
"""

from functools import lru_cache
from typing import Literal

import torch
from timm.layers import RotaryEmbeddingDinoV3
from torch import Tensor

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
