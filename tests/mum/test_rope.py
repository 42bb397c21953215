"""Rotary tables and their application, against timm's."""

import pytest
import torch
from timm.layers import RotaryEmbeddingDinoV3, apply_rot_embed_cat

from mum.rope import compute_dtype, rope_table, rotate, rotate_packed, signed_sin

CPU = torch.device("cpu")


def test_patches_rows_are_timm_s():
    table = rope_table((3, 5), 16, "identity", CPU, torch.float32)
    assert torch.equal(table[1:], RotaryEmbeddingDinoV3(dim=16).get_embed([3, 5]))


@pytest.mark.parametrize(("row", "factor"), [("identity", 1), ("zero", 0)])
def test_class_row_keeps_or_zeroes(row, factor):
    sin, cos = rope_table((2, 2), 8, row, CPU, torch.float32).chunk(2, -1)
    x = torch.randn(8)
    assert torch.equal(rotate(x, signed_sin(sin)[0], cos[0]), factor * x)


def test_rotation_is_timm_s():
    table = rope_table((4, 4), 8, "identity", CPU, torch.float32)
    x = torch.randn(2, 17, 8)
    sin, cos = table.chunk(2, -1)
    torch.testing.assert_close(rotate(x, signed_sin(sin), cos), apply_rot_embed_cat(x, table, half=True))


def test_rotation_keeps_lengths():
    sin, cos = rope_table((4, 3), 12, "identity", CPU, torch.float32).chunk(2, -1)
    x = torch.randn(13, 12)
    torch.testing.assert_close(rotate(x, signed_sin(sin), cos).norm(dim=-1), x.norm(dim=-1))


def test_table_made_in_inference_serves_training():
    with torch.inference_mode():
        table = rope_table((7, 2), 4, "identity", CPU, torch.float32)
    x = torch.ones(15, 4, requires_grad=True)
    sin, cos = table.chunk(2, -1)
    rotate(x, signed_sin(sin), cos).sum().backward()
    assert x.grad is not None


def test_compute_dtype_follows_autocast():
    x = torch.zeros(1)
    assert compute_dtype(x) == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert compute_dtype(x) == torch.bfloat16


def test_packed_rotation_turns_queries_and_keys_and_leaves_values():
    sin, cos = rope_table((2, 3), 8, "zero", CPU, torch.float32).chunk(2, -1)
    sin, cos = signed_sin(sin)[:, None, None], cos[:, None, None]
    qkv = torch.randn(2, 7, 3, 4, 8, requires_grad=True)
    weights = torch.randn(2, 7, 3, 4, 8)
    expected = torch.cat((rotate(qkv[:, :, :2], sin, cos), qkv[:, :, 2:]), dim=2)
    turned = rotate_packed(qkv, sin, cos)
    torch.testing.assert_close(turned, expected)
    grads = [torch.autograd.grad((x * weights).sum(), qkv)[0] for x in (turned, expected)]
    torch.testing.assert_close(*grads)
