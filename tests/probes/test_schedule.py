"""The learning rate over a training, by hand."""

import pytest
import torch

from probes.schedule import warm_cosine


def rates(steps: int, warm: int) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule, found = warm_cosine(optimizer, steps, warm=warm), []
    for _ in range(steps):
        found.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return [*found, schedule.get_last_lr()[0]]


def test_it_rises_to_its_peak_and_falls_to_zero() -> None:
    found = rates(100, warm=10)
    assert found[0] == pytest.approx(0.2)
    assert found.index(max(found)) == 9
    assert found[50] == pytest.approx(1.0)
    assert found[100] == pytest.approx(0.0, abs=1e-12)


def test_a_training_too_short_to_warm_up_starts_at_its_peak() -> None:
    assert rates(4, warm=0)[0] == pytest.approx(2.0)
