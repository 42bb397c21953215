"""Units of work: what their numbers depend on, where they are kept, and scoring them in several processes.

A unit is one probe on one data set under one encoder, or under none (the baselines). It is kept whole in one file
named by the hash of everything it depends on, written as soon as it is done: whatever was finished before a kill
is not done again, in whichever folder the results are asked for. On the CPU a unit runs on one thread, so that its
numbers do not change with the number of processes.
"""

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache, lru_cache
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from probes.benchmarks import open_benchmark
from probes.data.frames import Benchmark, join_lists
from probes.encoders.entrants import Sheet
from probes.encoders.features import FeatureMaps, extract
from probes.errors import ProbeError, nearest
from probes.files import write_whole
from probes.probe import Probe, Settings, Task, Unit
from probes.results.files import identity_hash
from probes.results.results import versions

PROBES: Mapping[str, str] = {
    "matching": "probes.matching.matching",
    "pose": "probes.pose.pose",
    "multiview_pose": "probes.multiview.multiview_pose",
    "pointmap": "probes.multiview.pointmap",
    "depth": "probes.dense.depth",
    "normals": "probes.dense.normals",
    "segmentation": "probes.dense.segmentation",
    "consistency": "probes.matching.consistency",
    "speed": "probes.speed",
}
"""The known probes, in the order of the report, and the module with the ``PROBE`` of each."""
_PRESENTATION = {
    "report",
    "results",
    "__main__",
    "suite",
    "asking",
    "outcome",
    "charts",
    "exhibits",
    "pictures",
    "errors",
    "words",
}
"""Folders and modules that no number depends on."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """A task as the processes name it: they open it themselves."""

    probe: str
    data: str
    train: tuple[str, ...]
    """Specs of what heads train on; none: nothing is trained."""
    settings: Settings
    allow_missing: bool


@dataclass(frozen=True, kw_only=True)
class Job:
    """A unit to be scored: a task under one encoder, or its baselines."""

    place: Place
    key: str
    """SHA-256 of everything its numbers depend on: the name of its file."""
    sheet: Sheet | None
    """None: the baselines."""
    grids: tuple[tuple[int, int], ...] = ()
    """For the baselines: those of all encoders."""
    base: Sheet | None = None
    """The model that encoders were made from, for probes that ask how much of it is left."""


def probe(name: str) -> Probe:
    """A probe by its name; ProbeError with the nearest one where there is none."""
    if name not in PROBES:
        raise ProbeError(f"unknown probe {name!r}{nearest(name, [*PROBES, 'all'])}")
    return import_module(PROBES[name]).PROBE


@lru_cache(maxsize=16)
def training_part(specs: tuple[str, ...], *, allow_missing: bool) -> Benchmark | None:
    """What heads train on: the training parts of data sets, or all that one without such a part has."""
    found = [open_benchmark(spec, allow_missing=allow_missing) for spec in specs]
    if len(found) < 2:
        return replace(found[0], train=found[0].train or found[0].test) if found else None
    train = join_lists([(part.spec, part.train or part.test) for part in found])
    # Class ids that mean different things in different data must not be trained on as one.
    classes = found[0].classes if len({part.classes for part in found}) == 1 else ()
    return replace(found[0], spec=" ".join(specs), train=train, classes=classes)


@lru_cache(maxsize=32)
def open_task(place: Place) -> Task:
    """Freeze the lists of a task, once a process. Raises ProbeError."""
    kind = probe(place.probe)
    benchmark = open_benchmark(place.data, allow_missing=place.allow_missing)
    train = training_part(place.train, allow_missing=place.allow_missing)
    return kind.open(benchmark, train, kind.config(benchmark, place.settings))


@cache
def code_hash() -> str:
    """SHA-256 over the source of everything in this room that numbers depend on."""
    digest = hashlib.sha256()
    room = Path(__file__).parent
    for path in sorted(room.rglob("*.py")):
        if not _PRESENTATION & set(path.relative_to(room).with_suffix("").parts):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def unit_key(
    place: Place,
    sheet: Sheet | None,
    grids: Sequence[tuple[int, int]],
    device: torch.device,
    base: Sheet | None,
) -> str:
    """What names a unit: its numbers change only if this does."""
    benchmark = open_benchmark(place.data, allow_missing=place.allow_missing)
    train = training_part(place.train, allow_missing=place.allow_missing)
    return identity_hash(
        {
            "probe": place.probe,
            "code": code_hash(),
            "versions": versions(),
            "device": device.type,
            "config": asdict(probe(place.probe).config(benchmark, place.settings)),
            "data": [place.data, benchmark.test.hash if benchmark.test else None],
            "train": train.train.hash if train and train.train else None,
            "encoder": sheet.identity if sheet else None,
            "base": base.identity if base else None,
            "grids": [] if sheet else [list(grid) for grid in grids],
        }
    )


def unit_path(cache: Path, key: str) -> Path:
    """Where a unit is kept."""
    return cache / "units" / f"{key}.npz"


def read_unit(path: Path) -> Unit | None:
    """A kept unit; None where there is none, or where its file is damaged."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            found = json.loads(stored["unit"].tobytes())
            arrays = {name[6:]: stored[name] for name in stored.files if name.startswith("array:")}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return Unit(rows=found["rows"], arrays=arrays, selections=found["selections"], notes=found["notes"])


