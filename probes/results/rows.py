"""Rows as CSV files that come back as they were: every column has a kind, which is kept beside the file.

Kinds are ``text``, ``number`` (int, float, infinity, or empty for None), ``bool`` and ``json`` for whatever else a
column holds, such as lists. Floats are written so that they read back bit for bit. This file knows no probe.
"""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from probes.errors import ProbeError
from probes.probe import Row


def columns(rows: Sequence[Row]) -> dict[str, str]:
    """Kind of every column that occurs in some row, in the order of first occurrence."""
    names: dict[str, None] = {}
    for row in rows:
        names.update(dict.fromkeys(row))
    return {name: _kind([row.get(name) for row in rows]) for name in names}


def to_csv(rows: Sequence[Row], kinds: Mapping[str, str]) -> str:
    """Rows under a head of their columns; a column that a row lacks is empty."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(kinds)
    for row in rows:
        writer.writerow([_write(row.get(name), kind) for name, kind in kinds.items()])
    return buffer.getvalue()


def read_csv(path: Path, kinds: Mapping[str, str]) -> list[Row]:
    """Rows that `to_csv` wrote with these kinds; a column that a row lacked is None.

    Raises:
        ProbeError: the file is not what was written.
    """
    csv.field_size_limit(1 << 30)
    try:
        with path.open(newline="") as file:
            lines = csv.reader(file)
            head = next(lines, [])
            if head != list(kinds):
                raise ProbeError(f"{path} has the columns {', '.join(head)}, not those that were written")
            return [
                {name: _read(text, kinds[name]) for name, text in zip(head, line, strict=True)}
                for line in lines
            ]
    except (ValueError, csv.Error, OSError) as error:
        if isinstance(error, ProbeError):
            raise
        raise ProbeError(f"{path} is damaged ({error}): score again with --force") from error


def _kind(values: Sequence[Any]) -> str:
    found = {type(value) for value in values}
    if found <= {str}:
        return "text"
    if found <= {bool}:
        return "bool"
    return "number" if found <= {int, float, type(None)} else "json"


def _write(value: Any, kind: str) -> str:
    if kind == "text":
        return value
    if kind == "number":
        return "" if value is None else repr(value)
    return json.dumps(value)


def _read(text: str, kind: str) -> Any:
    if kind == "text":
        return text
    if kind != "number":
        return json.loads(text)
    if not text:
        return None
    return int(text) if text.lstrip("-").isdecimal() else float(text)
