"""Opening, planning and resuming on datasets of 20 M and 200 M frames that exist as manifest and index alone.

    python benchmarks/scale.py                       # some minutes; writes benchmarks/results/scale.{json,md}
    python benchmarks/scale.py --frames 20000000     # one size

Manifest, indices (member tables as holes) and overlap matrices are real files of the real format; all shards
are hard links of one tar that holds the matrices of its 52 chunks and no pictures, so the plan opens, reads,
checks and parses what it would read, from the page cache. Every size is measured in fresh processes, medians
of `--repeats`. Beside it, 1,000 epochs of the order on chunks of random sizes, with up to 24 views: that each
of them ends with every piece shown once, and how many frames are shown twice.
"""

import argparse
import dataclasses
import io
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from shards import format as fmt

RESULTS = Path(__file__).parent / "results"
CHUNKS = [96] * 48 + [61, 40, 33, 24]
"""Frames of the chunks of a shard."""
_PICTURE = 75_000
LIMITS = {
    "open_seconds": 2.0,
    "worker_megabytes": 100.0,
    "lane_step_milliseconds": 2.0,
    "resume_seconds": 2.0,
}


def write_dataset(root: Path, frames: int) -> None:
    """A dataset of at least so many frames, whose tars hold nothing but overlap matrices."""
    folder = root / "shards"
    folder.mkdir(parents=True)
    tar, rows, members, end = folder / "made-000000.tar", [], 0, 0
    with tar.open("wb") as file:
        for number, count in enumerate(CHUNKS):
            overlap = _overlap(count, number)
            buffer = io.BytesIO()
            np.save(buffer, overlap)
            data = buffer.getvalue()
            file.seek(end + 512)
            file.write(data)
            mean = float((overlap.sum() - 254 * count) / (254 * count * (count - 1)))
            rows.append(
                (members, count, 0, 0, 0, 0, mean, 0, 0, 0, 0, end + 512, len(data), zlib.crc32(data))
            )
            members += count
            end += 1024 + count * _PICTURE
        file.truncate(end)
    table = np.array(rows, fmt.INDEX_CHUNK)
    header = np.zeros((), fmt.INDEX_HEADER)
    header["magic"], header["version"], header["tar_bytes"] = fmt.INDEX_MAGIC, fmt.VERSION, end
    header["chunks"], header["members"], header["frames"] = len(CHUNKS), members, members
    shards = -(-frames // members)
    lines = []
    for number in range(shards):
        name = f"made-{number:06d}"
        if number:
            os.link(tar, folder / f"{name}.tar")
        table["scene"] = np.arange(number * len(CHUNKS), (number + 1) * len(CHUNKS)) // 3
        header["chunks_crc"] = zlib.crc32(table.tobytes())
        with (folder / f"{name}.idx").open("wb") as file:
            file.write(header.tobytes() + table.tobytes())
            file.truncate(fmt.INDEX_HEADER.itemsize + table.nbytes + members * fmt.INDEX_MEMBER.itemsize)
        line = {"name": f"shards/{name}.tar", "bytes": end, "chunks": len(CHUNKS), "frames": members}
        lines.append(
            line | {"sha256": "0" * 64, "index_sha256": "0" * 64, "source": "made", "converter": "none"}
        )
    first = {"format": "mumkit-shards", "version": fmt.VERSION, "shards": shards, "bytes": end * shards}
    first |= {"chunks": shards * len(CHUNKS), "frames": shards * members}
    text = "\n".join(json.dumps(line, sort_keys=True) for line in (first, *lines))
    (root / "manifest.jsonl").write_text(text + "\n")


def _overlap(count: int, seed: int) -> np.ndarray:
    """Photographs of a place from points in a square, looking about."""
    rng = np.random.default_rng(seed)
    where, heading = rng.random((count, 2)), rng.random(count)
    apart = np.linalg.norm(where[:, None] - where, axis=2) + np.abs(heading[:, None] - heading)
    return np.round(254 * np.clip(1 - apart, 0, 1)).astype(np.uint8)


def private_megabytes() -> float:
    """Memory that is this process's alone (USS)."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1000


def measure(root: Path) -> dict[str, float]:
    """The figures of one process over the dataset."""
    # Imported by any training process before it comes to its data.
    from shards.loader import Loader
    from shards.places import WINDOW
    from shards.plan import DataConfig
    from shards.reader import open_dataset

    config = DataConfig(images_per_lane=96, views=(2, 24), lanes=64)
    before, started = private_megabytes(), time.perf_counter()
    dataset = open_dataset(root)
    opened = time.perf_counter()
    plan = Loader(dataset, config).plan
    planned, after = time.perf_counter(), private_megabytes()

    rng = np.random.default_rng(0)
    times: dict[str, list[float]] = {"": [], "_224": []}
    wide = dataclasses.replace(config, images_per_lane=128, views=(2, 12), lanes=32)
    for name, one in (("", plan), ("_224", Loader(dataset, wide).plan)):
        one.lane_step(0, 0)
        for _ in range(300):
            step, lane = int(rng.integers(10**6)), int(rng.integers(one.config.lanes))
            asked = time.perf_counter()
            one.lane_step(step, lane)
            times[name].append(1000 * (time.perf_counter() - asked))

    last = plan.steps_per_epoch - 1
    state = json.loads(json.dumps(Loader(dataset, config, start_step=last).state(last)))
    asked = time.perf_counter()
    loader = Loader(open_dataset(root), config, start_step=last)
    loader.check(state)
    for lane in range(config.lanes):
        loader.plan.lane_step(last, lane)
    resumed = time.perf_counter() - asked

    met = np.unique(np.concatenate([plan.chunks_of(step, 5) for step in range(WINDOW, 2 * WINDOW)]))
    fetched = dataset.frames_per_chunk[met].sum()

    asking, answering = multiprocessing.get_context("fork").Pipe()
    worker = multiprocessing.get_context("fork").Process(target=_work, args=(plan, answering))
    worker.start()
    megabytes = asking.recv()
    worker.join()
    source = plan.summary()["sources"][0]
    return {
        "frames": dataset.num_frames,
        "chunks": dataset.num_chunks,
        "shards": len(dataset.shards),
        "steps_per_epoch": plan.steps_per_epoch,
        "repeat_rate": source["repeat_rate"],
        "open_seconds": opened - started,
        "plan_seconds": planned - opened,
        "process_megabytes": after - before,
        "worker_megabytes": megabytes,
        "lane_step_milliseconds": statistics.median(times[""]),
        "lane_step_milliseconds_p95": statistics.quantiles(times[""], n=20)[-1],
        "lane_step_224_milliseconds": statistics.median(times["_224"]),
        "resume_seconds": resumed,
        "state_bytes": len(json.dumps(state)),
        "fetched": float(fetched / (WINDOW * config.images_per_lane)),
    }


def _work(plan: Any, answer: Any) -> None:
    """What a worker does, without pictures: 500 lane-steps, then its own memory."""
    for step in range(500):
        plan.lane_step(step, step % plan.config.lanes)
    answer.send(private_megabytes())


def simulate(epochs: int) -> dict[str, float]:
    """Epochs of the order on 20 datasets of random chunks with 2 to 24 views; AssertionError where one clogs."""
    from shards.coverage import Coverage, Pool
    from shards.view_counts import Schedule, in_even_order, view_counts

    rng = np.random.default_rng(0)
    rates, steps = [], 0
    for _ in range(20):
        lanes, images = int(rng.integers(1, 5)), 96
        frames = rng.integers(2, 97, int(rng.integers(30, 80)))
        counts = view_counts(images, 7, (2, min(24, int(frames.max()))), rng.random((256, 7)))
        schedule = Schedule(in_even_order(counts))
        pool = Pool(name="", weight=1.0, rows=np.arange(len(frames)), frames=frames)
        coverage = Coverage([pool], schedule, lanes=lanes, seed=rng.integers(2**63, size=1, dtype=np.uint64))
        for epoch in range(epochs // 20):
            shown = np.zeros(len(frames), np.int64)
            first = epoch * coverage.steps_per_epoch
            for step in range(first, first + coverage.steps_per_epoch):
                for lane in range(lanes):
                    slots = coverage.at(step, lane)
                    assert slots.sizes.sum() == images
                    np.add.at(shown, slots.rows, [cuts[-1] if cuts else 0 for cuts in slots.cuts])
            assert (shown == frames).all(), "an epoch left frames out"
            steps += coverage.steps_per_epoch
        rates.append(coverage.repeats[0])
    return {
        "epochs": epochs // 20 * 20,
        "steps": steps,
        "repeat_rate_median": statistics.median(rates),
        "repeat_rate_least": min(rates),
        "repeat_rate_most": max(rates),
    }


def table(sizes: list[dict[str, float]], simulated: dict[str, float]) -> str:
    """The figures as Markdown."""
    names = {
        "frames": "frames",
        "chunks": "chunks",
        "shards": "shards",
        "open_seconds": "opening, s",
        "plan_seconds": "making the plan, s",
        "process_megabytes": "memory of both, MB",
        "worker_megabytes": "private memory of a worker after 500 lane-steps, MB",
        "lane_step_milliseconds": "a lane's step with its overlap, 96 images, 2 to 24 views, median ms",
        "lane_step_milliseconds_p95": "the same, 95th percentile, ms",
        "lane_step_224_milliseconds": "a lane's step with its overlap, 128 images, 2 to 12 views, median ms",
        "resume_seconds": "resuming at an epoch's last step, 64 lanes on one rank, all checks, s",
        "state_bytes": "loader state, bytes",
        "repeat_rate": "frames shown twice in an epoch",
        "fetched": "frames that a machine with a cache for a window downloads for each that it shows",
    }
    lines = ["| | " + " | ".join(["at most"] + [f"{s['frames'] / 1e6:.0f} M frames" for s in sizes]) + " |"]
    lines.append("|---|" + "---|" * (len(sizes) + 1))
    for key, words in names.items():
        cells = [f"{LIMITS[key]:g}" if key in LIMITS else ""]
        for size in sizes:
            value = size[key]
            cells.append(
                f"{value:,}" if isinstance(value, int) else f"{value:.2g}" if value < 1 else f"{value:.2f}"
            )
        lines.append(f"| {words} | " + " | ".join(cells) + " |")
    return (
        "# Scale\n\n`python benchmarks/scale.py`, limits for 20 M frames; files in the page cache, one busy core.\n\n"
        + "\n".join(lines)
        + f"\n\nOrder simulated: {simulated['epochs']:,} epochs ({simulated['steps']:,} steps) on chunks of 2 to 96"
        f" frames, 2 to 24 views: all ended, every frame in each of them; {simulated['repeat_rate_median']:.1%} of"
        f" frames shown twice ({simulated['repeat_rate_least']:.1%} to {simulated['repeat_rate_most']:.1%}: datasets"
        " of a few dozen chunks, whose epochs are rounded up to whole steps).\n"
    )


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--frames", type=int, nargs="+", default=[20_000_000, 200_000_000])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=1000, help="of the simulated order")
    parser.add_argument("--scratch", type=Path, help="folder for the datasets (default: the system's)")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure)))
        return
    simulated = simulate(options.epochs)
    print(json.dumps(simulated), flush=True)
    sizes = []
    for frames in options.frames:
        with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
            root = Path(scratch) / "data"
            write_dataset(root, frames)
            runs = []
            for _ in range(options.repeats):
                command = [sys.executable, __file__, "--measure", str(root)]
                runs.append(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))
            row = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
            sizes.append({key: int(v) if isinstance(runs[0][key], int) else v for key, v in row.items()})
            print(json.dumps(sizes[-1]), flush=True)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "scale.json").write_text(json.dumps({"sizes": sizes, "simulated": simulated}, indent=1) + "\n")
    (RESULTS / "scale.md").write_text(table(sizes, simulated))


if __name__ == "__main__":
    main()
