"""Two results item by item: differences with intervals and tests on the items both were scored on, and those items.

Encoders of one name are compared with each other, the rest in the order they were given; a task of one side is that of
the other with the same lists, or else on the same data. Nothing here knows what was measured.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

from probes.errors import ProbeError, nearest
from probes.probe import BASELINE, Metric, Probe, Row
from probes.report.text import columns
from probes.results.aggregate import Difference, Sample, compared, difference, difference_lines
from probes.results.files import strict
from probes.results.results import Results, scene_notes
from probes.words import short_data, shown

SHOWN = 3
"""Items that the terminal shows on either side."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What A and B differ in."""

    names: tuple[str, str]
    """Of the two results."""
    hashes: tuple[str, str]
    """Of their configurations."""
    commands: tuple[str | None, str | None]
    differences: list[Row]
    """A minus B of every score that both have: ``probe``, ``data``, ``reading``, ``position``, ``encoder`` and
    ``layer`` of A, ``minus`` and ``minus_layer`` of B, ``metric``, ``items``, ``scenes``, ``a``, ``b``,
    ``difference``, ``lo``, ``hi``, ``p``, ``p_holm``, ``verdict`` of A; ``leads`` where the summary rests on it."""
    items: list[Row] = field(repr=False)
    """Each headline item by item: the same keys, ``item``, ``scene``, ``a``, ``b``, ``difference``; A's best first."""
    notes: list[str]
    """In what the two were measured differently."""
    probes: Mapping[str, Probe] = field(repr=False)

    @property
    def heads(self) -> tuple[str, str]:
        """Of their columns: the last parts of the names, without what both share; A and B where nothing is left."""
        a, b = (name.rstrip("/").rpartition("/")[2] for name in self.names)
        folders = [name.partition(":")[::2] for name in (a, b)]
        if folders[0][0] == folders[1][0] and all(label for _, label in folders):
            a, b = (label for _, label in folders)
        return (a, b) if a and b and a != b else ("A", "B")

    @property
    def pair(self) -> str:
        """The encoders compared, A minus B, where they are the same ones in all lines; else empty."""
        found = {encoder_pair(line) for line in self.differences}
        return found.pop() if len(found) == 1 else ""

    def metric(self, line: Row) -> Metric:
        """Of a line."""
        return next(metric for metric in self.probes[line["probe"]].metrics if metric.name == line["metric"])

    def leading(self) -> list[tuple[Row, list[Row]]]:
        """The headline differences that the summary rests on, each with its items."""
        keys = ("probe", "data", "reading", "position", "encoder", "minus", "metric")
        by_key: dict[tuple, list[Row]] = {}
        for row in self.items:
            by_key.setdefault(tuple(row[key] for key in keys), []).append(row)
        return [
            (line, by_key[tuple(line[key] for key in keys)])
            for line in self.differences
            if line["leads"] and line["metric"] == self.probes[line["probe"]].headline
        ]

    def to_json(self) -> dict[str, Any]:
        """As strict JSON types; an infinite number is the text ``inf``."""
        return {
            "names": list(self.names),
            "hashes": list(self.hashes),
            "commands": list(self.commands),
            "notes": self.notes,
            "differences": strict(self.differences),
            "items": strict(self.items),
        }


