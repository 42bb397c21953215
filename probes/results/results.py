"""What a run of the suite leaves behind: its identity, every row, and the table and tests made from them.

A result folder holds ``rows-PROBE.csv`` (every row of a probe), ``table.csv``, ``table.tex``, ``report.html`` and
``results.json`` (all else; written last, so it marks the folder as finished). A folder finished under the same
identity is read back; under another it is refused. This file knows no probe but through `Metric`, and nothing of
encoders or images.
"""

import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

from probes.errors import ProbeError, nearest
from probes.files import write_whole
from probes.probe import BASELINE, Metric, Probe, Row
from probes.results import latex
from probes.results.aggregate import (
    Sample,
    compared,
    difference,
    difference_lines,
    encoder_pairs,
    final_layer,
    group,
    sample,
    table_line,
)
from probes.results.files import FORMAT, changed, identity_hash, loose, stored, strict
from probes.results.rows import columns, read_csv, to_csv
from probes.statistics import reliability
from probes.words import short_data


@dataclass(kw_only=True)
class Results:
    """A finished run of probes on data sets with encoders."""

    identity: dict[str, Any]
    """All that the numbers depend on; JSON types."""
    encoders: list[dict[str, Any]]
    """Of each encoder, in the order given: ``label``, ``spec``, ``patch`` (px), ``grid`` (h, w) at the evaluated
    size, ``layers`` (read), ``run`` (path or None), ``identity``."""
    tasks: list[dict[str, Any]]
    """Of each probe on a data set: ``probe``, ``data`` (as the user named it), ``benchmark``, ``hash`` of its lists,
    ``facts``, ``notes``, ``missing`` files, ``config``, ``split``, ``fit``, ``auc``."""
    rows: list[Row] = field(repr=False)
    """Of all probes, each with ``probe``, ``data`` and ``encoder`` in front (see `probes.probe.Row`)."""
    probes: Mapping[str, Probe] = field(repr=False)
    """By name; their metrics say how rows are read."""
    notes: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    command: str | None = None
    seconds: float = 0.0
    selections: list[dict[str, Any]] = field(default_factory=list)
    """What was chosen, of every unit where something was: ``probe``, ``data``, ``encoder`` and ``selected``, which
    is `Unit.selections`."""

    def __post_init__(self) -> None:
        # As they would be read back: probe by probe, every row with all columns of its probe in one order.
        given, self.rows = self.rows, []
        for rows in _by_probe(given).values():
            names = dict.fromkeys(name for row in rows for name in row)
            self.rows += [{name: row.get(name) for name in names} for row in rows]

    @property
    def hash(self) -> str:
        """SHA-256 of the identity: equal for runs that must give equal numbers."""
        return identity_hash(self.identity)

    @property
    def labels(self) -> list[str]:
        """Of the encoders, in the order given."""
        return [encoder["label"] for encoder in self.encoders]

    def select(self, **wanted: Any) -> list[Row]:
        """Rows whose columns equal all of ``wanted``, such as ``encoder="run", reading="linear"``."""
        return [row for row in self.rows if all(row[column] == value for column, value in wanted.items())]

    @cached_property
    def groups(self) -> dict[tuple, list[Row]]:
        """Rows by `probes.results.aggregate.KEYS`."""
        return group(self.rows)

    @cached_property
    def table(self) -> list[Row]:
        """A line for each probe, data set, reading, position, encoder and layer.

        Counts of ``items``, ``scenes`` and ``failed`` items; then of each metric NAME the score, the ends NAME_lo
        and NAME_hi of its 95 % interval over scenes, and NAME_seed_sd; None where there is none. NAME_items counts
        the items it is made of where that is not all.
        """
        return [table_line(key, rows, self.probes[key[0]].metrics) for key, rows in self.groups.items()]

    @cached_property
    def differences(self) -> list[Row]:
        """Every two encoders on the same items, each at its final layer: A minus B, tested and corrected.

        Of the headline and the first further metrics of each probe; probes that measure time have none. See
        `probes.results.aggregate.difference_lines` for what is corrected over what.
        """
        lines = []
        for (name, data, reading, position), by_encoder in self._sides().items():
            probe = self.probes[name]
            leads = (reading, position) == self.leading(name, data)
            for metric in compared(probe):
                sides = {encoder: sample(rows, metric) for encoder, (_, rows) in by_encoder.items()}
                for a, b in encoder_pairs([label for label in self.labels if sides.get(label)]):
                    found = difference(sides[a], sides[b])
                    if found is None:
                        continue
                    of = {"probe": name, "data": data, "reading": reading, "position": position}
                    of |= {"encoder": a, "minus": b}
                    of |= {"layer": by_encoder[a][0], "minus_layer": by_encoder[b][0]}
                    lines.append((of, found, metric, leads))
        return difference_lines(lines)

    @cached_property
    def failures(self) -> list[Row]:
        """Rows without a prediction; each counts with an infinite error."""
        return [row for row in self.rows if row.get("failed")]

    def task(self, probe: str, data: str) -> dict[str, Any]:
        """The entry of a probe on a data set."""
        return next(task for task in self.tasks if (task["probe"], task["data"]) == (probe, data))

    def headline(self, probe: str) -> Metric:
        """The metric that a probe's summary shows."""
        return self.probes[probe].headline_metric

    def leading(self, probe: str, data: str) -> tuple[str, str]:
        """Reading and position that the summary shows of a probe on a data set."""
        kinds = dict.fromkeys(
            (line["reading"], line["position"])
            for line in self._lines(probe, data)
            if line["reading"] != BASELINE
        )
        order = {reading: rank for rank, reading in enumerate(self.probes[probe].leading)}
        return min(
            kinds,
            key=lambda kind: (kind[1] == "removed", order.get(kind[0], len(order))),
            default=("", "kept"),
        )

    def final(self, probe: str, data: str, reading: str, position: str) -> dict[str, Row]:
        """The table's line of each encoder at its final layer."""
        found: dict[str, Row] = {}
        for line in self._lines(probe, data):
            if (line["reading"], line["position"]) == (reading, position):
                layer = self.final_layer(line)
                if line["layer"] == layer:
                    found[line["encoder"]] = line
        return {label: found[label] for label in self.labels if label in found}

    def baselines(self, probe: str, data: str) -> list[Row]:
        """The table's lines of predictions that look at no feature."""
        return [line for line in self._lines(probe, data) if line["reading"] == BASELINE]

    def final_layer(self, of: Mapping[str, Any]) -> int | None:
        """The layer that stands for the encoder of a line: the selected one, else the last that its reading has."""
        key = tuple(of[name] for name in ("probe", "data", "reading", "position", "encoder"))
        return final_layer(self._layers.get(key, ()), self.selections, of)

    def sample(self, line: Mapping[str, Any], metric: Metric) -> Sample | None:
        """The items behind a line of the table."""
        key = tuple(line[name] for name in ("probe", "data", "reading", "position", "encoder", "layer"))
        return sample(self.groups.get(key, []), metric)

    def to_json(self) -> dict[str, Any]:
        """Everything but the rows, as strict JSON types; an infinite score is the text ``inf``."""
        return strict({
            "format": FORMAT,
            "hash": self.hash,
            "identity": self.identity,
            "encoders": self.encoders,
            "tasks": self.tasks,
            "table": self.table,
            "differences": self.differences,
            "selections": self.selections,
            "notes": self.notes,
            "versions": self.versions,
            "command": self.command,
            "seconds": round(self.seconds, 2),
        })  # fmt: skip

    def write(self, folder: Path, page_html: str) -> None:
        """Write the folder's files, each whole or not at all, ``results.json`` last.

        Raises:
            ProbeError: the folder cannot be written.
        """
        by_probe = _by_probe(self.rows)
        kinds = {name: columns(rows) for name, rows in by_probe.items()}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # An older result is no result from here on: a kill must not leave its summary beside other rows.
            (folder / "results.json").unlink(missing_ok=True)
            for old in folder.glob("rows-*.csv"):
                old.unlink()
            for name, rows in by_probe.items():
                write_whole(folder / f"rows-{name}.csv", to_csv(rows, kinds[name]))
            write_whole(folder / "table.csv", to_csv(self.table, columns(self.table)))
            write_whole(folder / "table.tex", latex.tables(self))
            write_whole(folder / "report.html", page_html)
            text = json.dumps(self.to_json() | {"rows": kinds}, indent=1, allow_nan=False)
            write_whole(folder / "results.json", text + "\n")
        except OSError as error:
            raise ProbeError(f"the results cannot be written to {str(folder)!r}: {error}") from error

    @classmethod
    def read(cls, folder: Path, probes: Mapping[str, Probe]) -> "Results":
        """Results of a finished folder, its table and tests as they were written.

        Args:
            folder: what `write` wrote.
            probes: all known ones by name.

        Raises:
            ProbeError: no finished result, or not one of this version's.
        """
        if not folder.is_dir():
            raise ProbeError(f"{str(folder)!r} is no folder: name one that `probes run --out` wrote")
        if not (folder / "results.json").is_file():
            raise ProbeError(
                f"{str(folder)!r} holds no results.json: the run that wrote it did not finish (repeat its command)"
            )
        return cls._of(folder, stored(folder), probes)

    @classmethod
    def join(cls, parts: Sequence["Results"]) -> "Results":
        """Several results as one: encoders side by side where they were scored on the same lists.

        Encoders of one name must be the same; what several parts scored is taken from the first.

        Raises:
            ProbeError: one name for two encoders, or one probe and data set with two lists.
        """
        encoders: dict[str, dict[str, Any]] = {}
        tasks: dict[tuple[str, str], dict[str, Any]] = {}
        units: dict[tuple[str, str, str], list[Row]] = {}
        for part in parts:
            for encoder in part.encoders:
                known = encoders.setdefault(encoder["label"], dict(encoder))
                if known["identity"] != encoder["identity"]:
                    raise ProbeError(
                        f"two encoders are called {encoder['label']!r}: score one again under another name, "
                        "as LABEL=SPEC"
                    )
                known["layers"] = sorted({*known["layers"], *encoder["layers"]})
            for task in part.tasks:
                known = tasks.setdefault((task["probe"], task["data"]), task)
                if any(known[name] != task[name] for name in ("hash", "config")):
                    recipe = ", ".join(changed(known["config"], task["config"]))
                    how = f"by another recipe ({recipe})" if recipe else "on other lists"
                    raise ProbeError(
                        f"{task['probe']} on {task['data']} was scored {how} in one of the folders: their scores "
                        "cannot stand side by side"
                    )
            fresh: dict[tuple[str, str, str], list[Row]] = {}
            for row in part.rows:
                fresh.setdefault((row["probe"], row["data"], row["encoder"]), []).append(row)
            units = fresh | units
        probes = {name: probe for part in parts for name, probe in part.probes.items()}
        return cls(
            identity={"joined": [part.identity for part in parts]},
            encoders=list(encoders.values()),
            tasks=[task for name in probes for task in tasks.values() if task["probe"] == name],
            rows=[row for rows in units.values() for row in rows],
            probes=probes,
            notes=list(dict.fromkeys(note for part in parts for note in part.notes)),
            versions={name: version for part in parts for name, version in part.versions.items()},
            command="\n".join(part.command for part in parts if part.command) or None,
            seconds=sum(part.seconds for part in parts),
            selections=[one for part in parts for one in part.selections],
        )

    @classmethod
    def _of(cls, folder: Path, found: dict[str, Any], probes: Mapping[str, Probe]) -> "Results":
        for name in found["rows"]:
            if name not in probes:
                raise ProbeError(f"{folder} holds rows of an unknown probe {name!r}{nearest(name, probes)}")
        rows = [
            row for name, kinds in found["rows"].items()
            for row in read_csv(folder / f"rows-{name}.csv", kinds)
        ]  # fmt: skip
        made = cls(
            rows=rows,
            probes=probes,
            **{
                name: found[name]
                for name in (
                    *("identity", "encoders", "tasks", "notes"),
                    *("versions", "command", "seconds", "selections"),
                )
            },
        )
        # What was printed is what is read again, whatever the statistics have become since.
        made.__dict__["table"] = loose(found["table"])
        made.__dict__["differences"] = loose(found["differences"])
        return made

    @cached_property
    def _layers(self) -> dict[tuple, list[int | None]]:
        layers: dict[tuple, list[int | None]] = {}
        for line in self.table:
            key = tuple(line[name] for name in ("probe", "data", "reading", "position", "encoder"))
            layers.setdefault(key, []).append(line["layer"])
        return layers

    @cached_property
    def _by_task(self) -> dict[tuple[str, str], list[Row]]:
        found: dict[tuple[str, str], list[Row]] = {}
        for line in self.table:
            found.setdefault((line["probe"], line["data"]), []).append(line)
        return found

    def _lines(self, probe: str, data: str) -> list[Row]:
        return self._by_task.get((probe, data), [])

    def _sides(self) -> dict[tuple, dict[str, tuple[int | None, list[Row]]]]:
        # By probe, data, reading and position: each encoder's final layer and its rows there.
        sides: dict[tuple, dict[str, tuple[int | None, list[Row]]]] = {}
        for line in self.table:
            if line["reading"] == BASELINE or self.probes[line["probe"]].timed:
                continue
            if line["layer"] == self.final_layer(line):
                key = tuple(line[name] for name in ("probe", "data", "reading", "position"))
                rows = self.groups[*key, line["encoder"], line["layer"]]
                sides.setdefault(key, {})[line["encoder"]] = (line["layer"], rows)
        return sides


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    found = {"python": platform.python_version()}
    for name in ("mumkit", "torch", "timm", "numpy", "scipy", "poselib", "opencv-python-headless"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def scene_notes(tasks: Iterable[Mapping[str, Any]]) -> list[str]:
    """What must be said about intervals over few scenes, with the data sets of which it is true."""
    data: dict[str, dict[str, None]] = {}
    for task in tasks:
        scenes = task["facts"].get("scenes")
        text = reliability(scenes) if isinstance(scenes, int) and scenes > 0 else ""
        if text:
            data.setdefault(text, {})[short_data(task["data"])] = None
    return [f"{', '.join(names)}: {text}." for text, names in data.items()]


def read_finished(
    folder: Path, identity: Mapping[str, Any], probes: Mapping[str, Probe], *, force: bool = False
) -> Results | None:
    """Results of a folder finished under the same identity; None where there is nothing to reuse.

    Raises:
        ProbeError: the folder is finished under another identity (unless ``force``), or is not a folder.
    """
    if folder.exists() and not folder.is_dir():
        raise ProbeError(f"--out {str(folder)!r} is a file: name a folder")
    if not (folder / "results.json").is_file():
        return None
    try:
        found = stored(folder)
    except ProbeError:
        if force:
            return None
        raise
    # Compared as JSON, where tuples are lists.
    asked = json.loads(json.dumps(strict(identity)))
    if found["identity"] != asked:
        if force:
            return None
        names = ", ".join(changed(found["identity"], asked))
        raise ProbeError(
            f"{str(folder)!r} holds results of another configuration (it differs in {names}): "
            "choose another --out, or --force to replace them"
        )
    files = ["report.html", *(f"rows-{name}.csv" for name in found["rows"])]
    if not all((folder / name).is_file() for name in files):
        return None
    return Results._of(folder, found, probes)


def _by_probe(rows: Iterable[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["probe"], []).append(row)
    return found
