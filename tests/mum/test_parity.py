"""The reference's own numbers: mask, loss, predictions, features and gradients from its vectors."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import mum

FILES = ["mum_square", "mum_wide"]
THEIR_NAMES = {
    "decoder.frame_blocks.": "decoder_frame_blocks.",
    "decoder.scene_blocks.": "decoder_global_blocks.",
    "decoder.head.": "decoder_pred.",
    "decoder.mask_token": "mask_token",
    "encoder.": "",
}


@pytest.fixture(scope="module", params=FILES)
def reference(request, testdata):
    path = testdata(f"parity/{request.param}.safetensors")
    with safe_open(path, "pt") as file:
        spec = json.loads(file.metadata()["spec"])
    vectors = load_file(path)
    weights = {k.removeprefix("weights."): v for k, v in vectors.items() if k.startswith("weights.")}
    shape = spec["model"]
    model = mum.load_reference(
        weights,
        patch_size=shape["patch_size"],
        num_heads=shape["num_heads"],
        decoder_num_heads=shape["decoder_num_heads"],
        norm_eps=spec["norm_eps"],
        norm_pix_loss=shape["norm_pix_loss"],
    )
    out = model(vectors["images"], mask_ratio=spec["mask_ratio"], noise=vectors["noise"])
    out.loss.backward()
    return vectors, model, out


def worst(a: torch.Tensor, b: torch.Tensor) -> float:
    assert a.shape == b.shape
    return (a - b).abs().max().item()


def test_mask_is_the_reference_s(reference):
    vectors, _, out = reference
    assert torch.equal(out.mask, vectors["mask"])


def test_loss_and_predictions(reference):
    vectors, _, out = reference
    assert abs(out.loss.item() - vectors["loss"].item()) < 1e-5
    assert worst(out.pred, vectors["pred"]) < 1e-5


def test_final_features(reference):
    vectors, model, _ = reference
    tokens = model.encoder.forward_features(vectors["images"].flatten(0, 1))
    assert worst(tokens[:, 0], vectors["encoder.x_norm_cls_token"]) < 1e-5
    assert worst(tokens[:, 1:], vectors["encoder.x_norm_patchtokens"]) < 1e-5


def test_every_encoder_block(reference):
    vectors, model, _ = reference
    blocks = model.encoder.forward_intermediates(
        vectors["images"].flatten(0, 1), return_prefix_tokens=True, output_fmt="NLC", intermediates_only=True
    )
    ours = torch.stack([torch.cat((prefix, patches), dim=1) for patches, prefix in blocks])
    assert worst(ours, vectors["encoder.all_blocks"]) < 1e-5


def test_gradients(reference):
    vectors, model, _ = reference
    checked = 0
    for name, parameter in model.named_parameters():
        ours = next(prefix for prefix in THEIR_NAMES if name.startswith(prefix) or prefix == "encoder.")
        theirs = vectors.get(f"grad.{THEIR_NAMES[ours]}{name.removeprefix(ours)}")
        if theirs is not None:
            assert worst(parameter.grad, theirs) < 1e-4 * theirs.abs().max(), name
            checked += 1
    assert checked == sum(key.startswith("grad.") for key in vectors)
