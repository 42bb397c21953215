"""Converting at scale: frames a second against encoding alone, and what surrounds it at many files and views.

A build's frames are compared with the same frames encoded in a loop (`encode_frame`, one core): the rest is
processes, overlap, tar, hashes and flushing. Beside it: the fingerprint of many files against `os.stat` alone,
cutting a scene of 5,000 views, and how well overlap from poses ranks pairs of rendered views against their depth.

    python benchmarks/conversion.py [--scenes 24] [--files 100000]

Results: benchmarks/results/conversion.md.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import numpy as np  # noqa: E402
from PIL import Image  # noqa: E402

from shards.build import build  # noqa: E402
from shards.covisibility import (  # noqa: E402
    overlap_from_depth,
    overlap_from_poses,
    symmetric,
)
from shards.cutting import cut  # noqa: E402
from shards.encode import encode_frame  # noqa: E402
from shards.executor import Execution  # noqa: E402
from shards.fingerprint import Fingerprint  # noqa: E402
from shards.format import Frame  # noqa: E402
from shards.processes import cores  # noqa: E402
from shards.sources import images, scenes  # noqa: E402

FRAMES, WIDE, HIGH = 12, 1600, 1200


def converting(root: Path, count: int) -> list[tuple[str, str]]:
    """Frames a second of encoding alone and of builds with one process and with one a core."""
    rng = np.random.default_rng(0)
    for scene in range(count):
        (root / f"s{scene:03d}").mkdir(parents=True)
        for number in range(FRAMES):
            coarse = Image.fromarray(rng.integers(0, 255, (60, 80, 3), np.uint8))
            picture = coarse.resize((WIDE, HIGH), Image.Resampling.BICUBIC)
            picture.save(root / f"s{scene:03d}" / f"{number}.jpg", quality=90)
    paths = sorted(root.rglob("*.jpg"))
    start = time.perf_counter()
    for path in paths:
        encode_frame(Frame(name=path.name, image=path))
    alone = len(paths) / (time.perf_counter() - start)
    rows = [(f"encoding {WIDE}x{HIGH} to short side 384 alone, frames a second", f"{alone:.0f}")]
    for workers in sorted({1, cores()}):
        start = time.perf_counter()
        build("images", [root], root.parent / f"out{workers}", execution=Execution(workers=workers))
        speed = len(paths) / (time.perf_counter() - start)
        processes = f"{workers} process{'es' * (workers > 1)}"
        rows.append(
            (
                f"build with {processes}, frames a second (of encoding alone)",
                f"{speed:.0f} ({speed / alone:.2f})",
            )
        )
    return rows


def fingerprinting(root: Path, files: int) -> list[tuple[str, str]]:
    """Seconds to fingerprint so many files, and to ask for their sizes alone."""
    for scene in range(files // 100):
        (root / f"s{scene}").mkdir(parents=True)
        for number in range(100):
            (root / f"s{scene}" / f"{number}.jpg").touch()
    tasks = list(images.find([root], images.Options()))
    start = time.perf_counter()
    for task in tasks:
        for path in task.photographs:
            os.stat(path)
    alone = time.perf_counter() - start
    start = time.perf_counter()
    Fingerprint((task, "train") for task in tasks)
    seconds = time.perf_counter() - start
    return [
        (f"fingerprint of {files:,} files, s (of os.stat alone)", f"{seconds:.2f} ({seconds / alone:.1f})")
    ]


def cutting(views: int) -> list[tuple[str, str]]:
    """Seconds to cut a scene of so many views at random places, and the sizes of its chunks."""
    places = np.random.default_rng(0).random((views, 2))
    apart = np.linalg.norm(places[:, None] - places[None], axis=2)
    overlap = np.clip(1 - apart * np.sqrt(views) / 4, 0, 1)
    start = time.perf_counter()
    sizes = [len(chunk) for chunk in cut(overlap, views)]
    seconds = time.perf_counter() - start
    return [
        (f"cutting {views:,} views, s", f"{seconds:.1f}"),
        (
            "chunks (at least), frames in them",
            f"{len(sizes)} ({-(-views // 96)}), {min(sizes)} to {max(sizes)}",
        ),
    ]


def posing(count: int) -> list[tuple[str, str]]:
    """Rank correlation of overlap from poses with overlap from depth over the pairs of rendered scenes."""
    ranks, gaps = [], []
    for task in scenes.find([], scenes.Options(scenes=count, val_scenes=0, frames=16, size=64)):
        frames = scenes.read(task).frames
        intrinsics = np.stack([f.intrinsics for f in frames])
        poses = np.stack([f.world_to_camera for f in frames])
        depths = [f.depth for f in frames]
        pairs = np.triu_indices(len(frames), 1)
        true = symmetric(overlap_from_depth(depths, intrinsics, poses))[pairs]
        guess = symmetric(overlap_from_poses(intrinsics, poses, np.array([d.shape for d in depths])))[pairs]
        ranks.append(np.corrcoef(true.argsort().argsort(), guess.argsort().argsort())[0, 1])
        gaps.append(np.abs(true - guess).mean())
    spread = f"{np.mean(ranks):.3f} ({min(ranks):.3f})"
    return [
        (f"rank correlation of pose and depth overlap, mean of {count} rendered scenes (lowest)", spread),
        ("mean difference of the two", f"{np.mean(gaps):.3f}"),
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scenes", type=int, default=24, help=f"scenes of {FRAMES} photographs to convert")
    parser.add_argument("--files", type=int, default=100_000, help="files to fingerprint")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = converting(Path(folder) / "photographs", arguments.scenes)
        rows += fingerprinting(Path(folder) / "many", arguments.files)
    rows += cutting(5000)
    rows += posing(24)
    table = "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])
    print(table)
    head = f"# Converting at scale\n\n`python benchmarks/conversion.py` on {cores()} cores.\n\n"
    (Path(__file__).parent / "results" / "conversion.md").write_text(head + table + "\n")


if __name__ == "__main__":
    main()
