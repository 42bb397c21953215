"""What a run found damaged: a file of JSON lines, each damaged member once, however often it was met.

A line names the shard, the member's key and byte offset, the reason, and the chunk's and frame's numbers; the
frame is null for a chunk's meta or overlap. `python -m shards repair DIR --quarantine FILE` takes it back. This
file knows nothing of how damage is met or made good.
"""

import contextlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

FIELDS = ("shard", "key", "offset", "reason", "chunk", "frame")
"""What a line holds; the events of a batch (`shards.Batch.substituted`) have more."""


class Quarantine:
    """The damaged members known so far; with a path, in a file that goes on from what it holds."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = []
        self._known: set[tuple] = set()
        if path is not None and path.exists():
            for line in path.read_text().splitlines():
                with contextlib.suppress(ValueError, KeyError, TypeError):  # a line that a kill left torn
                    self._take(json.loads(line))

    def add(self, events: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Note what is damaged; returns, and writes, the rows that are new."""
        fresh = [row for event in events if (row := self._take(event)) is not None]
        if fresh and self.path is not None:
            text = "".join(json.dumps(row) + "\n" for row in fresh)
            torn = self.path.exists() and not self.path.read_bytes().endswith(b"\n")
            with self.path.open("a") as file:
                file.write("\n" * torn + text)
        return fresh

    def _take(self, event: Mapping[str, Any]) -> dict[str, Any] | None:
        row = {name: event[name] for name in FIELDS}
        # A frame's offset may be what is damaged; its number is not.
        same = (row["shard"], row["chunk"], row["frame"])
        same += (row["offset"],) if row["frame"] is None else ()
        if same in self._known:
            return None
        self._known.add(same)
        self.rows.append(row)
        return row
