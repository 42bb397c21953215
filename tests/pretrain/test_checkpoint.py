"""Checkpoints are whole, finite, or absent, and writing them changes nothing of the run."""

import errno
import json
import resource
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import mum
from pretrain import checkpoint
from pretrain.checkpoint import CheckpointConfig, SaveFailedError, Saver, WeightsFile
from pretrain.optim import OptimConfig, build_optimizer, set_learning_rate
from pretrain.parallel import ParallelConfig, World, pick_device, process_group
from pretrain.run_folder import RunFolder

from .conftest import STEPS, figures, rows, run_ranks

Arguments = Callable[..., list[str]]
Pretrain = Callable[[list[str]], tuple[int, str, str]]


def fill_the_disk(patch: pytest.MonkeyPatch, where: str) -> None:
    """Refuse to write more than 4 MB to a file in the second checkpoint, as the kernel does on a full disk."""
    owner, name = (checkpoint.dcp, "save") if where == "tensors" else (mum, "save")
    write = getattr(owner, name)
    calls = 0

    def second_fails(*given: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        if calls == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (4 << 20, hard))
        try:
            return write(*given, **named)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    patch.setattr(owner, name, second_fails)


@pytest.mark.parametrize(
    ("where", "options"),
    [
        pytest.param("tensors", (), id="tensors, beside the steps"),
        pytest.param("model", ("--checkpoint.no-asynchronous",), id="model, halting"),
    ],
)
def test_full_disk_does_not_stop_the_run_and_leaves_the_earlier_checkpoint_whole(
    arguments: Arguments,
    pretrain: Pretrain,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
    options: tuple[str, ...],
) -> None:
    out = tmp_path / "run"
    warnings = []
    write_status = RunFolder.write_status

    def noted(self: RunFolder, *given: Any, warning: str = "") -> None:
        warnings.append(warning)
        write_status(self, *given, warning=warning)

    monkeypatch.setattr(RunFolder, "write_status", noted)
    fill_the_disk(monkeypatch, where)
    code, _, err = pretrain(arguments(out, *options))
    assert code == 0, err
    (said,) = [line for line in err.splitlines() if "could not be saved" in line]
    assert "the checkpoint of step 8 could not" in said
    assert "step-00000004; the run goes on, and tries again" in said
    assert any("step 8" in warning for warning in warnings)
    assert json.loads((out / "status.json").read_text())["warning"] == ""
    assert sorted(p.name for p in (out / "checkpoints").iterdir()) == ["step-00000004", "step-00000012"]


def full_for_rank_one(rank: int) -> None:
    """The disk of rank 1 refuses the second checkpoint."""
    write = checkpoint.dcp.FileSystemWriter.write_data
    calls = 0

    def second_fails(self: Any, *given: Any) -> Any:
        nonlocal calls
        calls += 1
        if rank == 1 and calls == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(self, *given)

    checkpoint.dcp.FileSystemWriter.write_data = second_fails


