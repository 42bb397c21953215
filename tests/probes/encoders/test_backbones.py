"""Names and files of weights to timm models: what is taken, what is left, what is refused."""

import pickle
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from probes.encoders.backbones import encoder_state, nearest_multiple, patch_size, read_weights, timm_model
from probes.encoders.encoder import open_encoder, weights_hash
from probes.errors import ProbeError


@pytest.fixture(scope="module")
def vit() -> torch.nn.Module:
    torch.manual_seed(0)
    return timm.create_model("test_vit", num_classes=0)


def as_plain(state: dict) -> dict:
    return state


def as_training_code(state: dict) -> dict:
    return {"model": {f"module.{key}": value for key, value in state.items()}, "epoch": 3}


def as_mae(state: dict) -> dict:
    more = {"decoder_embed.weight": torch.zeros(4, 64), "mask_token": torch.zeros(1, 1, 4)}
    return {"model": state | more}


def as_teacher(state: dict) -> dict:
    named = {f"backbone.{key}": value for key, value in state.items()}
    return {"student": {}, "teacher": named | {"dino_head.mlp.weight": torch.zeros(3)}}


@pytest.mark.parametrize("form", [as_plain, as_training_code, as_mae, as_teacher])
def test_a_file_gives_its_weights_whatever_its_wrapping(
    tmp_path: Path, vit: torch.nn.Module, form: object
) -> None:
    path = tmp_path / "weights.pth"
    torch.save(form(vit.state_dict()), path)
    encoder = open_encoder(f"timm:test_vit@{path}", size=64)
    assert encoder.identity["weights"] == weights_hash(vit)


def test_a_safetensors_file_gives_its_weights(tmp_path: Path, vit: torch.nn.Module) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(vit.state_dict(), path)
    assert open_encoder(f"timm:test_vit@{path}", size=64).identity["weights"] == weights_hash(vit)


def test_clips_own_names_are_understood(tmp_path: Path) -> None:
    # OpenAI's file: a text tower beside a visual one, whose names and fused projections are its own.
    model = timm.create_model(
        "vit_tiny_patch16_224", pre_norm=True, norm_layer=torch.nn.LayerNorm, num_classes=0, depth=1
    )
    state, clip = model.state_dict(), {"text_projection": torch.zeros(2, 2)}
    names = {
        "cls_token": "class_embedding",
        "pos_embed": "positional_embedding",
        "patch_embed.proj.weight": "conv1.weight",
        "norm_pre.": "ln_pre.",
        "norm.": "ln_post.",
        "blocks.": "transformer.resblocks.",
        ".norm1.": ".ln_1.",
        ".norm2.": ".ln_2.",
        ".attn.qkv.": ".attn.in_proj_",
        ".attn.proj.": ".attn.out_proj.",
        ".mlp.fc1.": ".mlp.c_fc.",
        ".mlp.fc2.": ".mlp.c_proj.",
    }
    for key, value in state.items():
        renamed = key
        for ours, theirs in names.items():
            if renamed.startswith(ours) or ours.startswith("."):
                renamed = renamed.replace(ours, theirs, 1)
        flat = value.squeeze(0) if key in ("cls_token", "pos_embed") else value
        clip[f"visual.{renamed}"] = flat.squeeze(0) if key == "cls_token" else flat
    path = tmp_path / "clip.pt"
    torch.save(clip, path)
    loaded = timm.create_model(
        "vit_tiny_patch16_224",
        pretrained=True,
        pretrained_cfg_overlay={"state_dict": encoder_state(path, "clip")},
        pre_norm=True,
        norm_layer=torch.nn.LayerNorm,
        num_classes=0,
        depth=1,
    )
    assert weights_hash(loaded) == weights_hash(model)


def test_position_tables_of_another_size_are_resampled(tmp_path: Path) -> None:
    large = timm.create_model("test_vit", num_classes=0, img_size=224)
    path = tmp_path / "large.pth"
    torch.save(large.state_dict(), path)
    images = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    assert open_encoder(f"timm:test_vit@{path}", size=64).encode(images, [6])[6].shape == (1, 4, 4, 64)


def test_a_missing_tensor_is_named(tmp_path: Path, vit: torch.nn.Module) -> None:
    state = vit.state_dict()
    del state["blocks.1.norm1.weight"]
    torch.save(state, tmp_path / "short.pth")
    with pytest.raises(ProbeError, match=r"could not .*short\.pth: .*Missing.*blocks\.1\.norm1\.weight"):
        open_encoder(f"timm:test_vit@{tmp_path / 'short.pth'}", size=64)


def test_a_file_that_would_run_code_is_not_read(tmp_path: Path) -> None:
    marker = tmp_path / "ran"

    class Runs:
        def __reduce__(self) -> tuple:
            return (Path.touch, (marker,))

    for name, write in (
        ("torch.pth", torch.save),
        ("bare.pth", lambda it, at: at.write_bytes(pickle.dumps(it))),
    ):
        write({"model": Runs()}, tmp_path / name)
        with pytest.raises(ProbeError, match="no readable file of weights, or holds more than tensors"):
            open_encoder(f"timm:test_vit@{tmp_path / name}", size=64)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.pth", None, "there is no file of weights"),
        ("torn.safetensors", b"\x08\0\0\0\0\0\0\0{}", "no readable file"),
        ("torn.pth", b"PK\x03\x04 cut", "no readable file"),
    ],
)
def test_files_that_cannot_be_read_are_refused(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ProbeError, match=message):
        read_weights(tmp_path / name)


def test_a_file_of_other_things_is_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    with pytest.raises(ProbeError, match="holds no tensors"):
        encoder_state(tmp_path / "empty.pth", "spec")
    torch.save([1], tmp_path / "list.pth")
    with pytest.raises(ProbeError, match="holds a list"):
        read_weights(tmp_path / "list.pth")


@pytest.mark.parametrize(
    ("name", "size", "grid"), [("test_vit_relpos", 100, 6), ("xcit_nano_12_p16_224", 100, 6)]
)
def test_models_of_one_size_are_built_for_the_nearest(name: str, size: int, grid: int) -> None:
    encoder = open_encoder(f"random:{name}", size=size)
    found = encoder.encode(torch.zeros(1, 3, size, size, dtype=torch.uint8), [encoder.num_layers])
    assert found[encoder.num_layers].shape[1:3] == (grid, grid)


def test_the_patch_of_a_model_without_one_is_its_reduction() -> None:
    model, any_size = timm_model("test_resnet", "spec", 64, pretrained=False)
    assert (patch_size(model), any_size) == (32, True)


@pytest.mark.parametrize(
    ("side", "patch", "multiple"), [(96, 16, 96), (100, 16, 96), (72, 16, 64), (105, 14, 112), (3, 16, 16)]
)
def test_the_nearest_multiple(side: int, patch: int, multiple: int) -> None:
    assert nearest_multiple(side, patch) == multiple
