"""The running mean of the weights."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import mum
from pretrain.averaging import RunningMean, decay_at
from pretrain.checkpoint import newest
from pretrain.sinks import curves

from .conftest import die_at, figures, rows, run_ranks

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


def mean_of(run: Path) -> dict[str, torch.Tensor]:
    return mum.load(newest(run / "checkpoints") / "ema.safetensors").state_dict()


@pytest.fixture(scope="module")
def averaged(
    tmp_path_factory: pytest.TempPathFactory, arguments: Callable[..., list[str]]
) -> tuple[Path, tuple[str, ...]]:
    """A run of one rank that nobody disturbed, with a running mean and a layer decay, and its options."""
    out = tmp_path_factory.mktemp("averaged") / "run"
    options = ("--optim.ema", "0.9", "--optim.layer-decay", "0.8", "--steps", "8")
    # A save that is under way when a rank dies is lost: here each is waited for.
    options += ("--checkpoint.no-asynchronous",)
    codes, said = run_ranks(1, arguments(out, *options), out.parent / "log")
    assert codes == [0], said
    return out, options


@pytest.mark.torchrun
def test_mean_is_saved_where_mum_reads_it(averaged: tuple[Path, tuple[str, ...]]) -> None:
    out, _ = averaged
    weights, mean = mum.load(out).state_dict(), mean_of(out)
    assert weights.keys() == mean.keys()
    apart = [(weights[key] - mean[key]).abs().max().item() for key in mean if mean[key].ndim > 1]
    assert min(apart) > 0
    header = mum.read_header(newest(out / "checkpoints") / "ema.safetensors")
    assert header["summary"]["ema"] == 0.9
    last = rows(out)[-1]
    assert header["summary"]["val_loss"] == last["val_loss_ema"] != last["val_loss"]
    assert curves(last)["val/val_loss_ema"] == last["val_loss_ema"]


@pytest.mark.torchrun
def test_mean_and_layer_decay_are_exact_when_a_run_goes_on_with_other_ranks(
    averaged: tuple[Path, tuple[str, ...]], arguments: Callable[..., list[str]], tmp_path: Path
) -> None:
    whole, options = averaged
    out = tmp_path / "run"
    # Sharded over two ranks and accumulating, killed after a save; then one rank.
    sharded = ("--parallel.shard", "2", "--parallel.lanes-at-once", "1")
    codes, said = run_ranks(2, arguments(out, *options, *sharded), tmp_path / "a", partial(die_at, 6))
    assert codes != [0, 0], said
    assert 4 <= len(rows(out)) < 8
    codes, said = run_ranks(1, arguments(out, *options), tmp_path / "b")
    assert codes == [0], said
    for here, there in zip(rows(out), rows(whole), strict=True):
        assert here["batch"] == there["batch"]
        assert here["loss"] == pytest.approx(there["loss"], abs=1e-5)
        assert here.get("val_loss_ema") == pytest.approx(there.get("val_loss_ema"), abs=1e-5)
    here, there = mean_of(out), mean_of(whole)
    assert max((here[key] - there[key]).abs().max().item() for key in there) < 1e-4


@pytest.mark.torchrun
def test_mean_is_the_same_bit_for_bit_after_a_kill(
    averaged: tuple[Path, tuple[str, ...]], arguments: Callable[..., list[str]], tmp_path: Path
) -> None:
    whole, options = averaged
    out = tmp_path / "run"
    codes, said = run_ranks(1, arguments(out, *options), tmp_path / "a", partial(die_at, 6))
    assert codes != [0], said
    codes, said = run_ranks(1, arguments(out, *options), tmp_path / "b")
    assert codes == [0], said
    assert figures(out) == figures(whole)
    here, there = mean_of(out), mean_of(whole)
    assert all(torch.equal(here[key], there[key]) for key in there)
