"""A number that is not finite on one rank: all stop before the same update, or leave the same one out."""

import functools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import mum
from pretrain import checkpoint

from .conftest import STEPS, figures, rows, run_ranks

Arguments = Callable[..., list[str]]
AT = 9
"""The step that goes wrong, one after a checkpoint."""

FEW = ("--log.every", "5", "--evaluation.every", "0")


class Poison(torch.autograd.Function):
    """The identity, with a gradient that is not a number."""

    @staticmethod
    def forward(_ctx: Any, value: torch.Tensor) -> torch.Tensor:
        return value.clone()

    @staticmethod
    def backward(_ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return gradient * math.nan


def plant(where: str, weights: Path, rank: int) -> None:
    """On rank 1, let step AT go wrong; write the weights that a stopped run has left."""
    from pretrain.guards import NonFiniteError
    from pretrain.parallel import whole_weights
    from pretrain.tasks import MaskedViews
    from pretrain.trainer import Trainer

    loss, run = MaskedViews.loss, Trainer.run
    calls = 0

    def planted(self: MaskedViews, model: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if rank != 1 or calls != AT:
            return loss(self, model, inputs)
        if where == "data":
            images = inputs["images"].float()
            images[0, 0, 0, 0] = math.nan
            return loss(self, model, {**inputs, "images": images})
        value = loss(self, model, inputs)
        return value * math.inf if where == "loss" else Poison.apply(value)

    def watched(self: Trainer) -> None:
        try:
            run(self)
        except NonFiniteError:
            left = whole_weights(self.model)
            if rank == 0:
                torch.save(left, weights)
            raise

    MaskedViews.loss = planted  # type: ignore[method-assign]
    Trainer.run = watched  # type: ignore[method-assign]


@pytest.mark.torchrun
@pytest.mark.parametrize(
    ("where", "options"),
    [("data", ()), ("loss", ("--parallel.shard", "2")), ("gradient", ("--optim.ema", "0.9"))],
)
def test_all_ranks_stop_before_the_update_and_can_go_on_from_the_last_checkpoint(
    two_ranks: Path, arguments: Arguments, tmp_path: Path, where: str, options: tuple[str, ...]
) -> None:
    out, weights = tmp_path / "run", tmp_path / "weights.pt"
    command = arguments(out, *FEW, *options)
    codes, said = run_ranks(2, command, tmp_path / "log", functools.partial(plant, where, weights))
    assert codes == [2, 2], said
    assert f"step {AT} was stopped before its update on all ranks" in said[0]
    status = json.loads((out / "status.json").read_text())
    assert status["state"] == "failed"
    assert f"step {AT} " in status["reason"]
    told = rows(out)
    assert [row["step"] for row in told] == list(range(1, AT))
    last = checkpoint.newest(out / "checkpoints")
    assert checkpoint.step_of(last) == AT - 1
    # The weights are those of the step before, as the newest checkpoint has them.
    left, saved = torch.load(weights), mum.load(last).state_dict()
    assert left.keys() == saved.keys()
    assert all(torch.equal(left[name], saved[name]) for name in saved)
    if where == "data":
        codes, said = run_ranks(2, command, tmp_path / "log")
        assert codes == [0, 0], said
        assert [row["loss"] for row in rows(out)] == [row["loss"] for row in rows(two_ranks)]


@pytest.mark.torchrun
def test_a_skipped_update_is_told_in_its_row_and_the_run_goes_on(
    two_ranks: Path, arguments: Arguments, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    command = arguments(out, *FEW, "--guard.on-nonfinite", "skip")
    codes, said = run_ranks(
        2, command, tmp_path / "log", functools.partial(plant, "gradient", tmp_path / "w")
    )
    assert codes == [0, 0], said
    assert f"step {AT} was skipped: gradient norm nan, loss " in said[0]
    told = rows(out)
    assert [row["step"] for row in told if "skipped" in row] == [AT]
    assert told[AT - 1]["grad_norm"] is None
    assert len(told) == STEPS
    before = [row["loss"] for row in figures(two_ranks)]
    # What the poisoned step began with is unharmed, so its loss is too; the next step repeats from the same weights.
    assert [row["loss"] for row in told[:AT]] == before[:AT]
    assert told[AT]["loss"] != before[AT]
    assert math.isfinite(told[-1]["loss"])
    state = json.loads((checkpoint.newest(out / "checkpoints") / "state.json").read_text())
    assert state["skipped"] == 1
