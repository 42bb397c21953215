"""A run's folder: its small files, and whether a command may start or go on in it.

`config.json` says what the run is, `status.json` how it stands; both are replaced as a whole, never edited.
Rank 0 alone writes. Nothing here knows of tensors or the loop.
"""

import fcntl
import os
import platform
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any, Literal

from pretrain.checkpoint import newest, resolve, step_of
from pretrain.errors import InputError
from pretrain.files import read_json, write_json
from pretrain.recipes import complete

State = Literal["running", "finished", "failed", "stopped"]
"""`stopped` by a signal, with a checkpoint of that step; `failed` with a reason; a run that was killed says
`running` for ever."""


def versions() -> dict[str, str]:
    """Versions of what a run's numbers depend on."""
    return {"python": platform.python_version()} | {
        name: version(name) for name in ("torch", "timm", "numpy", "mumkit")
    }


class RunFolder:
    """Paths of one run."""

    def __init__(self, root: Path) -> None:
        # The watchdog's thread writes the status too.
        self._writing = threading.Lock()
        self.root = root
        self.config = root / "config.json"
        self.status = root / "status.json"
        self.metrics = root / "metrics.jsonl"
        self.quarantine = root / "quarantine.jsonl"
        self.pictures = root / "pictures"
        self.checkpoints = root / "checkpoints"
        self.tensorboard = root / "tensorboard"
        self.profile = root / "profile"
        self.probes = root / "probes"
        self.scores = root / "probes.jsonl"

    def is_empty(self) -> bool:
        """Whether nothing stands here yet (a lock left by a command that was refused does not count)."""
        if self.root.exists() and not self.root.is_dir():
            raise InputError(f"{self.root} is a file; --out wants a folder")
        return not self.root.exists() or all(entry.name == ".lock" for entry in self.root.iterdir())

    def write_status(
        self,
        state: State,
        step: int,
        steps: int,
        reason: str = "",
        *,
        warning: str = "",
        signal: str | None = None,
        again: bool | None = None,
    ) -> None:
        """Say how the run stands; `step` counts updates done, a `warning` is of a run that goes on.

        `signal` is the name of what stopped it. `again` is whether the same command would get further, by
        default unless it is finished: launch scripts read both.
        """
        told = {"state": state, "step": step, "steps": steps, "reason": reason, "warning": warning}
        told |= {"signal": signal, "again": state != "finished" if again is None else again}
        with self._writing:
            write_json(self.status, told)

    def claim(self, patience: float = 10.0) -> IO[str]:
        """Lock the folder against a second command; the lock lives as long as this process.

        Waits `patience` seconds first: a run that was just killed may take a moment to be gone.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        # A record lock, not flock: it is not inherited by forked workers, which may outlive a killed rank.
        lock = open(self.root / ".lock", "a+")  # noqa: SIM115
        deadline = time.monotonic() + patience
        while True:
            try:
                fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() > deadline:
                    lock.seek(0)
                    holder = lock.read().strip() or "another process"
                    raise InputError(
                        f"{self.root} is in use by {holder}; stop it first, or give another --out"
                    ) from None
                time.sleep(0.2)
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        lock.flush()
        return lock


@dataclass(frozen=True, kw_only=True)
class Beginning:
    """Where a command begins in its folder."""

    start: Path | None
    """checkpoint to load, or None: random weights"""
    continues: bool
    """whether the folder holds this run already"""
    step: int
    """updates done before"""
    owes: bool = False
    """whether the evaluation of that step was cut short"""
    old_data: tuple[str, ...] | None = None
    """hashes of the data it had, where it goes on with others"""


def decide(
    folder: RunFolder, resume: str, identity: Mapping[str, Any], *, migrate: bool = False
) -> Beginning:
    """Where to begin, by --resume: auto, never, or the path of a checkpoint or run.

    `identity` is what a run keeps for life (see `recipes.identity`), its data apart if it may `migrate`;
    InputError names what differs.
    """
    empty = folder.is_empty()
    if not empty and resume == "never":
        raise InputError(f"{folder.root} is not empty, and --resume never was asked for: give another --out")
    if not empty:
        if not folder.config.is_file():
            raise InputError(
                f"{folder.root} is not empty and holds no run (no config.json): give another --out"
            )
        there = complete(read_json(folder.config).get("identity", {}))
        grown = there.get("data") != identity.get("data")
        differences = name_differences({**there, "data": identity.get("data")}, identity)
        if grown and not differences and not migrate:
            raise InputError(
                f"{folder.root} holds a run of other data: {name_differences(there, identity)}; --migrate goes on "
                "with these from its next step, another --out begins anew"
            )
        if differences:
            differences = name_differences(there, identity)
            raise InputError(
                f"{folder.root} holds another run: {differences}; give another --out, or the options it "
                "began with"
            )
        own = newest(folder.checkpoints)
        if own is not None:
            old = tuple(there.get("data", ())) if grown else None
            owes = read_json(own / "state.json").get("owed") is not None
            return Beginning(start=own, continues=True, step=step_of(own), old_data=old, owes=owes)
    if resume in ("auto", "never"):
        return Beginning(start=None, continues=not empty, step=0)
    start = resolve(Path(resume))
    theirs = complete(read_json(start / "state.json").get("identity", {}))

    def model(values: Mapping[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in values.items() if key.startswith("model.")}

    differences = name_differences(model(theirs), model(identity))
    if differences:
        raise InputError(f"{start} holds another model: {differences}")
    return Beginning(start=start, continues=False, step=step_of(start))


def name_differences(there: Mapping[str, Any], here: Mapping[str, Any], most: int = 3) -> str:
    """The fields in which two flat mappings differ, in words; empty if they agree."""
    keys = [key for key in dict.fromkeys([*there, *here]) if there.get(key) != here.get(key)]
    said = [f"{key} is {there.get(key)!r} there and {here.get(key)!r} here" for key in keys[:most]]
    more = f", and {len(keys) - most} more" if len(keys) > most else ""
    return ", ".join(said) + more
