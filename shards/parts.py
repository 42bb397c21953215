"""A build in parts, for job arrays: which tasks are whose, where a part lies, and the join of the last one.

Every part is a dataset of its own below `<out>/.parts`, with shards whose names no other part gives. Whoever
finishes a part looks whether all are there, one at a time, and the one who finds them so moves their shards
together, writes the manifest of the whole and takes the parts away. A join that was stopped is done by the
next run of any part. This file knows nothing of how a part is built.
"""

import contextlib
import fcntl
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shards.build_report import Report, read_report
from shards.format import ShardsError
from shards.manifest import read_manifest
from shards.writer import DatasetWriter

FOLDER = ".parts"


@dataclass(frozen=True, kw_only=True)
class Part:
    """Part `number` of `of`, counted from 1."""

    number: int
    of: int

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def share(self, tasks: Sequence[Any]) -> Sequence[Any]:
        """Every `of`-th task, from the `number`-th on: neighbours, alike in size, go to different parts."""
        return tasks[self.number - 1 :: self.of]

    def stem(self, source: str) -> str:
        """What the names of its shards begin with: `images-p02of16`."""
        return f"{source}-p{self.number:0{len(str(self.of))}d}of{self.of}"

    def folder(self, out: Path) -> Path:
        """Where it is built."""
        return out / FOLDER / f"{self.number}-of-{self.of}"


def parse_part(text: str) -> Part:
    """`2/3` -> the second of three parts; ShardsError says what is wrong."""
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if not match:
        raise ShardsError(f"--part must be I/N, such as 2/3, not {text!r}")
    number, of = int(match[1]), int(match[2])
    if not 1 <= number <= of:
        mend = f"give 1/{of} to {of}/{of} (sbatch --array=1-{of})" if of else "give at least one part"
        raise ShardsError(f"--part {text}: parts are counted from 1; {mend}")
    return Part(number=number, of=of)


def parts_there(out: Path) -> list[str]:
    """The parts of an unfinished build in `out`, as `2 of 3`."""
    folder = out / FOLDER
    names = [p.name for p in folder.iterdir() if p.is_dir()] if folder.is_dir() else []
    return [name.replace("-", " ") for name in sorted(names)]


def check_parts(out: Path, of: int | None, force: bool) -> None:
    """ShardsError if `out` holds parts of a build in another number of parts; `force` takes them away."""
    others = [name for name in parts_there(out) if of is None or not name.endswith(f" of {of}")]
    if others and not force:
        mend = "finish it with --part, or start over with --force"
        raise ShardsError(f"{out} holds part {others[0]} of a build that is not finished; {mend}")
    for name in others:
        shutil.rmtree(out / FOLDER / name.replace(" ", "-"))
    if of is None:
        shutil.rmtree(out / FOLDER, ignore_errors=True)  # its lock


def join(out: Path, source: str, of: int, shared: dict[str, Any]) -> Report | list[int]:
    """Make the dataset of all `of` parts in `out`: its report, or the numbers of the parts that are missing.

    `shared` is what the records of all parts must say. ShardsError names a part that says something else.
    """
    parts = [Part(number=number, of=of) for number in range(1, of + 1)]
    with _alone(out / FOLDER) as undone:
        if not undone:  # another one has joined them while this one waited
            return read_report(read_manifest(out)[0]["report"])
        missing = [part.number for part in parts if not (part.folder(out) / "manifest.jsonl").exists()]
        if missing:
            return missing
        report, lines, inputs = Report(), [], []
        for part in parts:
            header, own, _ = read_manifest(part.folder(out))
            differs = [key for key, value in shared.items() if header["build"].get(key) != value]
            if differs:
                what = f"was built with other {differs[0]}" if differs[0] != "names" else "saw other scenes"
                raise ShardsError(f"part {part} in {out} {what}; run --part {part} again with --force")
            inputs.append(header["build"]["inputs"])
            lines += own
            report.merge(read_report(header["report"]))
        if not report.frames_out:
            raise ShardsError(f"no scene is left to build in any of the {of} parts")
        with DatasetWriter(out, source=source) as writer, writer.writing():
            writer.journal.touch()  # what has been moved there is kept if this is stopped
            for part in parts:
                with contextlib.suppress(FileNotFoundError):
                    for file in sorted((part.folder(out) / "shards").iterdir()):
                        os.replace(file, writer.staging / file.name)
            damaged = [line["name"] for line in lines if not writer.is_whole(line)]
            if damaged:
                stem = Path(damaged[0]).name.rsplit("-", 1)[0]
                part = next(part for part in parts if part.stem(source) == stem)
                mend = f"remove {part.folder(out)} and run --part {part} again"
                raise ShardsError(f"{out}/{damaged[0]} is missing or damaged: {mend}")
            writer.keep(lines)
            record = shared | {"inputs": inputs}
            writer.finish(report.totals() | {"build": record, "report": report.stored()})
        shutil.rmtree(out / FOLDER)
        return report


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    """Wait until no other process joins there; False if the folder is gone by then."""
    try:
        file = (folder / "lock").open("w")
    except FileNotFoundError:
        yield False
        return
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield (folder / "lock").exists() and os.fstat(file.fileno()).st_nlink > 0
