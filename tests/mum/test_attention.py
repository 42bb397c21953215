"""Ragged attention: every backend against each scene by itself, forward and backward."""

import sys
import types

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

import mum
from mum.attention import SHORT_ROW, SceneLayout, attend, choose_backend, use_attention

TOKENS = 5
CPU = torch.device("cpu")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def packed(images: int, dtype=torch.float32, tokens: int = TOKENS):
    generator = torch.Generator().manual_seed(images)
    return torch.randn(images, tokens, 3, 2, 8, generator=generator).to(dtype)


def scene_by_scene(qkv, views):
    parts, start = [], 0
    for count in views:
        scene = [x.flatten(0, 1).transpose(0, 1) for x in qkv[start : start + count].unbind(2)]
        out = F.softmax(scene[0] @ scene[1].mT / 8**0.5, dim=-1) @ scene[2]
        parts.append(out.transpose(0, 1).unflatten(0, (count, qkv.shape[1])))
        start += count
    return torch.cat(parts)


def layout(views, device=CPU, tokens: int = TOKENS):
    return SceneLayout(tuple(views), tokens, device)


def with_gradient(act, qkv):
    """What a function of qkv gives, and the gradient of an uneven sum of it."""
    leaf = qkv.detach().clone().requires_grad_()
    out = act(leaf)
    weights = torch.linspace(-1, 1, out.numel(), device=out.device).view_as(out).to(out.dtype)
    return out.detach(), torch.autograd.grad((out * weights).sum(), leaf)[0]


@pytest.mark.parametrize("backend", ["auto", "sdpa", "plain"])
@given(views=st.lists(st.integers(1, 4), min_size=1, max_size=5))
@settings(max_examples=15, deadline=None)
def test_each_scene_attends_to_itself_alone(backend, views):
    qkv = packed(sum(views))
    expected = with_gradient(lambda x: scene_by_scene(x, views), qkv)
    got = with_gradient(lambda x: attend(x, layout(views), backend), qkv)
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("backend", ["auto", "sdpa", "plain"])
def test_without_a_layout_each_image_attends_to_itself_alone(backend):
    qkv = packed(4)
    expected = with_gradient(lambda x: scene_by_scene(x, [1] * 4), qkv)
    torch.testing.assert_close(with_gradient(lambda x: attend(x, None, backend), qkv), expected)


