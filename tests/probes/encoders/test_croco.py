"""CroCo's files: the same features as its own formula gives, written here from the papers."""

from argparse import Namespace
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from probes.encoders.encoder import open_encoder
from probes.errors import ProbeError

WIDTH, HEADS, PATCH, DEPTH = 128, 2, 16, 2


def croco_state(*, rotated: bool = True) -> dict[str, torch.Tensor]:
    """An encoder under the released names, with something of the decoder."""
    g = torch.Generator().manual_seed(0)
    shapes = {"patch_embed.proj.weight": (WIDTH, 3, PATCH, PATCH), "patch_embed.proj.bias": (WIDTH,)}
    for i in range(DEPTH):
        for name, rows, columns in (
            ("attn.qkv", 3 * WIDTH, WIDTH),
            ("attn.proj", WIDTH, WIDTH),
            ("mlp.fc1", 4 * WIDTH, WIDTH),
            ("mlp.fc2", WIDTH, 4 * WIDTH),
        ):
            shapes[f"enc_blocks.{i}.{name}.weight"] = (rows, columns)
            shapes[f"enc_blocks.{i}.{name}.bias"] = (rows,)
        for name in ("norm1", "norm2"):
            shapes |= {f"enc_blocks.{i}.{name}.{part}": (WIDTH,) for part in ("weight", "bias")}
    shapes |= {"enc_norm.weight": (WIDTH,), "enc_norm.bias": (WIDTH,), "decoder_embed.weight": (8, WIDTH)}
    if not rotated:
        shapes["enc_pos_embed"] = (16, WIDTH)
    return {name: torch.randn(shape, generator=g) * 0.15 for name, shape in shapes.items()}


def rotate(x: torch.Tensor, grid: int) -> torch.Tensor:
    """RoPE of (tokens, heads, width): in each half, channel i turns with i + a quarter; rows first, then columns."""
    quarter = x.shape[-1] // 4
    speed = 100 ** -(torch.arange(quarter) / quarter)
    place = torch.arange(grid * grid)
    halves = []
    for half, position in zip(x.chunk(2, -1), (place // grid, place % grid), strict=True):
        turned = torch.complex(half[..., :quarter], half[..., quarter:]) * torch.polar(
            torch.tensor(1.0), position[:, None] * speed
        ).unsqueeze(1)
        halves += [turned.real, turned.imag]
    return torch.cat(halves, -1)


def encode(state: dict[str, torch.Tensor], image: torch.Tensor) -> torch.Tensor:
    """Features (tokens, width) of a normalised image (3, S, S)."""
    norm = lambda x, name: F.layer_norm(x, (WIDTH,), state[f"{name}.weight"], state[f"{name}.bias"], 1e-6)  # noqa: E731
    linear = lambda x, name: F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])  # noqa: E731
    x = F.conv2d(image[None], state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], PATCH)
    grid, x = x.shape[-1], x[0].flatten(1).T
    if "enc_pos_embed" in state:
        x = x + state["enc_pos_embed"]
    for i in range(DEPTH):
        block = f"enc_blocks.{i}"
        q, k, v = (
            linear(norm(x, f"{block}.norm1"), f"{block}.attn.qkv").unflatten(1, (3, HEADS, -1)).unbind(1)
        )
        if "enc_pos_embed" not in state:
            q, k = rotate(q, grid), rotate(k, grid)
        weights = torch.einsum("qhc,khc->hqk", q, k).div(q.shape[-1] ** 0.5).softmax(-1)
        x = x + linear(torch.einsum("hqk,khc->qhc", weights, v).flatten(1), f"{block}.attn.proj")
        x = x + linear(F.gelu(linear(norm(x, f"{block}.norm2"), f"{block}.mlp.fc1")), f"{block}.mlp.fc2")
    return norm(x, "enc_norm")


@pytest.mark.parametrize("rotated", [True, False])
def test_features_are_crocos(tmp_path: Path, rotated: bool) -> None:
    state = croco_state(rotated=rotated)
    given = {"enc_num_heads": HEADS, "pos_embed": "RoPE100" if rotated else "cosine"}
    torch.save({"croco_kwargs": given, "model": state}, tmp_path / "croco.pth")
    encoder = open_encoder(str(tmp_path / "croco.pth"), size=64)
    assert (encoder.class_tokens, encoder.patch_size, encoder.num_layers) == (0, PATCH, DEPTH)
    image = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(1))
    mean, std = torch.tensor(encoder.mean).view(3, 1, 1), torch.tensor(encoder.std).view(3, 1, 1)
    expected = encode(state, (image - mean) / std)
    found = encoder.encode(image[None], [DEPTH])[DEPTH][0].flatten(0, 1)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_dust3rs_files_take_images_from_minus_one_to_one(tmp_path: Path) -> None:
    state = croco_state() | {"downstream_head1.dpt.weight": torch.zeros(2)}
    torch.save({"args": Namespace(lr=1e-4), "model": state}, tmp_path / "dust3r.pth")
    encoder = open_encoder(str(tmp_path / "dust3r.pth"), size=64)
    assert (encoder.mean, encoder.std) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def test_a_croco_file_with_a_hole_is_refused(tmp_path: Path) -> None:
    state = croco_state()
    del state["enc_blocks.1.attn.proj.bias"]
    torch.save({"model": state}, tmp_path / "croco.pth")
    with pytest.raises(ProbeError, match=r"does not fit: .*blocks\.1\.attn\.proj\.bias"):
        open_encoder(str(tmp_path / "croco.pth"), size=64)
