"""The running mean of the weights."""

from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from pretrain.averaging import RunningMean, decay_at

FREE, HELD = torch.zeros(()), torch.ones(())


@pytest.fixture
def alone() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def move(model: nn.Module, by: float) -> None:
    with torch.no_grad():
        for p in model.parameters():
            p.add_(by)


def test_mean_follows_its_formula() -> None:
    model = nn.Linear(2, 2)
    average = RunningMean(model, 0.9)
    expected = model.weight.detach().double().clone()
    for step in range(200):
        move(model, 0.01)
        average.update(step, FREE)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * model.weight.detach().double()
    assert torch.allclose(average.tensors()["weight"].double(), expected, atol=1e-5)


def test_decay_grows_to_the_one_asked_for() -> None:
    assert decay_at(0, 0.999) == pytest.approx(0.1)
    assert decay_at(90, 0.999) == pytest.approx(0.91)
    assert decay_at(10**6, 0.999) == 0.999


def test_a_skipped_update_leaves_the_mean_bit_for_bit() -> None:
    model = nn.Linear(2, 2)
    average = RunningMean(model, 0.9)
    before = {name: mean.clone() for name, mean in average.tensors().items()}
    move(model, 1.0)
    average.update(0, HELD)
    assert all(torch.equal(before[name], mean) for name, mean in average.tensors().items())
    average.update(0, FREE)
    assert not any(torch.equal(before[name], mean) for name, mean in average.tensors().items())


def test_the_model_computes_with_the_mean_and_has_its_weights_back(alone: None) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    mesh = init_device_mesh("cpu", (1, 1), mesh_dim_names=("replicate", "shard"))
    fully_shard(model[0], mesh=mesh, reshard_after_forward=False)
    fully_shard(model, mesh=mesh, reshard_after_forward=False)
    average = RunningMean(model, 0.5)
    x = torch.ones(1, 3)
    at_first = model(x).detach()
    model(x).sum().backward()
    move(model, 1.0)
    with torch.no_grad():
        moved = model(x)
        with average.in_place():
            assert torch.equal(model(x), at_first)
        assert torch.equal(model(x), moved)
    assert not torch.equal(moved, at_first)
