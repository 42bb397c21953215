"""Pose solvers: PoseLib in the pool against single-threaded OpenCV, on the same pairs in the same run.

Usage: python benchmarks/solvers.py [--pairs 1500] [--matches 1000] [--opencv-pairs 60] [--json]
Matches are synthetic: half are inliers with noise of 1 px in both views, the rest fall anywhere; rotations of 20
degrees. PoseLib solves all pairs in the pool with the suite's default setting (2 px); OpenCV runs as its users run
it (RANSAC, 0.5 px, 0.99999), pair after pair on one thread, on a part of the same pairs, because all of them would
take minutes. They take turns, so that whatever else the machine does meets both. The limit: a tenth of OpenCV's
time a pair, with a lower median error. Exit code 1 where missed.
"""

import argparse
import json
import os
import sys
import time

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import numpy as np  # noqa: E402

from probes.metrics.pose import rotation_errors, translation_errors  # noqa: E402
from probes.pose.solvers import PoseEstimate, PoseProblem, SolverConfig, available_cores, solve_all  # noqa: E402

LIMIT = 0.1
TURNS = 10
POSELIB = SolverConfig(kind="poselib", threshold=2.0)
OPENCV = SolverConfig(kind="opencv", threshold=0.5, confidence=0.99999, max_iterations=1000)
INTRINSICS = np.array([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]])
INLIERS, NOISE, TURN = 0.5, 1.0, 20.0


def make_pair(number: int, matches: int) -> tuple[PoseProblem, np.ndarray]:
    """Matches of a pair, and its true pose (3, 4)."""
    rng = np.random.Generator(np.random.Philox(key=[number, matches]))
    axis, translation = (v / np.linalg.norm(v) for v in rng.normal(size=(2, 3)))
    cross = np.cross(np.eye(3), axis)
    angle = np.radians(TURN)
    rotation = np.eye(3) - np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    seen = np.column_stack([rng.uniform(0, 640, matches), rng.uniform(0, 480, matches), np.ones(matches)])
    points = seen @ np.linalg.inv(INTRINSICS).T * rng.uniform(3, 8, (matches, 1))
    other = (points @ rotation.T + translation) @ INTRINSICS.T
    a, b = seen[:, :2], other[:, :2] / other[:, 2:]
    wrong = rng.random(matches) > INLIERS
    a, b = (p + NOISE * rng.normal(size=p.shape) for p in (a, b))
    b[wrong] = rng.uniform(0, 1, (wrong.sum(), 2)) * [640, 480]
    problem = PoseProblem(
        name=str(number), points_a=a, points_b=b, intrinsics_a=INTRINSICS, intrinsics_b=INTRINSICS
    )
    return problem, np.column_stack([rotation, translation])


def median_error(found: list[PoseEstimate], true: list[np.ndarray]) -> float:
    """Of the larger of both angles, degrees."""
    predicted, truth = np.stack([estimate.pose for estimate in found]), np.stack(true)
    rotation = rotation_errors(predicted[..., :3], truth[..., :3])
    translation = translation_errors(predicted[..., 3], truth[..., 3], folded=True)
    return float(np.median(np.maximum(rotation, translation)))


def measure(pairs: int, matches: int, opencv_pairs: int) -> dict[str, float]:
    """Milliseconds a pair and median errors of both; the errors are of the pairs that both solved."""
    made = [make_pair(number, matches) for number in range(pairs)]
    problems, true = [p for p, _ in made], [pose for _, pose in made]
    for config in (POSELIB, OPENCV):
        solve_all(problems[:2], config, seed=1)  # Imports and first allocations are nobody's time.
    fast, slow, found, reference, common = 0.0, 0.0, [], [], []
    # Turn by turn, so that whatever else the machine does meets both.
    for block in np.array_split(np.arange(pairs), min(TURNS, pairs)):
        shared = block[: -(-opencv_pairs // min(TURNS, pairs))]
        start = time.perf_counter()
        reference += solve_all([problems[i] for i in shared], OPENCV, seed=0, workers=1)
        middle = time.perf_counter()
        found += solve_all([problems[i] for i in block], POSELIB, seed=0)
        slow, fast = slow + middle - start, fast + time.perf_counter() - middle
        common += shared.tolist()
    slow, fast = slow / len(reference), fast / len(found)
    true_common, found_common = ([of[i] for i in common] for of in (true, found))
    return {
        "pairs": pairs,
        "matches": matches,
        "cores": available_cores(),
        "poselib_ms": 1000 * fast,
        "poselib_median_error": median_error(found_common, true_common),
        "poselib_median_error_of_all": median_error(found, true),
        "opencv_pairs": len(reference),
        "opencv_ms": 1000 * slow,
        "opencv_median_error": median_error(reference, true_common),
        "ratio": fast / slow,
    }


def main() -> None:
    """Print the figures; exit code 1 where the limit is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=1500, help="pairs that PoseLib solves")
    parser.add_argument("--matches", type=int, default=1000, help="matches a pair")
    parser.add_argument("--opencv-pairs", type=int, default=60, help="pairs of these that OpenCV solves too")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    figures = measure(options.pairs, options.matches, options.opencv_pairs)
    if options.json:
        print(json.dumps(figures))
    else:
        print(
            f"PoseLib in the pool: {figures['poselib_ms']:.1f} ms a pair on {figures['cores']} cores, median error "
            f"{figures['poselib_median_error']:.2f} degrees; OpenCV on one thread: {figures['opencv_ms']:.1f} ms, "
            f"{figures['opencv_median_error']:.2f} degrees; {figures['ratio']:.3f} of its time, limit {LIMIT:g}"
        )
    better = figures["poselib_median_error"] < figures["opencv_median_error"]
    sys.exit(0 if better and figures["ratio"] <= LIMIT else 1)


if __name__ == "__main__":
    main()
