"""The timm encoder: presets, the masked forward, shapes that are refused."""

import pytest
import timm
import torch

from mum.encoder import PRESETS, EncoderConfig, build_encoder, encode_kept


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_timm_models(name):
    with torch.device("meta"):
        model = timm.create_model(name)
    config = PRESETS[name]
    assert (model.embed_dim, len(model.blocks)) == (config.width, config.depth)
    assert model.pretrained_cfg["input_size"] == (3, config.image_size, config.image_size)
    assert model.pretrained_cfg["architecture"] == name
    assert model.norm.eps == 1e-5


def test_large_has_the_published_number_of_parameters():
    with torch.device("meta"):
        model = timm.create_model("mum_vitlarge_patch16")
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 1) == 303.1


def test_timm_features_work_on_any_multiple_of_the_patch():
    model = timm.create_model("mum_vittiny_patch8").eval()
    images = torch.randn(1, 3, 40, 72)
    maps = model.forward_intermediates(images, indices=[1, 5], norm=True, intermediates_only=True)
    assert [tuple(m.shape) for m in maps] == [(1, 192, 5, 9)] * 2
    torch.testing.assert_close(maps[-1].flatten(2).mT, model.forward_features(images)[:, 1:])
    wrapped = timm.create_model("mum_vittiny_patch8", features_only=True)
    assert wrapped(images)[-1].shape == (1, 192, 5, 9)


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return build_encoder(EncoderConfig(width=32, depth=2, heads=2, patch_size=8)).eval()


def test_keeping_everything_is_the_full_forward(encoder):
    images = torch.randn(2, 3, 32, 48)
    keep = torch.arange(24).expand(2, -1)
    torch.testing.assert_close(encode_kept(encoder, images, keep), encoder.forward_features(images))


def test_order_of_kept_patches_only_orders_the_output(encoder):
    images = torch.randn(2, 3, 32, 48)
    keep = torch.stack([torch.randperm(24)[:9] for _ in range(2)])
    turned = encode_kept(encoder, images, keep.flip(1))
    torch.testing.assert_close(encode_kept(encoder, images, keep)[:, 1:], turned[:, 1:].flip(1))


def test_dropped_patches_are_never_seen(encoder):
    images = torch.randn(1, 3, 32, 48)
    changed = images.clone()
    changed[:, :, 8:16, 16:24] += 7  # patch 6 + 2 = 8
    for keep, same in ((torch.tensor([[0, 3, 9]]), True), (torch.tensor([[0, 8, 9]]), False)):
        assert torch.equal(encode_kept(encoder, images, keep), encode_kept(encoder, changed, keep)) == same


def test_residual_stream_stays_fp32_under_autocast(encoder):
    seen = []
    encoder.blocks[1].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].dtype))
    with torch.autocast("cpu", torch.bfloat16):
        encode_kept(encoder, torch.randn(1, 3, 32, 48), torch.tensor([[0, 8]]))
    assert seen == [torch.float32]


def test_images_that_do_not_divide_are_refused_with_a_size_that_does(encoder):
    with pytest.raises(ValueError, match=r"33 x 48 .* 8 x 8.* 32 x 48"):
        encode_kept(encoder, torch.randn(1, 3, 33, 48), torch.tensor([[0]]))


def test_head_width_must_suit_the_rotation():
    with pytest.raises(ValueError, match="multiple of 4"):
        EncoderConfig(width=30, depth=1, heads=5)