@pytest.mark.torchrun
def test_disk_that_is_full_for_one_rank_changes_nothing_of_the_run(
    two_ranks: Path, arguments: Arguments, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    codes, said = run_ranks(2, arguments(out), tmp_path / "log", full_for_rank_one)
    assert codes == [0, 0], said
    (told,) = [line for line in said[0].splitlines() if "could not be saved" in line]
    assert "the checkpoint of step 8 could not" in told
    assert "No space left on device" in told
    assert "could not be saved" not in said[1]
    assert sorted(p.name for p in (out / "checkpoints").iterdir()) == ["step-00000004", "step-00000012"]
    assert figures(out) == figures(two_ranks)


def test_last_checkpoint_that_fails_fails_the_run_which_can_go_on(
    arguments: Arguments, pretrain: Pretrain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        fill_the_disk(patch, "tensors")
        code, _, err = pretrain(arguments(out, "--steps", "8"))
    assert code == 2
    last = err.splitlines()[-1]
    assert "step 8 could not be saved" in last
    assert "step-00000004" in last
    assert [p.name for p in (out / "checkpoints").iterdir()] == ["step-00000004"]
    assert json.loads((out / "status.json").read_text())["state"] == "failed"
    code, _, err = pretrain(arguments(out, "--steps", "8"))
    assert code == 0, err
    assert [row["step"] for row in rows(out)] == list(range(1, 9))


def test_checkpoint_holds_a_model_that_mum_reads(
    arguments: Arguments, pretrain: Pretrain, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    code, _, err = pretrain(arguments(out, "--checkpoint.keep", "2"))
    assert code == 0, err
    names = sorted(p.name for p in (out / "checkpoints").iterdir())
    assert names == ["step-00000008", "step-00000012"]
    model = mum.load(out)
    assert model.decoder is not None
    header = mum.read_header(checkpoint.newest(out / "checkpoints") / "model.safetensors")
    assert header["summary"]["step"] == STEPS
    assert header["summary"]["images"] == STEPS * 16
    assert header["preprocessing"]["size"] == 16
    assert figures(out)[-1]["val_loss"] == header["summary"]["val_loss"]
    state = json.loads((out / "checkpoints" / "step-00000012" / "state.json").read_text())
    assert state["step"] == state["loader"]["step"] == STEPS
    assert state["images"] == STEPS * 16
    assert state["finite"] is True
    assert {"config", "config_hash", "hash", "versions", "ranks", "extra"} <= set(state)


def test_what_is_half_written_is_no_checkpoint(tmp_path: Path) -> None:
    assert checkpoint.newest(tmp_path / "none") is None
    for name in ("step-00000004", "step-00000010", ".step-00000012.part", "step-00000011"):
        (tmp_path / name).mkdir()
    for name in ("step-00000004", "step-00000010"):
        (tmp_path / name / "state.json").write_text("{}")
    assert checkpoint.newest(tmp_path) == tmp_path / "step-00000010"


@pytest.mark.parametrize(
    ("keep", "keep_every", "stay"),
    [
        (2, 0, [50, 60]),
        (1, 0, [60]),
        (1, 20, [20, 40, 60]),
        (2, 30, [30, 50, 60]),
        (0, 20, [10, 20, 30, 40, 50, 60]),
    ],
)
def test_the_newest_and_every_nth_stay(keep: int, keep_every: int, stay: list[int]) -> None:
    found = [Path(f"step-{step:08d}") for step in range(10, 70, 10)]
    old = checkpoint.outdated(found, CheckpointConfig(keep=keep, keep_every=keep_every))
    assert [checkpoint.step_of(path) for path in found if path not in old] == stay


class Small:
    """A model with its optimizer, and what trains them."""

    def __init__(self, device: str = "cpu") -> None:
        self.model = nn.Linear(3, 3, device=device)
        self.optimizer = build_optimizer(self.model, OptimConfig())
        self.extra = {"mean": {"weight": torch.zeros(3, 3, device=device)}}
        self.update()

    def update(self) -> None:
        for p in self.model.parameters():
            p.grad = torch.ones_like(p)
        set_learning_rate(self.optimizer, 0.1)
        self.optimizer.step()
        self.extra["mean"]["weight"].copy_(self.model.weight.detach())

    def numbers(self) -> list[torch.Tensor]:
        """Copies of all that a checkpoint holds."""
        moments = [v for state in self.optimizer.state.values() for v in state.values()]
        held = [*self.model.parameters(), *moments, *self.extra["mean"].values()]
        return [value.detach().clone() for value in held]

    def saver(self, folder: Path, **config: Any) -> Saver:
        return Saver(
            folder,
            CheckpointConfig(**config),
            model=self.model,
            optimizer=self.optimizer,
            extra=self.extra,
        )


@pytest.fixture
def small(request: pytest.FixtureRequest) -> Iterator[Small]:
    """Such a model in a process group of one, on the CPU or the device that the test names."""
    device = getattr(request, "param", "cpu")
    world = World(rank=0, size=1, local_rank=0, local_size=1)
    with process_group(world, pick_device(world), ParallelConfig(threads=1)):
        yield Small(device)


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.parametrize(
    "small", ["cpu", pytest.param("cuda", marks=(pytest.mark.gpu, needs_gpu))], indirect=True
)
def test_what_is_saved_is_of_its_step_though_the_run_goes_on(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_write = threading.Event()
    save = checkpoint.dcp.save

    def late(*given: Any, **named: Any) -> Any:
        may_write.wait()
        return save(*given, **named)

    class Slow(checkpoint.DefaultStager):
        """Copies after a while, as from a busy device."""

        def _stage(self, *given: Any, **named: Any) -> Any:
            time.sleep(0.3)
            return super()._stage(*given, **named)

    monkeypatch.setattr(checkpoint.dcp, "save", late)
    monkeypatch.setattr(checkpoint, "DefaultStager", Slow)
    saver = small.saver(tmp_path)
    then = small.numbers()
    saver.save(1, state={})
    for _ in range(3):
        saver.before_update()
        small.update()
    assert checkpoint.newest(tmp_path) is None
    may_write.set()
    saver.close()
    assert saver.news() == []

    again = Small(then[0].device.type)
    state = checkpoint.load(tmp_path / "step-00000001", **vars(again))
    assert state["step"] == 1
    assert state["extra"] == ["mean"]
    for saved, loaded in zip(then, again.numbers(), strict=True):
        assert torch.equal(saved, loaded)


def test_one_save_at_a_time(small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save, under_way, most = checkpoint.dcp.save, 0, 0

    def counted(*given: Any, **named: Any) -> Any:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        try:
            return save(*given, **named)
        finally:
            under_way -= 1

    monkeypatch.setattr(checkpoint.dcp, "save", counted)
    saver = small.saver(tmp_path, keep=2)
    for step in (1, 2, 3):
        saver.save(step, state={}, last=step == 3)
    assert most == 1
    assert [p.name for p in checkpoint.complete(tmp_path)] == ["step-00000002", "step-00000003"]
    saver.close()


@pytest.mark.parametrize("where", ["weights", "moments", "extra"])
def test_numbers_that_are_not_finite_never_replace_a_good_checkpoint(
    small: Small, tmp_path: Path, where: str
) -> None:
    saver = small.saver(tmp_path, keep=1)
    saver.save(1, state={}, last=True)
    spoilt = {
        "weights": small.model.bias.data,
        "moments": small.optimizer.state[small.model.bias]["exp_avg"],
        "extra": small.extra["mean"]["weight"][0],
    }[where]
    spoilt[1] = float("inf")
    saver.save(2, state={})
    with pytest.raises(SaveFailedError, match=r"step 3 could not be saved.*step-00000001$"):
        saver.save(3, state={}, last=True)
    (said,) = saver.news()
    assert "step 2" in said
    assert "rank 0 holds numbers that are not finite" in said
    saver.close()
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000001"]


def test_files_hold_the_tensors_of_their_group(small: Small, tmp_path: Path) -> None:
    saver = small.saver(tmp_path)
    files = [
        WeightsFile(name=f"{group}.pt", group=group, write=lambda whole, path: torch.save(dict(whole), path))
        for group in ("model", "mean")
    ]
    saver.save(1, state={}, files=files, last=True)
    saver.close()
    model = torch.load(tmp_path / "step-00000001" / "model.pt")
    assert {name: tuple(t.shape) for name, t in model.items()} == {"weight": (3, 3), "bias": (3,)}
    assert torch.equal(model["weight"], small.model.weight)
    mean = torch.load(tmp_path / "step-00000001" / "mean.pt")
    assert torch.equal(mean["weight"], small.extra["mean"]["weight"])


def test_what_a_kill_left_is_cleared_away_but_for_what_is_whole(tmp_path: Path) -> None:
    for name in (
        *(".step-00000003.part", ".step-00000001.old", ".step-00000002.replaced", "step-00000002"),
        *(".step-00000004.part", ".step-00000004.replaced"),
    ):
        (tmp_path / name).mkdir()
    checkpoint.tidy(tmp_path / "none")
    checkpoint.tidy(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000002", "step-00000004"]


def test_a_step_that_is_saved_again_is_replaced(small: Small, tmp_path: Path) -> None:
    saver = small.saver(tmp_path)
    for told in ("once", "again"):
        saver.save(1, state={"told": told}, last=True)
    saver.close()
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000001"]
    assert json.loads((tmp_path / "step-00000001" / "state.json").read_text())["told"] == "again"
