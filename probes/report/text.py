"""The scores for a terminal."""

from collections.abc import Sequence

from probes.probe import BASELINE, Metric, Row
from probes.results.aggregate import compared
from probes.results.results import Results, scene_notes
from probes.words import short_data, shown


def table(results: Results) -> str:
    """A table for each probe and data set: the tested metrics with intervals, then the notes."""
    lines: list[str] = []
    for task in results.tasks:
        probe = results.probes[task["probe"]]
        metrics = compared(probe)
        mine = [
            line for line in results.table if (line["probe"], line["data"]) == (task["probe"], task["data"])
        ]
        if not mine:
            continue
        scenes = max(line["scenes"] for line in mine)
        lines += [
            f"{probe.title} on {task['data']}: {_counts(mine)}"
            + (" [95 % interval over scenes]" * (scenes > 1))
        ]
        heads = [f"{m.label}{f' ({m.unit})' if m.unit else ''}" for m in metrics]
        cells = [["reading", "position", "encoder", "layer", *heads]]
        kinds = list(dict.fromkeys((line["reading"], line["position"]) for line in mine))
        order = sorted(
            kinds, key=lambda kind: (kind[0] == BASELINE, [reading for reading, _ in kinds].index(kind[0]))
        )
        for line in sorted(mine, key=lambda line: order.index((line["reading"], line["position"]))):
            layer = "" if line["layer"] is None else str(line["layer"])
            position = "" if line["reading"] == BASELINE else line["position"]
            cells.append([line["reading"], position, line["encoder"], layer])
            cells[-1] += [with_interval(line, metric) for metric in metrics]
        lines += columns(cells)
    return "\n".join([*lines, *_notes(results)])


def _notes(results: Results) -> list[str]:
    """What a reader must know: of everything first, then of single probes, each note once."""
    of_tasks: dict[str, list[Row]] = {}
    for task in results.tasks:
        for note in task["notes"]:
            of_tasks.setdefault(note, []).append(task)
    missing = {task["data"]: task["missing"] for task in results.tasks if task["missing"]}
    notes = [
        f"{short_data(data)}: files missing: {len(files):,}; what they belong to was left out (listed in the report)."
        for data, files in missing.items()
    ]
    notes += [*scene_notes(results.tasks), *(note for note in results.notes if note not in of_tasks)]
    for note, tasks in of_tasks.items():
        everywhere = [task for task in results.tasks if task["probe"] in {one["probe"] for one in tasks}]
        names = ", ".join(dict.fromkeys(task["probe"] for task in tasks))
        data = ", ".join(dict.fromkeys(short_data(task["data"]) for task in tasks))
        notes.append(f"{names}: {note}" if len(tasks) == len(everywhere) else f"{names} on {data}: {note}")
    return [f"note: {note}" for note in notes]


def columns(cells: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as lines, each column as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]


def with_interval(line: Row, metric: Metric) -> str:
    """A score of the table's line with its interval, where it has one."""
    lo, hi = line.get(f"{metric.name}_lo"), line.get(f"{metric.name}_hi")
    score = shown(line.get(metric.name), metric)
    return score if lo is None or hi is None else f"{score} [{shown(lo, metric)}, {shown(hi, metric)}]"


def _counts(lines: Sequence[Row]) -> str:
    items, scenes = (max(line[name] for line in lines) for name in ("items", "scenes"))
    failed = sum(line["failed"] for line in lines)
    return f"{items:,} item{'s' * (items != 1)} of {scenes:,} scene{'s' * (scenes != 1)}" + (
        f", {failed:,} failed (listed in the report)" if failed else ""
    )
