"""What a probe leaves behind: its identity, a row for every pair and prediction, and the table made from
the rows.

A result folder holds ``results.json`` (identity, data, encoders, table, notes; written last, so it marks
the folder as finished), ``pairs.csv`` (every row), ``table.csv`` and ``report.html``. A folder finished
under the same identity is read back; under another it is refused. This file knows nothing of encoders or
images.
"""

import csv
import hashlib
import io
import json
import platform
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

from probes.errors import ProbeError
from probes.files import write_whole
from probes.statistics import bootstrap_mean, paired_difference, reliability

METRICS = ("epe", "median", "pck1", "pck3", "pck5", "pck_patch", "robust")
COMPARED = ("epe", "pck_patch")
_TEXT = ("data", "pair", "scene", "frame_a", "frame_b", "encoder", "reading", "position")
_WHOLE = ("queries", "layer", "size")

Row = dict[str, Any]


@dataclass(kw_only=True)
class Results:
    """A finished probe; ``rows`` has one entry for each data set, pair, encoder, layer, reading and variant."""

    identity: dict[str, Any]
    encoders: list[dict[str, Any]]
    """Label, spec, identity, patch size, grid and layers of each encoder, in the order given."""
    data: list[dict[str, Any]]
    """Spec, ground truth, split, counts and hash of each data set's list of pairs."""
    train_data: list[dict[str, Any]]
    """The same of the data the linear probe was trained on."""
    rows: list[Row] = field(repr=False)
    notes: list[str]
    versions: dict[str, str]
    command: str | None = None
    seconds: float = 0.0

    @property
    def hash(self) -> str:
        """SHA-256 of the identity: equal for runs that must give equal numbers."""
        return identity_hash(self.identity)

    def select(self, **wanted: Any) -> list[Row]:
        """Rows whose columns equal all of ``wanted``, such as ``encoder="run", reading="linear"``."""
        return [row for row in self.rows if all(row[column] == value for column, value in wanted.items())]

    @cached_property
    def table(self) -> list[Row]:
        """A row for each data set, encoder, layer, reading and variant: means over pairs, intervals over scenes."""
        groups: dict[tuple, list[Row]] = {}
        for row in self.rows:
            key = tuple(row[column] for column in ("data", "reading", "position", "encoder", "layer"))
            groups.setdefault(key, []).append(row)
        table = []
        for (data, reading, position, encoder, layer), rows in groups.items():
            scenes = [row["scene"] for row in rows]
            line: Row = {
                "data": data,
                "reading": reading,
                "position": position,
                "encoder": encoder,
                "layer": layer,
                "pairs": len(rows),
                "queries": sum(row["queries"] for row in rows),
                "scenes": len(set(scenes)),
            }
            for metric in METRICS:
                mean, lo, hi = bootstrap_mean((row[metric] for row in rows), scenes)
                line |= {metric: mean, f"{metric}_lo": lo, f"{metric}_hi": hi}
            table.append(line)
        return table

    @cached_property
    def differences(self) -> list[Row]:
        """First encoder minus each other one on the same pairs, each at its last layer, by reading and variant."""
        labels = [encoder["label"] for encoder in self.encoders]
        last = {encoder["label"]: max(encoder["layers"]) for encoder in self.encoders}
        found = []
        for data in (data["data"] for data in self.data):
            kinds = dict.fromkeys(
                (r["reading"], r["position"])
                for r in self.rows
                if r["encoder"] == labels[0] and r["data"] == data
            )
            for reading, position in kinds:
                sides = {
                    label: [
                        row | {"layer": None}
                        for row in self.select(
                            data=data, encoder=label, reading=reading, position=position, layer=last[label]
                        )
                    ]
                    for label in labels
                }
                for other in labels[1:]:
                    line: Row = {"data": data, "reading": reading, "position": position}
                    line |= {"encoder": labels[0], "minus": other}
                    for metric in COMPARED:
                        mean, lo, hi = paired_difference(sides[labels[0]], sides[other], metric)
                        line |= {metric: mean, f"{metric}_lo": lo, f"{metric}_hi": hi}
                    found.append(line)
        return found

    def to_json(self) -> dict[str, Any]:
        """Everything but the rows, as JSON types."""
        return {
            "hash": self.hash,
            "identity": self.identity,
            "data": self.data,
            "train_data": self.train_data,
            "encoders": self.encoders,
            "table": self.table,
            "differences": self.differences,
            "notes": self.notes,
            "versions": self.versions,
            "command": self.command,
            "seconds": round(self.seconds, 2),
        }

    def write(self, folder: Path, report: str) -> None:
        """Write the folder's four files, each whole or not at all, ``results.json`` last."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_whole(folder / "pairs.csv", _csv(self.rows))
            write_whole(folder / "table.csv", _csv(self.table))
            write_whole(folder / "report.html", report)
            write_whole(folder / "results.json", json.dumps(self.to_json(), indent=1))
        except OSError as error:
            raise ProbeError(f"the results cannot be written to {str(folder)!r}: {error}") from error


def identity_hash(identity: dict[str, Any]) -> str:
    """SHA-256 of an identity's canonical JSON."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    names = ("mumkit", "torch", "timm", "numpy")
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def scene_note(data: dict[str, Any]) -> str:
    """What must be said about the intervals of a data set; empty where it has scenes enough."""
    text = reliability(data["scenes"])
    return f"{data['data']}: {text}." if text else ""


