"""Every probe on every data set for every encoder: lists are frozen, features made once, units scored, a page written.

Phase one makes the features of all images that any task reads, all layers in one forward pass, into the cache.
Phase two scores units from that cache alone, in as many processes as wanted. What is asked is checked by
`probes.asking`, what comes out is put together by `probes.outcome`. Nothing here knows what a probe does.
"""

import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import torch
from tqdm import tqdm

from probes import report
from probes.asking import (
    SMALLEST,
    Asked,
    asked_tasks,
    check_readings,
    identity_of,
    instances,
    opened_tasks,
    probe_names,
    usual_size,
)
from probes.benchmarks import open_benchmark
from probes.data.square import SquareFrames
from probes.encoders.entrants import Entrant, open_entrants
from probes.encoders.feature_cache import default_cache
from probes.encoders.features import fill, fill_in_processes
from probes.errors import ProbeError, nearest
from probes.outcome import exhibits_of, feature_maps, results_of
from probes.probe import Settings, Task, Unit
from probes.results.results import Results, read_finished
from probes.units import (
    Job,
    Place,
    one_thread,
    probe,
    read_unit,
    score_all,
    unit_key,
    unit_path,
    write_unit,
)

DEFAULT_SIZE = {"standard": 448, "small": 128}
"""Evaluated size in px of each preset, or less where images are smaller."""


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
    if out is not None:
        _check_writable(Path(out))
    if not encoders or not data:
        raise ProbeError("at least one encoder and one data set are needed")
    if any(seed < 0 for seed in seeds or ()):
        raise ProbeError(f"seeds are numbers from 0, not {' '.join(map(str, seeds))}")
    names = probe_names(probes)
    check_readings(readings, names)
    places = [torch.device(device) for device in devices]
    opened = [open_benchmark(spec, allow_missing=allow_missing) for spec in dict.fromkeys(data)]
    scored = [found for found in opened if found.test is not None]
    if not scored:
        raise ProbeError(f"data {data[0]!r} only has a training part: name it with --train-data")
    lender = next((found.spec for found in opened if found.train is not None), None)
    settings = Settings(
        size=size or usual_size(scored, DEFAULT_SIZE[preset]),
        fit=fit,
        preset=preset,
        layers=layers if isinstance(layers, str) else tuple(layers),
        seeds=tuple(dict.fromkeys(seeds)) if seeds else ((0,) if preset == "small" else (0, 1, 2)),
        items=items,
        readings=tuple(readings) if readings else None,
    )
    if settings.size < SMALLEST:
        raise ProbeError(f"the evaluated size is {settings.size} px: at least {SMALLEST} are needed")
    entrants = open_entrants(
        encoders, size=settings.size, seed=settings.seeds[0], device=places[0], pixels=pixels
    )
    if base is not None and base not in (labels := [entrant.label for entrant in entrants]):
        raise ProbeError(f"the base {base!r} is not among the encoders{nearest(base, labels)}")
    asked, notes = asked_tasks(
        names, scored, train_data, lender, settings, every="all" in probes, allow_missing=allow_missing
    )
    identity = identity_of(asked, entrants, settings, places[0], base)
    if out is not None and (finished := read_finished(Path(out), identity, instances(asked), force=force)):
        return finished
    with _folder(cache) as kept:
        with one_thread(places[0]):
            asked, tasks, starved = opened_tasks(asked, every="all" in probes)
        notes += starved
        units = _units(
            asked, tasks, entrants, places, kept, base, workers=workers, batch=batch, progress=progress
        )
        seconds = time.monotonic() - began
        results = results_of(asked, tasks, units, entrants, identity, notes, command, seconds)
        if out is not None:
            exhibits = exhibits_of(asked, tasks, units, entrants)
            maps = feature_maps(tasks[asked[0].place], entrants, kept)
            results.write(Path(out), report.page(results, exhibits, feature_maps=maps))
    return results


def _check_writable(out: Path) -> None:
    """ProbeError where results could not be written in the end; nothing is made yet."""
    folder = next(place for place in (out, *out.absolute().parents) if place.exists())
    if folder.is_dir() and not os.access(folder, os.W_OK):
        raise ProbeError(f"--out {str(out)!r}: {folder} cannot be written to, choose another folder")


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
    for job in score_all(waiting, cache, devices, workers, progress=progress):
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
