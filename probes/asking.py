"""What a run asks: probes, data and encoders, checked before anything is computed, and the identity of the answer."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from probes.data.frames import Benchmark
from probes.encoders.entrants import Entrant
from probes.errors import ProbeError, Unfed, nearest
from probes.probe import Probe, Settings, Task
from probes.results.results import versions
from probes.units import PROBES, Place, code_hash, open_task, probe, training_part

SMALLEST = 16
"""Side in px of the smallest images that are scored."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A task and what it stands for."""

    place: Place
    benchmark: Benchmark
    train: Benchmark | None


def probe_names(probes: Sequence[str]) -> list[str]:
    """The probes that are named, ``all`` spelled out. ProbeError where one is unknown."""
    if not probes:
        raise ProbeError(f"no probe is named: all, or some of {', '.join(PROBES)}")
    for name in probes:
        if name != "all":
            probe(name)
    return list(PROBES) if "all" in probes else list(dict.fromkeys(probes))


def check_readings(readings: Sequence[str] | None, names: Sequence[str]) -> None:
    """ProbeError where a reading is known to none of the probes."""
    known = {reading for name in names for reading in probe(name).leading}
    for reading in readings or ():
        if reading not in known:
            raise ProbeError(f"unknown reading {reading!r}{nearest(reading, known)}")


def usual_size(scored: Sequence[Benchmark], wanted: int) -> int:
    """The wanted size in px, or less: the largest multiple of 16 that enlarges no scored image."""
    shortest = min(min(frame.height, frame.width) for found in scored for frame in found.test.frames)
    return max(SMALLEST, min(wanted, shortest // 16 * 16))


def asked_tasks(
    names: Sequence[str],
    scored: Sequence[Benchmark],
    train_data: Sequence[str],
    lender: str | None,
    settings: Settings,
    *,
    every: bool,
    allow_missing: bool,
) -> tuple[list[Asked], list[str]]:
    """Tasks in the order of the report, and a note for every probe that some data cannot feed."""
    asked, notes = [], []
    for name in names:
        reasons = []
        for benchmark in scored:
            # One speaks of the machine, not of the data.
            if probe(name).timed and any(task.place.probe == name for task in asked):
                continue
            reason = probe(name).refuses(benchmark)
            if reason:
                reasons.append(f"{name} was not scored on {benchmark.spec}: {reason}.")
                continue
            own = benchmark.spec if benchmark.train is not None else lender
            chosen = tuple(train_data) or ((own,) if own else ())
            place = Place(
                probe=name,
                data=benchmark.spec,
                train=chosen,
                settings=settings,
                allow_missing=allow_missing,
            )
            train = training_part(chosen, allow_missing=allow_missing)
            asked.append(Asked(place=place, benchmark=benchmark, train=train))
        if len(reasons) == len(scored) and not every:
            raise ProbeError(" ".join(reasons))
        notes += reasons
    if not asked:
        raise ProbeError(f"no probe can be scored on this data: {' '.join(notes)}")
    return asked, notes


def opened_tasks(asked: Sequence[Asked], *, every: bool) -> tuple[list[Asked], dict[Place, Task], list[str]]:
    """The tasks that their data can feed, opened, and a note on those that they cannot.

    Raises:
        ProbeError: a probe that was named (not ``every``) is fed by no data.
    """
    tasks: dict[Place, Task] = {}
    starved: dict[str, list[str]] = {}
    for task in asked:
        try:
            tasks[task.place] = open_task(task.place)
        except Unfed as error:
            starved.setdefault(str(error), []).append(task.place.probe)
    fed = {place.probe for place in tasks}
    for reason, names in starved.items():
        if not (every and tasks) and not fed.issuperset(names):
            raise ProbeError(reason)
    notes = [f"{', '.join(names)}: not scored, because {reason}." for reason, names in starved.items()]
    return [task for task in asked if task.place in tasks], tasks, notes


def instances(asked: Sequence[Asked]) -> dict[str, Probe]:
    """The probes that are asked, by name."""
    return {task.place.probe: probe(task.place.probe) for task in asked}


def identity_of(
    asked: Sequence[Asked],
    entrants: Sequence[Entrant],
    settings: Settings,
    device: torch.device,
    base: str | None,
) -> dict[str, Any]:
    """Everything that the numbers of a run depend on; JSON types."""
    return {
        "base": base,
        "code": code_hash(),
        "versions": versions(),
        "device": device.type,
        "config": asdict(settings),
        "encoders": [
            {"label": entrant.label, **entrant.sheet.identity, "run": entrant.run_hash}
            for entrant in entrants
        ],
        "tasks": [
            {
                "probe": task.place.probe,
                "data": task.place.data,
                "hash": task.benchmark.test.hash,
                "train": task.train.train.hash if task.train and task.train.train else None,
                "missing": list(task.benchmark.missing),
                "config": asdict(probe(task.place.probe).config(task.benchmark, settings)),
            }
            for task in asked
        ],
    }
