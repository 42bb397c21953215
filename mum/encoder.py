"""The encoder: timm's `Eva`, registered with timm under our presets, and a forward of kept tokens only.

`timm.create_model("mum_vitlarge_patch16")` works once this file is imported, and everything timm offers for
its models (`forward_features`, `forward_intermediates`, hub and local folders) works with it. Images are
(I, 3, H, W), normalised, H and W multiples of the patch. This file knows nothing of scenes, decoders or
losses.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import LayerNorm
from timm.models import Eva, build_model_with_cfg, register_model
from timm.models.eva import checkpoint_filter_fn
from torch import Tensor

from mum.block import EncoderBlock
from mum.errors import InputError
from mum.rope import TEMPERATURE, compute_dtype, rope_table, signed_sin


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Shape of a ViT encoder with one class token and axial RoPE."""

    width: int
    """Channels of a token."""
    depth: int
    """Blocks."""
    heads: int
    """Attention heads a block; width / heads must be a multiple of 4."""
    patch_size: int = 16
    """Pixels along a patch's side."""
    norm_eps: float = 1e-5
    """Epsilon of every layer norm."""
    image_size: int = 224
    """Side, in pixels, that data pipelines should aim at; any other multiple of the patch works too."""

    def __post_init__(self) -> None:
        if self.width % self.heads or (self.width // self.heads) % 4:
            raise InputError(
                f"an encoder of width {self.width} with {self.heads} heads has heads of "
                f"{self.width / self.heads:g}: the head width must be a multiple of 4"
            )


PRESETS: Mapping[str, EncoderConfig] = MappingProxyType(
    {
        "mum_vittiny_patch8": EncoderConfig(width=192, depth=6, heads=6, patch_size=8, image_size=64),
        "mum_vittiny_patch16": EncoderConfig(width=192, depth=12, heads=3),
        "mum_vitsmall_patch16": EncoderConfig(width=384, depth=12, heads=6),
        "mum_vitbase_patch16": EncoderConfig(width=768, depth=12, heads=12),
        "mum_vitlarge_patch16": EncoderConfig(width=1024, depth=24, heads=16),
        "mum_vithuge_patch16": EncoderConfig(width=1280, depth=32, heads=16),
    }
)


def timm_arguments(config: EncoderConfig) -> dict[str, Any]:
    """Arguments of timm's `Eva` for an encoder; all but the layer norm, which has no JSON form in timm."""
    return {
        "img_size": config.image_size,
        "patch_size": config.patch_size,
        "embed_dim": config.width,
        "depth": config.depth,
        "num_heads": config.heads,
        "num_classes": 0,
        # Any other pooling makes timm move the last norm behind the pool, out of the features.
        "global_pool": "token",
        "attn_type": "rope",
        "rope_type": "dinov3",
        "use_rot_pos_emb": True,
        "use_abs_pos_emb": False,
        "rope_rotate_half": True,
        "rope_temperature": TEMPERATURE,
        "mlp_ratio": 4.0,
        "swiglu_mlp": False,
        "qkv_fused": True,
        "qkv_bias": True,
        "num_reg_tokens": 0,
        "class_token": True,
        "dynamic_img_size": True,
    }


def pretrained_config(config: EncoderConfig) -> dict[str, Any]:
    """What timm's `resolve_data_config` reads: input size, mean, standard deviation, resampling."""
    return {
        "url": "",
        "num_classes": 0,
        "input_size": (3, config.image_size, config.image_size),
        "fixed_input_size": False,
        "crop_pct": 1.0,
        "interpolation": "bicubic",
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "first_conv": "patch_embed.proj",
        "classifier": "head",
        "license": "apache-2.0",
    }


def build_encoder(
    config: EncoderConfig, *, variant: str = "mum_vit", pretrained: bool = False, **changes: Any
) -> Eva:
    """Build a timm encoder, its weights drawn from torch's generator.

    Args:
        config: its shape.
        variant: the name timm puts into its config.
        pretrained: as timm's (only with a `pretrained_cfg` that names a source).
        **changes: further arguments of timm's `Eva`, or of its builder such as `features_only`.
    """
    arguments = timm_arguments(config) | {"norm_layer": partial(LayerNorm, eps=config.norm_eps)} | changes
    arguments.setdefault("pretrained_cfg", None)
    if arguments["pretrained_cfg"] is None:
        arguments["pretrained_cfg"] = pretrained_config(config) | {"architecture": variant}
    encoder = build_model_with_cfg(
        Eva,
        variant,
        pretrained,
        pretrained_filter_fn=checkpoint_filter_fn,
        feature_cfg={"out_indices": 3, "feature_cls": "getter"},
        **arguments,
    )
    if not changes:
        for block in encoder.blocks:
            block.__class__ = EncoderBlock
    return encoder


# timm takes the data configs from a module's `default_cfgs` and the name from the entry point's.
default_cfgs = {name: pretrained_config(config) for name, config in PRESETS.items()}


def _preset(name: str, pretrained: bool, arguments: dict[str, Any]) -> Eva:
    return build_encoder(PRESETS[name], variant=name, pretrained=pretrained, **arguments)


@register_model
def mum_vittiny_patch8(pretrained: bool = False, **arguments: Any) -> Eva:
    """ViT-tiny/8 (arguments are timm's)."""
    return _preset("mum_vittiny_patch8", pretrained, arguments)


@register_model
def mum_vittiny_patch16(pretrained: bool = False, **arguments: Any) -> Eva:
    """ViT-tiny/16 (arguments are timm's)."""
    return _preset("mum_vittiny_patch16", pretrained, arguments)


@register_model
def mum_vitsmall_patch16(pretrained: bool = False, **arguments: Any) -> Eva:
    """ViT-small/16 (arguments are timm's)."""
    return _preset("mum_vitsmall_patch16", pretrained, arguments)


@register_model
def mum_vitbase_patch16(pretrained: bool = False, **arguments: Any) -> Eva:
    """ViT-base/16 (arguments are timm's)."""
    return _preset("mum_vitbase_patch16", pretrained, arguments)


@register_model
def mum_vitlarge_patch16(pretrained: bool = False, **arguments: Any) -> Eva:
    """ViT-large/16 (arguments are timm's)."""
    return _preset("mum_vitlarge_patch16", pretrained, arguments)


@register_model
def mum_vithuge_patch16(pretrained: bool = False, **arguments: Any) -> Eva:
    """ViT-huge/16 (arguments are timm's)."""
    return _preset("mum_vithuge_patch16", pretrained, arguments)


def patch_grid(encoder: Eva, images: Tensor) -> tuple[int, int]:
    """Patches (down, across) of images (..., H, W).

    Raises:
        InputError: H or W is not a multiple of the patch size.
    """
    down, across = encoder.patch_embed.patch_size
    height, width = images.shape[-2:]
    if height % down or width % across:
        raise InputError(
            f"images of {height} x {width} pixels do not divide into patches of {down} x {across}: resize or "
            f"crop them to {max(height // down, 1) * down} x {max(width // across, 1) * across}"
        )
    return height // down, width // across


def encode_kept(encoder: Eva, images: Tensor, keep: Tensor) -> Tensor:
    """Encode the class token and the kept patches of every image; no other patch is ever computed.

    Args:
        encoder: a timm `Eva` of this file.
        images: (I, 3, H, W), normalised.
        keep: (I, K) int64 patch numbers in row-major order.

    Returns:
        (I, 1 + K, width) after the last norm: the class token, then the patches in the order of `keep`.

    Raises:
        InputError: H or W is not a multiple of the patch size.
    """
    grid = patch_grid(encoder, images)
    patch = encoder.patch_embed.patch_size[0]
    rows = torch.arange(len(images), device=images.device)[:, None]
    # (I, K, 3, p, p): the kept patches only.
    tiles = images.unflatten(-1, (-1, patch)).unflatten(-3, (-1, patch))
    tiles = tiles.permute(0, 2, 4, 1, 3, 5)[rows, keep // grid[1], keep % grid[1]]
    # The patch kernel as a matrix: the same sums, and a far quicker backward than a convolution's on CPUs.
    kernel = encoder.patch_embed.proj
    x = F.linear(tiles.flatten(2), kernel.weight.flatten(1), kernel.bias)
    x = torch.cat((encoder.cls_token.expand(len(x), -1, -1), x.to(encoder.cls_token.dtype)), dim=1)

    head_dim = encoder.blocks[0].attn.head_dim
    table = rope_table(grid, head_dim, "identity", images.device, compute_dtype(images))
    # One set of rows an image, for all heads; row 0 is the class token's, which timm's own blocks do not rotate.
    if isinstance(encoder.blocks[0], EncoderBlock):
        sin, cos = table[F.pad(keep + 1, (1, 0))].chunk(2, dim=-1)
        rope = signed_sin(sin)[:, :, None, None], cos[:, :, None, None]
    else:
        rope = table[1:][keep].unsqueeze(1)
    for block in encoder.blocks:
        x = block(x, rope)
    return encoder.norm(x)