def write_unit(path: Path, unit: Unit) -> None:
    """Keep a unit, whole or not at all."""
    text = json.dumps({"rows": unit.rows, "selections": unit.selections, "notes": unit.notes}, default=_plain)
    arrays = {f"array:{name}": value for name, value in unit.arrays.items()}
    buffer = io.BytesIO()
    np.savez(buffer, unit=np.frombuffer(text.encode(), np.uint8), **arrays)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, buffer.getvalue())
    except OSError as error:
        raise ProbeError(f"the cache {path.parent} cannot be written ({error}): choose another") from error


def score(job: Job, cache: Path, device: torch.device, *, progress: bool = False) -> None:
    """Score one unit from the feature cache and keep it. Raises ProbeError."""
    with one_thread(device):
        task = open_task(job.place)
        if job.sheet is None:
            unit = Unit(rows=task.baselines(job.grids))
        else:
            layers = task.layers(job.sheet)
            maps = extract(job.sheet, task.frames, layers, cache=cache / "features")
            more = {"base": base} if (base := _base_maps(job, task, maps, cache)) else {}
            unit = task.score(job.sheet, maps, device, progress=progress, **more)
    write_unit(unit_path(cache, job.key), unit)


def _base_maps(
    job: Job, task: Task, maps: Mapping[int, FeatureMaps], cache: Path
) -> Mapping[int, FeatureMaps] | None:
    """Maps of the base model at the same layers, where it has the same ones of the same shape."""
    if job.base is None or job.base.num_layers != job.sheet.num_layers or job.base.grid != job.sheet.grid:
        return None
    found = extract(job.base, task.frames, list(maps), cache=cache / "features")
    same = all(found[layer].tokens([0]).shape == maps[layer].tokens([0]).shape for layer in maps)
    return found if same else None


def score_all(
    jobs: Sequence[Job],
    cache: Path,
    devices: Sequence[torch.device],
    workers: int,
    *,
    progress: bool = False,
) -> Iterator[Job]:
    """Score units, in this process (with a bar for each) or in several; each is yielded when it is kept."""
    if workers == 1 or len(jobs) < 2:
        for job in jobs:
            score(job, cache, devices[0], progress=progress)
            yield job
        return
    # Forked copies of a process with threads may hang, and CUDA cannot be forked.
    with ProcessPoolExecutor(min(workers, len(jobs)), mp_context=get_context("spawn")) as pool:
        waiting = {
            pool.submit(score, job, cache, devices[number % len(devices)]): job
            for number, job in enumerate(jobs)
        }
        try:
            for done in as_completed(waiting):
                done.result()
                yield waiting[done]
        except BrokenProcessPool as error:
            raise ProbeError(
                "a process that scores died, most likely for want of memory: fewer --workers, or run it again to go on"
            ) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


@contextmanager
def one_thread(device: torch.device) -> Iterator[None]:
    """One thread on the CPU: small steps lose more to waiting threads than they win, and numbers stay the same."""
    before = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _plain(value: Any) -> Any:
    """NumPy scalars as JSON types."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"a row holds {type(value).__name__}, which is no JSON type")
