"""Full loading against decoding alone and the usual Pillow + torchvision chain; two workers against one; memory.

Full loading is what a run pays for an image: plan, overlap, read by position, crc, decode, random resized crop to
224, flip, pack, hash of the batch. Decoding alone is simplejpeg on whole pictures, into warm memory, from bytes
already read. The chain is Image.open, convert, torchvision's RandomResizedCrop (bicubic), flip, float, normalise.
All see the same stored frames (short side 384, quality 90) in the same order, in turns of half a second on one core,
by CPU time; figures are medians over the turns, ratios medians of ratios. `whole` is full loading of the same
frames as if they had been stored without restart markers, as files that are kept as they came are. Workers are
timed by the wall clock, so run it on an idle machine: the load at the start stands in the result.

    python benchmarks/loader.py     # some three minutes on two cores; writes benchmarks/results/loader.{json,md}

Frames are the photographs of MUM_TESTDATA where that is set, else rendered scenes.
"""

import argparse
import io
import itertools
import json
import multiprocessing
import os
import platform
import resource
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import simplejpeg
import torch
from PIL import Image
from torchvision.transforms import v2

import shards.crc
import shards.decode
import shards.microbatch
from shards import Dataset, Loader, Plan
from shards.__main__ import main as shards_command
from shards.bench import rates, settings, step_members
from shards.decode import Decoder
from shards.microbatch import MicroBatches

RESULTS = Path(__file__).parent / "results"
SIZE, TURN = 224, 64
SCENES = (
    "strecha_fountain_p11",
    "strecha_herzjesu_p25",
    "sceaux_castle",
    "opensfm_lund",
    "vggt_kitchen",
    "llff_fern",
)
BARS = {
    "loading_to_decoding": "0.75, falls short below 0.70",
    "loading_to_chain": "2.0",
    "two_workers_to_one": "1.8, falls short below 1.6",
    "growth_mb": "0",
}


def make_dataset(out: Path) -> tuple[Dataset, str]:
    """Frames of short side 384 at quality 90, and what they show."""
    data = os.environ.get("MUM_TESTDATA")
    if data:
        paths = [str(Path(data) / "data" / "real" / scene) for scene in SCENES]
        source, shows = ["colmap", *paths], "photographs of six scenes, reduced from short side 480"
    else:
        source, shows = (
            ["scenes", "--scenes", "4", "--val-scenes", "0", "--frames", "12", "--size", "512"],
            "rendered",
        )
    if shards_command(["build", *source, "--out", str(out), "--short-side", "384", "--val-fraction", "0"]):
        raise SystemExit("the frames could not be built")
    return Dataset(out), shows


def seconds(work: Callable[[], Any]) -> float:
    """CPU seconds of this process, so that a neighbour's load counts little."""
    start = time.process_time()
    work()
    return time.process_time() - start


def ratios(dataset: Dataset, turns: int) -> dict[str, float]:
    """Images a second of each, and full loading's ratios to the others, on one core."""
    plan = Plan(dataset, settings(dataset, SIZE, TURN), split=None)
    batches, decoder, chain = in_process(plan), Decoder(), usual_chain()
    rows: list[dict[str, float]] = []
    faults = 0
    for number in range(turns + 1):
        jpegs = [dataset.read_jpeg(*member) for member in step_members(plan, number)]
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        row = {"loading": seconds(lambda number=number: batches[number])}
        faults += (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) if number else 0
        row["decoding"] = seconds(lambda jpegs=jpegs: [decoder.decode(jpeg) for jpeg in jpegs])
        with mock.patch.object(shards.decode, "cut", lambda *_: None):
            row["whole"] = seconds(lambda number=number: batches[number])
        row["chain"] = seconds(
            lambda jpegs=jpegs: torch.stack([chain(Image.open(io.BytesIO(j)).convert("RGB")) for j in jpegs])
        )
        rows.append(row)
    rows = rows[1:]  # the first turn warms up
    figures = {
        f"{name}_images_per_s": TURN / statistics.median(row[name] for row in rows) for name in rows[0]
    }
    for part, of in (
        ("loading", "decoding"),
        ("loading", "chain"),
        ("whole", "decoding"),
        ("whole", "chain"),
    ):
        found = [row[of] / row[part] for row in rows]
        figures[f"{part}_to_{of}"] = statistics.median(found)
        figures[f"{part}_to_{of}_quartiles"] = [round(q, 3) for q in statistics.quantiles(found, n=4)[::2]]
    return figures | {"page_faults_an_image": faults / turns / TURN}


