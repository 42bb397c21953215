"""What a stopped build has finished: a line a closed shard, so that the same build goes on behind the last one.

The journal lies beside the shards that are not in place yet. Its first line says what is being built; each of
the others names a shard that is on the disk whole, and where the next one begins: after so many tasks and so
many chunks of the following one. It holds for as long as the tasks up to there are the same, so a picture that
is mended further on costs nothing that is done. A line that was cut off by the end of a process counts for
nothing. This file knows nothing of tars and scenes.
"""

import dataclasses
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shards.fingerprint import Fingerprint


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A closed shard and where the next one begins."""

    line: dict[str, Any]
    """Its line of the manifest."""
    tasks: int
    """Tasks whose chunks all lie in closed shards."""
    chunks: int
    """Chunks of the task after them that do."""
    inputs: str
    """Hash of the tasks that decided where the shard ends: those, and the one that did not fit."""
    report: dict[str, Any]
    """What became of the tasks since the checkpoint before."""


class Journal:
    """The journal at `path` of the build that `record` describes."""

    def __init__(self, path: Path, record: dict[str, Any], inputs: Fingerprint) -> None:
        self.path, self.record, self.inputs = path, record, inputs

    def resume(self, is_whole: Callable[[dict[str, Any]], bool]) -> list[Checkpoint]:
        """The checkpoints that hold for this build, and nothing else left in the journal.

        `is_whole` says of a manifest's line whether its shard is on the disk.
        """
        held: list[Checkpoint] = []
        lines = self.path.read_bytes().split(b"\n")[:-1] if self.path.exists() else []
        if lines and _read(lines[0]) == self.record:
            for line in lines[1:]:
                stored = _read(line)
                if stored is None:
                    break
                checkpoint = Checkpoint(**stored)
                same = checkpoint.inputs == self.inputs.first(checkpoint.tasks + 1)
                if not same or not is_whole(checkpoint.line):
                    break
                held.append(checkpoint)
        if lines:
            self._rewrite([json.dumps(self.record), *(json.dumps(dataclasses.asdict(c)) for c in held)])
        return held

    def append(self, *, line: dict[str, Any], tasks: int, chunks: int, report: dict[str, Any]) -> None:
        """Note a shard that has just been closed; it is on the disk when this returns."""
        inputs = self.inputs.first(tasks + 1)
        checkpoint = Checkpoint(line=line, tasks=tasks, chunks=chunks, inputs=inputs, report=report)
        if not self.path.exists() or not self.path.stat().st_size:
            self._rewrite([json.dumps(self.record)])
        with self.path.open("a") as file:
            file.write(json.dumps(dataclasses.asdict(checkpoint)) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _rewrite(self, lines: list[str]) -> None:
        whole = self.path.with_suffix(".new")
        with whole.open("w") as file:
            file.writelines(line + "\n" for line in lines)
            file.flush()
            os.fsync(file.fileno())
        os.replace(whole, self.path)


def _read(line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None
