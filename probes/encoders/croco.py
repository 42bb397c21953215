"""CroCo's encoders as timm models: the released CroCo files, and those that were trained on from them.

CroCo (arXiv 2210.10716, 2211.10408) is a plain ViT without a class token; its second version rotates queries and keys
by the patch's row and column (RoPE, base 100). timm's `Eva` computes the same once the channels of queries and keys
are brought into its order. DUSt3R's and MASt3R's files hold such encoders under the same names. This file knows
names and arrays only, nothing of features.
"""

from argparse import Namespace
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from timm.models import Eva
from torch import Tensor, nn

from probes.encoders.backbones import read_weights
from probes.errors import ProbeError

HEAD_WIDTH = 64  # of every released one; files that were trained on no longer say it
FINETUNED = "downstream_head1."  # names in DUSt3R's and MASt3R's files, which take images in [-1, 1]


def croco_model(path: Path, spec: str) -> nn.Module | None:
    """The encoder in a CroCo, DUSt3R or MASt3R file; None if the file is something else.

    Raises:
        ProbeError: a file of theirs that does not fit.
    """
    with torch.serialization.safe_globals(
        [Namespace]
    ):  # DUSt3R keeps its command line: plain values in a namespace
        found = read_weights(path)
    state = found.get("model", found)
    if not isinstance(state, Mapping) or "enc_norm.weight" not in state:
        return None
    given = found.get("croco_kwargs") or {}
    try:
        return _build(state, given)
    except (RuntimeError, KeyError, ValueError) as error:
        reason = str(error).strip().splitlines()
        raise ProbeError(
            f"encoder {spec!r}: its CroCo encoder does not fit: {' '.join(reason[:2])[:300]}"
        ) from error


def _build(state: Mapping[str, Tensor], given: Mapping[str, Any]) -> nn.Module:
    kernel = state["patch_embed.proj.weight"]
    width, patch = kernel.shape[0], kernel.shape[-1]
    depth = len({key.split(".")[1] for key in state if key.startswith("enc_blocks.")})
    heads = int(given.get("enc_num_heads", width // HEAD_WIDTH))
    positions = state.get("enc_pos_embed")
    rotated = positions is None
    side = 14 if positions is None else round(len(positions) ** 0.5)
    base = str(given.get("pos_embed", "RoPE100")).removeprefix("RoPE")
    mean = (0.5,) * 3 if any(key.startswith(FINETUNED) for key in state) else (0.485, 0.456, 0.406)
    std = (0.5,) * 3 if mean[0] == 0.5 else (0.229, 0.224, 0.225)
    model = Eva(
        img_size=side * patch,
        patch_size=patch,
        embed_dim=width,
        depth=depth,
        num_heads=heads,
        num_classes=0,
        global_pool="",
        class_token=False,
        attn_type="rope",
        qkv_bias=True,
        mlp_ratio=state["enc_blocks.0.mlp.fc1.weight"].shape[0] / width,
        use_rot_pos_emb=rotated,
        use_abs_pos_emb=not rotated,
        rope_temperature=float(base) if rotated else 100.0,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        dynamic_img_size=True,
    )
    model.pretrained_cfg = {"input_size": (3, side * patch, side * patch), "mean": mean, "std": std}
    encoder = {key.removeprefix("enc_"): value for key, value in state.items() if key.startswith("enc_")}
    encoder |= {key: value for key, value in state.items() if key.startswith("patch_embed.")}
    if rotated:
        for key in list(encoder):
            if ".attn.qkv." in key:
                encoder[key] = _interleaved(encoder[key], heads)
    else:
        encoder["pos_embed"] = positions[None]
    model.load_state_dict(encoder)
    return model


def _interleaved(qkv: Tensor, heads: int) -> Tensor:
    """Rows of a qkv weight or bias, the pairs that rotate together side by side in queries and keys.

    CroCo pairs channel i of a half (rows, columns) with i + a quarter of the head; timm with i + 1. Reordering
    queries and keys alike leaves their products as they were.
    """
    head = qkv.shape[0] // 3 // heads
    half = torch.arange(head // 2).view(2, -1).T.flatten()  # 0, quarter, 1, quarter + 1 ...
    order = torch.cat([half, half + head // 2])
    q, k, v = qkv.unflatten(0, (3, heads, head)).unbind(0)
    return torch.stack([q[:, order], k[:, order], v]).flatten(0, 2)
