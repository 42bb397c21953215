"""Every probe on every data set for every encoder: lists are frozen, features made once, units scored, a page written.

Phase one makes the features of all images that any task reads, all layers in one forward pass, into the cache.
Phase two scores units from that cache alone, in as many processes as wanted. Nothing here knows what a probe does.
"""

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from tqdm import tqdm

from probes import report
from probes.benchmarks import open_benchmark
from probes.data.frames import Benchmark
from probes.data.square import SquareFrames
from probes.encoders.entrants import Entrant, open_entrants
from probes.encoders.feature_cache import default_cache
from probes.encoders.features import extract, fill, fill_in_processes
from probes.errors import ProbeError, nearest
from probes.probe import Row, Settings, Task, Unit
from probes.results.results import Results, read_finished, versions
from probes.units import (
    PROBES,
    Job,
    Place,
    code_hash,
    one_thread,
    open_task,
    probe,
    read_unit,
    score_all,
    training_part,
    unit_key,
    unit_path,
    write_unit,
)

DEFAULT_SIZE = {"standard": 448, "small": 128}
"""Evaluated size in px of each preset, or less where images are smaller."""
_COMMON = ("probe", "data", "item", "scene", "encoder", "layer", "reading", "position", "seed", "failed")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A task and what it stands for."""

    place: Place
    benchmark: Benchmark
    train: Benchmark | None


def run(
    probes: Sequence[str],
    encoders: Sequence[str],
    data: Sequence[str],
    *,
    train_data: Sequence[str] = (),
    out: str | Path | None = None,
    preset: Literal["small", "standard"] = "standard",
    size: int | None = None,
    fit: Literal["crop", "squash"] | None = None,
    layers: Literal["last", "all"] | Sequence[int] = "last",
    seeds: Sequence[int] | None = None,
    items: int | None = None,
    readings: Sequence[str] | None = None,
    pixels: bool = True,
    base: str | None = None,
    cache: str | Path | None = None,
    devices: Sequence[str | torch.device] = ("cpu",),
    workers: int = 1,
    batch: int = 32,
    allow_missing: bool = False,
    force: bool = False,
    progress: bool = False,
    command: str | None = None,
) -> Results:
    """Score encoders; the Python door of ``python -m probes run``.

    Args:
        probes: names of `PROBES`, or ``all``: every probe that the data allow.
        encoders: specs as of `probes.encoders.encoder.open_encoder`, each optionally ``LABEL=SPEC``.
        data: specs as of `probes.benchmarks.open_benchmark`.
        train_data: what heads are trained on; by default the training part of each data set, or else of the first
            that has one. Images that are scored are never trained on.
        out: result folder; None writes nothing.
        preset: ``small`` for CPUs and first looks, ``standard`` for the published protocols.
        size: evaluated size in px; by default 448 (small: 128), or less where the images are smaller.
        fit: how images become square; by default each benchmark's own rule.
        layers: ``last``, ``all`` or block numbers from 1.
        seeds: of random encoders (the first) and of everything trained; by default 0 (standard: 0, 1, 2).
        items: most scored items of each data set and probe.
        readings: subset of the probes' readings.
        pixels: add raw pixels as a baseline.
        base: label of the encoder that others were made from: `consistency` tells how much of it is left.
        cache: folder of features and units; by default the user's cache, ``none`` keeps nothing.
        devices: where encoders run and heads train; several share the work.
        workers: processes that score units.
        batch: images a forward pass.
        allow_missing: accept benchmarks with missing files, and say so in the report.
        force: replace a result of another configuration in ``out``.
        progress: show bars on stderr.
        command: the command line, kept in the results.

    Raises:
        ProbeError: bad input, in one sentence.
    """
    began = time.monotonic()
    if not encoders or not data:
        raise ProbeError("at least one encoder and one data set are needed")
    names = _names(probes)
    _check_readings(readings, names)
    places = [torch.device(device) for device in devices]
    opened = [open_benchmark(spec, allow_missing=allow_missing) for spec in data]
    scored = [found for found in opened if found.test is not None]
    if not scored:
        raise ProbeError(f"data {data[0]!r} only has a training part: name it with --train-data")
    lender = next((found.spec for found in opened if found.train is not None), None)
    settings = Settings(
        size=size or _default_size(scored, DEFAULT_SIZE[preset]),
        fit=fit,
        preset=preset,
        layers=layers if isinstance(layers, str) else tuple(layers),
        seeds=tuple(seeds) if seeds else ((0,) if preset == "small" else (0, 1, 2)),
        items=items,
        readings=tuple(readings) if readings else None,
    )
    if settings.size < 16:
        raise ProbeError(f"the evaluated size is {settings.size} px: at least 16 are needed")
    entrants = open_entrants(
        encoders, size=settings.size, seed=settings.seeds[0], device=places[0], pixels=pixels
    )
    if base is not None and base not in (labels := [entrant.label for entrant in entrants]):
        raise ProbeError(f"the base {base!r} is not among the encoders{nearest(base, labels)}")
    asked, notes = _asked(
        names, scored, train_data, lender, settings, every="all" in probes, allow_missing=allow_missing
    )
    identity = _identity(asked, entrants, settings, places[0], base)
    if out is not None and (finished := read_finished(Path(out), identity, _instances(asked), force=force)):
        return finished
    with _folder(cache) as kept:
        with one_thread(places[0]):
            tasks = {task.place: open_task(task.place) for task in asked}
        units = _units(
            asked, tasks, entrants, places, kept, base, workers=workers, batch=batch, progress=progress
        )
        results = _results(asked, tasks, units, entrants, identity, notes, command)
        results.seconds = time.monotonic() - began
        if out is not None:
            exhibits = {
                (task.place.probe, task.place.data): tasks[task.place].exhibits(
                    {entrant.label: units[task.place, entrant.label] for entrant in entrants}
                )
                for task in asked
            }
            maps = _feature_maps(tasks[asked[0].place], entrants, kept) if _reads(tasks, asked) else []
            results.write(Path(out), report.page(results, exhibits, feature_maps=maps))
    return results


# -- what is asked


def _names(probes: Sequence[str]) -> list[str]:
    if not probes:
        raise ProbeError(f"no probe is named: all, or some of {', '.join(PROBES)}")
    for name in probes:
        if name != "all":
            probe(name)
    return list(PROBES) if "all" in probes else list(dict.fromkeys(probes))


def _check_readings(readings: Sequence[str] | None, names: Sequence[str]) -> None:
    known = {reading for name in names for reading in probe(name).leading}
    for reading in readings or ():
        if reading not in known:
            raise ProbeError(f"unknown reading {reading!r}{nearest(reading, known)}")


def _default_size(scored: Sequence[Benchmark], wanted: int) -> int:
    shortest = min(min(frame.height, frame.width) for found in scored for frame in found.test.frames)
    return max(16, min(wanted, shortest // 16 * 16))


def _asked(
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
            if name == "speed" and any(task.place.probe == "speed" for task in asked):
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


def _instances(asked: Sequence[Asked]) -> dict[str, Any]:
    return {task.place.probe: probe(task.place.probe) for task in asked}


def _identity(
    asked: Sequence[Asked],
    entrants: Sequence[Entrant],
    settings: Settings,
    device: torch.device,
    base: str | None,
) -> dict[str, Any]:
    return {
        "base": base,
        "code": code_hash(),
        "torch": torch.__version__,
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


# -- features and units


@contextmanager
def _folder(cache: str | Path | None) -> Iterator[Path]:
    if cache == "none":
        with tempfile.TemporaryDirectory(prefix="mum-probe-") as folder:
            yield Path(folder)
    else:
        yield Path(cache) if cache is not None else default_cache()


def _units(
    asked: Sequence[Asked],
    tasks: dict[Place, Task],
    entrants: Sequence[Entrant],
    devices: Sequence[torch.device],
    cache: Path,
    base: str | None,
    *,
    workers: int,
    batch: int,
    progress: bool,
) -> dict[tuple[Place, str | None], Unit]:
    """All units, by task and label (None: the baselines); those that are not kept yet are scored."""
    grids = tuple(dict.fromkeys(entrant.sheet.grid for entrant in entrants))
    base_sheet = next((entrant.sheet for entrant in entrants if entrant.label == base), None)
    jobs: dict[tuple[Place, str | None], Job] = {}
    for task in asked:
        for entrant in (*entrants, None):
            sheet = entrant.sheet if entrant else None
            own_base = base_sheet if probe(task.place.probe).takes_base and sheet else None
            key = unit_key(task.place, sheet, grids, devices[0], own_base)
            jobs[task.place, entrant.label if entrant else None] = Job(
                place=task.place, key=key, sheet=sheet, grids=grids, base=own_base
            )
    found = {name: read_unit(unit_path(cache, job.key)) for name, job in jobs.items()}
    todo = {name: job for name, job in jobs.items() if found[name] is None}
    timed = {name for name in todo if name[1] is not None and probe(name[0].probe).timed}
    bar = tqdm(
        total=len(jobs), initial=len(jobs) - len(todo), desc="units", disable=not progress, unit="unit"
    )
    for entrant in entrants:
        mine = [name for name in todo if name[1] == entrant.label]
        read = [
            tasks[place]
            for (place, label), job in todo.items()
            if (place, label) not in timed and entrant.sheet in (job.sheet, job.base)
        ]
        _extract(entrant, read, cache, devices, batch=batch, progress=progress)
        for name in mine:
            if name in timed:
                # Alone, before other processes start.
                write_unit(
                    unit_path(cache, todo[name].key), tasks[name[0]].score(entrant.encoder, {}, devices[0])
                )
                bar.update()
    waiting = [job for name, job in todo.items() if name not in timed]
    for job in score_all(waiting, cache, devices, workers):
        bar.update()
        bar.set_postfix_str(f"{job.place.probe} of {job.sheet.spec if job.sheet else 'baselines'}")
    bar.close()
    for name, job in todo.items():
        found[name] = read_unit(unit_path(cache, job.key))
    return found


def _extract(
    entrant: Entrant,
    tasks: Sequence[Task],
    cache: Path,
    devices: Sequence[torch.device],
    *,
    batch: int,
    progress: bool,
) -> None:
    """Features of all images that the tasks read: each image once for each rule of making it square."""
    by_rule: dict[tuple[int, str], list[Task]] = {}
    for task in tasks:
        by_rule.setdefault((task.frames.size, task.frames.fit), []).append(task)
    for (size, fit), group in by_rule.items():
        layers = sorted({layer for task in group for layer in task.layers(entrant.sheet)})
        frames = {
            digest: frame
            for task in group
            for digest, frame in zip(task.frames.hashes, task.frames.frames, strict=True)
        }
        if not layers:
            continue
        union, folder = SquareFrames(list(frames.values()), size, fit), cache / "features"
        if len(devices) > 1:
            names = [str(device) for device in devices]
            fill_in_processes(
                entrant.sheet.spec, union, layers, cache=folder, devices=names, seed=entrant.seed, batch=batch
            )
        else:
            fill(entrant.encoder, union, layers, cache=folder, batch=batch, progress=progress)


# -- what comes out


def _results(
    asked: Sequence[Asked],
    tasks: dict[Place, Task],
    units: dict[tuple[Place, str | None], Unit],
    entrants: Sequence[Entrant],
    identity: dict[str, Any],
    notes: Sequence[str],
    command: str | None,
) -> Results:
    rows: list[Row] = []
    selections, said = [], list(notes)
    for task in asked:
        for label in (*(entrant.label for entrant in entrants), None):
            unit = units[task.place, label]
            rows += [_row(task.place, label, row) for row in unit.rows]
            said += unit.notes
            if unit.selections:
                selections.append(
                    {
                        "probe": task.place.probe,
                        "data": task.place.data,
                        "encoder": label,
                        "selected": unit.selections,
                    }
                )
        said += [*task.benchmark.notes, *tasks[task.place].notes]
    described = [
        entrant.described(
            sorted({row["layer"] for row in rows if row["encoder"] == entrant.label and row["layer"]})
        )
        for entrant in entrants
    ]
    return Results(
        identity=identity,
        encoders=described,
        tasks=[_described(task, tasks[task.place]) for task in asked],
        rows=rows,
        notes=list(dict.fromkeys(said)),
        versions=versions(),
        command=command,
        seconds=0.0,
        selections=selections,
        probes=_instances(asked),
    )


def _row(place: Place, label: str | None, row: Row) -> Row:
    whole = {"probe": place.probe, "data": place.data, "position": "kept", "seed": None, "failed": False}
    whole |= {"encoder": label} | row
    return {name: whole[name] for name in _COMMON} | {k: v for k, v in whole.items() if k not in _COMMON}


def _described(task: Asked, opened: Task) -> dict[str, Any]:
    return {
        "probe": task.place.probe,
        "data": task.place.data,
        "benchmark": task.benchmark.name,
        "split": task.benchmark.split,
        "train_data": list(task.place.train),
        "fit": opened.frames.fit,
        "size": opened.frames.size,
        "auc": task.benchmark.auc,
        "truth": task.benchmark.truth,
        "unit": task.benchmark.unit,
        "hash": opened.hash,
        "facts": opened.facts,
        "notes": opened.notes,
        "missing": list(task.benchmark.missing),
        "config": asdict(probe(task.place.probe).config(task.benchmark, task.place.settings)),
    }


def _reads(tasks: dict[Place, Task], asked: Sequence[Asked]) -> bool:
    return len(tasks[asked[0].place].frames) > 0 and asked[0].place.probe != "speed"


def _feature_maps(task: Task, entrants: Sequence[Entrant], cache: Path) -> list[Any]:
    """Features of a few scored images as colours, of every encoder whose features are in the cache."""
    first = SquareFrames(task.frames.frames[:4], task.frames.size, task.frames.fit)
    maps = {}
    for entrant in entrants:
        last = task.layers(entrant.sheet)[-1:]
        maps[entrant.label] = extract(entrant.encoder, first, last, cache=cache / "features")[last[0]]
    return report.pca_exhibits(first, maps)
