"""Weights of any timm ViT as a beginning for one of our encoders.

What computes the same in another form is carried over exactly: scales of residual branches fold into the layer
before them, the input's normalisation into the patch kernel, missing biases are zeros. What our encoders have no
place for (absolute positions, register tokens) is left out and named; all else is refused by name. Nothing here
downloads or reads a file.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from timm.data import resolve_data_config
from timm.models.eva import EvaBlock
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from mum.encoder import build_encoder
from mum.masked import MuMConfig
from mum.weights import WeightsError

_LEFT_OUT = {
    r"pos_embed$": "its absolute positions are left out",
    r"reg_token$": "its register tokens are left out",
    r"(head|head_dist|fc_norm)\.|dist_token$|mask_token$|rope\.": "",
}
_MAY_STAY_RANDOM = {
    "cls_token": "its class token is missing and stays random",
    "norm.weight": "its last norm is missing and begins as the identity",
    "norm.bias": "",
}


class FittedWeights(NamedTuple):
    """What a foreign ViT gives to an encoder."""

    weights: dict[str, Tensor]
    """Tensors under the encoder's own names."""
    notes: tuple[str, ...]
    """What was left out, and what stays random: half sentences about the foreign model."""


def fit_vit(model: nn.Module, config: MuMConfig, origin: str) -> FittedWeights:
    """Bring the weights of a timm ViT into the form of the encoder that `config` describes.

    Args:
        model: the foreign model; on the meta device it is only checked.
        config: of the model that is to begin with them.
        origin: what errors call the foreign model.

    Raises:
        WeightsError: another patch, width, depth or number of heads, or tensors without a place here.
    """
    _check_shape(model, config, origin)
    with torch.device("meta"):
        encoder = build_encoder(config.encoder)
    wanted = encoder.state_dict()
    state = {key: value.detach().float() for key, value in model.state_dict().items()}
    notes = _positions(model, encoder)
    for pattern, note in _LEFT_OUT.items():
        found = [key for key in state if re.match(pattern, key)]
        notes += [note] if found and note else []
        for key in found:
            del state[key]
    _fold_scales(state)
    _fill_biases(state, wanted)
    _fold_normalisation(state, resolve_data_config({}, model=model), config)
    problems = [f"lacks {key}" for key in wanted if key not in state and key not in _MAY_STAY_RANDOM]
    problems += [f"has {key}, for which there is no place here" for key in state if key not in wanted]
    problems += [
        f"holds {key} as {tuple(state[key].shape)}, expected {tuple(wanted[key].shape)}"
        for key in wanted.keys() & state.keys()
        if state[key].shape != wanted[key].shape
    ]
    if problems:
        more = f" (and {len(problems) - 1} more such)" if len(problems) > 1 else ""
        raise WeightsError(f"{origin} cannot begin the encoder of {config.name}: it {problems[0]}{more}")
    notes += [note for key, note in _MAY_STAY_RANDOM.items() if key not in state and note]
    return FittedWeights(state, tuple(notes))


def _check_shape(model: nn.Module, config: MuMConfig, origin: str) -> None:
    try:
        kernel = model.patch_embed.proj.weight.shape
        blocks = model.blocks
        theirs = (tuple(kernel[2:]), kernel[0], len(blocks), blocks[0].attn.num_heads)
    except (AttributeError, TypeError, IndexError):
        raise WeightsError(
            f"{origin} is a {type(model).__name__}: only a ViT of blocks with one patch kernel can begin an encoder"
        ) from None
    ours = config.encoder
    if not isinstance(blocks[0], (Block, EvaBlock)):
        raise WeightsError(
            f"{origin} has blocks of another kind ({type(blocks[0]).__name__}), not of norms before layers"
        )
    expected = ((ours.patch_size,) * 2, ours.width, ours.depth, ours.heads)
    differences = [
        f"{before}{there}{after} there and {here}{after} here"
        for before, after, there, here in (
            ("patches of ", " px", *(f"{down} x {across}" for down, across in (theirs[0], expected[0]))),
            ("width ", "", theirs[1], expected[1]),
            ("", " blocks", theirs[2], expected[2]),
            ("", " heads", theirs[3], expected[3]),
        )
        if there != here
    ]
    if differences:
        raise WeightsError(
            f"{origin} does not fit the encoder of {config.name}: {', '.join(differences)}; take another model "
            "or other weights"
        )


def _positions(model: nn.Module, encoder: nn.Module) -> list[str]:
    """What to say of positions: nothing if the foreign model turns queries and keys as ours does."""

    def kind(rope: Any) -> tuple[Any, ...]:
        settings = ("temperature", "rotate_half", "normalize_coords")
        return (type(rope), *(getattr(rope, name, None) for name in settings))

    rope = getattr(model, "rope", None)
    if rope is None or kind(rope) == kind(encoder.rope):
        return []
    return [f"its rotary positions ({type(rope).__name__}) are of another kind"]


def _fold_scales(state: dict[str, Tensor]) -> None:
    """gamma * (W x + b) = (gamma W) x + gamma b: scales of residual branches go into the layer before."""
    for key in [key for key in state if re.fullmatch(r"blocks\.\d+\.(gamma_[12]|ls[12]\.gamma)", key)]:
        scale = state.pop(key)
        block = ".".join(key.split(".")[:2])
        layer = f"{block}.attn.proj" if "1" in key.removeprefix(block) else f"{block}.mlp.fc2"
        state[f"{layer}.weight"] = scale[:, None] * state[f"{layer}.weight"]
        if f"{layer}.bias" in state:
            state[f"{layer}.bias"] = scale * state[f"{layer}.bias"]


def _fill_biases(state: dict[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """One bias for queries, keys and values where the model has two, and zeros where it has none."""
    for key in [key for key in wanted if key.endswith("attn.qkv.bias") and key not in state]:
        attention = key.removesuffix("qkv.bias")
        like = state.get(f"{attention}proj.weight")
        if like is None:
            continue
        zeros = torch.zeros(len(like), device=like.device)
        query, value = (state.pop(f"{attention}{name}_bias", zeros) for name in "qv")
        state.pop(f"{attention}k_bias", None)  # a buffer of zeros
        state[key] = torch.cat((query, zeros, value))


def _fold_normalisation(state: dict[str, Tensor], data: Mapping[str, Any], config: MuMConfig) -> None:
    """Let the patch kernel take images normalised by `config` instead of by the foreign model's figures."""
    kernel, bias = state.get("patch_embed.proj.weight"), state.get("patch_embed.proj.bias")
    if (
        kernel is None
        or bias is None
        or (tuple(data["mean"]), tuple(data["std"])) == (config.mean, config.std)
    ):
        return
    # In doubles: the offsets add up over a whole patch.
    ours, theirs = (
        [torch.tensor(v, dtype=torch.float64, device=kernel.device) for v in (c["mean"], c["std"])]
        for c in ({"mean": config.mean, "std": config.std}, data)
    )
    scale, shift = ours[1] / theirs[1], (ours[0] - theirs[0]) / theirs[1]
    wide = kernel.double()
    state["patch_embed.proj.bias"] = (bias + (wide.sum((2, 3)) * shift).sum(1)).float()
    state["patch_embed.proj.weight"] = (wide * scale.view(1, 3, 1, 1)).float()
