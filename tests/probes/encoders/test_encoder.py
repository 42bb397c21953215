"""Encoder specs, the contract of features, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from timm.models.vision_transformer_sam import VisionTransformerSAM

import mum
from mum.encoder import EncoderConfig, build_encoder
from probes.encoders.encoder import TimmEncoder, choose_layers, open_encoder, weights_hash
from probes.errors import ProbeError


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randint(
        0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


def test_pixels_are_raw_patches_minus_the_mean_colour(images: torch.Tensor) -> None:
    features = open_encoder("pixels:8", size=64).encode(images, [1])[1]
    x = images[1].numpy().astype(np.float32) / 255
    expected = (x - x.mean(axis=(1, 2), keepdims=True))[:, 8:16, 24:32].transpose(1, 2, 0).ravel()
    assert features.shape == (2, 8, 8, 192)
    np.testing.assert_allclose(features[1, 1, 3], expected, atol=1e-6)


@pytest.mark.parametrize(("size", "patch"), [(64, 8), (128, 8), (129, 16), (448, 16)])
def test_pixels_take_a_patch_that_fits_the_size(size: int, patch: int) -> None:
    assert open_encoder("pixels", size=size).patch_size == patch


def test_features_of_the_last_layer_are_the_models_own(images: torch.Tensor) -> None:
    torch.manual_seed(5)
    model = mum.create_model("mum_vittiny_patch8").eval()
    encoder = open_encoder("random:mum_vittiny_patch8:5", size=64)
    features = encoder.encode(images, [6])[6]
    assert features.shape == (2, 8, 8, 192)
    # Other weights (the draws differ in order), so compare through the encoder's own forward.
    x = images.float() / 255
    x = (x - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(
        3, 1, 1
    )
    with torch.no_grad():
        tokens = encoder.model.forward_features(x)[:, 1:]
    torch.testing.assert_close(features.flatten(1, 2), tokens, atol=1e-5, rtol=1e-5)
    assert model.config.encoder.width == features.shape[-1]


def test_random_weights_are_a_function_of_the_seed_and_leave_torchs_generator_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    a, b = (open_encoder("random:mum_vittiny_patch8", size=64, seed=3).identity["weights"] for _ in range(2))
    assert a == b == open_encoder("random:mum_vittiny_patch8:3", size=64).identity["weights"]
    assert a != open_encoder("random:mum_vittiny_patch8", size=64, seed=4).identity["weights"]
    assert torch.equal(before, torch.get_rng_state())


def test_a_checkpoint_file_gives_its_own_weights(tmp_path: Path) -> None:
    model = mum.create_model("mum_vittiny_patch8")
    path = tmp_path / "encoder.safetensors"
    mum.save(
        model,
        path,
        config=model.config,
        preprocessing={"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "size": 64},
        summary={},
        with_decoder=False,
    )
    assert open_encoder(str(path), size=64).identity["weights"] == weights_hash(model.encoder)


def test_a_released_checkpoint_gives_its_encoder(tmp_path: Path) -> None:
    # Their names are timm's, beside a decoder's and tables that are computed here.
    encoder = build_encoder(EncoderConfig(width=64, depth=2, heads=16))
    state = encoder.state_dict() | {"rope_embed.periods": torch.zeros(1)}
    torch.save({"model": state}, tmp_path / "released.pth")
    assert open_encoder(str(tmp_path / "released.pth"), size=64).identity["weights"] == weights_hash(encoder)


def test_a_run_folder_gives_its_newest_checkpoint_and_is_remembered(tmp_path: Path) -> None:
    model = mum.create_model("mum_vittiny_patch8")
    preprocessing = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "size": 64}
    for step in (9, 10):
        with torch.no_grad():
            model.encoder.norm.bias += step
        path = tmp_path / "checkpoints" / f"step-{step}" / "model.safetensors"
        mum.save(model, path, config=model.config, preprocessing=preprocessing, summary={})
    encoder = open_encoder(str(tmp_path), size=64)
    assert (encoder.run, encoder.identity["weights"]) == (tmp_path, weights_hash(model.encoder))


def test_a_folder_that_timm_wrote_gives_its_weights(tmp_path: Path) -> None:
    model = timm.create_model("test_vit", num_classes=0)
    timm.models.save_for_hf(model, tmp_path)
    encoder = open_encoder(str(tmp_path), size=64)
    assert (encoder.run, encoder.identity["weights"]) == (None, weights_hash(model))


def test_weights_hash_sees_a_single_changed_number() -> None:
    layer = torch.nn.Linear(4, 4)
    before = weights_hash(layer)
    with torch.no_grad():
        layer.weight[2, 1] += 1e-6
    assert weights_hash(layer) != before


def test_any_timm_model_and_any_size(images: torch.Tensor) -> None:
    vit = open_encoder("random:test_vit", size=64)
    # 64 px are four patches of 16: nothing is resized; 72 px are resized to 64 (the nearest multiple, half to even).
    assert vit.encode(images, [vit.num_layers])[vit.num_layers].shape[:3] == (2, 4, 4)
    odd = torch.zeros(1, 3, 72, 72, dtype=torch.uint8)
    assert vit.encode(odd, [vit.num_layers])[vit.num_layers].shape[:3] == (1, 4, 4)
    cnn = open_encoder("random:test_resnet", size=64)
    assert cnn.encode(images, [cnn.num_layers])[cnn.num_layers].shape[:3] == (2, 2, 2)


def test_layers_are_counted_from_one() -> None:
    encoder = open_encoder("random:mum_vittiny_patch8", size=64)
    assert choose_layers(encoder, "last") == (6,)
    assert choose_layers(encoder, "all") == (1, 2, 3, 4, 5, 6)
    assert choose_layers(encoder, (4, -1)) == (4, 6)
    with pytest.raises(ProbeError, match="has layers 1 to 6, not 7"):
        choose_layers(encoder, (7,))
    assert choose_layers(open_encoder("pixels", size=64), (4,)) == (1,)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("pixel", "did you mean 'pixels'"),
        ("rnadom:mum_vittiny_patch8", "did you mean 'random'"),
        ("random:mum_vitiny_patch8", "did you mean 'mum_vittiny_patch8'"),
        ("random:mum_vittiny_patch8:x", "the seed 'x' is not a number"),
        ("pixels:0", "must be a number from 1 to the size 64"),
        ("runs/missing", "no such file or folder"),
        ("missing.safetensors", "no such file or folder"),
        ("timm:vit_bse_patch16_224", "did you mean 'vit_base_patch16_224'"),
        ("timm:test_vit@missing.pth", "there is no file of weights missing.pth"),
    ],
)
def test_what_is_no_encoder_is_refused_in_one_sentence(spec: str, message: str) -> None:
    with pytest.raises(ProbeError, match=message):
        open_encoder(spec, size=64)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProbeError, match="neither a run"):
        open_encoder(str(tmp_path), size=64)


def test_floats_in_the_unit_range_and_bytes_are_the_same_images(images: torch.Tensor) -> None:
    for spec in ("random:test_vit", "pixels:8"):
        encoder = open_encoder(spec, size=64)
        (layer,) = choose_layers(encoder, "last")
        bytes_, floats = encoder.encode(images, [layer]), encoder.encode(images.float() / 255, [layer])
        assert torch.equal(bytes_[layer], floats[layer])


def test_features_of_an_image_do_not_depend_on_its_company(images: torch.Tensor) -> None:
    # What was interrupted goes on in other batches, and on CPUs with the same numbers.
    encoder = open_encoder("random:test_vit", size=64)
    company = torch.cat([images, images.flip(-1), images.flip(-2)])
    assert torch.equal(encoder.encode(company, [6])[6][:2], encoder.encode(images, [6])[6])


def test_all_layers_come_from_one_forward_pass(images: torch.Tensor) -> None:
    encoder = open_encoder("random:test_vit", size=64)
    passes = []
    encoder.model.patch_embed.register_forward_hook(lambda *_: passes.append(1))
    found = encoder.encode(images, [5, 1, 3])
    assert (len(passes), sorted(found)) == (1, [1, 3, 5])
    for layer in (1, 3, 5):
        torch.testing.assert_close(found[layer], encoder.encode(images, [layer])[layer])


@pytest.mark.parametrize(
    ("spec", "class_tokens", "registers"),
    [("random:test_vit", 1, 0), ("random:vit_tiny_patch16_dinov3_qkvb", 1, 4), ("pixels", 0, 0)],
)
def test_tokens_beside_the_patches_are_counted_and_left_out(
    spec: str, class_tokens: int, registers: int, images: torch.Tensor
) -> None:
    encoder = open_encoder(spec, size=64)
    assert (encoder.class_tokens, encoder.registers) == (class_tokens, registers)
    (layer,) = choose_layers(encoder, "last")
    side = 64 // encoder.patch_size
    assert encoder.encode(images, [layer])[layer].shape[:3] == (2, side, side)


def test_the_models_own_mean_and_deviation_are_taken_and_named(images: torch.Tensor) -> None:
    model = timm.create_model("test_vit", num_classes=0)
    own = {"mean": (0.1, 0.2, 0.3), "std": (0.5, 0.6, 0.7)}
    model.pretrained_cfg = model.default_cfg = model.pretrained_cfg | own
    encoder = TimmEncoder(model, spec="own", size=64, device=torch.device("cpu"))
    assert (encoder.mean, encoder.std) == (own["mean"], own["std"])
    assert encoder.identity["mean"] == [0.1, 0.2, 0.3]
    x = (images / 255 - torch.tensor(own["mean"]).view(3, 1, 1)) / torch.tensor(own["std"]).view(3, 1, 1)
    torch.testing.assert_close(encoder.encode(images, [6])[6].flatten(1, 2), model.forward_features(x)[:, 1:])


@pytest.mark.parametrize(
    ("name", "norm"),
    [
        ("test_vit", "the model's last norm, on every layer"),
        ("test_resnet", "none: the model norms no layer that it hands out"),
        ("swin_tiny_patch4_window7_224", "the model's last norm, on its last layer"),
    ],
)
def test_which_norm_features_went_through_is_said(name: str, norm: str) -> None:
    encoder = open_encoder(f"random:{name}", size=64)
    assert encoder.norm == encoder.identity["norm"] == norm


def test_sams_neck_is_left_out_at_any_size() -> None:
    sam = VisionTransformerSAM(
        img_size=64, embed_dim=32, depth=2, num_heads=2, num_classes=0, neck_chans=8, use_rel_pos=True,
        window_size=2, global_attn_indexes=(1,),
    )  # fmt: skip
    encoder = TimmEncoder(sam, spec="sam", size=64, device=torch.device("cpu"))
    assert encoder.norm.startswith("none: SAM's neck")
    for size in (64, 96):
        found = encoder.encode(torch.zeros(1, 3, size, size, dtype=torch.uint8), [1, 2])
        assert {maps.shape for maps in found.values()} == {(1, size // 16, size // 16, 32)}


def test_images_need_not_be_square() -> None:
    wide = torch.zeros(1, 3, 60, 100, dtype=torch.uint8)
    assert open_encoder("random:test_vit", size=64).encode(wide, [6])[6].shape == (1, 4, 6, 64)


def test_a_model_that_cannot_take_the_size_is_refused_when_opened() -> None:
    with pytest.raises(ProbeError, match="cannot encode images of 64 px: Input height"):
        model = timm.create_model("test_vit", num_classes=0, img_size=160, dynamic_img_size=False)
        TimmEncoder(model, spec="fixed", size=64, device=torch.device("cpu"))


def test_a_classifier_without_maps_is_refused() -> None:
    with pytest.raises(ProbeError, match="no forward_intermediates"):
        TimmEncoder(torch.nn.Linear(2, 2), spec="linear", size=64, device=torch.device("cpu"))


def test_a_file_that_is_not_ours_is_refused_with_the_way_to_open_it(tmp_path: Path) -> None:
    torch.save(timm.create_model("test_vit", num_classes=0).state_dict(), tmp_path / "other.pth")
    with pytest.raises(ProbeError, match="timm:NAME@FILE"):
        open_encoder(str(tmp_path / "other.pth"), size=64)
