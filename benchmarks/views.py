"""What more views of a scene cost: time and memory of a training pass per image, S from 1 to 64, same images.

Every pack holds the same number of images, once as scenes of one view and up to one scene of all, so that the
number of views is all that differs. Each row is measured in a process of its own: the median time of a forward
and backward pass, the part of it that attention takes (torch's profiler), and the peak of memory above what the
process held before. Beside it stands the closed form of `model.flops()`. Per image nothing but attention
between views may grow.

    python benchmarks/views.py                                             # a quarter of an hour on a CPU
    python benchmarks/views.py --model mum_vitlarge_patch16 --device cuda --dtype bf16
    python benchmarks/views.py --model mum_vittiny_patch8 --size 64 --repeats 1 --results /path/to/try

Results: benchmarks/results/views.{json,md,svg}.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

import mum
from probes.charts import Series, line_chart, sheet

HERE = Path(__file__).parent
STEADY = 1.15
"""How much all but attention may take at most at the most views, against scenes of one view."""


def main() -> int:
    """Measure every number of views, write the tables; 0 if nothing but attention grows, else 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="mum_vitsmall_patch16", help="one of mum's presets")
    parser.add_argument("--size", type=int, default=224, help="side of an image, px")
    parser.add_argument(
        "--images", type=int, default=64, help="images of a pack, and the most views of a scene"
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--dtype", choices=("fp32", "bf16"), default="fp32", help="bf16: autocast")
    parser.add_argument("--repeats", type=int, default=2, help="timed passes of each row")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="where the tables go")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.one:
        print(json.dumps(measure(given, given.one)))
        return 0

    counts = [2**k for k in range(given.images.bit_length()) if given.images % 2**k == 0]
    rows = []
    for views in counts:
        line = [sys.executable, __file__, *sys.argv[1:], "--one", str(views)]
        # The profiler's library calls it an error that there is no GPU.
        quiet = os.environ | {"KINETO_LOG_LEVEL": "99"}
        told = subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True, env=quiet)
        rows.append(json.loads(told.stdout))
        print(f"S={views}: {rows[-1]['ms']:.1f} ms an image, {rows[-1]['mb']:.1f} MB an image", flush=True)
    on_cpu = f"{platform.processor() or platform.machine()}, one thread"
    report = {
        "machine": torch.cuda.get_device_name() if given.device == "cuda" else on_cpu,
        "torch": torch.__version__,
        "model": given.model,
        "size": given.size,
        "images": given.images,
        "dtype": given.dtype,
        "rows": rows,
        "rest_ratio": rows[-1]["rest_ms"] / rows[0]["rest_ms"],
        "memory_ratio": rows[-1]["mb"] / rows[0]["mb"],
    }
    report["met"] = max(report["rest_ratio"], report["memory_ratio"]) <= STEADY
    given.results.mkdir(parents=True, exist_ok=True)
    (given.results / "views.json").write_text(json.dumps(report, indent=1) + "\n")
    (given.results / "views.md").write_text(text := as_markdown(report))
    (given.results / "views.svg").write_text(plot(report))
    print(text)
    return 0 if report["met"] else 1


