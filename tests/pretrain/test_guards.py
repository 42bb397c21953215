"""The finite guard: nothing that is not finite reaches the weights."""

import pytest
import torch
from torch import nn

from pretrain.guards import FiniteGuard, NonFiniteError
from pretrain.optim import OptimConfig, build_optimizer, set_learning_rate


@pytest.mark.parametrize("where", ["loss", "norm"])
def test_update_is_held_back_and_stays_held_back(where: str) -> None:
    model = nn.Linear(3, 3)
    optimizer = build_optimizer(model, OptimConfig())
    set_learning_rate(optimizer, 0.1)
    guard = FiniteGuard(torch.device("cpu"))
    good, bad = torch.tensor(1.0), torch.tensor(float("nan"))

    def update(loss: torch.Tensor, norm: torch.Tensor, gradient: float) -> torch.Tensor:
        for p in model.parameters():
            p.grad = torch.full_like(p, gradient)
        guard.watch(loss, norm, optimizer)
        optimizer.step()
        return model.weight.detach().clone()

    start = model.weight.detach().clone()
    moved = update(good, good, 1.0)
    assert not torch.equal(moved, start)
    held = update(bad if where == "loss" else good, bad if where == "norm" else good, float("nan"))
    assert torch.equal(held, moved)
    assert torch.equal(update(good, good, 1.0), moved)
    assert guard.tripped.item() == 1


def test_error_names_the_step() -> None:
    assert "step 17 " in str(NonFiniteError(17, float("nan"), 1.0))
