"""The cross-view gain, against packs of strangers built by hand."""

from dataclasses import replace

import pytest
import torch

from mum import MuM, cross_view_gain


@pytest.fixture
def scenes():
    generator = torch.Generator().manual_seed(2)
    images = torch.randint(256, (4, 3, 3, 32, 32), dtype=torch.uint8, generator=generator)
    return images, torch.rand(12, 16, generator=generator)


def by_hand(model, images, noise, scored):
    """Put every scored image into a pack with the right views of other scenes, one pack at a time."""
    count, views = images.shape[:2]
    noise = noise.view(count, views, -1)
    losses = {"own": [], "strangers": []}
    for scene in scored:
        for view in range(views):
            for kind, of_kind in losses.items():
                pack = scene if kind == "own" else scene - view
                members = [(pack if kind == "own" else (pack + k) % count, k) for k in range(views)]
                assert members[view] == (scene, view)
                stack = torch.stack([images[m] for m in members])
                out = model(stack[None], noise=torch.stack([noise[m] for m in members]))
                of_kind.append(model.masked_loss(stack, out)[view])
    return [torch.stack(losses[kind]).mean().item() for kind in ("own", "strangers")]


@pytest.mark.parametrize("scored", [None, [0, 1, 2, 3], [1, 3]])
def test_gain_is_that_of_packs_built_by_hand(tiny, scenes, scored):
    images, noise = scenes
    chosen = scored if scored is None else torch.tensor([s in scored for s in range(4)])
    with torch.no_grad():
        expected = by_hand(tiny, images, noise, scored or range(4))
    assert cross_view_gain(tiny, images, noise, scored=chosen) == pytest.approx(expected, abs=1e-5)
    assert abs(expected[0] - expected[1]) > 1e-5


def test_reference_views_are_seen_but_not_scored(tiny, scenes):
    images, noise = scenes
    own, strangers = cross_view_gain(tiny, images, noise, reference_view=True)
    with torch.no_grad():
        out = tiny(images, noise=noise, reference_view=True)
    assert own == pytest.approx(out.loss.item(), abs=1e-6)
    only = torch.tensor([False, True, False, False])
    each = tiny.masked_loss(images, out).view(4, 3)
    scored, _ = cross_view_gain(tiny, images, noise, reference_view=True, scored=only)
    assert scored == pytest.approx(each[1, 1:].mean().item(), abs=1e-6)
    # Own and strangers are the same images under the same masks: without a look across there is no gain.
    for block in tiny.decoder.scene_blocks:
        torch.nn.init.zeros_(block.attn.proj.weight)
    own, strangers = cross_view_gain(tiny, images, noise, reference_view=True)
    assert own == pytest.approx(strangers, abs=1e-6)


def test_no_gain_without_a_look_at_other_views(tiny, scenes):
    for block in tiny.decoder.scene_blocks:
        torch.nn.init.zeros_(block.attn.proj.weight)
    own, strangers = cross_view_gain(tiny, *scenes)
    assert own == pytest.approx(strangers, abs=1e-6)


def test_mode_is_put_back(tiny, scenes):
    tiny.train()
    cross_view_gain(tiny, *scenes)
    assert tiny.training


@pytest.mark.parametrize("shape", [(2, 3), (4, 1)])
def test_too_few_scenes_or_views_are_refused(tiny, shape):
    images = torch.zeros(*shape, 3, 32, 32)
    with pytest.raises(ValueError, match="at least"):
        cross_view_gain(tiny, images, torch.rand(shape[0] * shape[1], 16))


def test_nothing_to_score_is_refused(tiny, scenes):
    with pytest.raises(ValueError, match="none of the 4"):
        cross_view_gain(tiny, *scenes, scored=torch.zeros(4, dtype=torch.bool))


def test_model_that_looks_at_one_view_gains_nothing(tiny, scenes):
    config = replace(tiny.config, decoder=replace(tiny.config.decoder, scene_wide=False))
    alone = MuM(config).eval()
    own, strangers = cross_view_gain(alone, *scenes)
    assert own == pytest.approx(strangers, abs=1e-6)
