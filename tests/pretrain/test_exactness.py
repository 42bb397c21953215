"""The same run whatever happens to it: kills, other numbers of ranks, accumulation, sharding."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import STEPS, figures, rows, run_ranks, torchrun

Arguments = Callable[..., list[str]]


def tree(root: int) -> list[int]:
    """A process and all its descendants."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue
            parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
    found = [root]
    for parent in found:
        found += [child for child, its in parents.items() if its == parent]
    return found


def kill_at(process: subprocess.Popen[str], metrics: Path, step: int) -> None:
    """kill -9 of the whole tree as soon as `step` is in metrics.jsonl."""
    while process.poll() is None:
        if metrics.exists() and metrics.read_bytes().count(b"\n") >= step:
            for pid in tree(process.pid):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            process.wait()
            return
        time.sleep(0.002)
    pytest.fail(f"the run ended before step {step}: {process.stderr.read() if process.stderr else ''}")


@pytest.mark.torchrun
def test_killed_and_restarted_run_equals_the_undisturbed_one(
    two_ranks: Path, arguments: Arguments, tmp_path: Path
) -> None:
    out = tmp_path / "killed"
    rng = random.Random()
    for low, high in ((1, 4), (5, 8), (9, STEPS - 1)):
        process = torchrun(2, arguments(out), stderr=subprocess.PIPE)
        kill_at(process, out / "metrics.jsonl", rng.randint(low, high))
    process = torchrun(2, arguments(out), stderr=subprocess.PIPE)
    _, said = process.communicate()
    assert process.returncode == 0, said
    assert [row["step"] for row in rows(out)] == list(range(1, STEPS + 1))
    assert figures(out) == figures(two_ranks)


@pytest.mark.torchrun
@pytest.mark.parametrize(
    ("ranks", "options"),
    [
        pytest.param(1, ("--parallel.lanes-at-once", "1"), id="1 rank, accumulating"),
        pytest.param(2, ("--parallel.shard", "2"), id="2 ranks, sharded"),
        pytest.param(4, ("--workers", "1"), id="4 ranks, with workers"),
    ],
)
def test_global_batches_and_losses_do_not_depend_on_the_ranks(
    two_ranks: Path, arguments: Arguments, tmp_path: Path, ranks: int, options: tuple[str, ...]
) -> None:
    out = tmp_path / "run"
    codes, said = run_ranks(ranks, arguments(out, *options), tmp_path / "log")
    assert codes == [0] * ranks, said
    for here, there in zip(rows(out), rows(two_ranks), strict=True):
        assert here["batch"] == there["batch"]
        assert here["loss"] == pytest.approx(there["loss"], abs=1e-5)
        assert here["grad_norm"] == pytest.approx(there["grad_norm"], rel=1e-3)
        assert here.get("cross_view_gain") == pytest.approx(there.get("cross_view_gain"), abs=1e-5)


@pytest.mark.torchrun
def test_run_goes_on_with_another_number_of_ranks(
    two_ranks: Path, arguments: Arguments, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    codes, said = run_ranks(2, arguments(out, "--parallel.shard", "2"), tmp_path / "a", stop_after_a_save)
    assert codes != [0, 0], said
    assert 0 < len(rows(out)) < STEPS
    codes, said = run_ranks(1, arguments(out), tmp_path / "b")
    assert codes == [0], said
    for here, there in zip(rows(out), rows(two_ranks), strict=True):
        assert here["batch"] == there["batch"]
        assert here["loss"] == pytest.approx(there["loss"], abs=1e-5)


def stop_after_a_save(rank: int) -> None:
    """Die at step 6, two steps after a checkpoint."""
    from pretrain.trainer import Trainer

    update = Trainer._update

    def dying(self: Trainer, *given: object) -> None:
        if self.step == 6:
            os._exit(9)
        update(self, *given)

    Trainer._update = dying  # type: ignore[method-assign]


def test_batches_differ_from_step_to_step(two_ranks: Path) -> None:
    assert len({row["batch"] for row in rows(two_ranks)}) == STEPS


@pytest.mark.torchrun
def test_three_ranks_are_refused_by_name(arguments: Arguments, tmp_path: Path) -> None:
    out = tmp_path / "run"
    codes, said = run_ranks(3, arguments(out), tmp_path / "log")
    assert codes == [2, 2, 2]
    assert said[0].count("\n") == 1
    assert "3 ranks" in said[0]
    assert "1, 2, 4" in said[0]
    assert said[1] == said[2] == ""
    assert not out.exists()
