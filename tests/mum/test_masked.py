"""Pixels, the loss, partial decoding, reference views and the model's front door."""

import json

import pytest
import torch

import mum
from mum import MuM, MuMConfig, mask_noise
from mum.masked import DECODERS, patchify, unpatchify


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


# -- partial decoding


def test_part_of_the_masked_patches_is_decoded(tiny, pack):
    out = tiny(*pack, noise=mask_noise(0, 0, 0, (7, 24)), decode_fraction=0.5)
    assert out.pred.shape == (7, 9, 192)
    assert out.decoded.shape == (7, 9)
    assert out.mask.sum(dim=1).tolist() == [18] * 7
    assert out.mask.gather(1, out.decoded).all()


def test_whole_fraction_is_the_plain_model(tiny, pack):
    noise = torch.rand(7, 24)
    plain, whole = tiny(*pack, noise=noise), tiny(*pack, noise=noise, decode_fraction=1.0)
    assert whole.decoded is None
    assert torch.equal(plain.pred, whole.pred)
    assert torch.equal(plain.loss, whole.loss)


def test_partial_loss_is_by_hand(tiny, pack):
    images, views = pack
    out = tiny(images, views, decode_fraction=0.4)
    pixels = patchify(tiny.normalise(images), 8)
    target = (pixels - pixels.mean(-1, keepdim=True)) / (pixels.var(-1, keepdim=True) + 1e-6).sqrt()
    rows = torch.arange(7)[:, None]
    expected = (out.pred - target[rows, out.decoded]).square().mean()
    torch.testing.assert_close(out.loss, expected)
    torch.testing.assert_close(tiny.masked_loss(images, out).mean(), expected)


def test_pixels_that_are_not_decoded_change_nothing(tiny, pack):
    """Neither as input nor as target: it is as if those patches did not exist."""
    images, views = pack
    images = tiny.normalise(images)
    noise = mask_noise(0, 0, 0, (7, 24))
    before = tiny(images, views, noise=noise, decode_fraction=0.5)
    unused = before.mask.bool().scatter(1, before.decoded, False)
    patches = torch.where(unused[..., None], torch.randn(7, 24, 192), patchify(images, 8))
    after = tiny(unpatchify(patches, 8, (4, 6)), views, noise=noise, decode_fraction=0.5)
    assert unused.any()
    assert torch.equal(before.loss, after.loss)


def test_every_parameter_gets_a_gradient_from_a_part(tiny, pack):
    tiny(*pack, decode_fraction=0.3).loss.backward()
    assert [name for name, p in tiny.named_parameters() if p.grad is None] == []


# -- reference views


def test_first_views_stay_unmasked_and_out_of_the_loss(tiny, pack):
    """Scenes of 2, 1, 3 and 1 views: images 0 and 3 are references, and lone images are masked."""
    images, views = pack
    out = tiny(images, views, reference_view=True)
    assert out.mask.sum(dim=1).tolist() == [0, 18, 18, 0, 18, 18, 18]
    pixels = patchify(tiny.normalise(images), 8)
    target = (pixels - pixels.mean(-1, keepdim=True)) / (pixels.var(-1, keepdim=True) + 1e-6).sqrt()
    hidden = out.mask.bool()
    torch.testing.assert_close(out.loss, (out.pred - target)[hidden].square().mean())
    each = tiny.masked_loss(images, out)
    assert each[[0, 3]].tolist() == [0, 0]
    torch.testing.assert_close(each.sum() / 5, out.loss)


def test_every_pixel_of_a_reference_view_is_seen_by_its_scene_alone(tiny, pack):
    images, views = pack
    images = tiny.normalise(images)
    noise = torch.rand(7, 24)
    before = tiny(images, views, noise=noise, reference_view=True).pred
    for patch in (0, 11, 23):
        patches = patchify(images, 8)
        patches[0, patch] += 1
        after = tiny(unpatchify(patches, 8, (4, 6)), views, noise=noise, reference_view=True).pred
        assert (before - after)[1].abs().max() > 1e-5
        assert torch.allclose(before[2:], after[2:], atol=1e-6)


def test_masked_views_are_masked_as_ever(tiny, pack):
    """A scene without its reference is the same in both modes."""
    images, views = pack
    noise = torch.rand(7, 24)
    with_reference = tiny(images, views, noise=noise, reference_view=True)
    plain = tiny(images, views, noise=noise)
    torch.testing.assert_close(with_reference.pred[[2, 6]], plain.pred[[2, 6]])
    assert torch.equal(with_reference.mask[[1, 2, 4, 5, 6]], plain.mask[[1, 2, 4, 5, 6]])


def test_lone_views_are_masked_as_ever(tiny, pack):
    """A reference has nobody to lend itself to there."""
    noise = torch.rand(7, 24)
    plain, alone = (tiny(pack[0], [1] * 7, noise=noise, reference_view=on) for on in (False, True))
    torch.testing.assert_close(alone.loss, plain.loss)
    assert torch.equal(alone.mask, plain.mask)


def test_reference_view_wants_all_patches_decoded(tiny, pack):
    with pytest.raises(ValueError, match=r"decode fraction 0\.5"):
        tiny(*pack, decode_fraction=0.5, reference_view=True)
