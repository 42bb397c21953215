"""What the processes of a node say they will read: small files in a shared folder, each void with its writer.

A training process knows its plan, so it knows at which steps it will need which chunks. It publishes them as
pairs of integers in one file, which it holds locked; whoever has to choose what to evict reads all files whose
lock is held. Steps are those of the run, which all its ranks do together. This file knows nothing of caches
or chunks.
"""

import contextlib
import fcntl
import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

_numbers = itertools.count()


class Forecast:
    """One process's needs, for entries of one `group` (any name without a dot), in `folder`."""

    def __init__(self, folder: Path, group: str) -> None:
        self.folder = folder
        self.path = folder / f"{group}.{os.getpid()}.{next(_numbers)}"
        self._held: BinaryIO | None = None

    def announce(self, step: int, needs: Sequence[tuple[int, int]]) -> None:
        """Replace what was announced: this process stands at `step` and needs (step, number) from there on."""
        self.folder.mkdir(parents=True, exist_ok=True)
        fresh = self.path.with_name(self.path.name.replace(".", "-"))
        held = open(fresh, "wb")  # noqa: SIM115 - open, and so locked, for as long as it is true
        fcntl.flock(held, fcntl.LOCK_EX)
        held.write(np.array([(step, -1), *needs], np.int64).tobytes())
        held.flush()
        os.replace(fresh, self.path)
        before, self._held = self._held, held
        if before is not None:
            before.close()

    def withdraw(self) -> None:
        """Need nothing any more."""
        if self._held is not None:
            self.path.unlink(missing_ok=True)
            self._held.close()
            self._held = None


def next_needs(folder: Path) -> dict[tuple[str, int], int]:
    """(group, number) -> steps until the nearest announced need of it; files of the dead are taken away."""
    needs: dict[tuple[str, int], int] = {}
    for path in folder.glob("*.*.*"):
        with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                data = file.read()
            else:
                path.unlink(missing_ok=True)
                continue
            table = np.frombuffer(data[: len(data) // 16 * 16], np.int64).reshape(-1, 2)
            group, stands = path.name.split(".")[0], int(table[0, 0]) if len(table) else 0
            for step, number in table[1:].tolist():
                if step >= stands:
                    key = (group, number)
                    needs[key] = min(needs.get(key, step - stands), step - stands)
    return needs
