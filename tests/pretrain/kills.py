"""Kills a run at random moments, has it go on, and holds its trace against the undisturbed run's.

A kill is a `kill -9` of one rank, after which torchrun starts all of them anew, or of the whole tree, after
which the same command is given again. `tests/pretrain/test_kills.py` does this a few times,
`benchmarks/kills.py` fifty times.
"""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pretrain.checkpoint import newest, step_of

Kind = Literal["rank", "tree"]
Moment = Literal["step", "save", "start"]
TIMING = {"images_per_s", "data_wait", "mfu", "memory_gb"}
"""Fields of a row that tell of the machine, not of the training."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One kill that is to come."""

    kind: Kind
    moment: Moment
    """at a step, during a save soon after it, or while the ranks start"""
    step: int
    world: int
    """ranks of the launch that follows, if it is by hand"""
    delay: float = 0.0
    """seconds from the launch, for a kill while the ranks start"""


@dataclass(frozen=True, kw_only=True)
class Kill:
    """One kill that came."""

    plan: Plan
    reached: int
    """steps in metrics.jsonl when it came"""
    saved: int
    """step of the newest whole checkpoint then"""
    kind: Kind
    """what died: the whole tree also where there was no rank yet"""
    starting: bool
    """whether the ranks had not yet said where they begin"""
    saving: bool
    """whether they were writing a checkpoint"""


@dataclass
class Disturbed:
    """What happened to a run."""

    kills: list[Kill] = field(default_factory=list)
    worlds: list[int] = field(default_factory=list)
    """ranks of each launch by hand"""
    begun: list[int] = field(default_factory=list)
    """step from which each start, by torchrun or by hand, went on"""


def plans(rng: random.Random, *, kills: int, steps: int, worlds: Sequence[int], trees: float) -> list[Plan]:
    """Random kills in the order of their steps; launches by hand go through the `worlds` other than the last.

    `trees` is the share of kills of the whole tree.
    """
    made, world = [], worlds[0]
    last = max(2, steps - max(3, steps // 20))
    for step in sorted(rng.randint(1, last) for _ in range(kills)):
        kind: Kind = "tree" if rng.random() < trees else "rank"
        moment: Moment = rng.choices(("step", "save", "start"), (0.6, 0.25, 0.15))[0]
        if kind == "tree" and len(worlds) > 1:
            world = rng.choice([other for other in worlds if other != world])
        made.append(Plan(kind=kind, moment=moment, step=step, world=world, delay=rng.uniform(0, 12)))
    return made


def disturb(
    command: Sequence[str],
    out: Path,
    plan: Sequence[Plan],
    *,
    world: int,
    log: Path,
    rng: random.Random,
    tell: Callable[[Kill], None] = lambda kill: None,
) -> Disturbed:
    """Run a pretraining command in the folder `out` to its end through all planned kills.

    Raises RuntimeError, with the end of the `log`, if it ends otherwise.
    """
    done = Disturbed()
    process = launch(world, command, log)
    done.worlds.append(world)
    since, spoken = time.monotonic(), 0
    for kill in plan:
        _await(kill, process, out, since, log)
        saving = any((out / "checkpoints").glob(".step-*.part"))
        whole = newest(out / "checkpoints")
        ranks = list(ranks_of(process.pid)) if kill.kind == "rank" else []
        words = len(_begun(log))
        came = Kill(
            plan=kill,
            reached=told(out),
            saved=step_of(whole) if whole else 0,
            kind="rank" if ranks else "tree",
            starting=words == spoken,
            # What an earlier kill left half written stays until the ranks begin.
            saving=saving and words > spoken,
        )
        spoken = words
        if ranks:
            _kill([rng.choice(ranks)])
        else:
            _kill(tree(process.pid))
            process.wait()
            process = launch(kill.world, command, log)
            done.worlds.append(kill.world)
        since = time.monotonic()
        done.kills.append(came)
        tell(came)
    if process.wait() != 0:
        raise RuntimeError(f"the run ended with code {process.returncode}:\n{_end_of(log)}")
    done.begun = _begun(log)
    return done


def launch(world: int, command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    """Start real torchrun, which starts ranks that die anew."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--max-restarts", "100"]
    with log.open("ab") as file:
        return subprocess.Popen(
            [*torchrun, "--nproc-per-node", str(world), "-m", "pretrain", *command],
            stdout=subprocess.DEVNULL,
            stderr=file,
        )


def _await(kill: Plan, process: subprocess.Popen[bytes], out: Path, since: float, log: Path) -> None:
    """Wait for the moment of a kill."""

    def running() -> None:
        if process.poll() is not None:
            raise RuntimeError(f"the run ended with code {process.returncode} before a kill:\n{_end_of(log)}")
        time.sleep(0.002)

    if kill.moment == "start":
        while time.monotonic() < since + kill.delay and told(out) < kill.step:
            running()
        return
    while told(out) < kill.step:
        running()
    before = newest(out / "checkpoints")
    # A save that was over before it was seen must not be waited for twice.
    while (
        kill.moment == "save"
        and not any((out / "checkpoints").glob(".step-*.part"))
        and newest(out / "checkpoints") == before
    ):
        running()


def told(out: Path) -> int:
    """How many steps metrics.jsonl tells."""
    path = out / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


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


def ranks_of(torchrun: int) -> Iterator[int]:
    """The processes that torchrun started as ranks."""
    for pid in tree(torchrun)[1:]:
        try:
            if b"\0-m\0pretrain\0" in Path(f"/proc/{pid}/cmdline").read_bytes() and (
                Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1] == str(torchrun)
            ):
                yield pid
        except OSError:
            continue


def _kill(processes: Sequence[int]) -> None:
    for pid in processes:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def _begun(log: Path) -> list[int]:
    """The step from which each start of the ranks said to go on."""
    said = log.read_text(errors="replace")
    return [int(step or 0) for step in re.findall(r" (?:goes on from step (\d+)|starts) in ", said)]


def _end_of(log: Path) -> str:
    return log.read_text(errors="replace")[-4000:]


def trace(out: Path) -> list[dict[str, Any]]:
    """What must be equal, step by step: all of metrics.jsonl but what tells of the machine."""
    lines = (out / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in TIMING} for line in lines]


def furthest(here: Sequence[dict[str, Any]], there: Sequence[dict[str, Any]]) -> float:
    """The largest difference of two traces' losses; their steps and images must be the same: ValueError."""
    if [(row["step"], row["batch"]) for row in here] != [(row["step"], row["batch"]) for row in there]:
        raise ValueError("the steps or their images are not those of the undisturbed run")
    return max(abs(a["loss"] - b["loss"]) for a, b in zip(here, there, strict=True))
