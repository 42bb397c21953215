"""The guards: nothing that is not finite reaches the weights, and spikes are told."""

import random

import pytest
import torch
from torch import nn

from pretrain.guards import FiniteGuard, GuardConfig, NonFiniteError, SpikeGuard
from pretrain.optim import OptimConfig, build_optimizer, set_learning_rate

GOOD, BAD = torch.tensor(1.0), torch.tensor(float("nan"))


class Training:
    """A model whose updates a guard watches."""

    def __init__(self, config: GuardConfig, skipped: int = 0) -> None:
        self.model = nn.Linear(3, 3)
        self.optimizer = build_optimizer(self.model, OptimConfig())
        set_learning_rate(self.optimizer, 0.1)
        self.guard = FiniteGuard(config, torch.device("cpu"), skipped)

    def update(self, loss: torch.Tensor = GOOD, norm: torch.Tensor = GOOD) -> bool:
        """One update; whether it changed the weights. Moments must change with them or not at all."""
        before = self.numbers()
        for p in self.model.parameters():
            p.grad = torch.full_like(p, float(loss + norm))
        self.guard.watch(loss, norm, self.optimizer)
        self.optimizer.step()
        pairs = list(zip(before, self.numbers(), strict=False))
        changed = {not torch.equal(old, new) for old, new in pairs}
        (answer,) = changed
        assert self.guard.tripped.item() == (not answer)
        return answer

    def numbers(self) -> list[torch.Tensor]:
        moments = [v for state in self.optimizer.state.values() for v in state.values()]
        return [value.detach().clone() for value in (*self.model.parameters(), *moments)]


@pytest.mark.parametrize("bad", [{"loss": BAD}, {"norm": BAD}, {"norm": torch.tensor(float("inf"))}])
def test_update_is_held_back_and_stays_held_back(bad: dict[str, torch.Tensor]) -> None:
    training = Training(GuardConfig())
    assert training.update()
    assert not training.update(**bad)
    assert not training.update()


def test_skipping_leaves_single_updates_out_up_to_the_cap() -> None:
    training = Training(GuardConfig(on_nonfinite="skip", max_skips=2))
    assert [training.update(loss) for loss in (GOOD, BAD, GOOD, BAD, GOOD)] == [
        True,
        False,
        True,
        False,
        True,
    ]
    assert not training.update(BAD)
    assert not training.update()


def test_skips_before_an_interruption_count() -> None:
    training = Training(GuardConfig(on_nonfinite="skip", max_skips=2), skipped=2)
    assert training.update()
    assert not training.update(BAD)
    assert not training.update()


def rows(*skipped: bool, first: int = 1) -> list[dict]:
    return [{"step": first + i, **({"skipped": "loss nan"} if s else {})} for i, s in enumerate(skipped)]


def test_host_learns_of_the_step_that_the_device_held_back() -> None:
    config = GuardConfig(on_nonfinite="skip", max_skips=2)
    guard = FiniteGuard(config, torch.device("cpu"))
    assert guard.read(rows(False, True, True)) == (3, None)
    assert guard.skipped == 2
    good, fault = guard.read(rows(False, True, False, first=4))
    assert good == 1
    assert "step 5 " in str(fault)
    assert "after 2 updates that were skipped" in str(fault)
    good, fault = FiniteGuard(GuardConfig(), torch.device("cpu")).read(rows(True))
    assert good == 0
    assert "skipped" not in str(fault)


def test_error_names_the_step() -> None:
    assert "step 17 " in str(NonFiniteError(17, "loss nan"))


def noise(count: int, seed: int = 0) -> list[dict]:
    rng = random.Random(seed)
    return [{"step": s, "loss": rng.gauss(1, 0.1), "grad_norm": rng.gauss(5, 1)} for s in range(count)]


def test_spikes_are_noted_in_their_rows_and_told() -> None:
    guard = SpikeGuard(GuardConfig())
    seen = noise(300)
    seen[250] |= {"loss": 3.0, "grad_norm": 40.0}
    seen[270] |= {"loss": None}
    (told,) = guard.watch(seen)
    assert told.startswith("spike at step 250: loss 3 is ")
    assert "deviations above the median of 200 steps" in told
    assert ", grad_norm 40 is" in told
    assert [row["step"] for row in seen if "spike" in row] == [250]
    assert SpikeGuard(GuardConfig(spike_sigmas=0)).watch(seen) == []


def test_a_falling_loss_and_the_first_steps_are_no_spikes() -> None:
    falling = [{"step": s, "loss": 1 / (1 + s), "grad_norm": 100 if s == 3 else 1.0} for s in range(300)]
    assert SpikeGuard(GuardConfig()).watch(falling) == []


def test_spikes_after_an_interruption_are_judged_as_without_it() -> None:
    whole, rest = noise(400), noise(400)
    whole[390]["loss"] = rest[390]["loss"] = 2.5
    one, other = SpikeGuard(GuardConfig()), SpikeGuard(GuardConfig())
    told = one.watch(whole)
    other.watch(rest[180:380])
    assert other.watch(rest[380:]) == told != []
