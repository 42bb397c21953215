"""A foreign ViT's weights compute in our encoder what they computed at home."""

from functools import partial

import pytest
import timm
import torch
from timm.layers import LayerNorm
from timm.models import Eva, VisionTransformer
from torch import nn

import mum
from mum.foreign import fit_vit

CONFIG = mum.create_model("mum_vittiny_patch8").config
SHAPE = {"img_size": 64, "patch_size": 8, "embed_dim": 192, "depth": 6, "num_heads": 6, "num_classes": 0}


def dinov3(**changes: object) -> Eva:
    """A small model of DINOv3's form: scaled branches, no biases of queries, keys and values."""
    given = {
        "attn_type": "rope",
        "rope_type": "dinov3",
        "use_rot_pos_emb": True,
        "use_abs_pos_emb": False,
        "rope_rotate_half": True,
        "rope_temperature": 100.0,
        "qkv_fused": True,
        "qkv_bias": False,
        "init_values": 1.0,
        "global_pool": "token",
        "dynamic_img_size": True,
        "norm_layer": partial(LayerNorm, eps=1e-5),
    }
    model = Eva(**(SHAPE | given | changes))
    model.default_cfg = model.pretrained_cfg = {"mean": (0.5, 0.4, 0.3), "std": (0.5, 0.6, 0.7)}
    return shaken(model)


def shaken(model: nn.Module) -> nn.Module:
    """No parameter keeps a value at which a mistake would not show."""
    torch.manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return model.eval()


@pytest.mark.parametrize("bias", [False, True])
def test_a_model_of_the_same_positions_gives_the_same_features(bias: bool) -> None:
    theirs = dinov3(qkv_bias=bias, qkv_fused=True)
    encoder = mum.create_model("mum_vittiny_patch8").encoder.eval()
    fitted = fit_vit(theirs, CONFIG, "theirs")
    assert fitted.notes == ()
    encoder.load_state_dict(fitted.weights)
    pixels = torch.rand(2, 3, 64, 96)

    def normalised(mean: tuple[float, ...], std: tuple[float, ...]) -> torch.Tensor:
        return (pixels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)

    with torch.no_grad():
        there = theirs.forward_features(normalised((0.5, 0.4, 0.3), (0.5, 0.6, 0.7)))
        here = encoder.forward_features(normalised(CONFIG.mean, CONFIG.std))
    assert (there - here).abs().max() < 2e-4 * there.abs().max()


def test_what_has_no_place_is_named() -> None:
    fitted = fit_vit(dinov3(num_reg_tokens=2), CONFIG, "theirs")
    assert fitted.notes == ("its register tokens are left out",)
    plain = shaken(VisionTransformer(**SHAPE))
    fitted = fit_vit(plain, CONFIG, "theirs")
    assert fitted.notes == ("its absolute positions are left out",)
    assert torch.equal(fitted.weights["blocks.3.attn.qkv.weight"], plain.blocks[3].attn.qkv.weight)
    fitted = fit_vit(dinov3(rope_temperature=10000.0), CONFIG, "theirs")
    assert fitted.notes == ("its rotary positions (RotaryEmbeddingDinoV3) are of another kind",)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: dinov3(patch_size=16), "patches of 16 x 16 px there and 8 x 8 px here"),
        (lambda: dinov3(embed_dim=96), "width 96 there and 192 here"),
        (lambda: dinov3(depth=4), "4 blocks there and 6 blocks here"),
        (lambda: dinov3(num_heads=3), "3 heads there and 6 heads here"),
        (lambda: VisionTransformer(**SHAPE, qk_norm=True), r"has blocks\.0\.attn\.q_norm\.weight"),
        (
            lambda: VisionTransformer(**SHAPE, pre_norm=True),
            r"lacks patch_embed\.proj\.bias \(and 2 more such\)",
        ),
        (lambda: dinov3(use_post_norm=True), r"blocks of another kind \(EvaBlockPostNorm\)"),
        (lambda: timm.create_model("resnet18"), "is a ResNet"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(make: object, said: str) -> None:
    with torch.device("meta"):
        model = make()
    with pytest.raises(mum.WeightsError, match=said) as caught:
        fit_vit(model, CONFIG, "timm:theirs")
    assert str(caught.value).startswith("timm:theirs ")
    assert "\n" not in str(caught.value)
