"""Scenes of a source -> a dataset on disk: found, converted in parallel, written in order.

The bytes depend on the input and the options alone, never on the number of processes. A folder that was built
from the same input with the same options is left as it is, one that holds anything else is not touched unless
`force` replaces a dataset. Every frame and scene that is not in the result is counted and named in the
report.
"""

import dataclasses
import hashlib
import json
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from shards.convert import Conversion, ConvertedScene, convert_scene
from shards.deny import read_rules
from shards.format import Scene, ShardsError
from shards.processes import cores, pool
from shards.reader import NotADataset, open_dataset
from shards.sources import get_source
from shards.writer import CONVERTER, SHARD_BYTES, SHARD_NAME, DatasetWriter

_NAMED = 100
"""Most refused frames or dropped scenes that a report names; it counts them all."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BuildOptions(Conversion):
    """Every option of a build that all sources share and that changes its result."""

    val_fraction: float = 0.1
    """Share of the scenes in the val split, cut by a hash of their names; at least one of two or more."""
    shard_mb: int = SHARD_BYTES >> 20
    """Largest shard, in MiB."""
    deny: str = "default"
    """Evaluation scenes to leave out: `default` (the known benchmarks), `none`, or a text file with lines of
    `source scene reason` that adds to the default."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.val_fraction < 1:
            raise ShardsError(f"--val-fraction must lie in 0..1, below 1, not {self.val_fraction}")
        if not 1 <= self.shard_mb <= 4096:
            raise ShardsError(f"--shard-mb must lie in 1..4096, not {self.shard_mb}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """What a build did; also in the manifest's first line."""

    frames_in: int
    frames_out: int
    frames_refused: int
    refused: list[tuple[str, str]]
    """(picture, reason), the first hundred."""
    scenes_in: int
    scenes_out: int
    scenes_dropped: int
    dropped: list[tuple[str, str]]
    """(scene, reason), the first hundred."""
    existed: bool = False
    """The dataset was there already, built from the same input with the same options."""


Progress = Callable[[int, int], None]
"""Called with (scenes done, frames written)."""


def build(
    source: str,
    paths: Sequence[str | Path],
    out: str | Path,
    *,
    options: BuildOptions | None = None,
    source_options: Any = None,
    workers: int | None = None,
    force: bool = False,
    progress: Callable[[int], Progress] | None = None,
) -> Report:
    """Build a dataset in the folder `out` and say what became of every scene and frame.

    `source_options` is the source's `Options`; `workers` processes convert (default: the cores this process
    may use; 1 stays in this process); `progress` is called with the number of scenes and returns a callback.
    ShardsError for input that a person can mend; nothing is left behind then.
    """
    options = options or BuildOptions()
    module = get_source(source)
    source_options = module.Options() if source_options is None else source_options
    out = Path(out)
    found = list(module.find([Path(p) for p in paths], source_options))
    _check_distinct(found)
    rules = read_rules(options.deny)
    denied = {task.name: reason for task in found if (reason := rules.denied(source, task.name))}
    tasks = [task for task in found if task.name not in denied]
    record = {
        "source": source,
        "converter": CONVERTER,
        "options": json.loads(json.dumps(dataclasses.asdict(options), default=str)),
        "source_options": json.loads(json.dumps(dataclasses.asdict(source_options), default=str)),
        "inputs": fingerprint(tasks),
        "deny": rules.hash,
    }
    report = _existing(out, record, force)
    if report is not None:
        return report

    splits = cut_split([t.name for t in tasks if _is_enough(t, options)], options.val_fraction)
    jobs = [(source, task, splits.get(task.name, "train"), options) for task in tasks]
    tally = _Tally()
    for task in found:
        if task.name in denied:
            tally.add(_dropped(task, denied[task.name]))
    update = progress(len(tasks)) if progress else None
    with DatasetWriter(out, source=source, shard_bytes=options.shard_mb << 20) as writer:
        for done, scenes in enumerate(_convert_all(jobs, workers or cores()), 1):
            for scene in scenes:
                tally.add(scene)
                for chunk in scene.chunks:
                    writer.add(chunk)
            if update:
                update(done, tally.frames_out)
        if not tally.frames_out:
            names = "; ".join(f"{name}: {reason}" for name, reason in tally.dropped[:3])
            raise ShardsError(f"no scene is left to build ({names})")
        writer.finish(tally.totals() | {"build": record, "report": dataclasses.asdict(tally.report())})
    return tally.report()


def cut_split(names: Sequence[str], fraction: float) -> dict[str, str]:
    """Scene -> `train` or `val`: the share `fraction` whose names hash lowest.

    Of two or more scenes at least one is val (unless `fraction` is 0) and never all.
    """
    ranked = sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())
    held_out = 0 if fraction == 0 else max(1, round(fraction * len(names)))
    held_out = min(held_out, max(0, len(names) - 1))
    return {name: "val" if rank < held_out else "train" for rank, name in enumerate(ranked)}


