"""What comes out of a run: rows of all units under the names of their tasks and encoders, and pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from probes.asking import Asked, instances
from probes.data.square import SquareFrames
from probes.encoders.entrants import Entrant
from probes.encoders.features import extract
from probes.exhibits import Exhibit
from probes.probe import Row, Task, Unit
from probes.report import pca_exhibits
from probes.results.results import Results, versions
from probes.units import Place, probe
from probes.words import short_data

_COMMON = ("probe", "data", "item", "scene", "encoder", "layer", "reading", "position", "seed", "failed")
"""Columns of every row, in front."""
_VIEWS = 4
"""Images whose features are shown as colours."""


def results_of(
    asked: Sequence[Asked],
    tasks: Mapping[Place, Task],
    units: Mapping[tuple[Place, str | None], Unit],
    entrants: Sequence[Entrant],
    identity: dict[str, Any],
    notes: Sequence[str],
    command: str | None,
    seconds: float,
) -> Results:
    """The results of a run.

    Args:
        asked: its tasks, in the order of the report.
        tasks: the same, opened.
        units: of each under every encoder, and under none (the baselines).
        entrants: the encoders.
        identity: see `probes.asking.identity_of`.
        notes: what must be said beside those of units, benchmarks and tasks.
        command: the command line.
        seconds: how long it took.
    """
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
        said += [f"{short_data(task.place.data)}: {note}" for note in task.benchmark.notes]
        said += tasks[task.place].notes
    said += _unlearned(asked, rows)
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
        seconds=seconds,
        selections=selections,
        probes=instances(asked),
    )


def _unlearned(asked: Sequence[Asked], rows: Sequence[Row]) -> list[str]:
    """Notes on readings that were left out for want of anything to train on."""
    data: dict[tuple[str, str], list[str]] = {}
    for task in asked:
        kind, place = probe(task.place.probe), task.place
        wanted = getattr(kind.config(task.benchmark, place.settings), "readings", ())
        taken = {row["reading"] for row in rows if (row["probe"], row["data"]) == (place.probe, place.data)}
        left = [reading for reading in wanted if reading not in taken]
        if left and task.train is None:
            data.setdefault((place.probe, ", ".join(left)), []).append(short_data(place.data))
    return [
        f"{name} on {', '.join(where)}: {readings} not scored, because there is nothing to train on; --train-data "
        "names scenes for it."
        for (name, readings), where in data.items()
    ]


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


def exhibits_of(
    asked: Sequence[Asked],
    tasks: Mapping[Place, Task],
    units: Mapping[tuple[Place, str | None], Unit],
    entrants: Sequence[Entrant],
) -> dict[tuple[str, str], list[Exhibit]]:
    """Pictures of every task, by probe and data."""
    return {
        (task.place.probe, task.place.data): tasks[task.place].exhibits(
            {entrant.label: units[task.place, entrant.label] for entrant in entrants}
        )
        for task in asked
    }


def feature_maps(task: Task, entrants: Sequence[Entrant], cache: Path) -> list[Exhibit]:
    """Features of a few scored images as colours, by every encoder; none where the task reads no features."""
    layers = {entrant.label: task.layers(entrant.sheet)[-1:] for entrant in entrants}
    if not len(task.frames) or not all(layers.values()):
        return []
    first = SquareFrames(task.frames.frames[:_VIEWS], task.frames.size, task.frames.fit)
    maps = {}
    for entrant in entrants:
        last = layers[entrant.label]
        maps[entrant.label] = extract(entrant.encoder, first, last, cache=cache / "features")[last[0]]
    return pca_exhibits(first, maps)
