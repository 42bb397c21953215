"""A training step on a CUDA GPU: images a second, MFU and peak memory of ViT-L/16 at 224 px in bf16, 128 images.

    make bench-gpu        # or: python benchmarks/step.py --device cuda --reference REFERENCE; under ten minutes

Rows: the reference, every attention backend, recomputation, float8, half of the masked patches decoded; then
the loader with the trainer against the trainer alone on one pack. Scenes have 2 to 12 views; the reference, which
packs only scenes of the same size, has 7 in each. Rows that cannot run, or for which time is out, say so.
"""

import gc
import itertools
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from step import Case, Stepper, write

import shards
from pretrain.devices import device_name, run_peak
from shards.build import build
from shards.sources import scenes

IMAGES, VIEWS, STEPS, WARM = 128, (2, 12), 20, 5
SECONDS = 480
"""after which no further row begins, so that a call stays under ten minutes"""
BARS = "at least 50 % MFU, 1.7 times the reference's images/s, at most 24 GB; loader and trainer 97 % of the trainer"


def view_counts() -> list[int]:
    """18 scenes of 2 to 12 views that make 128 images."""
    counts = [7] * 18
    for low, high in zip(range(0, 18, 2), range(1, 18, 2), strict=True):
        change = low // 2 % 6
        counts[low] -= min(change, 5)
        counts[high] += min(change, 5)
    counts[0] += IMAGES - sum(counts)
    return counts


def seconds_a_step(step: Callable[[], Any]) -> float:
    """Median wall time between ends of steps, by events on the device: nothing waits in between."""
    for _ in range(WARM):
        step()
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(STEPS + 1)]
    marks[0].record()
    for mark in marks[1:]:
        step()
        mark.record()
    torch.cuda.synchronize()
    return statistics.median(a.elapsed_time(b) / 1e3 for a, b in itertools.pairwise(marks))


def measure_row(name: str, reference: Path | None, kind: str, **changes: Any) -> dict[str, Any]:
    """One row; where it cannot run, the reason."""
    parallel = {key: changes.pop(key) for key in ("attention", "float8") if key in changes}
    images = 126 if kind == "reference" else IMAGES
    settings = {"compiled": kind == "ours", "wrapped": True, "recompute": "none"} | changes
    case = Case(
        model="large",
        precision="bf16",
        images=images,
        views=7 if kind == "reference" else 2,
        device="cuda",
        reference=str(reference),
        **settings,
    )
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    torch.compiler.reset()
    try:
        with ExitStack() as held:
            stepper = Stepper(kind, case, held, **parallel)
            if kind == "ours":
                stepper.views = view_counts()
            seconds = seconds_a_step(stepper.step)
            flops = None
            if kind == "ours":
                flops = 3 * stepper.model.flops(stepper.views, 224, decode_fraction=case.decode_fraction)
    except (ValueError, RuntimeError, ImportError) as error:
        return {"name": name, "missing": str(error).splitlines()[0]}
    peak = run_peak(torch.device("cuda", 0), "bf16")
    return {
        "name": name,
        "images_per_s": images / seconds,
        "mfu": flops / seconds / peak if flops and peak else None,
        "peak_gb": torch.cuda.max_memory_allocated() / 1e9,
    }


def measure_loader(reference: Path) -> dict[str, Any]:
    """Loader and trainer together against the trainer alone on the first pack."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as held:
        data = Path(folder) / "scenes"
        options = scenes.Options(scenes=64, val_scenes=1, frames=16, size=256)
        build("scenes", [], data, source_options=options, workers=os.cpu_count() or 1)
        config = shards.DataConfig(size=224, images_per_lane=IMAGES, views=VIEWS, lanes=1)
        workers = max(1, (os.cpu_count() or 2) - 2)
        loader = shards.Loader(
            shards.open_mixture([str(data)]),
            config,
            rank=0,
            world=1,
            lanes_at_once=1,
            workers=workers,
            start_step=0,
            cameras=False,
        )
        case = Case(
            model="large",
            precision="bf16",
            images=IMAGES,
            views=2,
            compiled=True,
            wrapped=True,
            device="cuda",
            reference=str(reference),
        )
        stepper = Stepper("ours", case, held)
        batches = iter(loader)

        def fed() -> None:
            batch = next(batches)
            stepper.images = batch.images.pin_memory().to(stepper.device, non_blocking=True)
            stepper.views = batch.views.tolist()
            stepper.step()

        together = seconds_a_step(fed)
        alone = seconds_a_step(stepper.step)
    return {"loader_share": alone / together, "workers": workers, "frames": 64 * 16}


def measure(reference: Path | None, keep: bool) -> None:
    """Every row, printed as it comes, and written."""
    if not torch.cuda.is_available():
        print("not measured: there is no CUDA GPU here")
        return
    if reference is None:
        print("not measured: give --reference, the path of a checkout (see --help)")
        return
    started = time.monotonic()
    name = device_name(torch.device("cuda", 0))
    wanted: list[tuple[str, str, dict[str, Any]]] = [
        ("varlen, compiled", "ours", {"attention": "varlen"}),
        ("reference", "reference", {}),
        ("sdpa, compiled", "ours", {"attention": "sdpa"}),
        ("varlen, compiled, decode fraction 0.5", "ours", {"attention": "varlen", "decode_fraction": 0.5}),
        ("varlen, eager", "ours", {"attention": "varlen", "compiled": False}),
        (
            "varlen, eager, selective",
            "ours",
            {"attention": "varlen", "compiled": False, "recompute": "selective"},
        ),
        ("varlen, compiled, blocks recomputed", "ours", {"attention": "varlen", "recompute": "block"}),
        ("xformers, compiled", "ours", {"attention": "xformers"}),
        ("varlen, compiled, float8", "ours", {"attention": "varlen", "float8": True}),
    ]
    rows: list[dict[str, Any]] = []
    shares: dict[str, Any] = {}
    lines = ["| step | images/s | times the reference's | MFU | peak GB |", "|---|---|---|---|---|"]
    base = math.nan
    for number, (title, kind, changes) in enumerate(wanted):
        if time.monotonic() - started > SECONDS:
            rows.append({"name": title, "missing": "time was out"})
        else:
            rows.append(measure_row(title, reference, kind, **changes))
        print(rows[-1], flush=True)
        if number == 1:
            base = rows[-1].get("images_per_s", math.nan)
            # Early, since it is one of the bars.
            try:
                shares = measure_loader(reference)
            except (ValueError, RuntimeError, OSError) as error:
                shares = {"missing": str(error).splitlines()[0]}
            print(shares, flush=True)
    for row in rows:
        if "missing" in row:
            lines.append(f"| {row['name']} | not measured: {row['missing']} | | | |")
            continue
        mfu = f"{100 * row['mfu']:.1f} %" if row["mfu"] else ""
        times = row["images_per_s"] / base
        lines.append(
            f"| {row['name']} | {row['images_per_s']:.0f} | {times:.2f} | {mfu} | {row['peak_gb']:.1f} |"
        )
    share = f"{100 * shares['loader_share']:.1f} %" if "loader_share" in shares else "not measured"
    about = f"{name}, torch {torch.__version__}; ViT-L/16, 224 px, {IMAGES} images, bf16. Bars: {BARS}."
    head = ["# A training step on a GPU", "", about, "", *lines, ""]
    head.append(f"Loader and trainer together reach {share} of the trainer alone on one pack.")
    print("\n".join(head))
    if keep:
        write("step_cuda", head, {"about": about, "rows": rows, "loader": shares})