def fingerprint(tasks: Sequence[Any]) -> str:
    """Hash of the tasks; each path in them counts with its file's size and time of change."""
    digest = hashlib.sha256()

    def put(value: Any) -> None:
        if isinstance(value, Path):
            stat = value.stat() if value.is_file() else None
            digest.update(f"{value.resolve()}|{stat and (stat.st_size, stat.st_mtime_ns)}\n".encode())
            for inner in sorted(value.rglob("*")) if value.is_dir() else ():
                put(inner)
        elif dataclasses.is_dataclass(value):
            for item in dataclasses.fields(value):
                digest.update(f"{item.name}=".encode())
                put(getattr(value, item.name))
        elif isinstance(value, (tuple, list)):
            for item in value:
                put(item)
        else:
            digest.update(f"{value!r}\n".encode())

    for task in tasks:
        put(task)
    return digest.hexdigest()


class _Tally:
    """Counts of a build in progress."""

    def __init__(self) -> None:
        self.scenes_in = 0
        self.frames_in = self.frames_out = self.frames_refused = self.scenes_out = 0
        self.refused: list[tuple[str, str]] = []
        self.dropped: list[tuple[str, str]] = []
        self.scenes_dropped = 0
        self.by_split: dict[str, Counter] = {"scenes": Counter(), "frames": Counter()}
        self.licences: Counter = Counter()

    def add(self, scene: ConvertedScene) -> None:
        frames = sum(len(chunk.jpegs) for chunk in scene.chunks)
        self.scenes_in += 1
        self.frames_in += scene.frames_in
        self.frames_out += frames
        self.frames_refused += len(scene.refused)
        self.refused += scene.refused[: _NAMED - len(self.refused)]
        if not scene.chunks:
            self.scenes_dropped += 1
            self.dropped += [(scene.name, scene.reason)][: _NAMED - len(self.dropped)]
            return
        self.scenes_out += 1
        self.by_split["scenes"][scene.split] += 1
        self.by_split["frames"][scene.split] += frames
        self.licences[scene.licence] += frames

    def totals(self) -> dict[str, Any]:
        """For the manifest's first line."""
        splits = {
            split: {what: count[split] for what, count in self.by_split.items()} for split in ("train", "val")
        }
        return {"scenes": self.scenes_out, "splits": splits, "licences": dict(sorted(self.licences.items()))}

    def report(self) -> Report:
        return Report(
            frames_in=self.frames_in,
            frames_out=self.frames_out,
            frames_refused=self.frames_refused,
            refused=self.refused,
            scenes_in=self.scenes_in,
            scenes_out=self.scenes_out,
            scenes_dropped=self.scenes_dropped,
            dropped=self.dropped,
        )