def compare(
    a: Results,
    b: Results,
    *,
    names: tuple[str, str] = ("A", "B"),
    encoders: tuple[str | None, str | None] = (None, None),
) -> Comparison:
    """Compare two results on what both scored.

    Args:
        a: the one that is called better or worse.
        b: the one it is held against.
        names: of the two, for notes and pages.
        encoders: the one encoder of either side to compare; None: all.

    Raises:
        ProbeError: an unknown encoder, or nothing that both scored.
    """
    notes: list[str] = []
    scored: list[Mapping[str, Any]] = []
    lines: list[tuple[Row, Difference, Metric, bool]] = []
    items: list[Row] = []
    pairs = _encoder_pairs(a, b, encoders)
    for task, other in _task_pairs(a, b):
        name = task["probe"]
        found = len(lines)
        for of, lead, left, right in _sides(a, b, task, other, pairs):
            for metric in compared(a.probes[name]):
                ours, theirs = a.sample(left, metric), b.sample(right, metric)
                both = difference(ours, theirs) if ours and theirs else None
                if both is None:
                    continue
                lines.append((of | {"leads": lead}, both, metric, lead))
                if metric.name == a.probes[name].headline:
                    items += _items(of | {"metric": metric.name}, ours, theirs)
        if len(lines) > found:
            notes += _notes(task, other, names, lines[found][1].items)
            scored.append(task)
    if not lines:
        raise ProbeError(
            f"{names[0]} and {names[1]} share no item of any probe: they were scored on other data"
        )
    return Comparison(
        names=names,
        hashes=(a.hash, b.hash),
        commands=(a.command, b.command),
        differences=difference_lines(lines),
        items=items,
        notes=[*notes, *scene_notes(scored)],
        probes=a.probes,
    )


def compare_folders(a: str, b: str, probes: Mapping[str, Probe]) -> Comparison:
    """Compare what two folders hold, each given as ``FOLDER`` or ``FOLDER:ENCODER``.

    Raises:
        ProbeError: a folder without results, an unknown encoder, or nothing that both scored.
    """
    (folder_a, label_a), (folder_b, label_b) = map(_side, (a, b))
    parts = [Results.read(folder, probes) for folder in (folder_a, folder_b)]
    names = (a, b) if a != b else (f"{a} (first)", f"{b} (second)")
    return compare(*parts, names=names, encoders=(label_a, label_b))


def text(found: Comparison) -> str:
    """For a terminal: the scores of both sides, and the items that differ most."""
    lines = [f"{found.names[0]} minus {found.names[1]}, on the items that both were scored on"]
    lines += [f"note: {note}" for note in found.notes]
    several = [] if found.pair else ["encoders"]
    heads = [*found.heads, "difference", "p", f"{found.heads[0]} is"]
    cells = [["probe", "data", "reading", "position", *several, "score", *heads]]
    for line in found.differences:
        metric = found.metric(line)
        cells.append([line["probe"], short_data(line["data"]), line["reading"], line["position"]])
        cells[-1] += [encoder_pair(line) for _ in several]
        cells[-1] += [
            f"{metric.label} ({metric.unit})" if metric.unit else metric.label,
            shown(line["a"], metric),
            shown(line["b"], metric),
            _interval(line, metric),
        ]
        p = line["p_holm"]
        cells[-1] += ["" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}", line["verdict"]]
    lines += columns(cells)
    for line, rows in found.leading():
        metric = found.metric(line)
        differing = [row for row in rows if row["difference"] != 0]
        if not differing:
            continue
        whose = "" if found.pair else f" ({encoder_pair(line)})"
        where = f"{line['probe']} on {short_data(line['data'])}{whose}"
        lines.append(f"{where}: items with the largest differences of {metric.label}")
        most = differing[:SHOWN] + differing[max(SHOWN, len(differing) - SHOWN) :]
        cells = [["item", *found.heads, "difference"]]
        cells += [
            [
                row["item"],
                *(shown(row[side], metric) for side in ("a", "b")),
                shown(row["difference"], metric, sign=True),
            ]
            for row in most
        ]
        lines += columns(cells)
    return "\n".join(lines)


def _side(given: str) -> tuple[Path, str | None]:
    # A folder's own name may hold a colon, and so may an encoder's.
    for place, character in enumerate(given):
        if character == ":" and Path(given[:place]).is_dir() and not Path(given).exists():
            return Path(given[:place]), given[place + 1 :]
    return Path(given), None


