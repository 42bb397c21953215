"""Scores of the frozen encoder while the run goes on: matching by nearest neighbours, of snapshots at fixed steps.

Another process scores: `python -m probes` reads a snapshot and leaves its JSON, and nothing else passes between the
two rooms. The run does not wait for it, unless the next snapshot is due or the run is over. A row of `probes.jsonl`
is one snapshot's score; it is written when the score is there, so its step lies before that of the newest row of
`metrics.jsonl`. A snapshot is kept until its row is written: what a kill interrupted is scored when the run goes on.
Rank 0 alone holds a `Probing`; it cannot fail the run.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import shards
from pretrain.errors import InputError
from pretrain.files import read_json
from pretrain.ledger import Row
from shards.format import HAS_DEPTH

_SNAPSHOT = re.compile(r"step-(\d{8,})\.safetensors")
_LABEL = "model"


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """What --probe-every scores on."""

    data: str = ""
    """a shard folder whose val split has depth, or colmap:PATH; by default the first such folder of --data"""
    pairs: int = 96
    """scored pairs, spread over the scenes"""
    size: int = 0
    """evaluated size in px; 0: the run's own"""
    device: str = ""
    """where the encoder is scored, such as cpu; by default the device of rank 0"""

    def __post_init__(self) -> None:
        if self.pairs < 1 or self.size < 0:
            raise InputError(
                f"--probe.pairs must be at least 1 and --probe.size no less than 0, not {self.pairs} and {self.size}"
            )


def choose_data(config: ProbeConfig, dataset: shards.Dataset | shards.Mixture) -> str:
    """What to score on. InputError where that can be no data of the probes."""
    if config.data.startswith("colmap:"):
        return config.data
    if config.data:
        if not _fits(shards.open_dataset(config.data)):
            raise InputError(
                f"--probe.data {config.data}: its val split has no depth, so no true correspondences; name a "
                "shard folder that has, or colmap:PATH"
            )
        return config.data
    for one in dataset.datasets if isinstance(dataset, shards.Mixture) else [dataset]:
        if Path(one.root).is_dir() and _fits(one):
            return str(one.root)
    raise InputError(
        "--probe-every wants a val split with depth, which no folder of --data has: --probe.data names another "
        "shard folder, or colmap:PATH"
    )


def _fits(dataset: shards.Dataset) -> bool:
    return bool(dataset.has(HAS_DEPTH)[dataset.select("val")].any())