def read_finished(folder: Path, identity: dict[str, Any], *, force: bool = False) -> Results | None:
    """Results of a folder finished under the same identity; None where there is nothing to reuse.

    ProbeError where the folder is finished under another identity, unless ``force``, or is not a folder.
    """
    if folder.exists() and not folder.is_dir():
        raise ProbeError(f"--out {str(folder)!r} is a file: name a folder")
    path = folder / "results.json"
    if not path.is_file():
        return None
    try:
        stored = json.loads(path.read_text())
        found = stored["identity"]
    except (ValueError, KeyError, TypeError) as error:
        if force:
            return None
        raise ProbeError(f"{path} is not a result of the probes ({error!r}): choose another --out") from error
    # Compared as JSON, where tuples are lists.
    if found != json.loads(json.dumps(identity)):
        if force:
            return None
        changed = ", ".join(_changed(found, json.loads(json.dumps(identity))))
        raise ProbeError(
            f"{str(folder)!r} holds results of another configuration (it differs in {changed}): "
            "choose another --out, or --force to replace them"
        )
    if not all((folder / name).is_file() for name in ("pairs.csv", "report.html")):
        return None
    return Results(
        identity=found,
        encoders=stored["encoders"],
        data=stored["data"],
        train_data=stored["train_data"],
        rows=_read_rows(folder / "pairs.csv"),
        notes=stored["notes"],
        versions=stored["versions"],
        command=stored["command"],
        seconds=stored["seconds"],
    )


def _changed(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    # The options stand one level down, and are what usually differs.
    a, b = ({**identity, **identity.get("config", {})} for identity in (a, b))
    names = [key for key in sorted(a.keys() | b.keys()) if key != "config" and a.get(key) != b.get(key)]
    return [f"{n} ({a[n]} -> {b[n]})" if _short(a.get(n)) and _short(b.get(n)) else n for n in names]


def _short(value: Any) -> bool:
    return value is not None and len(json.dumps(value)) <= 40


def _csv(rows: Iterable[Row]) -> str:
    rows = list(rows)
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def _read_rows(path: Path) -> list[Row]:
    def parse(column: str, text: str) -> Any:
        if column in _TEXT:
            return text
        if not text:
            return None
        return int(text) if column in _WHOLE else float(text)

    with path.open(newline="") as file:
        return [{column: parse(column, text) for column, text in row.items()} for row in csv.DictReader(file)]