def _encoder_pairs(a: Results, b: Results, wanted: tuple[str | None, str | None]) -> list[tuple[str, str]]:
    for label, side in zip(wanted, (a, b), strict=True):
        if label is not None and label not in side.labels:
            raise ProbeError(f"no encoder is called {label!r} there{nearest(label, side.labels)}")
    left, right = (
        [label] if label is not None else side.labels for label, side in zip(wanted, (a, b), strict=True)
    )
    if len(left) == len(right) == 1:
        return [(left[0], right[0])]
    same = [label for label in left if label in right]
    rest = zip((x for x in left if x not in same), (x for x in right if x not in same), strict=False)
    identity = {(k, e["label"]): e["identity"] for k, side in enumerate((a, b)) for e in side.encoders}
    pairs = [*rest, *((label, label) for label in same)]
    # The same weights on both sides say nothing, unless nothing else is there.
    changed = [(x, y) for x, y in pairs if identity[0, x] != identity[1, y]]
    return changed or pairs


def _task_pairs(a: Results, b: Results) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    for task in a.tasks:
        if a.probes[task["probe"]].timed:
            continue
        rest = [other for other in b.tasks if other["probe"] == task["probe"]]
        same = [other for other in rest if other["hash"] == task["hash"]]
        same = same or [other for other in rest if other["data"] == task["data"]]
        if same:
            yield task, same[0]


def _sides(
    a: Results,
    b: Results,
    task: Mapping[str, Any],
    other: Mapping[str, Any],
    pairs: Sequence[tuple[str, str]],
) -> Iterator[tuple[Row, bool, Row, Row]]:
    """What is compared: its keys, whether the summary rests on it, and the table's line of either side."""
    probe, data = task["probe"], task["data"]
    kinds = dict.fromkeys(
        (line["reading"], line["position"])
        for line in a.table
        if (line["probe"], line["data"]) == (probe, data) and line["reading"] != BASELINE
    )
    leading = a.leading(probe, data)
    for reading, position in kinds:
        left, right = (
            a.final(probe, data, reading, position),
            b.final(probe, other["data"], reading, position),
        )
        for ours, theirs in pairs:
            if ours in left and theirs in right:
                of = {"probe": probe, "data": data, "reading": reading, "position": position}
                of |= {"encoder": ours, "minus": theirs}
                of |= {"layer": left[ours]["layer"], "minus_layer": right[theirs]["layer"]}
                yield of, (reading, position) == leading, left[ours], right[theirs]


def _items(of: Row, ours: Sample, theirs: Sample) -> list[Row]:
    scenes, left, right = dict(zip(ours.items, ours.scenes, strict=True)), ours.by_item, theirs.by_item
    rows = [
        of | {"item": item, "scene": scenes[item], "a": left[item], "b": right[item],
              "difference": 0.0 if left[item] == right[item] else left[item] - right[item]}
        for item in ours.items if item in right
    ]  # fmt: skip
    sign = 1 if ours.metric.better == "less" else -1
    return sorted(rows, key=lambda row: (sign * row["difference"], row["item"]))


def _notes(
    task: Mapping[str, Any], other: Mapping[str, Any], names: tuple[str, str], items: int
) -> list[str]:
    about = f"{task['probe']} on {short_data(task['data'])}"
    notes = []
    if task["hash"] != other["hash"]:
        notes.append(f"{about}: the lists differ; compared on the {items:,} items that both hold.")
    changed = [key for key in task["config"] if task["config"][key] != other["config"].get(key)]
    if changed:
        values = ", ".join(f"{key} ({task['config'][key]} and {other['config'].get(key)})" for key in changed)
        notes.append(f"{about}: {names[0]} and {names[1]} were measured by other recipes: {values}.")
    return notes


def encoder_pair(line: Row) -> str:
    """The encoders of a line, A minus B, or the one name that both have."""
    return line["encoder"] if line["encoder"] == line["minus"] else f"{line['encoder']} - {line['minus']}"


def _interval(line: Row, metric: Metric) -> str:
    score = shown(line["difference"], metric, sign=True)
    if line["lo"] is None or line["hi"] is None or not isfinite(line["lo"]):
        return score
    return f"{score} [{shown(line['lo'], metric, sign=True)}, {shown(line['hi'], metric, sign=True)}]"
