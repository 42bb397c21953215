"""Overlap from tracks: seconds for 200 images and 50,000 points, against the brute-force formula over sets.

Usage: python benchmarks/covisibility.py [--images 200] [--points 50000] [--track 8] [--json]
Points are seen by runs of neighbouring images, of geometrically distributed length with the mean `--track`. The
sparse product must equal the formula to 1e-12; the limit for 200 images and 50,000 points is one second of one core.
Exit code 1 where either fails.
"""

import argparse
import json
import os
import statistics
import sys
import time

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import numpy as np  # noqa: E402

from shards.covisibility import overlap_from_tracks  # noqa: E402

LIMIT = 1.0
REPEATS = 7


def scene(images: int, points: int, track: float) -> list[np.ndarray]:
    """Ids of the points that each image sees."""
    rng = np.random.Generator(np.random.Philox(key=[images, points]))
    lengths = np.minimum(1 + rng.geometric(1 / max(1.0, track - 1), points), images)
    first = rng.integers(0, images, points)
    ids = np.repeat(np.arange(points), lengths)
    steps = np.arange(len(ids)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    views = (np.repeat(first, lengths) + steps) % images
    return [ids[views == view] for view in range(images)]


def brute_force(points: list[np.ndarray]) -> np.ndarray:
    """|P_i and P_j| / |P_i|, pair by pair."""
    sets = [set(p.tolist()) for p in points]
    return np.array([[len(a & b) / len(a) if a else 0.0 for b in sets] for a in sets])


def measure(images: int, points: int, track: float) -> dict[str, float]:
    """Median seconds of both and their largest difference."""
    seen = scene(images, points, track)
    seconds = []
    for _ in range(REPEATS):
        start = time.process_time()
        overlap = overlap_from_tracks(seen)
        seconds.append(time.process_time() - start)
    start = time.process_time()
    formula = brute_force(seen)
    slow = time.process_time() - start
    return {
        "images": images,
        "points": points,
        "observations": sum(map(len, seen)),
        "seconds": statistics.median(seconds),
        "brute_force_seconds": slow,
        "ratio": slow / statistics.median(seconds),
        "largest_difference": float(np.abs(overlap - formula).max()),
    }


def main() -> None:
    """Print the figures; exit code 1 where the limit or the equality is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=200, help="images of the scene")
    parser.add_argument("--points", type=int, default=50_000, help="points of the scene")
    parser.add_argument("--track", type=float, default=8, help="mean number of images that see a point")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    figures = measure(options.images, options.points, options.track)
    if options.json:
        print(json.dumps(figures))
    else:
        print(
            f"{figures['seconds']:.3f} s for {options.images} images, {options.points:,} points and "
            f"{figures['observations']:,} observations on one core; brute force {figures['brute_force_seconds']:.2f} s "
            f"({figures['ratio']:.0f} times as long); largest difference {figures['largest_difference']:.1e}; "
            f"limit {LIMIT:.0f} s"
        )
    sys.exit(1 if figures["seconds"] >= LIMIT or figures["largest_difference"] > 1e-12 else 0)


if __name__ == "__main__":
    main()
