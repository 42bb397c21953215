"""The summary file of a result folder: strict JSON out and in, and what two configurations differ in."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from math import isfinite, isnan
from pathlib import Path
from typing import Any

from probes.errors import ProbeError
from probes.probe import Row

FORMAT = 1
"""Of the result folder; raised when an older reader would misread a newer one."""


def identity_hash(identity: Mapping[str, Any]) -> str:
    """SHA-256 of an identity's canonical JSON."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def stored(folder: Path) -> dict[str, Any]:
    """What a finished folder's ``results.json`` holds.

    Raises:
        ProbeError: it is not a result, or of another format.
    """
    path = folder / "results.json"
    try:
        found = json.loads(path.read_text())
        version = found["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise ProbeError(f"{path} is not a result of the probes ({error!r}): choose another --out") from error
    if version != FORMAT:
        raise ProbeError(f"{path} is of format {version}, and this version reads {FORMAT}: score again")
    return found


def changed(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """Names of what differs, with both values where they are short; one level down where both are dictionaries."""
    found = []
    for key in sorted(a.keys() | b.keys()):
        one, other = a.get(key), b.get(key)
        if one == other:
            continue
        if isinstance(one, dict) and isinstance(other, dict):
            found += changed(one, other)
        elif _short(one) and _short(other):
            found.append(f"{key} ({one} -> {other})")
        else:
            found.append(key)
    return list(dict.fromkeys(found))


def _short(value: Any) -> bool:
    return value is not None and len(json.dumps(value)) <= 40


def strict(value: Any) -> Any:
    """Strict JSON types: an infinite number becomes the text ``inf`` or ``-inf``, one that is none null."""
    if isinstance(value, float) and not isfinite(value):
        return None if isnan(value) else "inf" if value > 0 else "-inf"
    if isinstance(value, Mapping):
        return {name: strict(inner) for name, inner in value.items()}
    return (
        [strict(inner) for inner in value]
        if isinstance(value, Sequence) and not isinstance(value, str)
        else value
    )


def loose(lines: list[Row]) -> list[Row]:
    """Lines of a table as they were before `strict`."""
    keep = ("probe", "data", "reading", "position", "encoder", "minus", "metric", "verdict")
    return [
        {
            name: float(value) if name not in keep and value in ("inf", "-inf") else value
            for name, value in line.items()
        }
        for line in lines
    ]
