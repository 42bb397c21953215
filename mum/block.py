"""The pre-norm transformer block of encoder and decoder: one way through it, lean in time and memory.

Tokens are (I, T, width). `forward_block` runs any module with the parts norm1, attn.qkv, attn.proj, norm2,
mlp.fc1 and mlp.fc2: the decoder's `Block` and the encoder's timm blocks alike. This file knows neither masks
nor scenes beyond the layout it hands on. Source of the block: ViT, arXiv 2010.11929, section 3.1.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from timm.models.eva import EvaBlock
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mum.attention import Backend, SceneLayout, attend
from mum.rope import rotate_packed


class Attention(nn.Module):
    """Weights of self-attention: queries, keys and values from one matrix, and the projection behind."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.num_heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)


class Mlp(nn.Module):
    """Weights of two linear layers with a GELU between them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)


class Block(nn.Module):
    """A pre-norm transformer block with rotary positions, within images or, given a layout, within scenes."""

    attention_backend: Backend = "auto"
    lean = False

    def __init__(self, width: int, heads: int, norm_eps: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=norm_eps)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=norm_eps)
        self.mlp = Mlp(width)

    def forward(self, x: Tensor, sin: Tensor, cos: Tensor, layout: SceneLayout | None = None) -> Tensor:
        """Map (I, T, width) to itself; sin and cos as in `mum.rope.rotate_packed`."""
        return forward_block(self, x, sin, cos, layout)


class EncoderBlock(EvaBlock):
    """timm's block, which also takes rows of sines and cosines for every token, and then goes our way."""

    attention_backend: Backend = "auto"
    lean = False

    def forward(
        self,
        x: Tensor,
        rope: Tensor | tuple[Tensor, Tensor] | None = None,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Tensor:
        """Map (I, T, width) to itself; `rope` as timm's, or a pair as in `mum.rope.rotate_packed`."""
        if isinstance(rope, tuple):
            return forward_block(self, x, *rope, None)
        return super().forward(x, rope, attn_mask, is_causal)


def forward_block(
    block: Block | EncoderBlock, x: Tensor, sin: Tensor, cos: Tensor, layout: SceneLayout | None
) -> Tensor:
    """Attention, then the MLP, each on normed tokens and added to them.

    What a lean block drops between forward and backward it makes again at next to no cost: its norms and its
    GELU, never a matrix product. Compiled blocks choose so by themselves.
    """
    attn, mlp = block.attn, block.mlp
    drops = block.lean and torch.is_grad_enabled() and not torch.compiler.is_compiling()
    run = _dropping if drops else _keeping
    qkv = run(lambda x: attn.qkv(block.norm1(x)), x).unflatten(-1, (3, attn.num_heads, -1))
    out = attend(rotate_packed(qkv, sin, cos), layout, block.attention_backend)
    x = x + attn.proj(out.flatten(2))
    hidden = run(lambda x: mlp.fc1(block.norm2(x)), x)
    return x + run(lambda hidden: mlp.fc2(F.gelu(hidden)), hidden)


def _keeping(act: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return act(x)


def _dropping(act: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    # Recomputation ends with the last tensor that is wanted, which is before the matrix product.
    return checkpoint(act, x, use_reentrant=False, preserve_rng_state=False)


def use_lean_blocks(module: nn.Module, on: bool = True) -> None:
    """Let every block inside a module keep about half as much between the passes; norms and GELUs run twice."""
    for part in module.modules():
        if isinstance(part, (Block, EncoderBlock)):
            part.lean = on
