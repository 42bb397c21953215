"""One reader a benchmark, each of its real form on disk; the door to all of them is `open_benchmark`.

A reader is a module named as its benchmark, with ``READER`` (see `probes.benchmarks.reader`). It knows files and
nothing of probes or encoders. The other modules here are what several readers share.
"""

from collections.abc import Sequence
from functools import lru_cache
from importlib import import_module
from pathlib import Path

from probes.benchmarks.reader import BenchmarkReader
from probes.data.frames import Benchmark
from probes.errors import ProbeError, nearest

__all__ = ["NAMES", "BenchmarkReader", "open_benchmark", "reader"]

NAMES: Sequence[str] = (
    *("shards", "colmap"),
    *("megadepth", "megadepth1500", "scannet1500", "hpatches", "eth3d", "dtu"),
    *("co3d", "realestate10k", "navi", "nyu", "ade20k"),
)
"""The known benchmarks, our own two forms first."""


def reader(name: str) -> BenchmarkReader:
    """The reader of a benchmark; ProbeError with the nearest name where there is none."""
    if name not in NAMES:
        raise ProbeError(f"unknown benchmark {name!r}{nearest(name, NAMES)}")
    return import_module(f"probes.benchmarks.{name}").READER


@lru_cache(maxsize=16)
def open_benchmark(spec: str, *, allow_missing: bool = False) -> Benchmark:
    """Open ``NAME:PATH``, or a shard folder by its path alone.

    Args:
        spec: such as ``megadepth1500:/data/megadepth``, ``colmap:models/fountain`` or ``demo/shards``.
        allow_missing: leave out what needs files that are not there, and say so in `Benchmark.missing`.

    Raises:
        ProbeError: no such benchmark or folder, another form than its reader expects, missing files.
    """
    name, _, path = spec.partition(":")
    if Path(spec).is_dir() and name not in NAMES:
        name, path = "shards", spec
    if not path or name not in NAMES:
        if "/" in name or not path:
            hint = (
                f" (write {name}:PATH)" if name in NAMES else nearest(name, NAMES) if "/" not in name else ""
            )
            raise ProbeError(
                f"data {spec!r}: no such folder{hint} (data is a shard folder or NAME:PATH, see mum-probe list)"
            )
        raise ProbeError(f"data {spec!r}: unknown benchmark {name!r}{nearest(name, NAMES)}")
    known = reader(name)
    root = Path(path)
    if not root.is_dir():
        what = f"{path} is a file" if root.exists() else f"there is no {path}"
        raise ProbeError(f"data {spec!r}: {what}; {known.advice}")
    return known.open(root, spec, allow_missing)