@pytest.mark.parametrize("backend", ["sdpa", "plain"])
@pytest.mark.parametrize("tokens", [TOKENS, SHORT_ROW // 2 + 1])
def test_half_precision_is_near_in_values_and_gradients(backend, tokens):
    """Of the two row lengths, one is written out on CPUs and the other is left to the fused kernel."""
    qkv, views = packed(3, tokens=tokens), [2, 1]
    scenes = layout(views, tokens=tokens)
    exact = with_gradient(lambda x: scene_by_scene(x, views), qkv)
    rough = with_gradient(lambda x: attend(x, scenes, backend), qkv.bfloat16())
    for a, b in zip(exact, rough, strict=True):
        torch.testing.assert_close(a, b.float(), atol=0.05, rtol=0.05)


def test_the_operator_keeps_its_promises_to_compilers():
    qkv = packed(5).requires_grad_()
    torch.library.opcheck(torch.ops.mum.grouped_attention.default, (qkv, layout([2, 3]).counts))


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


def test_a_bound_on_views_is_the_same_for_every_pack():
    longest = {SceneLayout(views, TOKENS, CPU, most_views=4).longest for views in ((1, 1), (3, 2), (4,))}
    assert longest == {20}
    assert SceneLayout((2, 6), TOKENS, CPU, most_views=4).longest == 30


def test_varlen_refuses_a_cpu():
    with pytest.raises(ValueError, match="varlen needs CUDA"):
        attend(packed(2), layout([2]), "varlen")


def test_automatic_choice_is_varlen_on_cuda_in_half_precision_only():
    cuda = torch.device("cuda")
    assert choose_backend("auto", cuda, torch.bfloat16) == "varlen"
    assert choose_backend("auto", cuda, torch.float32) == "sdpa"
    assert choose_backend("auto", CPU, torch.bfloat16) == "sdpa"
    assert choose_backend("plain", CPU, torch.float32) == "plain"


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("backend", ["varlen", "plain", "xformers"])
def test_every_backend_is_grouped_attention_on_a_gpu(backend):
    if backend == "xformers":
        pytest.importorskip("xformers.ops")
    views = [2, 1, 3]
    qkv = packed(6, torch.bfloat16).cuda()
    scenes = layout(views, qkv.device)
    expected = with_gradient(lambda x: attend(x, scenes, "sdpa"), qkv)
    got = with_gradient(lambda x: attend(x, scenes, backend), qkv)
    torch.testing.assert_close(got, expected, atol=2e-2, rtol=2e-2)


def test_xformers_is_asked_for_by_name_when_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "xformers", None)
    monkeypatch.setitem(sys.modules, "xformers.ops", None)
    with pytest.raises(ValueError, match=r"mumkit\[xformers\]"):
        attend(packed(2), layout([2]), "xformers")


def test_xformers_gets_one_row_and_the_lengths_of_scenes(monkeypatch):
    """A stand-in with xformers' call signatures: its kernels do not run on CPUs."""

    class BlockDiagonalMask:
        @classmethod
        def from_seqlens(cls, lengths, device=None):
            mask = cls()
            mask.lengths = lengths
            return mask

    def attention(q, k, v, attn_bias):
        assert q.shape[0] == 1
        parts = zip(*(x[0].split(attn_bias.lengths) for x in (q, k, v)), strict=True)
        heads_first = ([x.transpose(0, 1) for x in part] for part in parts)
        return torch.cat([F.scaled_dot_product_attention(*x).transpose(0, 1) for x in heads_first])[None]

    def gradients(grad, out, lse, *rows, attn_bias):
        assert torch.equal(out, attention(*rows, attn_bias=attn_bias))
        scenes = zip(*(x[0].split(attn_bias.lengths) for x in (*rows, grad)), strict=True)
        parts = []
        for q, k, v, back in ([x.transpose(0, 1) for x in scene] for scene in scenes):
            weights = F.softmax(q @ k.mT / 8**0.5, dim=-1)
            inner = weights * (back @ v.mT - (back @ v.mT * weights).sum(dim=-1, keepdim=True))
            parts.append([inner @ k / 8**0.5, inner.mT @ q / 8**0.5, weights.mT @ back])
        return [torch.cat([x.transpose(0, 1) for x in part])[None] for part in zip(*parts, strict=True)]

    names = ("xformers", "xformers.ops", "xformers.ops.fmha", "xformers.ops.fmha.attn_bias")
    modules = {name: types.ModuleType(name) for name in names}
    for name in names[1:]:
        above, _, last = name.rpartition(".")
        setattr(modules[above], last, modules[name])
    modules[names[3]].BlockDiagonalMask = BlockDiagonalMask
    modules[names[1]].memory_efficient_attention = attention
    modules[names[1]].memory_efficient_attention_forward_requires_grad = lambda *rows, attn_bias: (
        attention(*rows, attn_bias=attn_bias),
        None,
    )
    modules[names[1]].memory_efficient_attention_backward = gradients
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    qkv, views = packed(6), [2, 1, 3]
    expected = with_gradient(lambda x: scene_by_scene(x, views), qkv)
    got = with_gradient(lambda x: attend(x, layout(views), "xformers"), qkv)
    torch.testing.assert_close(got, expected)


def test_switch_reaches_every_block_and_changes_nothing(tiny, pack):
    noise = torch.rand(7, 24)
    fused = tiny(*pack, noise=noise)
    mum.use_attention(tiny, "plain")
    blocks = [*tiny.encoder.blocks, *tiny.decoder.frame_blocks, *tiny.decoder.scene_blocks]
    assert not any(block.attn.fused_attn for block in tiny.encoder.blocks)
    assert all(block.attention_backend == "plain" for block in blocks)
    torch.testing.assert_close(tiny(*pack, noise=noise).pred, fused.pred, atol=1e-5, rtol=1e-5)
    mum.use_attention(tiny, "auto")
    assert all(block.attn.fused_attn for block in tiny.encoder.blocks)
    assert all(block.attention_backend == "auto" for block in blocks)


def test_unknown_backend_names_the_nearest(tiny):
    with pytest.raises(ValueError, match="did you mean varlen"):
        use_attention(tiny, "varln")