class Probing:
    """Takes snapshots, has them scored one after the other, and gives their rows."""

    def __init__(
        self,
        folder: Path,
        rows: Path,
        *,
        start: int,
        config: ProbeConfig,
        data: str,
        size: int,
        device: torch.device | str,
    ) -> None:
        """`folder` is for snapshots, `rows` the file of scores, of which those after step `start` are dropped.

        `data` is what `choose_data` gave; `size` and `device` are the run's, where `config` names none.
        """
        self._folder, self._rows, self._data, self._pairs = folder, rows, data, config.pairs
        self._size, self._device = config.size or size, config.device or str(device)
        self._process: subprocess.Popen[bytes] | None = None
        self._new: list[Row] = []
        self._scored = _cut_back(rows, start)
        self._waiting = deque(self._left_behind(start))
        self._begin()

    @property
    def busy(self) -> bool:
        """Whether a snapshot is being scored."""
        self._collect()
        return self._process is not None

    def take(self, step: int, write: Callable[[Path], None]) -> None:
        """Have the weights of `step`, which `write` puts into a file, scored, unless they are already.

        Never while it is `busy`, so that there is one snapshot at most.
        """
        if step in self._scored:
            return
        path = self._snapshot(step)
        temporary = path.with_name(f".{path.name}")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            write(temporary)
            temporary.replace(path)
        except Exception as error:
            # A full disk, mostly: the run is worth more than a point of a curve.
            temporary.unlink(missing_ok=True)
            self._new.append({"step": step, "failed": f"no snapshot: {type(error).__name__}: {error}"})
            return
        self._waiting.append(step)
        self._begin()

    def ready(self) -> list[Row]:
        """The rows that are new since the last call, on disk already; waits for nothing."""
        self._collect()
        found, self._new = self._new, []
        return found

    def close(self) -> None:
        """End a process that still scores; its snapshot stays, for the run to go on with."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _collect(self) -> None:
        """Read what is scored."""
        while self._process is not None and self._process.poll() is not None:
            step, code = self._waiting.popleft(), self._process.returncode
            row = {"step": step, **self._read(step, code)}
            self._process = None
            # One that was killed, as when the whole run is, leaves its snapshot for the run to go on with.
            if code >= 0:
                self._keep(row)
            self._new.append(row)
            self._begin()

    def _begin(self) -> None:
        """Start on the next snapshot; one that cannot be started on stays, for the run to go on with."""
        while self._waiting and self._process is None:
            try:
                self._process = self._start(self._waiting[0])
            except OSError as error:
                self._new.append({"step": self._waiting.popleft(), "failed": f"no process: {error}"})

    def _start(self, step: int) -> subprocess.Popen[bytes]:
        out = self._out(step)
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True, exist_ok=True)
        command = [
            *(sys.executable, "-m", "probes", "run", "matching", "--readings", "knn", "--cache", "none"),
            *("--encoder", f"{_LABEL}={self._snapshot(step)}", "--data", self._data, "--out", str(out)),
            *("--size", str(self._size), "--items", str(self._pairs)),
            *("--device", self._device, "--workers", "1"),
        ]
        # Training comes first where they share cores.
        if nice := shutil.which("nice"):
            command = [nice, *command]
        with (out / "said").open("wb") as said:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said)

    def _read(self, step: int, code: int) -> dict[str, Any]:
        """The figures that a process left, or why there are none."""
        out = self._out(step)
        try:
            if code == 0:
                return _figures(read_json(out / "results.json"))
            lines = (out / "said").read_text(errors="replace").strip().splitlines()
            return {"failed": lines[-1] if lines else f"the probe ended with exit code {code} and no word"}
        except (OSError, ValueError, LookupError) as error:
            return {"failed": f"{type(error).__name__}: {error}"}

    def _keep(self, row: Row) -> None:
        """Put a row on disk, and only then let its snapshot go."""
        step = row["step"]
        try:
            with self._rows.open("a") as file:
                file.write(json.dumps(row) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            # A full disk: the snapshot stays for when the run goes on.
            return
        self._scored.add(step)
        self._snapshot(step).unlink(missing_ok=True)
        shutil.rmtree(self._out(step), ignore_errors=True)

    def _left_behind(self, start: int) -> list[int]:
        """Steps of whole snapshots that wait for their score since before; the others are removed."""
        found: list[int] = []
        for path in sorted(self._folder.iterdir()) if self._folder.is_dir() else []:
            match = _SNAPSHOT.fullmatch(path.name)
            if match and int(match[1]) <= start and int(match[1]) not in self._scored:
                found.append(int(match[1]))
            elif path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        return found

    def _snapshot(self, step: int) -> Path:
        return self._folder / f"step-{step:08d}.safetensors"

    def _out(self, step: int) -> Path:
        return self._folder / f"step-{step:08d}"


def _figures(results: dict[str, Any]) -> dict[str, Any]:
    """A row's figures from the probes' JSON: of the encoder, and of raw pixels on the same pairs."""
    task = results["tasks"][0]
    rows = {
        row["encoder"]: row
        for row in results["table"]
        if (row["reading"], row["position"]) == ("knn", "kept")
    }
    own, pixels = rows[_LABEL], rows["pixels"]
    return {
        **{f"probe_pck{end}": own[f"pck_patch{end}"] for end in ("", "_lo", "_hi")},
        **{f"probe_epe{end}": own[f"epe{end}"] for end in ("", "_lo", "_hi")},
        "pixels_pck": pixels["pck_patch"],
        "pixels_epe": pixels["epe"],
        "pairs": task["facts"]["items"],
        "scenes": task["facts"]["scenes"],
        "size": task["size"],
    }


def _cut_back(path: Path, start: int) -> set[int]:
    """Drop the rows after step `start`, and a line that a kill left torn; gives the steps that stay."""
    if not path.exists():
        return set()
    kept: dict[int, str] = {}
    for line in path.read_text().splitlines():
        try:
            step = int(json.loads(line)["step"])
        except (ValueError, KeyError, TypeError):
            continue
        if step <= start:
            kept[step] = line
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text("".join(line + "\n" for line in kept.values()))
    temporary.replace(path)
    return set(kept)