def in_process(plan: Plan) -> MicroBatches:
    """What the loader runs without workers."""
    return MicroBatches(plan, [(0,)], cameras=False).with_ring(0, 0)


def usual_chain() -> v2.Compose:
    """Picture -> normalised crop, as most training code has it."""
    return v2.Compose(
        [
            v2.RandomResizedCrop(SIZE, scale=(0.2, 1.0), interpolation=v2.InterpolationMode.BICUBIC),
            v2.RandomHorizontalFlip(),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )


def stages(dataset: Dataset, turns: int) -> dict[str, float]:
    """Microseconds an image of full loading, by stage, timed inside it."""
    plan = Plan(dataset, settings(dataset, SIZE, TURN), split=None)
    batches, spent = in_process(plan), defaultdict(list)
    decoder = batches._decoder
    parts = {
        "plan": (plan, "lane_step"),
        "read and check": (dataset, "read_jpeg"),
        "cut out of the JPEG": (shards.decode, "cut"),
        "decode": (decoder, "_decode"),
        "resize and flip": (decoder, "resize_crop"),
        "hash of the batch": (shards.microbatch, "crc32"),
    }
    for number in range(turns):
        sums: dict[str, float] = dict.fromkeys(parts, 0.0)
        with timed(parts, sums):
            whole = seconds(lambda number=number: batches[number])
        sums["all the rest"] = whole - sum(sums.values())
        for name, value in sums.items():
            spent[name].append(value * 1e6 / TURN)
    return {name: statistics.median(values) for name, values in spent.items()}


@contextmanager
def timed(parts: dict[str, tuple[Any, str]], sums: dict[str, float]) -> Iterator[None]:
    """Add to `sums` the CPU seconds of each function while the block runs."""

    def watch(name: str, function: Callable) -> Callable:
        def watched(*args: Any, **options: Any) -> Any:
            start = time.process_time()
            try:
                return function(*args, **options)
            finally:
                sums[name] += time.process_time() - start

        return watched

    patches = [
        mock.patch.object(owner, attribute, watch(name, getattr(owner, attribute)))
        for name, (owner, attribute) in parts.items()
    ]
    for patch in patches:
        patch.start()
    try:
        yield
    finally:
        for patch in patches:
            patch.stop()


def scaling(dataset: Dataset, turns: int, length: float) -> dict[str, Any]:
    """Images a second by one and by two worker processes, in turns, by the wall clock."""
    config = settings(dataset, SIZE, 2 * TURN)
    one, two = [], []
    for _ in range(turns):
        one.append(statistics.median(rates(dataset, config, 1, length)))
        two.append(statistics.median(rates(dataset, config, 2, length)))
    return {
        "one_worker_images_per_s": statistics.median(one),
        "two_workers_images_per_s": statistics.median(two),
        "two_workers_to_one": statistics.median(b / a for a, b in zip(one, two, strict=True)),
    }


def memory(dataset: Dataset, frames: int) -> dict[str, Any]:
    """Memory of the trainer and two workers over `frames` frames, MB: all of it, and what is a worker's alone."""
    config = settings(dataset, SIZE, 2 * TURN)
    batches = iter(Loader(dataset, config, workers=2, split=None, cameras=False))
    total, rows = -(-frames // config.images_per_lane), []
    for number, _ in enumerate(itertools.islice(batches, total), 1):
        if number % (total // 20) == 0:
            workers = [process.pid for process in multiprocessing.active_children()]
            resident, own = zip(*(resident_and_own(pid) for pid in [os.getpid(), *workers]), strict=True)
            rows.append(
                {
                    "frames": number * config.images_per_lane,
                    "resident_mb": sum(resident),
                    "worker_own_mb": max(own[1:]),
                }
            )
    batches.close()
    settled = rows[len(rows) // 10 :]
    return {
        "frames": rows[-1]["frames"],
        "growth_mb": settled[-1]["resident_mb"] - settled[0]["resident_mb"],
        "resident_mb": settled[-1]["resident_mb"],
        "worker_own_mb": settled[-1]["worker_own_mb"],
        "samples": rows,
    }


def resident_and_own(pid: int) -> tuple[float, float]:
    """A process's share of what is resident (PSS), and what is its own alone, batches in flight apart (USS), MB."""
    resident = own = 0.0
    in_flight = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        field, *rest = line.split()
        if not field.endswith(":"):
            in_flight = "/dev/zero" in rest  # a mapping's first line: shared memory without a file
        elif field == "Pss:":
            resident += int(rest[0]) / 1024
        elif field in ("Private_Clean:", "Private_Dirty:") and not in_flight:
            own += int(rest[0]) / 1024
    return resident, own


def machine() -> str:
    """Processor, cores, libraries, and how busy it is."""
    names = [
        line.split(":")[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if "model name" in line
    ]
    crc = "ISA-L" if "isal" in shards.crc.crc32.__module__ else "zlib"
    return (
        f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores, torch {torch.__version__},"
        f" simplejpeg {simplejpeg.__version__}, crc32 by {crc}; load average {os.getloadavg()[0]:.1f} at the start"
    )


def page(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    speed, workers, kept = report["speed"], report["workers"], report["memory"]
    found = {**speed, **workers, **kept}
    lines = [
        "# Loading",
        "",
        f"`python benchmarks/loader.py` on {report['machine']}.",
        f"Frames: {report['frames']}, {report['kilobytes_a_frame']:.0f} KB each.",
        "",
        "| figure | value | aim |",
        "|---|---|---|",
        *(f"| {name.replace('_', ' ')} | {found[name]:.2f} | {bar} |" for name, bar in BARS.items()),
        "",
        "| on one core, by CPU time | images/s | of decoding alone | of the chain |",
        "|---|---|---|---|",
        f"| decoding alone | {speed['decoding_images_per_s']:.0f} | 1 | |",
    ]
    for name, label in (("loading", "full loading"), ("whole", "the same, files without restart markers")):
        low, high = speed[f"{name}_to_decoding_quartiles"]
        lines.append(
            f"| {label} | {speed[f'{name}_images_per_s']:.0f} | {speed[f'{name}_to_decoding']:.3f}"
            f" (quartiles {low:.3f}, {high:.3f}) | {speed[f'{name}_to_chain']:.2f} |"
        )
    lines += [
        f"| Pillow + torchvision | {speed['chain_images_per_s']:.0f} | | 1 |",
        "",
        "| stage of full loading | µs an image |",
        "|---|---|",
        *(f"| {name} | {value:.0f} |" for name, value in report["stages"].items()),
        "",
        f"Page faults: {speed['page_faults_an_image']:.2f} an image."
        f" One worker process brings {workers['one_worker_images_per_s']:.0f} images/s, two bring"
        f" {workers['two_workers_images_per_s']:.0f} (wall clock).",
        "",
        f"Over {kept['frames']:,} frames with two workers the three processes hold {kept['resident_mb']:.0f} MB (PSS),"
        f" {kept['growth_mb']:+.1f} MB since a tenth of the way; a worker's own, batches in flight"
        f" apart, is {kept['worker_own_mb']:.0f} MB.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Make the frames, measure, write and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--turns", type=int, default=40, help="turns of decoding, loading and the chain")
    parser.add_argument("--worker-turns", type=int, default=5, help="turns of one and of two workers")
    parser.add_argument("--worker-seconds", type=float, default=3, help="length of such a turn")
    parser.add_argument(
        "--memory-frames", type=int, default=100_000, help="frames of the run that watches memory"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for loader.json and loader.md")
    given = parser.parse_args()
    torch.set_num_threads(1)
    report: dict[str, Any] = {"machine": machine()}
    with tempfile.TemporaryDirectory() as folder:
        dataset, report["frames"] = make_dataset(Path(folder) / "frames")
        report["kilobytes_a_frame"] = dataset.header["bytes"] / dataset.header["frames"] / 1000
        report["speed"] = ratios(dataset, given.turns)
        report["stages"] = stages(dataset, given.turns // 2)
        report["workers"] = scaling(dataset, given.worker_turns, given.worker_seconds)
        report["memory"] = memory(dataset, given.memory_frames)
    given.results.mkdir(parents=True, exist_ok=True)
    (given.results / "loader.json").write_text(json.dumps(report, indent=1) + "\n")
    text = page(report)
    (given.results / "loader.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
