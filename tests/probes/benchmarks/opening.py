"""Opening a benchmark as a test has just left it, never as it was opened before."""

from collections.abc import Callable
from pathlib import Path

from probes.benchmarks import open_benchmark
from probes.data.frames import Benchmark


def opener(name: str, *, allow_missing: bool = False) -> Callable[..., Benchmark]:
    """What opens a folder as a benchmark, without the cache; ``allow_missing`` may be said again each time."""

    def opened(root: Path, *, allow_missing: bool = allow_missing) -> Benchmark:
        return open_benchmark.__wrapped__(f"{name}:{root}", allow_missing=allow_missing)

    return opened
