"""Attention over packed tokens: dense within an image, ragged within a scene, never padded.

Shapes: q, k, v are (images, tokens, heads, head_dim) in pack order, so that the tokens of one scene are
contiguous. `SceneLayout` holds the number of views of each scene on the host, taken once a forward pass: no
block waits for the device. Backends of the ragged call:

- `sdpa`     scaled_dot_product_attention per group of scenes with equal view counts: the reference
- `plain`    softmax(q k^T) v per group; on CPUs in bf16 its backward is the faster one at small sizes
- `varlen`   torch.nn.attention.varlen on CUDA in half precision: one call, no groups
- `xformers` block-diagonal memory-efficient attention; imported only when chosen
- `auto`     `varlen` where it can run, else `sdpa`

Nothing here knows about projections, positions or masks.
"""

import difflib
from collections.abc import Callable
from itertools import groupby
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from timm.layers import AttentionRope
from torch import Tensor, nn

from mum.errors import InputError

Backend = Literal["auto", "sdpa", "plain", "varlen", "xformers"]
BACKENDS: tuple[str, ...] = get_args(Backend)


class SceneLayout:
    """Which images of a pack share a scene: counts on the host, offsets on the device.

    Args:
        views: number of images of each scene, in pack order; all at least 1.
        tokens: tokens an image.
        device: where the offsets are wanted.
    """

    def __init__(self, views: tuple[int, ...], tokens: int, device: torch.device) -> None:
        self.views = views
        self.tokens = tokens
        self.images = sum(views)
        self.device = device
        self.longest = max(views) * tokens
        self._offsets: Tensor | None = None

    @property
    def groups(self) -> list[tuple[int, int]]:
        """Runs of scenes with equal view counts, as (scenes, views)."""
        return [(len(list(run)), count) for count, run in groupby(self.views)]

    @property
    def offsets(self) -> Tensor:
        """(scenes + 1,) int32 token offsets, on the device."""
        if self._offsets is None:
            lengths = torch.tensor((0, *self.views), dtype=torch.int32) * self.tokens
            self._offsets = lengths.cumsum(0, dtype=torch.int32).to(self.device, non_blocking=True)
        return self._offsets

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
        layout = SceneLayout(tuple(self.views[s] for s in scenes), self.tokens, self.device)
        return layout, order.to(self.device), order.argsort().to(self.device)


def dense_attention(q: Tensor, k: Tensor, v: Tensor, *, plain: bool = False) -> Tensor:
    """Attention within each row of a batch.

    Args:
        q, k, v: (N, T, heads, head_dim).
        plain: write out the softmax instead of calling the fused kernel.

    Returns:
        (N, T, heads, head_dim).
    """
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    if plain:
        weights = torch.matmul(q * q.shape[-1] ** -0.5, k.transpose(-2, -1)).softmax(dim=-1)
        out = torch.matmul(weights, v)
    else:
        out = F.scaled_dot_product_attention(q, k, v)
    return out.transpose(1, 2)


def ragged_attention(
    q: Tensor, k: Tensor, v: Tensor, layout: SceneLayout, backend: Backend = "auto"
) -> Tensor:
    """Attention within each scene of a pack.

    Args:
        q, k, v: (I, T, heads, head_dim), the images of a scene contiguous.
        layout: the scenes.
        backend: see the head of this file.

    Returns:
        (I, T, heads, head_dim).

    Raises:
        InputError: the backend cannot run here (device, dtype, or a package that is not installed).
    """
    if backend == "auto":
        half = q.dtype in (torch.bfloat16, torch.float16)
        backend = "varlen" if q.is_cuda and half else "sdpa"
    return _RAGGED[backend](q, k, v, layout)


def _grouped(plain: bool) -> Callable[[Tensor, Tensor, Tensor, SceneLayout], Tensor]:
    def attend(q: Tensor, k: Tensor, v: Tensor, layout: SceneLayout) -> Tensor:
        parts = []
        start = 0
        for scenes, views in layout.groups:
            stop = start + scenes * views
            packed = [x[start:stop].reshape(scenes, views * layout.tokens, *x.shape[2:]) for x in (q, k, v)]
            parts.append(dense_attention(*packed, plain=plain).reshape(stop - start, *q.shape[1:]))
            start = stop
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    return attend


def _varlen(q: Tensor, k: Tensor, v: Tensor, layout: SceneLayout) -> Tensor:
    if not (q.is_cuda and q.dtype in (torch.bfloat16, torch.float16)):
        raise InputError(
            f"the attention backend varlen needs CUDA and half precision, not {q.device.type} and {q.dtype}: "
            "use autocast on a GPU, or the backend sdpa"
        )
    from torch.nn.attention.varlen import varlen_attn

    q, k, v = (x.reshape(-1, *x.shape[2:]) for x in (q, k, v))
    out = varlen_attn(q, k, v, layout.offsets, layout.offsets, layout.longest, layout.longest)
    return out.unflatten(0, (layout.images, layout.tokens))


def _xformers(q: Tensor, k: Tensor, v: Tensor, layout: SceneLayout) -> Tensor:
    try:
        from xformers.ops import memory_efficient_attention
        from xformers.ops.fmha.attn_bias import BlockDiagonalMask
    except ImportError as error:
        raise InputError(
            f"the attention backend xformers cannot be imported ({error}): pip install 'mumkit[xformers]'"
        ) from error
    mask = BlockDiagonalMask.from_seqlens([count * layout.tokens for count in layout.views], device=q.device)
    q, k, v = (x.reshape(1, -1, *x.shape[2:]) for x in (q, k, v))
    return memory_efficient_attention(q, k, v, attn_bias=mask).reshape(
        layout.images, layout.tokens, *q.shape[2:]
    )


_RAGGED: dict[str, Callable[[Tensor, Tensor, Tensor, SceneLayout], Tensor]] = {
    "sdpa": _grouped(plain=False),
    "plain": _grouped(plain=True),
    "varlen": _varlen,
    "xformers": _xformers,
}


def use_attention(module: nn.Module, backend: Backend) -> None:
    """Choose the attention of every block inside a module, encoder and decoder.

    Raises:
        InputError: an unknown backend.
    """
    if backend not in BACKENDS:
        near = difflib.get_close_matches(backend, BACKENDS, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise InputError(f"unknown attention backend {backend!r}{hint}: one of {', '.join(BACKENDS)}")
    for part in module.modules():
        if isinstance(part, AttentionRope):
            part.fused_attn = backend != "plain"
        elif hasattr(part, "attention_backend"):
            part.attention_backend = backend


def use_plain_attention(module: nn.Module, on: bool = True) -> None:
    """Write out softmax(q k^T) v in every block of a module instead of calling the fused kernel.

    On CPUs in bf16, where the fused kernel's backward is slow, training at small sizes gains by it
    (benchmarks/attention_cpu.py: 1.6 to 1.8 times); in fp32, and on GPUs, leave it off.
    """
    use_attention(module, "plain" if on else "auto")
