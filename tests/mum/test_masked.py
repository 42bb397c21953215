"""Masks, noise, pixels, the loss and the model's front door."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import mum
from mum import MuM, MuMConfig, mask_noise
from mum.masked import DECODERS, patchify, uniform_mask, unpatchify


@given(
    patches=st.integers(2, 300),
    ratio=st.floats(0, 0.999),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=60, deadline=None)
def test_mask_keeps_the_smallest_noise(patches, ratio, seed):
    noise = mask_noise(seed, 0, 0, (3, patches))
    kept = int(patches * (1 - ratio))
    if not 0 < kept < patches:
        with pytest.raises(ValueError, match="mask ratio"):
            uniform_mask(noise, ratio)
        return
    keep, place, mask = uniform_mask(noise, ratio)
    assert keep.shape == (3, kept)
    assert mask.sum(dim=1).tolist() == [patches - kept] * 3
    assert not mask.gather(1, keep).any()
    assert (noise.gather(1, keep).amax(1) <= noise.masked_fill(mask == 0, 2).amin(1)).all()
    assert torch.equal(place.gather(1, keep), torch.arange(kept).expand(3, -1))


@pytest.mark.parametrize("ratio", [1.0, -0.1, float("nan")])
def test_mask_ratio_outside_its_range_is_refused(ratio):
    with pytest.raises(ValueError, match="not in"):
        uniform_mask(torch.rand(1, 4), ratio)


def test_noise_is_pinned():
    """These numbers may never change: runs in progress would see other masks."""
    noise = mask_noise(1, 2, 3, (2, 2))
    assert noise.dtype == torch.float32
    assert (noise * 2**24).int().tolist() == [[1553378, 6961549], [7118805, 3417161]]


def test_noise_is_keyed_by_all_three_and_uniform():
    draws = [mask_noise(*key, (400,)) for key in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 2, 0))]
    values = torch.cat(draws)
    assert len(values.unique()) > 1990
    assert 0 <= values.min() < values.max() < 1
    assert abs(values.mean() - 0.5) < 0.03
    assert torch.equal(mask_noise(0, 0, 0, (800,))[:400], draws[0])


def test_noise_refuses_negative_keys():
    with pytest.raises(ValueError, match="negative"):
        mask_noise(-1, 0, 0, (2,))


def test_patches_go_back_to_pixels():
    images = torch.randn(2, 3, 16, 24)
    patches = patchify(images, 8)
    assert patches.shape == (2, 6, 192)
    assert torch.equal(patches[1, 4].view(8, 8, 3), images[1, :, 8:16, 8:16].permute(1, 2, 0))
    assert torch.equal(unpatchify(patches, 8, (2, 3)), images)


def test_bytes_are_normalised_inside(tiny, pack):
    images, views = pack
    noise = torch.rand(7, 24)
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (tiny.config.mean, tiny.config.std))
    floats = tiny((images / 255 - mean) / std, views, noise=noise)
    torch.testing.assert_close(tiny(images, views, noise=noise).pred, floats.pred, atol=1e-5, rtol=1e-5)


def test_dense_scenes_are_a_pack(tiny):
    images = torch.randn(2, 3, 3, 32, 32)
    noise = torch.rand(6, 16)
    dense = tiny(images, noise=noise)
    packed = tiny(images.flatten(0, 1), torch.tensor([3, 3]), noise=noise)
    assert torch.equal(dense.pred, packed.pred)


def test_loss_is_by_hand(tiny, pack):
    images, views = pack
    out = tiny(images, views)
    pixels = patchify(tiny.normalise(images), 8)
    target = (pixels - pixels.mean(-1, keepdim=True)) / (pixels.var(-1, keepdim=True) + 1e-6).sqrt()
    hidden = out.mask.bool()
    expected = (out.pred - target)[hidden].square().mean()
    torch.testing.assert_close(out.loss, expected)
    torch.testing.assert_close(tiny.masked_loss(images, out).mean(), expected)


def test_loss_without_normalised_pixels(pack):
    model = mum.create_model("mum_vittiny_patch8", norm_pix_loss=False)
    out = model(*pack)
    hidden = out.mask.bool()
    expected = (out.pred - patchify(model.normalise(pack[0]), 8))[hidden].square().mean()
    torch.testing.assert_close(out.loss, expected)


def test_masked_loss_is_one_number_an_image(tiny, pack):
    out = tiny(*pack)
    each = tiny.masked_loss(pack[0], out)
    alone = tiny.masked_loss(pack[0][2:3], mum.MuMOutput(out.loss, out.pred[2:3], out.mask[2:3]))
    assert each.shape == (7,)
    torch.testing.assert_close(each[2:3], alone)


def test_reads_views_once_on_the_host(tiny, pack):
    """Counts may be a list, a tuple or a tensor: all the same."""
    images, views = pack
    noise = torch.rand(7, 24)
    expected = tiny(images, views, noise=noise).loss
    for same in (views.tolist(), tuple(views.tolist()), views.int()):
        assert torch.equal(tiny(images, same, noise=noise).loss, expected)


@pytest.mark.parametrize(
    ("shape", "views", "words"),
    [
        ((4, 3, 32, 32), None, "need views"),
        ((4, 3, 32, 32), [2, 1], "add up to 3 images, but the pack holds 4"),
        ((4, 3, 32, 32), [4, 0], "at least one view"),
        ((4, 1, 32, 32), [4], "1 channels"),
        ((2, 2, 3, 32, 32), [2, 2], "with views"),
        ((3, 32, 32), [1], "expected"),
        ((4, 3, 32, 36), [4], "multiple|divide"),
    ],
)
def test_bad_packs_are_refused_in_a_sentence(tiny, shape, views, words):
    with pytest.raises(ValueError, match=words):
        tiny(torch.zeros(shape), views)


def test_noise_of_another_shape_is_refused(tiny, pack):
    with pytest.raises(ValueError, match=r"\(7, 20\).*\(7, 24\)"):
        tiny(*pack, noise=torch.rand(7, 20))


def test_unknown_preset_names_the_nearest():
    with pytest.raises(ValueError, match="did you mean mum_vitlarge_patch16"):
        mum.create_model("mum_vitlarg_patch16")


@pytest.mark.parametrize("name", DECODERS)
def test_config_goes_through_json(name):
    with torch.device("meta"):
        config = mum.create_model(name).config
    assert MuMConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_config_refuses_what_it_does_not_know(tiny):
    values = tiny.config.to_dict()
    with pytest.raises(ValueError, match="no field colour"):
        MuMConfig.from_dict(values | {"colour": 1})
    with pytest.raises(ValueError, match="lacks width"):
        MuMConfig.from_dict(values | {"encoder": {"depth": 1, "heads": 1}})


def test_released_shape_has_the_published_number_of_parameters():
    with torch.device("meta"):
        model = mum.create_model("mum_vitlarge_patch16")
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 1) == 389.5


def test_it_learns(tiny):
    """On one pack the loss falls well below predicting each patch's mean, which costs 1."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, 3, 3, generator=generator) * 255
    images = torch.nn.functional.interpolate(coarse, size=32, mode="bicubic").clamp(0, 255).byte()
    images = images.expand(4, -1, -1, -1)
    optimizer = torch.optim.AdamW(tiny.parameters(), lr=3e-3)
    noise = mask_noise(0, 0, 0, (4, 16))
    for _ in range(100):
        out = tiny(images, [2, 2], noise=noise)
        optimizer.zero_grad()
        out.loss.backward()
        optimizer.step()
    assert out.loss < 0.5


def test_every_parameter_gets_a_gradient(tiny: MuM, pack):
    tiny(*pack).loss.backward()
    assert [name for name, p in tiny.named_parameters() if p.grad is None] == []
