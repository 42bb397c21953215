"""Attention over packed tokens: dense within an image, ragged within a scene, never padded.

Shapes: queries, keys and values come as one tensor qkv (images, tokens, 3, heads, head_dim) in pack order, so
that the tokens of one scene are contiguous. `SceneLayout` holds the number of views of each scene on the host,
taken once a forward pass: no block waits for the device. Backends of the ragged call:

- `sdpa`     scaled_dot_product_attention per group of scenes with equal view counts: the reference
- `plain`    softmax(q k^T) v per group, written out where anyone can count its operations; not for compilers
- `varlen`   torch.nn.attention.varlen on CUDA in half precision: one call, no groups
- `xformers` block-diagonal memory-efficient attention; imported only when chosen
- `auto`     `varlen` where it can run, else `sdpa`

View counts change from step to step, so compilers see the grouped backends as one operator (`mum::grouped_attention`)
over qkv and a tensor of counts, which never makes them compile again. Nothing here knows about projections,
positions or masks.
"""

import difflib
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from timm.layers import AttentionRope
from torch import Tensor, nn

from mum.errors import InputError

Backend = Literal["auto", "sdpa", "plain", "varlen", "xformers"]
BACKENDS: tuple[str, ...] = get_args(Backend)

SHORT_ROW = 512
"""Tokens up to which, on CPUs in half precision, written-out attention is quicker than the fused kernel, whose
backward falls back to fp32 there (benchmarks/attention_cpu.py)."""

_WEIGHTS_AT_ONCE = 1 << 21  # written out, so many that they stay in the cache
_EACH_BY_ITSELF = torch.empty(0, dtype=torch.int64)


class SceneLayout:
    """Which images of a pack share a scene: counts on the host, offsets on the device.

    Args:
        views: number of images of each scene, in pack order; all at least 1.
        tokens: tokens an image.
        device: where the offsets are wanted.
        most_views: bound on the views of a scene that stays the same from pack to pack; None: of this pack.
    """

    def __init__(
        self, views: tuple[int, ...], tokens: int, device: torch.device, most_views: int | None = None
    ) -> None:
        self.views = views
        self.tokens = tokens
        self.images = sum(views)
        self.device = device
        self.most_views = max(most_views or 0, *views)
        self.longest = self.most_views * tokens
        self.counts = torch.tensor(views)
        """(scenes,) int64 views of each scene, on the CPU."""
        lengths = torch.tensor((0, *views), dtype=torch.int32) * tokens
        self.offsets = _to_device(lengths.cumsum(0, dtype=torch.int32), device)
        """(scenes + 1,) int32 token offsets, on the device."""

    @property
    def groups(self) -> list[tuple[int, int]]:
        """Runs of scenes with equal view counts, as (scenes, views)."""
        return _runs(self.views)

    def sorted(self) -> tuple["SceneLayout", Tensor, Tensor] | None:
        """The same scenes by rising view count, so that equal counts stand together.

        Returns:
            None where they already do; else the layout, the image order (I,) that makes it and its inverse.
        """
        if len(self.groups) == len(set(self.views)):
            return None
        starts = [0]
        for count in self.views:
            starts.append(starts[-1] + count)
        scenes = sorted(range(len(self.views)), key=self.views.__getitem__)
        order = torch.tensor([starts[s] + i for s in scenes for i in range(self.views[s])])
        views = tuple(self.views[s] for s in scenes)
        layout = SceneLayout(views, self.tokens, self.device, self.most_views)
        return layout, _to_device(order, self.device), _to_device(order.argsort(), self.device)


def _to_device(value: Tensor, device: torch.device) -> Tensor:
    # From pageable memory the copy would wait for all work queued on the device.
    return value.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else value


def choose_backend(backend: Backend, device: torch.device, dtype: torch.dtype) -> Backend:
    """What `auto` means on a device in a precision; any other backend is checked and given back.

    Raises:
        InputError: the backend cannot run there (device, dtype, or a package that is not installed).
    """
    check_backend(backend)
    half = dtype in (torch.bfloat16, torch.float16)
    if backend == "auto":
        return "varlen" if device.type == "cuda" and half else "sdpa"
    if backend == "varlen" and not (device.type == "cuda" and half):
        raise InputError(
            f"the attention backend varlen needs CUDA and half precision, not {device.type} and {dtype}: "
            "use autocast on a GPU, or the backend sdpa"
        )
    if backend == "xformers":
        _import_xformers()
    return backend


def attend(qkv: Tensor, layout: SceneLayout | None, backend: Backend = "auto") -> Tensor:
    """Attention within each image of a pack, or, given a layout, within each scene.

    Args:
        qkv: (I, T, 3, heads, head_dim) queries, keys and values, the images of a scene contiguous.
        layout: the scenes; None: every image by itself.
        backend: see the head of this file.

    Returns:
        (I, T, heads, head_dim).

    Raises:
        InputError: the backend cannot run here (device, dtype, or a package that is not installed).
    """
    if backend in ("auto", "varlen"):
        backend = choose_backend(backend, qkv.device, qkv.dtype)
    if backend == "plain":
        return _plain(qkv, layout.views if layout else (1,) * len(qkv))
    if layout is None and qkv.is_cuda:
        q, k, v = (x.transpose(1, 2) for x in qkv.unbind(2))
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
    if layout is None:
        return _grouped(qkv, _EACH_BY_ITSELF)[0]
    if backend == "varlen":
        return _varlen(qkv, layout)
    if backend == "xformers":
        return _xformers(qkv, layout.counts)
    return _grouped(qkv, layout.counts)[0]


