"""The closed form against torch's counter, and the published figures of the large model."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import mum
from mum import DecoderConfig, EncoderConfig, MuM, MuMConfig

MODES = [
    {},
    {"mask_ratio": 0.5},
    {"decode_fraction": 0.5},
    {"mask_ratio": 0.9, "decode_fraction": 0.25},
    {"reference_view": True},
]


def counted(model: MuM, views: list[int], size: tuple[int, int], mode: dict) -> int:
    mum.use_attention(model, "plain")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(sum(views), 3, *size), views, **mode)
    return counter.get_total_flops()


@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize("views", [[3, 3], [1, 4, 2]], ids=str)
@pytest.mark.parametrize("scene_wide", [True, False], ids=["scene", "image"])
def test_closed_form_is_what_torch_counts(mode, views, scene_wide):
    config = MuMConfig(
        name="tiny",
        encoder=EncoderConfig(width=64, depth=3, heads=2, patch_size=8),
        decoder=DecoderConfig(width=48, depth=5, heads=2, scene_wide=scene_wide),
    )
    model, size = MuM(config), (32, 64)
    assert model.flops(views, size, **mode) == pytest.approx(counted(model, views, size, mode), rel=0.01)


@pytest.mark.parametrize("name", ["mum_vittiny_patch8", "mum_vitbase_patch16"])
def test_presets_too(name):
    model = mum.create_model(name)
    size = model.config.encoder.image_size
    assert model.flops([2], size) == pytest.approx(counted(model, [2], (size, size), {}), rel=0.01)


def test_large_model_costs_what_is_known_of_it():
    """65.2 + 0.715 S GFLOP an image at 224 px with patches embedded before they are dropped: 0.23 more than here."""
    with torch.device("meta"):
        model = mum.create_model("mum_vitlarge_patch16")
    for views in (1, 2, 7, 12):
        image = model.flops([views], 224) / views / 1e9
        assert image == pytest.approx(65.2 + 0.715 * views - 0.23, rel=2e-3)


def test_half_the_masked_patches_cost_what_half_decodes():
    with torch.device("meta"):
        model = mum.create_model("mum_vitlarge_patch16")
    half, whole = (model.flops([7] * 18, 224, decode_fraction=fraction) for fraction in (0.5, 1))
    assert 0.74 < half / whole < 0.80


@pytest.mark.parametrize(
    ("views", "size", "mode", "words"),
    [
        ([2], 60, {}, "do not divide"),
        ([2], 64, {"mask_ratio": 0.999}, "keeps 0 of 64"),
        ([2], 64, {"decode_fraction": 0}, "not in"),
        ([2], 64, {"reference_view": True, "decode_fraction": 0.5}, "reference view"),
    ],
)
def test_what_forward_refuses_is_refused(views, size, mode, words):
    model = mum.create_model("mum_vittiny_patch8")
    with pytest.raises(ValueError, match=words):
        model.flops(views, size, **mode)


def test_encoder_alone_has_no_forward_to_count(tiny):
    from dataclasses import replace

    with pytest.raises(ValueError, match="no decoder"):
        MuM(replace(tiny.config, decoder=None)).flops([2], 32)


def test_a_pack_costs_what_its_scenes_do():
    """With a reference view too, where a lone view has none."""
    model = mum.create_model("mum_vittiny_patch8")
    apart = model.flops([1], 64) + model.flops([3], 64, reference_view=True)
    assert model.flops([1, 3], 64, reference_view=True) == apart
