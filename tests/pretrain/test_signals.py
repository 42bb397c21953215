"""A signal on any rank: all stop at the same step, saved, and the same command goes on as if nothing had been."""

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pretrain.signals import Request

from .conftest import STEPS, figures, rows, run_ranks

Arguments = Callable[..., list[str]]


def status(run: Path) -> dict[str, object]:
    return json.loads((run / "status.json").read_text())


def before_update(step: int, act: Callable[[], None]) -> None:
    """Do something when the update after `step` begins."""
    from pretrain.trainer import Trainer

    update = Trainer._update

    def planted(self: Trainer, *given: object) -> None:
        if self.step == step:
            act()
        update(self, *given)

    Trainer._update = planted  # type: ignore[method-assign]


def usr1_on_rank_1_in_step_6(rank: int) -> None:
    if rank == 1:
        before_update(5, lambda: os.kill(os.getpid(), signal.SIGUSR1))


def group_is_signalled_in_step_6(rank: int) -> None:
    """SIGTERM to this process and its children, from another process as torchrun is."""
    os.setpgid(0, 0)
    kill = ["kill", "-TERM", "--", f"-{os.getpid()}"]
    before_update(5, lambda: subprocess.run(kill, start_new_session=True, check=True))


def term_within_the_evaluation_of_step_8(rank: int) -> None:
    from pretrain.evaluation import Evaluation
    from pretrain.trainer import Trainer

    picture, evaluate = Evaluation.__call__, Trainer._evaluate
    step = 0

    def at(self: Trainer) -> object:
        nonlocal step
        step = self.step
        return evaluate(self)

    def planted(self: Evaluation, *given: object) -> object:
        if step == 8 and rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return picture(self, *given)

    Trainer._evaluate = at  # type: ignore[method-assign]
    Evaluation.__call__ = planted  # type: ignore[method-assign]


@pytest.mark.torchrun
def test_signal_on_one_rank_stops_and_saves_all(
    two_ranks: Path, arguments: Arguments, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    codes, said = run_ranks(2, arguments(out), tmp_path / "log", usr1_on_rank_1_in_step_6)
    assert codes == [128 + signal.SIGUSR1] * 2, said
    told = status(out)
    assert (told["state"], told["signal"], told["again"]) == ("stopped", "SIGUSR1", True)
    assert told["reason"] == "SIGUSR1 on rank 1"
    # Step 6 had begun when it came, so that its end or the next one's is the first at which all know.
    assert told["step"] in (6, 7)
    assert (out / "checkpoints" / f"step-{told['step']:08d}" / "state.json").is_file()
    assert len(rows(out)) == told["step"]

    codes, said = run_ranks(2, arguments(out), tmp_path / "log")
    assert codes == [0, 0], said
    assert figures(out) == figures(two_ranks)
    assert status(out)["state"] == "finished"
    assert not status(out)["again"]


@pytest.mark.torchrun
def test_signal_within_an_evaluation_saves_that_step_and_the_evaluation_is_made_up(
    two_ranks: Path, arguments: Arguments, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    codes, said = run_ranks(2, arguments(out), tmp_path / "log", term_within_the_evaluation_of_step_8)
    assert codes == [128 + signal.SIGTERM] * 2, said
    assert (status(out)["state"], status(out)["step"]) == ("stopped", 8)
    assert (out / "checkpoints" / "step-00000008").is_dir()
    assert "val_loss" not in rows(out)[-1]

    codes, said = run_ranks(2, arguments(out), tmp_path / "log")
    assert codes == [0, 0], said
    assert figures(out) == figures(two_ranks)
    assert (out / "pictures" / "reconstruction-00000008.png").is_file()


@pytest.mark.torchrun
def test_loader_workers_survive_what_the_whole_group_is_sent(arguments: Arguments, tmp_path: Path) -> None:
    out = tmp_path / "run"
    codes, said = run_ranks(
        1, arguments(out, "--workers", "1"), tmp_path / "log", group_is_signalled_in_step_6
    )
    assert codes == [128 + signal.SIGTERM], said
    assert status(out)["state"] == "stopped"
    assert len(rows(out)) == status(out)["step"] >= 6


def test_stop_in_the_last_evaluation_leaves_a_run_that_is_not_finished(
    arguments: Arguments, pretrain: Callable[[list[str]], tuple[int, str, str]], tmp_path: Path, monkeypatch
) -> None:
    from pretrain.evaluation import Evaluation

    def planted(self: Evaluation, model: torch.nn.Module, go_on: Callable[[], None]) -> object:
        os.kill(os.getpid(), signal.SIGTERM)
        go_on()

    command = arguments(tmp_path, "--steps", "2", "--checkpoint.every", "0")
    with monkeypatch.context() as patched:
        patched.setattr(Evaluation, "__call__", planted)
        code, said, _ = pretrain(command)
    assert code == 128 + signal.SIGTERM
    assert "the same command goes on" in said
    assert (status(tmp_path)["state"], status(tmp_path)["step"]) == ("stopped", 2)
    assert pretrain(command)[0] == 0
    assert "val_loss" in rows(tmp_path)[-1]
    assert "nothing to do" in pretrain(command)[1]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_signal_before_the_first_step_ends_the_run_without_a_checkpoint(
    arguments: Arguments, pretrain: Callable[[list[str]], tuple[int, str, str]], tmp_path: Path, monkeypatch
) -> None:
    from pretrain.tasks import MaskedViews

    build = MaskedViews.build

    def planted(self: MaskedViews) -> object:
        os.kill(os.getpid(), signal.SIGTERM)
        return build(self)

    monkeypatch.setattr(MaskedViews, "build", planted)
    assert pretrain(arguments(tmp_path))[0] == 128 + signal.SIGTERM
    assert (status(tmp_path)["state"], status(tmp_path)["step"]) == ("stopped", 0)
    assert not (tmp_path / "checkpoints").exists()


def test_second_interrupt_from_the_keyboard_ends_at_once(arguments: Arguments, tmp_path: Path) -> None:
    out = tmp_path / "run"
    codes, _ = run_ranks(1, arguments(out), tmp_path / "log", interrupts_twice)
    assert codes == [-signal.SIGINT]
    assert len(rows(out)) == 5 < STEPS


def interrupts_twice(rank: int) -> None:
    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    before_update(5, twice)


def test_torchrun_is_not_told_of_a_crash_where_there_is_none() -> None:
    request = Request(signal="SIGTERM", rank=3)
    assert request.exit_code({"TORCHELASTIC_RUN_ID": "none"}) == 0
    assert request.exit_code({}) == 143