def measure(given: argparse.Namespace, views: int) -> dict[str, Any]:
    """One row: milliseconds and megabytes an image, in this process."""
    torch.manual_seed(0)
    device = torch.device(given.device)
    model = mum.create_model(given.model).to(device)
    images = torch.randint(256, (given.images, 3, given.size, given.size), dtype=torch.uint8, device=device)
    pack = [views] * (given.images // views)
    before = held(device)

    def step() -> float:
        began = seconds(device)
        with torch.autocast(device.type, torch.bfloat16) if given.dtype == "bf16" else nullcontext():
            loss = model(images, pack).loss
        loss.backward()
        taken = seconds(device) - began
        model.zero_grad(set_to_none=True)
        return taken

    step()
    peak = most_held(device)
    times = [step() for _ in range(given.repeats)]
    share = attention_share(step, device)
    milliseconds = 1e3 * median(times) / given.images
    return {
        "views": views,
        "train_gflop": 3 * model.flops(pack, given.size) / given.images / 1e9,
        "ms": milliseconds,
        "attention_ms": share * milliseconds,
        "rest_ms": (1 - share) * milliseconds,
        "mb": (peak - before) / given.images / 2**20,
    }


def seconds(device: torch.device) -> float:
    """The device's clock; on CPUs this process's own time, which others on the machine do not lengthen."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def held(device: torch.device) -> int:
    """Bytes in use now."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def most_held(device: torch.device) -> int:
    """The most bytes in use so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def attention_share(step: Any, device: torch.device) -> float:
    """Share of a pass spent in attention proper, forward and backward, without its projections."""
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device.type == "cuda")
    with profile(activities=activities) as profiler:
        step()
    attention = total = 0.0
    for event in profiler.events():
        if event.cpu_parent is None:
            total += taken(event, device)
        if outermost_attention(event):
            attention += taken(event, device)
    return attention / total


def taken(event: Any, device: torch.device) -> float:
    """Time of an operator with all it calls."""
    return event.device_time_total if device.type == "cuda" else event.cpu_time_total


def outermost_attention(event: Any) -> bool:
    """Whether an operator is attention's and none around it is."""
    if not of_attention(event.name):
        return False
    parent = event.cpu_parent
    while parent is not None and not of_attention(parent.name):
        parent = parent.cpu_parent
    return parent is None


def of_attention(name: str) -> bool:
    """Whether an operator, or the node of its backward pass, is called after attention."""
    return "attention" in name.lower() or "attn" in name.lower()


def as_markdown(report: dict[str, Any]) -> str:
    """The report as a person reads it."""
    rows, first = report["rows"], report["rows"][0]
    lines = [
        "# What more views cost",
        "",
        f"`python benchmarks/views.py` on {report['machine']}, torch {report['torch']}: {report['model']}, "
        f"{report['size']} px,",
        f"{report['dtype']}, packs of {report['images']} images. A forward and backward pass, per image.",
        "",
        "![time and memory an image against views of a scene](views.svg)",
        "",
        "| views of a scene | GFLOP | of one view's | time ms | of one view's | in attention ms | in all else ms "
        "| memory MB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        lines.append(
            f"| {r['views']} | {r['train_gflop']:.1f} | {r['train_gflop'] / first['train_gflop']:.2f} "
            f"| {r['ms']:.1f} | {r['ms'] / first['ms']:.2f} | {r['attention_ms']:.1f} | {r['rest_ms']:.1f} "
            f"| {r['mb']:.1f} |"
        )
    lines += [
        "",
        f"From {first['views']} to {rows[-1]['views']} views all but attention takes {report['rest_ratio']:.2f} times "
        f"as long and memory is {report['memory_ratio']:.2f} times as much; the closed form says 1.00 of both.",
        f"Nothing but attention grows (at most {STEADY:.2f}): {'yes' if report['met'] else '**no**'}.",
    ]
    return "\n".join(lines) + "\n"


def plot(report: dict[str, Any]) -> str:
    """Time beside the closed form scaled to one view's, its two parts, and memory."""
    rows, first = report["rows"], report["rows"][0]
    views = [r["views"] for r in rows]
    closed = [first["ms"] * r["train_gflop"] / first["train_gflop"] for r in rows]
    times = [
        Series(label="measured", x=views, y=[r["ms"] for r in rows], style=0),
        Series(
            label="closed form of the FLOPs, scaled to one view", x=views, y=closed, style=1, markers=False
        ),
        Series(label="all but attention", x=views, y=[r["rest_ms"] for r in rows], style=2),
        Series(label="attention", x=views, y=[r["attention_ms"] for r in rows], style=3),
    ]
    memory = [
        Series(label="measured", x=views, y=[r["mb"] for r in rows], style=0),
        Series(label="closed form", x=views, y=[first["mb"]] * len(rows), style=1, markers=False),
    ]
    axis = "views of a scene"
    charts = [
        line_chart(times, x_label=axis, y_label="ms an image", title="time", from_zero=True),
        line_chart(memory, x_label=axis, y_label="MB an image", title="memory", from_zero=True),
    ]
    return sheet(charts, times, heading=f"{report['model']}, {report['size']} px, {report['machine']}")


if __name__ == "__main__":
    sys.exit(main())
