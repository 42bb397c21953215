"""Tasks -> converted scenes in the order of the tasks, here, in worker processes or on a Ray cluster.

Whatever runs them, one function converts a task, a bounded number of results is ahead of the one who takes
them, and the results are the same. This file knows nothing of where the scenes go.
"""

import dataclasses
import json
import os
import re
import socket
import zipfile
import zlib
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING, Any, Literal

from shards.convert import ConvertedScene, convert_scene
from shards.deny import read_rules
from shards.format import Scene, ShardsError
from shards.processes import cores, pool
from shards.sources import get_source
from shards.split import split_alone

if TYPE_CHECKING:
    from shards.build import BuildOptions

Job = tuple[str, Any, str, "BuildOptions"]
"""Source, task, split, options."""

_AHEAD = 3
"""Results in flight for every process."""

_UNREADABLE = (OSError, EOFError, UnicodeDecodeError, json.JSONDecodeError, zipfile.BadZipFile, zlib.error)
"""What broken or missing files raise inside a source."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Execution:
    """Where a build runs; nothing here changes its bytes."""

    workers: int | None = None
    """Processes; by default one for every core this process may use, on a Ray cluster for every core it has."""
    executor: Literal["processes", "ray"] = "processes"
    """`processes` on this machine, or tasks on a `ray` cluster whose machines see the same files."""
    ray_address: str | None = None
    """The Ray cluster's address; by default RAY_ADDRESS, or a cluster of this machine alone."""

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise ShardsError(f"--workers must be at least 1, not {self.workers}")
        if self.ray_address and self.executor != "ray":
            raise ShardsError("--ray-address goes with --executor ray")


def convert_all(jobs: Sequence[Job], execution: Execution) -> Generator[list[ConvertedScene], None, None]:
    """Convert jobs, in their order; ShardsError is the first job's that fails."""
    workers = min(execution.workers or cores(), len(jobs))
    if execution.executor == "ray" and jobs:
        yield from _on_ray(jobs, execution)
    elif workers > 1:
        yield from _in_processes(jobs, workers)
    else:
        yield from map(convert_task, jobs)


def convert_task(job: Job) -> list[ConvertedScene]:
    """The scenes of one task: one, or as many as `read` returned. ShardsError unless `skip_bad`."""
    source, task, split, options = job
    module = get_source(source)
    single = getattr(module, "SINGLE_VIEWS", False)
    if single:
        options = dataclasses.replace(options, allow_single_views=True)
    rules = read_rules(options.deny)
    try:
        read = module.read(task)
        converted = []
        for scene in [read] if isinstance(read, Scene) else read:
            own_split = split_alone(scene.name, options.val_fraction) if single else split
            reason = rules.denied(source, scene.name)
            converted.append(
                dropped(scene.name, len(scene.frames), reason, denied=True)
                if reason
                else convert_scene(scene, source=source, split=own_split, conversion=options)
            )
        return converted
    except (ShardsError, *_UNREADABLE) as error:
        reason = str(error)
        if not isinstance(error, ShardsError):
            reason = f"scene {task.name} cannot be read: {type(error).__name__}: {error}"
        if not options.skip_bad:
            raise error if isinstance(error, ShardsError) else ShardsError(reason) from error
        return [dropped(task.name, getattr(task, "views", None) or 0, reason)]
    except Exception as error:
        error.add_note(f"while converting scene {task.name} of {source}")
        raise


def dropped(name: str, frames: int, reason: str, denied: bool = False) -> ConvertedScene:
    """A scene that is not converted, for `reason`."""
    return ConvertedScene(name=name, split="", licence="", frames_in=frames, reason=reason, denied=denied)


def _in_processes(jobs: Sequence[Job], workers: int) -> Iterator[list[ConvertedScene]]:
    with pool(workers) as processes:
        waiting: deque[tuple[str, Future[list[ConvertedScene]]]] = deque()
        try:
            for job in jobs:
                waiting.append((job[1].name, processes.submit(convert_task, job)))
                if len(waiting) > _AHEAD * workers:
                    yield waiting[0][1].result()
                    waiting.popleft()
            while waiting:
                yield waiting[0][1].result()
                waiting.popleft()
        except BrokenProcessPool:
            raise _killed([name for name, _ in waiting][:workers], "fewer --workers") from None


def _killed(names: list[str], mend: str) -> ShardsError:
    what = f"scene {names[0]}" if len(names) == 1 else f"one of the scenes {', '.join(names)}"
    return ShardsError(
        f"a worker process was killed (out of memory?) while it converted {what}; build with {mend}"
    )


def _on_ray(jobs: Sequence[Job], execution: Execution) -> Iterator[list[ConvertedScene]]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # read when ray starts: nothing is sent anywhere
    try:
        import ray
    except ImportError:
        raise ShardsError("--executor ray needs Ray on every machine: pip install 'ray'") from None
    started = not ray.is_initialized()
    if started:
        address = execution.ray_address or os.environ.get("RAY_ADDRESS")
        _check_reachable(address)
        alone = {} if address else {"num_cpus": execution.workers or cores(), "include_dashboard": False}
        try:
            ray.init(address=address, log_to_driver=False, logging_level="error", **alone)
        except (ConnectionError, RuntimeError, ValueError) as error:
            where = f"the Ray cluster at {address} cannot be reached" if address else "Ray cannot start here"
            raise ShardsError(f"{where}: {' '.join(str(error).split())}") from None
    try:
        yield from _from_ray(ray, jobs, execution.workers)
    finally:
        if started:
            ray.shutdown()


def _check_reachable(address: str | None) -> None:
    """ShardsError where nothing listens at a `host:port`; Ray itself tries for minutes and says it in parts."""
    if match := re.fullmatch(r"(?:ray://)?([^:/]+):(\d+)", address or ""):
        try:
            socket.create_connection((match[1], int(match[2])), timeout=10).close()
        except (OSError, OverflowError) as error:
            raise ShardsError(f"there is no Ray cluster at {address} ({error})") from None


def _from_ray(ray: Any, jobs: Sequence[Job], workers: int | None) -> Iterator[list[ConvertedScene]]:
    remote = ray.remote(max_retries=1)(convert_task)
    slots = workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
    waiting: deque[tuple[str, Any]] = deque()

    def first() -> list[ConvertedScene]:
        name, result = waiting[0]
        try:
            scenes = ray.get(result)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except ray.exceptions.RayError as error:
            raise _killed([name], f"more memory ({' '.join(str(error).split())[:200]})") from None
        waiting.popleft()
        return scenes

    try:
        for job in jobs:
            waiting.append((job[1].name, remote.remote(job)))
            if len(waiting) > _AHEAD * slots:
                yield first()
        while waiting:
            yield first()
    finally:
        for _, result in waiting:
            ray.cancel(result, force=True)
