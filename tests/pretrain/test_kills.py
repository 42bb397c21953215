"""A few kills of ranks and of whole runs; `benchmarks/kills.py` does fifty."""

import itertools
import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch.distributed as dist

from pretrain.parallel import of_this_start
from pretrain.run_folder import RunFolder

from .conftest import STEPS
from .kills import Plan, disturb, furthest, plans, trace

Arguments = Callable[..., list[str]]


def kill(kind: str, low: int, high: int, world: int = 2, moment: str = "step") -> Plan:
    return Plan(kind=kind, moment=moment, step=random.Random().randint(low, high), world=world)


@pytest.mark.torchrun
def test_killed_and_restarted_run_equals_the_undisturbed_one(
    two_ranks: Path, arguments: Arguments, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    plan = [kill("rank", 1, 4), kill("tree", 5, 6, moment="save"), kill("rank", 9, STEPS - 2)]
    done = disturb(arguments(out), out, plan, world=2, log=tmp_path / "log", rng=random.Random())
    assert done.worlds == [2, 2]
    assert trace(out) == trace(two_ranks)
    # Each start goes on from what was saved before the kill, or from a save that the kill came just after.
    assert len(done.begun) == 4
    for came, begun in zip(done.kills, done.begun[1:], strict=True):
        assert begun >= came.saved


@pytest.mark.torchrun
def test_killed_run_goes_on_with_other_numbers_of_ranks(
    two_ranks: Path, arguments: Arguments, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    plan = [kill("tree", 5, 7, world=1), kill("tree", 9, STEPS - 2, world=4)]
    done = disturb(arguments(out), out, plan, world=2, log=tmp_path / "log", rng=random.Random())
    assert done.worlds == [2, 1, 4]
    assert furthest(trace(out), trace(two_ranks)) <= 1e-5


def test_other_images_are_no_equal_trace() -> None:
    rows = [{"step": 1, "batch": "a", "loss": 1.0}, {"step": 2, "batch": "b", "loss": 0.5}]
    assert furthest(rows, [dict(rows[0], loss=0.75), rows[1]]) == 0.25
    with pytest.raises(ValueError, match="not those"):
        furthest(rows, [rows[0], dict(rows[1], batch="a")])


def test_planned_kills_leave_time_to_end_and_change_the_ranks_at_every_launch_by_hand() -> None:
    made = plans(random.Random(1), kills=30, steps=300, worlds=(2, 1, 4), trees=1.0)
    assert [plan.step for plan in made] == sorted(plan.step for plan in made)
    assert made[-1].step <= 285
    worlds = [2, *(plan.world for plan in made)]
    assert all(a != b for a, b in itertools.pairwise(worlds))


def test_a_start_of_torchrun_does_not_read_what_an_earlier_one_left(monkeypatch: pytest.MonkeyPatch) -> None:
    store = dist.HashStore()
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    of_this_start(store).set("address", "of the dead")
    assert of_this_start(store).check(["address"])
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert not of_this_start(store).check(["address"])
    # On several nodes the restarts need not be counted alike.
    monkeypatch.setenv("GROUP_WORLD_SIZE", "2")
    assert of_this_start(store) is store


def test_torchrun_does_not_repeat_a_failure_that_would_come_again(
    arguments: Arguments,
    pretrain: Callable[[list[str]], tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    command = arguments(tmp_path, "--steps", "1", "--evaluation.every", "0")
    assert pretrain(command)[0] == 0
    more = [*command, "--steps", "2"]
    folder = RunFolder(tmp_path)
    folder.write_status("failed", 1, 2, "its loss is not finite", again=False)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    code, _, said = pretrain(more)
    assert code == 2
    assert "would fail again: its loss is not finite" in said
    # Given by hand, or after a crash, the command goes on.
    folder.write_status("failed", 1, 2, "rank 1: RuntimeError: the network is gone")
    assert pretrain(more)[0] == 0
    assert json.loads(folder.status.read_text())["state"] == "finished"