def _convert_all(jobs: list[tuple], workers: int) -> Iterator[list[ConvertedScene]]:
    """Convert tasks, in their order whatever the number of processes, few of them ahead of the writer."""
    if workers == 1 or len(jobs) == 1:
        yield from map(_convert, jobs)
        return
    with pool(min(workers, len(jobs))) as processes:
        waiting: deque[Future[list[ConvertedScene]]] = deque()
        try:
            for job in jobs:
                waiting.append(processes.submit(_convert, job))
                if len(waiting) > 3 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool:
            reason = "a worker process was killed (out of memory?); build with fewer --workers"
            raise ShardsError(reason) from None
        finally:
            for future in waiting:
                future.cancel()


def _convert(job: tuple[str, Any, str, BuildOptions]) -> list[ConvertedScene]:
    """The scenes of one task: one, or as many as `read` returned."""
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
            own_split = _split_alone(scene.name, options.val_fraction) if single else split
            reason = rules.denied(source, scene.name)
            converted.append(
                ConvertedScene(
                    name=scene.name, split="", licence="", frames_in=len(scene.frames), reason=reason
                )
                if reason
                else convert_scene(scene, source=source, split=own_split, conversion=options)
            )
        return converted
    except ShardsError as error:
        if not options.skip_bad:
            raise
        return [_dropped(task, str(error))]


def _dropped(task: Any, reason: str) -> ConvertedScene:
    frames = getattr(task, "views", None) or 0
    return ConvertedScene(name=task.name, split="", licence="", frames_in=frames, reason=reason)


def _split_alone(name: str, fraction: float) -> str:
    """The split of a scene that is cut without knowledge of the others: the same hash, against the share."""
    rank = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64
    return "val" if rank < fraction else "train"


def _existing(out: Path, record: dict[str, Any], force: bool) -> Report | None:
    """The report of the same build done before; None if `out` is free. ShardsError if it holds anything
    else."""
    if out.exists() and not out.is_dir():
        raise ShardsError(f"{out} is a file; name a folder with --out")
    try:
        header = open_dataset(out).header
    except NotADataset as error:
        strangers = _strangers(out)
        if strangers:
            what = f"{out} is not empty and holds no dataset that could be replaced ({strangers[0]})"
            raise ShardsError(f"{what}; name another --out") from None
        if (out / "manifest.jsonl").exists() and not force:
            raise ShardsError(f"{error}; or build again with --force") from None
        return None
    there = header.get("build", {})
    if there == record:
        known = {f.name for f in dataclasses.fields(Report)}
        return Report(**{k: v for k, v in header["report"].items() if k in known} | {"existed": True})
    if force:
        return None
    raise ShardsError(f"{out} holds another dataset ({_difference(there, record)}); --force replaces it")


def _difference(there: dict[str, Any], here: dict[str, Any]) -> str:
    for key in ("source", "converter", "deny"):
        if there.get(key) != here[key]:
            return f"{key} {there.get(key)} there, {here[key]} now"
    for group in ("options", "source_options"):
        for name, value in here[group].items():
            if there.get(group, {}).get(name) != value:
                option = name.replace("_", "-")
                return f"--{option} {there.get(group, {}).get(name)} there, {value} now"
    return "built from other files"


def _strangers(out: Path) -> list[str]:
    """Names in `out` that no build put there."""
    if not out.exists():
        return []
    names = [p.name for p in out.iterdir() if p.name not in {".building", "shards", "manifest.jsonl"}]
    shards = out / "shards"
    inner = shards.iterdir() if shards.is_dir() else ()
    return sorted(names + [f"shards/{p.name}" for p in inner if not SHARD_NAME.fullmatch(p.name)])


def _check_distinct(tasks: Sequence[Any]) -> None:
    twice = [name for name, count in Counter(task.name for task in tasks).items() if count > 1]
    if twice:
        raise ShardsError(f"two scenes are called {twice[0]!r}")


def _is_enough(task: Any, options: BuildOptions) -> bool:
    views = getattr(task, "views", None)
    return views is None or views >= options.fewest
