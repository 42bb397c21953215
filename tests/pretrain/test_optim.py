"""Schedule and parameter groups."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pretrain.optim import OptimConfig, learning_rate, parameter_groups, peak_lr


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