def _plain(qkv: Tensor, views: tuple[int, ...]) -> Tensor:
    parts = []
    for rows, _ in _groups(qkv, views):
        q, k, v = (x.transpose(1, 2) for x in rows.unbind(2))
        parts.append((_weights(q, k) @ v).transpose(1, 2).reshape(-1, qkv.shape[1], *q.shape[1::2]))
    return torch.cat(parts)


def _varlen(qkv: Tensor, layout: SceneLayout) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    # An operator with a fake kernel of its own; the longest row is a bound, so that it is a constant.
    q, k, v = qkv.flatten(0, 1).unbind(1)
    out = varlen_attn(q, k, v, layout.offsets, layout.offsets, layout.longest, layout.longest)
    return out.unflatten(0, qkv.shape[:2])


@torch.library.custom_op("mum::grouped_attention", mutates_args=())
def _grouped(qkv: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Attention, and what the fused kernel's backward wants: (I * heads * T,) float32 log-sum-exps.

    `counts` are the views of each scene, on the CPU; none at all: every image by itself.
    """
    images, tokens, _, heads, width = qkv.shape
    out = qkv.new_empty(images, tokens, heads, width)
    lse = qkv.new_empty(images * heads * tokens, dtype=torch.float32)
    for rows, start in _groups(qkv, counts.tolist() or [1] * len(qkv)):
        stop = start + rows[:, :, 0, 0, 0].numel() // tokens
        q, k, v = (x.transpose(1, 2) for x in rows.unbind(2))
        if _written_out(rows):
            attended = _weights(q, k) @ v
        elif qkv.device.type == "cpu":
            attended, sums = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v)
            lse[start * heads * tokens : stop * heads * tokens].view(sums.shape).copy_(sums)
        else:
            attended = F.scaled_dot_product_attention(q, k, v)
        out[start:stop].view(rows[:, :, 0].shape).copy_(attended.transpose(1, 2))
    return out, lse


@torch.library.custom_op("mum::grouped_attention_backward", mutates_args=())
def _grouped_backward(grad: Tensor, qkv: Tensor, out: Tensor, lse: Tensor, counts: Tensor) -> Tensor:
    """The gradient of qkv."""
    _, tokens, _, heads, _ = qkv.shape
    result = torch.empty(qkv.shape, dtype=qkv.dtype, device=qkv.device)
    for rows, start in _groups(qkv, counts.tolist() or [1] * len(qkv)):
        stop = start + rows[:, :, 0, 0, 0].numel() // tokens
        q, k, v = (x.transpose(1, 2) for x in rows.unbind(2))
        shape = rows[:, :, 0].shape
        back, attended = (x[start:stop].reshape(shape).transpose(1, 2) for x in (grad, out))
        if _written_out(rows):
            grads = _written_out_backward(back, q, k, v)
        elif qkv.device.type == "cpu":
            sums = lse[start * heads * tokens : stop * heads * tokens].view(q.shape[:3])
            grads = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
                back, q, k, v, attended, sums, 0.0, False
            )
        else:
            # Sums and random state of this kernel have shapes of their own; it is quick enough to ask again.
            attended, *kept = torch.ops.aten._scaled_dot_product_efficient_attention(q, k, v, None, True)
            grads = torch.ops.aten._scaled_dot_product_efficient_attention_backward(
                back, q, k, v, None, attended, *kept, 0.0, [True, True, True, False]
            )[:3]
        into = result[start:stop].view(rows.shape)
        for index, part in enumerate(grads):
            into[:, :, index].copy_(part.transpose(1, 2))
    return result


@_grouped.register_fake
def _(qkv: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    images, tokens, _, heads, width = qkv.shape
    out = qkv.new_empty(images, tokens, heads, width)
    return out, qkv.new_empty(images * heads * tokens, dtype=torch.float32)


@_grouped_backward.register_fake
def _(grad: Tensor, qkv: Tensor, out: Tensor, lse: Tensor, counts: Tensor) -> Tensor:
    return torch.empty(qkv.shape, dtype=qkv.dtype, device=qkv.device)


def _keep_for_backward(ctx: Any, inputs: tuple[Tensor, Tensor], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, *output)
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, grad: Tensor, _: None) -> tuple[Tensor, None]:
    qkv, counts, out, lse = ctx.saved_tensors
    return _grouped_backward(grad, qkv, out, lse, counts), None


_grouped.register_autograd(_differentiate, setup_context=_keep_for_backward)


def _groups(qkv: Tensor, views: Sequence[int]) -> Iterator[tuple[Tensor, int]]:
    """Rows (scenes, views * T, 3, heads, head_dim) of as many scenes of equal view count as go together, and
    the image where they start."""
    tokens, _, heads, _ = qkv.shape[1:]
    start = 0
    for scenes, count in _runs(views):
        stop = start + scenes * count
        rows = qkv[start:stop].reshape(scenes, count * tokens, *qkv.shape[2:])
        together = max(1, _WEIGHTS_AT_ONCE // (heads * rows.shape[1] ** 2)) if _written_out(rows) else scenes
        for number, part in enumerate(rows.split(together)):
            yield part, start + number * together * count
        start = stop


def _runs(views: Sequence[int]) -> list[tuple[int, int]]:
    """Runs of equal view counts, as (scenes, views)."""
    return [(len(list(run)), count) for count, run in groupby(views)]


def _written_out(rows: Tensor) -> bool:
    half = rows.dtype in (torch.bfloat16, torch.float16)
    return rows.device.type == "cpu" and half and rows.shape[1] <= SHORT_ROW


def _weights(q: Tensor, k: Tensor) -> Tensor:
    with torch.autocast(q.device.type, enabled=False):
        return (q * q.shape[-1] ** -0.5 @ k.mT).softmax(dim=-1)


def _written_out_backward(grad: Tensor, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    scale = q.shape[-1] ** -0.5
    weights = _weights(q, k)
    back = torch.ops.aten._softmax_backward_data(grad @ v.mT, weights, -1, weights.dtype)
    return back @ k * scale, back.mT @ q * scale, weights.mT @ grad


def _import_xformers() -> Any:
    try:
        import xformers.ops
        import xformers.ops.fmha.attn_bias
    except ImportError as error:
        raise InputError(
            f"the attention backend xformers cannot be imported ({error}): pip install 'mumkit[xformers]'"
        ) from error
    return xformers.ops


def _one_row(ops: Any, qkv: Tensor, counts: Tensor) -> tuple[list[Tensor], Any]:
    lengths = (counts * qkv.shape[1]).tolist()
    mask = ops.fmha.attn_bias.BlockDiagonalMask.from_seqlens(lengths, device=qkv.device)
    return [x[None] for x in qkv.flatten(0, 1).unbind(1)], mask


@torch.library.custom_op("mum::xformers_attention", mutates_args=())
def _xformers(qkv: Tensor, counts: Tensor) -> Tensor:
    """One call over all scenes; `counts` are their views, on the CPU."""
    ops = _import_xformers()
    rows, mask = _one_row(ops, qkv, counts)
    out = ops.memory_efficient_attention(*rows, attn_bias=mask)
    return out.reshape(qkv[:, :, 0].shape).contiguous()


@torch.library.custom_op("mum::xformers_attention_backward", mutates_args=())
def _xformers_backward(grad: Tensor, qkv: Tensor, counts: Tensor) -> Tensor:
    """The gradient of qkv. What its kernels keep has shapes of their own, so the forward is asked again."""
    ops = _import_xformers()
    rows, mask = _one_row(ops, qkv, counts)
    out, lse = ops.memory_efficient_attention_forward_requires_grad(*rows, attn_bias=mask)
    back = grad.reshape(out.shape)
    grads = ops.memory_efficient_attention_backward(back, out, lse, *rows, attn_bias=mask)
    return torch.stack([x[0] for x in grads], dim=1).view(qkv.shape)


@_xformers.register_fake
def _(qkv: Tensor, counts: Tensor) -> Tensor:
    return qkv.new_empty(qkv[:, :, 0].shape)


@_xformers_backward.register_fake
def _(grad: Tensor, qkv: Tensor, counts: Tensor) -> Tensor:
    return torch.empty(qkv.shape, dtype=qkv.dtype, device=qkv.device)


def _keep_packed(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _differentiate_packed(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
    return _xformers_backward(grad, *ctx.saved_tensors), None


_xformers.register_autograd(_differentiate_packed, setup_context=_keep_packed)


def check_backend(backend: str) -> None:
    """InputError, naming the nearest, unless there is such a backend."""
    if backend not in BACKENDS:
        near = difflib.get_close_matches(backend, BACKENDS, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise InputError(f"unknown attention backend {backend!r}{hint}: one of {', '.join(BACKENDS)}")


def use_attention(module: nn.Module, backend: Backend, most_views: int | None = None) -> None:
    """Choose the attention of every block inside a module, encoder and decoder.

    Args:
        module: a model or a part of one.
        backend: see the head of this file.
        most_views: views that no scene will exceed; with `varlen`, whose kernel takes it as a constant, blocks
            are then compiled once for packs of every kind.

    Raises:
        InputError: an unknown backend.
    """
    check_backend(backend)
    for part in module.modules():
        if isinstance(part, AttentionRope):
            part.fused_attn = backend != "plain"
        if hasattr(part, "attention_backend"):
            part.attention_backend = backend
        if hasattr(part, "most_views"):
            part.most_views = most_views
