"""What every benchmark reader has, and how all of them speak of files that are not as expected."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from probes.data.frames import Benchmark
from probes.errors import ProbeError

_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class BenchmarkReader:
    """A benchmark's form on disk: where its users get it, what it must look like, and who opens it."""

    title: str
    """In words, with its source: ``MegaDepth-1500 (LoFTR's pairs)``."""
    where: str
    """Where its users get it."""
    layout: str
    """What PATH must hold, one entry a line; ``or: `` begins another form of the whole."""
    open: Callable[[Path, str, bool], Benchmark] = field(repr=False)
    """(root, spec, allow_missing) -> Benchmark. ProbeError where the folder has another form."""

    @property
    def paths(self) -> list[str]:
        """The lines of `layout` as whole paths."""
        lines = self.layout.splitlines()
        return [f"or PATH/{line[4:]}" if line.startswith("or: ") else f"PATH/{line}" for line in lines]

    @property
    def advice(self) -> str:
        """One sentence for an error: what is expected and where it comes from."""
        return f"{self.title} is expected as {'; '.join(self.layout.splitlines())}, from {self.where}"


def unlike(spec: str, expected: str, found: str) -> ProbeError:
    """The error for a folder of another form: what was expected, what was found."""
    return ProbeError(f"data {spec!r}: expected {expected}, found {found}")


def found_in(folder: Path) -> str:
    """What a folder holds, in a few words, for `unlike`."""
    if not folder.is_dir():
        return "no folder" if not folder.exists() else "a file"
    names = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir())
    shown = ", ".join(names[:_SHOWN])
    return (f"{shown} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else shown) or "an empty folder"


def refuse_missing(spec: str, missing: Sequence[str], total: int, *, allow_missing: bool) -> None:
    """ProbeError where files are missing, unless they are allowed to be; always where all of them are.

    Args:
        spec: the data as the user named it.
        missing: paths relative to the root.
        total: files that the lists name.
        allow_missing: whether the user accepts a part.
    """
    if not missing or (allow_missing and len(missing) < total):
        return
    rest = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
    mend = (
        "nothing is left to score"
        if len(missing) >= total
        else "complete it, or --allow-missing to leave out what needs them"
    )
    raise ProbeError(
        f"data {spec!r}: {len(missing)} of {total} files are missing: {', '.join(missing[:_SHOWN])}{rest}; {mend}"
    )
