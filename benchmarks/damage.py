"""A thousand shards damaged at random: how each kind was met, and what it took to mend it.

    python benchmarks/damage.py            # some minutes; --number 100 for fewer

Bit flips, cut files, swapped members, absurd sizes in headers and indices, names that lead elsewhere, links,
pictures of four gigapixels under a right crc: every one is read through the loader, verified, repaired and read
again (`tests/shards/damage.py`, which raises at the first that is not met). Exit code 0 says that none crashed,
hung, wrote elsewhere or left memory, and that every damaged frame was counted once.
"""

import argparse
import gc
import os
import resource
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.shards.damage import survive, write


def main() -> int:
    """Print a row a kind of damage."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--number", type=int, default=1000, help="shards to damage (default: 1000)")
    arguments = parser.parse_args()
    rows: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    slowest, start = 0.0, time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "pristine")
        memory = 0
        for seed in range(arguments.number):
            began = time.perf_counter()
            kind, met, frames = survive(Path(folder) / "pristine", Path(folder) / "scratch", seed)
            slowest = max(slowest, time.perf_counter() - began)
            how, after = met.split(", ")
            rows[kind]["shards"] += 1
            rows[kind][how] += 1
            rows[kind][after] += 1
            rows[kind]["frames"] += frames
            if seed == arguments.number // 10:
                memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
                gc.collect()
                descriptors = len(os.listdir("/proc/self/fd"))
    columns = ("shards", "read", "quarantined", "refused", "frames", "mended", "left", "refused by repair")
    print("| damage | " + " | ".join(columns) + " |\n" + "|---" * (len(columns) + 1) + "|")
    for kind, row in rows.items():
        print(f"| {kind} | " + " | ".join(str(row[name]) for name in columns) + " |")
    gc.collect()
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) / 1000
    more = len(os.listdir("/proc/self/fd")) - descriptors
    seconds = time.perf_counter() - start
    print(
        f"\n{arguments.number} shards in {seconds:.0f} s, the slowest {slowest:.2f} s; since the first tenth peak"
        f" memory grew by {grown:.1f} MB and open files by {more}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
