"""Schedule and parameter groups."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import mum
from pretrain.errors import InputError
from pretrain.optim import (
    OptimConfig,
    build_optimizer,
    layer_scales,
    learning_rate,
    parameter_groups,
    peak_lr,
    set_learning_rate,
)


def test_linear_rule_gives_the_papers_peak() -> None:
    assert peak_lr(OptimConfig(base_lr=1e-4), 6144) == pytest.approx(2.4e-3)
    assert peak_lr(OptimConfig(lr=7e-4, base_lr=1e-4), 6144) == 7e-4


def test_schedule_rises_linearly_then_falls_as_a_cosine() -> None:
    rate = [learning_rate(s, steps=500, peak=2.0, warmup=0.1) for s in range(501)]
    assert rate[0] == pytest.approx(2.0 / 50)
    assert rate[24] == pytest.approx(1.0)
    assert rate[49] == pytest.approx(2.0)
    assert rate[50] == pytest.approx(2.0)
    assert rate[50 + 225] == pytest.approx(1.0)
    assert rate[500] == pytest.approx(0.0, abs=1e-12)


@given(st.integers(1, 2000), st.floats(0, 1), st.floats(1e-6, 1))
def test_rate_stays_between_zero_and_peak(steps: int, warmup: float, peak: float) -> None:
    for step in {0, steps // 3, steps // 2, steps - 1}:
        rate = learning_rate(step, steps=steps, peak=peak, warmup=warmup)
        assert math.isfinite(rate)
        assert 0 <= rate <= peak * (1 + 1e-12)


class Parts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 4, 2, 2)
        self.mix = nn.Linear(4, 4)
        self.norm = nn.LayerNorm(4)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 4))
        self.mask_token = nn.Parameter(torch.zeros(1, 1, 4))


def test_only_matrices_decay() -> None:
    model = Parts()
    decayed, free = parameter_groups(model, 0.05)
    assert [id(p) for p in decayed["params"]] == [id(model.patches.weight), id(model.mix.weight)]
    assert decayed["weight_decay"] == 0.05
    assert free["weight_decay"] == 0.0
    assert len(decayed["params"]) + len(free["params"]) == len(list(model.parameters()))


def tiny() -> mum.MuM:
    with torch.device("meta"):
        return mum.create_model("mum_vittiny_patch8")


def test_deeper_encoder_blocks_learn_faster_and_the_decoder_at_the_full_rate() -> None:
    scales = layer_scales([name for name, _ in tiny().named_parameters()], 0.5)
    # Six blocks; powers of a half are exact.
    for block in range(6):
        assert scales[f"encoder.blocks.{block}.attn.qkv.weight"] == 0.5 ** (6 - block)
    assert scales["encoder.patch_embed.proj.weight"] == scales["encoder.cls_token"] == 0.5**7
    assert scales["encoder.norm.weight"] == 1
    assert {scale for name, scale in scales.items() if name.startswith("decoder.")} == {1}


def test_groups_of_a_layer_decay_hold_every_parameter_once_at_its_rate() -> None:
    model = tiny()
    names = {id(p): name for name, p in model.named_parameters()}
    scales = layer_scales(names.values(), 0.5)
    optimizer = build_optimizer(model, OptimConfig(layer_decay=0.5))
    set_learning_rate(optimizer, 2.0)
    rates = {names[id(p)]: group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert rates == {name: 2 * scale for name, scale in scales.items()}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(names)
    plain = {names[id(p)] for p in parameter_groups(model, 0.05)[0]["params"]}
    decayed = {names[id(p)] for g in optimizer.param_groups if g["weight_decay"] == 0.05 for p in g["params"]}
    assert decayed == plain


def test_an_update_moves_each_block_by_its_share() -> None:
    torch.manual_seed(0)
    model = mum.create_model("mum_vittiny_patch8")
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = build_optimizer(model, OptimConfig(layer_decay=0.5, weight_decay=0.0))
    set_learning_rate(optimizer, 1e-3)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    # The first step of Adam is the learning rate itself, whatever the gradient.
    for name, scale in layer_scales(before, 0.5).items():
        moved = (before[name] - dict(model.named_parameters())[name]).detach()
        assert moved.mean().item() == pytest.approx(1e-3 * scale, rel=1e-2)


@pytest.mark.parametrize(("field", "value"), [("layer_decay", 0.0), ("layer_decay", 1.1), ("ema", 1.0)])
def test_decays_out_of_range_are_refused(field: str, value: float) -> None:
    with pytest.raises(InputError, match=f"--optim.{field.replace('_', '-')}"):
        OptimConfig(**{field: value})
