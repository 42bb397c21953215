"""Ragged attention: every backend against each scene by itself."""

import sys
import types

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

import mum
from mum.attention import SceneLayout, dense_attention, ragged_attention, use_attention

TOKENS = 5


def qkv(images: int, dtype=torch.float32):
    generator = torch.Generator().manual_seed(images)
    return torch.randn(3, images, TOKENS, 2, 8, generator=generator).to(dtype).unbind(0)


def scene_by_scene(q, k, v, views):
    parts, start = [], 0
    for count in views:
        scene = [x[start : start + count].flatten(0, 1).transpose(0, 1) for x in (q, k, v)]
        out = F.softmax(scene[0] @ scene[1].mT / 8**0.5, dim=-1) @ scene[2]
        parts.append(out.transpose(0, 1).unflatten(0, (count, TOKENS)))
        start += count
    return torch.cat(parts)


def layout(views):
    return SceneLayout(tuple(views), TOKENS, torch.device("cpu"))


@pytest.mark.parametrize("backend", ["auto", "sdpa", "plain"])
@given(views=st.lists(st.integers(1, 4), min_size=1, max_size=5))
@settings(max_examples=15, deadline=None)
def test_each_scene_attends_to_itself_alone(backend, views):
    q, k, v = qkv(sum(views))
    expected = scene_by_scene(q, k, v, views)
    torch.testing.assert_close(ragged_attention(q, k, v, layout(views), backend), expected)


def test_plain_and_fused_agree_in_bf16_and_in_gradients():
    views = [2, 3, 3]
    inputs = [x.requires_grad_() for x in qkv(8)]
    exact = torch.autograd.grad(ragged_attention(*inputs, layout(views), "sdpa").square().sum(), inputs)
    for backend in ("sdpa", "plain"):
        half = [x.detach().bfloat16().requires_grad_() for x in inputs]
        rough = torch.autograd.grad(ragged_attention(*half, layout(views), backend).square().sum(), half)
        for a, b in zip(exact, rough, strict=True):
            torch.testing.assert_close(a, b.float(), atol=0.1, rtol=0.1)


def test_dense_attention_plain_is_fused():
    q, k, v = qkv(3)
    torch.testing.assert_close(dense_attention(q, k, v, plain=True), dense_attention(q, k, v))


@given(views=st.lists(st.integers(1, 4), min_size=1, max_size=8))
@settings(deadline=None)
def test_sorting_brings_equal_counts_together_and_back(views):
    scenes = layout(views)
    result = scenes.sorted()
    if result is None:
        assert len(scenes.groups) == len(set(views))
        return
    by_count, order, inverse = result
    assert list(by_count.views) == sorted(views)
    assert len(by_count.groups) == len(set(views))
    owner = torch.repeat_interleave(torch.arange(len(views)), torch.tensor(views))
    moved = owner[order]
    runs = torch.unique_consecutive(moved, return_counts=True)[1]
    assert runs.tolist() == list(by_count.views)
    assert torch.equal(moved[inverse], owner)


def test_offsets_count_tokens():
    offsets = layout([2, 1, 3]).offsets
    assert offsets.tolist() == [0, 10, 15, 30]
    assert offsets.dtype == torch.int32
    assert layout([2, 1, 3]).longest == 15


def test_varlen_refuses_a_cpu():
    with pytest.raises(ValueError, match="varlen needs CUDA"):
        ragged_attention(*qkv(2), layout([2]), "varlen")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_varlen_is_grouped_attention_on_a_gpu():
    views = [2, 1, 3]
    q, k, v = (x.cuda() for x in qkv(6, torch.bfloat16))
    scenes = SceneLayout(tuple(views), TOKENS, q.device)
    expected = ragged_attention(q, k, v, scenes, "sdpa")
    torch.testing.assert_close(ragged_attention(q, k, v, scenes, "varlen"), expected, atol=2e-2, rtol=2e-2)


def test_xformers_is_asked_for_by_name_when_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "xformers", None)
    monkeypatch.setitem(sys.modules, "xformers.ops", None)
    with pytest.raises(ValueError, match=r"mumkit\[xformers\]"):
        ragged_attention(*qkv(2), layout([2]), "xformers")


def test_xformers_gets_one_row_and_the_lengths_of_scenes(monkeypatch):
    """A stand-in with xformers' call signatures: its kernels do not run on CPUs."""

    class BlockDiagonalMask:
        @classmethod
        def from_seqlens(cls, lengths, device=None):
            mask = cls()
            mask.lengths = lengths
            return mask

    def memory_efficient_attention(q, k, v, attn_bias):
        assert q.shape[0] == 1
        parts = zip(*(x[0].split(attn_bias.lengths) for x in (q, k, v)), strict=True)
        return torch.cat([dense_attention(*(x[None] for x in part)) for part in parts], dim=1)

    modules = {name: types.ModuleType(name) for name in ("xformers", "xformers.ops", "xformers.ops.fmha")}
    modules["xformers.ops.fmha.attn_bias"] = types.ModuleType("attn_bias")
    modules["xformers.ops"].memory_efficient_attention = memory_efficient_attention
    modules["xformers.ops.fmha.attn_bias"].BlockDiagonalMask = BlockDiagonalMask
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    q, k, v = qkv(6)
    expected = scene_by_scene(q, k, v, [2, 1, 3])
    torch.testing.assert_close(ragged_attention(q, k, v, layout([2, 1, 3]), "xformers"), expected)


def test_switch_reaches_every_block_and_changes_nothing(tiny, pack):
    noise = torch.rand(7, 24)
    fused = tiny(*pack, noise=noise)
    mum.use_plain_attention(tiny)
    blocks = [*tiny.decoder.frame_blocks, *tiny.decoder.scene_blocks]
    assert not any(block.attn.fused_attn for block in tiny.encoder.blocks)
    assert all(block.attn.attention_backend == "plain" for block in blocks)
    torch.testing.assert_close(tiny(*pack, noise=noise).pred, fused.pred, atol=1e-5, rtol=1e-5)
    mum.use_plain_attention(tiny, False)
    assert all(block.attn.fused_attn for block in tiny.encoder.blocks)
    assert all(block.attn.attention_backend == "auto" for block in blocks)


def test_unknown_backend_names_the_nearest(tiny):
    with pytest.raises(ValueError, match="did you mean varlen"):
        use_attention(tiny, "varln")
