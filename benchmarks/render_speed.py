"""Frames a second that the renderer of `scenes` gives on one core, with depth and labels, in process CPU time.

Usage: python benchmarks/render_speed.py [--scenes 20] [--size 96] [--json]
Each scene of 8 frames is timed alone; the median over scenes is the figure, the target at 96 px is 40.
"""

import argparse
import json
import os
import sys
import time

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import numpy as np  # noqa: E402

from shards.sources import scenes  # noqa: E402

TARGET = 40.0


def measure(count: int, size: int) -> dict[str, float]:
    """Render `count` training scenes; frames a second of CPU time: median, and the 10th and 90th percentile."""
    tasks = list(scenes.find([], scenes.Options(scenes=count + 1, val_scenes=0, size=size)))
    scenes.read(tasks.pop())  # imports, caches
    rates = []
    for task in tasks:
        start = time.process_time()
        frames = scenes.read(task).frames
        rates.append(len(frames) / (time.process_time() - start))
    low, middle, high = np.quantile(rates, [0.1, 0.5, 0.9])
    return {
        "frames_per_s": float(middle),
        "p10": float(low),
        "p90": float(high),
        "scenes": count,
        "size": size,
    }


def main() -> None:
    """Print the figures; exit code 1 where the target at 96 px is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scenes", type=int, default=20, help="scenes to render")
    parser.add_argument("--size", type=int, default=96, help="pixels a side")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    figures = measure(options.scenes, options.size)
    if options.json:
        print(json.dumps(figures))
    else:
        print(
            f"{figures['frames_per_s']:.1f} frames/s on one core at {options.size} px with depth and labels "
            f"(median of {options.scenes} scenes; 10 % to 90 %: {figures['p10']:.1f} to {figures['p90']:.1f}; "
            f"target at 96 px {TARGET:.0f})"
        )
    sys.exit(1 if options.size == 96 and figures["frames_per_s"] < TARGET else 0)


if __name__ == "__main__":
    main()
