"""Scenes of a source -> a dataset on disk: found, converted in parallel, written in order.

The bytes depend on the input and the options alone, never on what runs the build. A folder that was built from
the same input with the same options is left as it is, one that holds anything else is not touched unless
`force` replaces a dataset. A build that was stopped goes on behind its last finished shard. Every frame and
scene that is not in the result is counted and named in the report.
"""

import dataclasses
import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from shards.build_report import Report, read_report
from shards.convert import Conversion
from shards.deny import read_rules
from shards.executor import Execution, convert_all, dropped
from shards.fingerprint import Fingerprint
from shards.format import NotADataset, ShardsError
from shards.journal import Journal
from shards.manifest import read_manifest
from shards.parts import FOLDER, Part, check_parts, join
from shards.reader import open_dataset
from shards.sources import get_source
from shards.split import cut_split
from shards.writer import CONVERTER, SHARD_BYTES, SHARD_NAME, DatasetWriter, clear_staging


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
    execution: Execution | None = None,
    part: Part | None = None,
    force: bool = False,
    progress: Callable[[int], Progress] | None = None,
) -> Report:
    """Build a dataset in the folder `out` and say what became of every scene and frame.

    `source_options` is the source's `Options`; `execution` says what runs the build, or just `workers` how many
    processes do (default: the cores this process may use; 1 stays in this process). `part` builds a share of
    the scenes, and the whole once all parts are there. `progress` is called with the number of scenes and
    returns a callback. ShardsError for input that a person can mend; at most finished shards are left behind
    then, below `.building`, and the same call goes on behind them.
    """
    options = options or BuildOptions()
    execution = execution or Execution(workers=workers)
    module = get_source(source)
    source_options = module.Options() if source_options is None else source_options
    out = Path(out)
    try:
        found = list(module.find([Path(p) for p in paths], source_options))
    except OSError as error:
        raise ShardsError(f"{error.filename or source} cannot be read: {error.strerror or error}") from error
    _check_distinct(found)
    rules = read_rules(options.deny)
    reasons = [rules.denied(source, task.name) for task in found]
    tasks = [task for task, reason in zip(found, reasons, strict=True) if not reason]
    denied = [(task, reason) for task, reason in zip(found, reasons, strict=True) if reason]
    splits = cut_split([t.name for t in tasks if _is_enough(t, options)], options.val_fraction)
    shared = {
        "source": source,
        "converter": CONVERTER,
        "options": json.loads(json.dumps(dataclasses.asdict(options), default=str)),
        "source_options": json.loads(json.dumps(dataclasses.asdict(source_options), default=str)),
        "deny": rules.hash,
    }
    if part:
        names = hashlib.sha256("\n".join(task.name for task in tasks).encode()).hexdigest()
        shared |= {"parts": part.of, "names": names}
        tasks, denied = part.share(tasks), part.share(denied)
    inputs = Fingerprint((task, splits.get(task.name, "train")) for task in tasks)
    record = shared | {"inputs": inputs.whole}

    report = _existing(out, record, force, part)
    if report is not None:
        return report
    check_parts(out, part.of if part else None, force)
    place = part.folder(out) if part else out
    report = _existing(place, record, force, in_part=True) if part else None
    if report is None:
        report = Report()
        for task, reason in denied:
            report.add(dropped(task.name, getattr(task, "views", None) or 0, reason, denied=True))
        stem = part.stem(source) if part else source
        with DatasetWriter(place, source=source, stem=stem, shard_bytes=options.shard_mb << 20) as writer:
            journal = Journal(writer.journal, shared, inputs)
            jobs = [(source, task, splits.get(task.name, "train"), options) for task in tasks]
            _write(writer, journal, jobs, execution, report, progress)
            if not report.frames_out and not part:
                named = "; ".join(f"{name}: {reason}" for name, reason in report.dropped[:3])
                raise ShardsError(f"no scene is left to build ({named})")
            report.bytes_out = writer.bytes
            writer.finish(report.totals() | {"build": record, "report": report.stored()})
    if part:
        joined = join(out, source, part.of, shared)
        if isinstance(joined, Report):
            return joined
        report.part, report.missing_parts = str(part), joined
    return report


def _write(
    writer: DatasetWriter,
    journal: Journal,
    jobs: list[tuple],
    execution: Execution,
    report: Report,
    progress: Callable[[int], Progress] | None,
) -> None:
    """Convert what the journal does not say to be done, and write it; `report` counts everything."""
    with writer.writing():
        done = journal.resume(writer.is_whole)
        writer.keep([checkpoint.line for checkpoint in done])
    for checkpoint in done:
        report.merge(read_report(checkpoint.report))
    start, skip = (done[-1].tasks, done[-1].chunks) if done else (0, 0)
    since = Report()  # what became of the tasks since the last checkpoint

    def note(line: dict[str, Any] | None, tasks: int, chunks: int) -> None:
        nonlocal since
        if line is not None:
            with writer.writing():
                journal.append(line=line, tasks=tasks, chunks=chunks, report=since.stored())
            report.merge(since)
            since = Report()

    update = progress(len(jobs)) if progress else None
    with closing(convert_all(jobs[start:], execution)) as converted:
        for number, scenes in enumerate(converted, start):
            chunks = [chunk for scene in scenes for chunk in scene.chunks]
            for place in range(skip, len(chunks)):
                note(writer.add(chunks[place]), number, place)
            skip = 0
            for scene in scenes:
                since.add(scene)
            if update:
                update(number + 1, report.frames_out + since.frames_out)
    note(writer.close_shard(), len(jobs), 0)
    report.merge(since)


def _existing(
    out: Path, record: dict[str, Any], force: bool, part: Part | None = None, in_part: bool = False
) -> Report | None:
    """The report of the same build done before; None if `out` is free. ShardsError if it holds anything
    else. Of a whole that was built in parts, only `part` is compared; `in_part`: `out` is that of one part, whose
    shards may have been moved to the whole already."""
    if out.exists() and not out.is_dir():
        raise ShardsError(f"{out} is a file; name a folder with --out")
    try:
        header = read_manifest(out)[0] if in_part else open_dataset(out).header
    except NotADataset as error:
        strangers = _strangers(out)
        if strangers:
            what = f"{out} is not empty and holds no dataset that could be replaced ({strangers[0]})"
            raise ShardsError(f"{what}; name another --out") from None
        if (out / "manifest.jsonl").exists() and not force:
            raise ShardsError(f"{error}; or build again with --force") from None
        return None
    there = header.get("build", {})
    if part and isinstance(there.get("inputs"), list) and part.of == len(there["inputs"]):
        there = there | {"inputs": there["inputs"][part.number - 1]}
    if there == record:
        clear_staging(out)
        shutil.rmtree(out / FOLDER, ignore_errors=True)
        report = read_report(header["report"])
        report.existed = True
        return report
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
    if there.get("parts") != here.get("parts"):
        return f"{there.get('parts', 1)} parts there, {here.get('parts', 1)} now"
    return "built from other files"


def _strangers(out: Path) -> list[str]:
    """Names in `out` that no build put there."""
    if not out.exists():
        return []
    names = [p.name for p in out.iterdir() if p.name not in {".building", FOLDER, "shards", "manifest.jsonl"}]
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
