"""The watchdog names the rank and the phase that the others wait for."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch.distributed as dist

from pretrain.watchdog import Place, Watchdog, verdict

from .conftest import rows, run_ranks

Arguments = Callable[..., list[str]]


def place(rank: int, begun: int, phase: str = "update", line: str = "a.py:1 f", host: str = "node") -> Place:
    return Place(rank=rank, host=host, step=7, phase=phase, begun=begun, seconds=60.2, line=line)


def test_the_rank_that_began_the_fewest_phases_holds_the_others_up() -> None:
    said = verdict([place(0, 12), place(1, 11, "data", "loader.py:5 read", "other"), place(2, 12)], 3)
    assert said == (
        "no progress for 60 s: rank 1 on other (step 7, data, for 60 s, at loader.py:5 read) holds up "
        "ranks 0, 2 on node (step 7, update, for 60 s, at a.py:1 f)"
    )


def test_a_rank_that_cannot_speak_is_the_one() -> None:
    said = verdict([place(0, 12), place(2, 12)], 3)
    assert said.startswith("no progress for 60 s: rank 1 says nothing")
    assert "holds up ranks 0, 2 on node" in said


def test_in_one_phase_the_line_with_the_fewest_ranks_is_told_first() -> None:
    places = [place(0, 12), place(1, 12), place(2, 12, line="disk.py:3 write")]
    said = verdict(places, 3)
    assert said.index("disk.py:3 write") < said.index("a.py:1 f")
    assert said.index("rank 2 ") < said.index("ranks 0, 1 ")


def test_stall_is_told_once_and_its_end_too() -> None:
    heard: list[str] = []
    spoken = threading.Event()

    def say(text: str) -> None:
        heard.append(text)
        spoken.set()

    with Watchdog(0.2, rank=0, size=1, store=dist.HashStore(), say=say) as watchdog:
        watchdog.phase("data", 3)
        spoken.wait()
        assert "rank 0 " in heard[0]
        assert "step 3, data" in heard[0]
        assert "test_stall_is_told_once_and_its_end_too" in heard[0] or "wait" in heard[0]
        spoken.clear()
        while len(heard) == 1 or "goes on" not in heard[-1]:
            watchdog.phase("update", 3)
            spoken.wait(0.1)
    assert "it goes on" in heard[-1]


def test_nothing_is_said_or_stored_while_all_is_well() -> None:
    store = dist.HashStore()
    heard: list[str] = []
    with Watchdog(100.0, rank=0, size=1, store=store, say=heard.append) as watchdog:
        for step in range(5):
            watchdog.phase("data", step)
            time.sleep(0.01)
    assert not heard
    assert store.num_keys() == 0


def rank_1_is_slow_to_read_its_sixth_batch(rank: int) -> None:
    from shards.loader import Loader

    iterate = Loader.__iter__

    def slow(self: Loader):
        for number, batch in enumerate(iterate(self)):
            if rank == 1 and number == 5:
                time.sleep(4)
            yield batch

    Loader.__iter__ = slow  # type: ignore[method-assign]


@pytest.mark.torchrun
def test_rank_that_waits_for_its_data_is_named_by_the_first(arguments: Arguments, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = arguments(out, "--watchdog", "1.5", "--steps", "7", "--evaluation.every", "0")
    codes, said = run_ranks(2, command, tmp_path / "log", rank_1_is_slow_to_read_its_sixth_batch)
    assert codes == [0, 0], said
    assert len(rows(out)) == 7
    told = next(line for line in said[0].splitlines() if "no progress" in line and "step 5, data" in line)
    assert "rank 1 on" in told
    assert "slow" in told
    assert told.index("rank 1 on") < told.index("hold") < told.index("rank 0 on")
    assert "no progress" not in said[1]
