"""The decoder: tokens in their places, views that see their own scene only, legacy class tokens."""

import pytest
import torch

from mum.decoder import Decoder, DecoderConfig

GRID = (2, 3)


def decoder(**changes) -> Decoder:
    torch.manual_seed(0)
    config = DecoderConfig(**{"width": 16, "depth": 4, "heads": 2, **changes})
    return Decoder(config, input_width=12, output_width=5).eval()


def inputs(images: int, kept: int = 2):
    generator = torch.Generator().manual_seed(3)
    place = torch.stack([torch.randperm(6, generator=generator) for _ in range(images)])
    return torch.randn(images, 1 + kept, 12, generator=generator), place


@pytest.mark.parametrize(("depth", "frames", "scenes"), [(1, 1, 0), (2, 1, 1), (5, 3, 2), (12, 6, 6)])
def test_depth_counts_both_kinds(depth, frames, scenes):
    model = decoder(depth=depth)
    assert (len(model.frame_blocks), len(model.scene_blocks)) == (frames, scenes)


def test_mask_tokens_fill_the_places_of_masked_patches():
    model = decoder()
    x, place = inputs(3)
    embedded = model.embed(x)
    full = model._put_in_place(embedded, place)
    for image in range(3):
        assert torch.equal(full[image, 0], embedded[image, 0])
        for patch in range(6):
            rank = place[image, patch]
            expected = embedded[image, 1 + rank] if rank < 2 else model.mask_token[0, 0]
            assert torch.equal(full[image, 1 + patch], expected)


def test_a_pack_is_its_scenes_one_by_one():
    model = decoder()
    views = (2, 1, 3, 1, 2)
    x, place = inputs(9)
    together = model(x, place, GRID, views)
    start = 0
    for count in views:
        part = slice(start, start + count)
        torch.testing.assert_close(together[part], model(x[part], place[part], GRID, (count,)))
        start += count


def test_views_of_one_scene_see_each_other():
    model = decoder()
    x, place = inputs(2)
    changed = x.clone()
    changed[1] += 1
    together = model(changed, place, GRID, (2,))[0] - model(x, place, GRID, (2,))[0]
    apart = model(changed, place, GRID, (1, 1))[0] - model(x, place, GRID, (1, 1))[0]
    assert together.abs().max() > 1e-4
    assert apart.abs().max() == 0


def test_order_of_views_means_nothing():
    model = decoder()
    x, place = inputs(3)
    turned = model(x.flip(0), place.flip(0), GRID, (3,)).flip(0)
    torch.testing.assert_close(model(x, place, GRID, (3,)), turned)


def test_legacy_switch_zeroes_class_queries_and_keys_between_views_only():
    model = decoder(class_tokens_between_views="zero", depth=2)
    x, place = inputs(2)
    block = model.scene_blocks[0]
    seen = []
    block.attn.proj.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    model.frame_blocks[0].attn.proj.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    values = []
    for each in (model.frame_blocks[0], block):
        each.attn.qkv.register_forward_hook(lambda _, __, out: values.append(out.chunk(3, dim=-1)[2]))
    model(x, place, GRID, (2,))
    # With q and k of the class token zero, what it attends to is the plain mean of the scene's values.
    assert not torch.allclose(seen[0][0, 0], values[0][0].mean(dim=0), atol=1e-5)
    torch.testing.assert_close(seen[1][0, 0], values[1].mean(dim=(0, 1)))


def test_new_models_rotate_class_tokens_by_identity():
    x, place = inputs(2)
    old, new = decoder(class_tokens_between_views="zero"), decoder()
    new.load_state_dict(old.state_dict())
    assert not torch.allclose(old(x, place, GRID, (2,)), new(x, place, GRID, (2,)))


def test_same_generator_same_weights():
    a, b = decoder().state_dict(), decoder().state_dict()
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_head_width_must_suit_the_rotation():
    with pytest.raises(ValueError, match="multiple of 4"):
        DecoderConfig(width=30, depth=1, heads=5)


def test_decoding_every_patch_as_a_part_is_decoding_them_in_place():
    """Positions travel with the patches: neither their order nor the sorting of scenes changes an answer."""
    model = decoder()
    views = (2, 1, 2)
    x, place = inputs(5)
    whole = model(x, place, GRID, views)
    part = place.argsort(dim=1)
    masked = part[:, 2:]
    expected = whole.gather(1, masked.unsqueeze(-1).expand(-1, -1, 5))
    torch.testing.assert_close(model(x, place, GRID, views, part=part), expected)


def test_part_of_each_image_sees_only_what_is_decoded():
    model = decoder()
    x, place = inputs(4)
    part = place.argsort(dim=1)[:, :4]
    out = model(x, place, GRID, (3, 1), part=part)
    assert out.shape == (4, 2, 5)
    assert not torch.allclose(out, model(x, place, GRID, (3, 1), part=place.argsort(dim=1))[:, :2])
