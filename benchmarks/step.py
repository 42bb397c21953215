"""A training step against the reference implementation: time and peak memory, same model, images and masks.

A step is what each trains with: forward, backward, gradient norm and AdamW, the reference as its own train.py has
it (autocast, unfused AdamW), ours as `pretrain` prepares a model. Two processes, one for each, hold equal weights
and take turns, so that a busy machine slows both; a ratio is the median over pairs of neighbours. Peak memory is
that of a process which does nothing else, in its second step, on a larger pack.

    git clone -b train-dev https://github.com/davnords/mum REFERENCE
    python benchmarks/step.py --reference REFERENCE                # CPU: half an hour; writes results/step.{json,md}
    python benchmarks/step.py --reference REFERENCE --device cuda  # what `make bench-gpu` does: minutes

Scenes have the same number of views here, because the reference packs no others.
"""

import argparse
import importlib.util
import json
import multiprocessing
import os
import platform
import resource
import statistics
import sys
import time
import types
from contextlib import ExitStack, nullcontext
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"
HEADS = {"base": 12, "large": 16}
SIZE, PATCHES = 224, 196


@dataclass(frozen=True, kw_only=True)
class Case:
    """What a process steps through."""

    model: str
    precision: str
    images: int
    views: int
    compiled: bool = False
    decode_fraction: float = 1.0
    recompute: str = "selective"
    wrapped: bool = False
    """each in its wrapper that sums gradients over ranks, of which there is one: DDP, and ours"""
    threads: int = 1
    device: str = "cpu"
    reference: str = ""

    @property
    def name(self) -> str:
        """A few words for a table."""
        part = f", decode fraction {self.decode_fraction:g}" if self.decode_fraction < 1 else ""
        return f"ViT-{self.model[0].upper()} {self.precision}{' compiled' if self.compiled else ''}{part}"


def bar(case: Case) -> float:
    """The largest share of the reference's time that is good enough."""
    if case.precision == "fp32":
        return 1.0
    if case.decode_fraction < 1:
        return {"base": 0.68, "large": 0.72}[case.model]
    return 0.9


MEMORY_BAR = 0.85


def build_reference(checkout: Path, model: str) -> torch.nn.Module:
    """The reference's model with random weights, by its own model.py; the rest of its package is not imported."""
    package = types.ModuleType("mum_reference")
    package.__path__ = [str(checkout / "mum")]
    sys.modules["mum_reference"] = package
    # Of its utilities the model wants these, and all others want packages that nobody else needs.
    spec = importlib.util.spec_from_file_location(
        "mum_reference.utils", checkout / "mum" / "utils" / "layers.py"
    )
    utils = importlib.util.module_from_spec(spec)
    sys.modules["mum_reference.utils"] = utils
    spec.loader.exec_module(utils)
    from mum_reference import model as theirs

    torch.manual_seed(0)
    built = {"base": theirs.vit_base, "large": theirs.vit_large}[model](norm_layer="layernormbf16")
    built.init_weights()
    return built


class Stepper:
    """A model and its optimizer, ready to step; `kind` is "reference" or "ours"."""

    def __init__(self, kind: str, case: Case, held: ExitStack, **parallel: Any) -> None:
        import mum
        from pretrain.optim import OptimConfig, build_optimizer
        from pretrain.parallel import ParallelConfig, World, prepare_model, process_group

        self.kind, self.case, self.device = kind, case, torch.device(case.device)
        config = ParallelConfig(
            threads=case.threads, recompute=case.recompute, compile=case.compiled, **parallel
        )
        world = World(rank=0, size=1, local_rank=0, local_size=1)
        device = torch.device("cuda", 0) if case.device == "cuda" else self.device
        mesh = held.enter_context(process_group(world, device, config))
        theirs = build_reference(Path(case.reference), case.model)
        if kind == "reference":
            self.model = theirs.to(self.device)
            if case.wrapped:
                self.model = torch.nn.parallel.DistributedDataParallel(self.model)
            groups = [
                {"params": [p for p in theirs.parameters() if (p.ndim <= 1) == flat], "weight_decay": decay}
                for flat, decay in ((True, 0.0), (False, 0.05))
            ]
            self.optimizer = torch.optim.AdamW(groups, lr=1e-4, betas=(0.9, 0.95))
        else:
            model = mum.load_reference(theirs.state_dict(), num_heads=HEADS[case.model]).train()
            mum.use_attention(model, config.attention, most_views=12)
            del theirs
            self.model = model.to(self.device)
            self.model = prepare_model(self.model, config, mesh if case.wrapped else None)
            self.optimizer = build_optimizer(self.model, OptimConfig())
            for group in self.optimizer.param_groups:
                group["lr"] = 1e-4
        generator = torch.Generator().manual_seed(1)
        self.images = torch.randn(case.images, 3, SIZE, SIZE, generator=generator).to(self.device)
        self.views = [case.views] * (case.images // case.views)
        if sum(self.views) != case.images:
            raise SystemExit(f"{case.images} images are no whole number of scenes of {case.views} views")
        self.number = 0

    def step(self) -> torch.Tensor:
        """Train on the one pack; the mask of step n is the same in both. Gives the loss, on the device."""
        case = self.case
        torch.manual_seed(self.number)
        self.number += 1
        half = torch.autocast(case.device, torch.bfloat16) if case.precision == "bf16" else nullcontext()
        with half:
            if self.kind == "reference":
                loss = self.model(self.images.unflatten(0, (-1, case.views)))[0]
            else:
                noise = torch.rand(case.images, PATCHES, device=self.device)
                fraction = case.decode_fraction
                loss = self.model(self.images, self.views, noise=noise, decode_fraction=fraction).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), float("inf"))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach()


def serve(kind: str, case: Case, line: Connection) -> None:
    """Step whenever asked: wall seconds, CPU seconds, loss; `None` ends it, with the peak memory in bytes."""
    with ExitStack() as held:
        stepper = Stepper(kind, case, held)
        line.send("ready")
        while line.recv() == "step":
            reset_peak()
            wall, cpu = time.perf_counter(), time.process_time()
            loss = stepper.step().item()
            line.send((time.perf_counter() - wall, time.process_time() - cpu, loss))
        line.send(peak())


def reset_peak() -> None:
    """Let the kernel's high-water mark of this process begin anew, where it can."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def peak() -> int:
    """The most main memory this process has held since `reset_peak`, in bytes."""
    try:
        status = Path("/proc/self/status").read_text()
        return 1024 * int(next(x for x in status.splitlines() if x.startswith("VmHWM")).split()[1])
    except OSError:
        return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


class Process:
    """One implementation in a process of its own."""

    def __init__(self, kind: str, case: Case) -> None:
        context = multiprocessing.get_context("spawn")
        self._line, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(kind, case, theirs), daemon=True)
        self._process.start()
        theirs.close()
        self._line.recv()

    def step(self) -> tuple[float, float, float]:
        """Wall seconds, CPU seconds and loss of one step."""
        self._line.send("step")
        return self._line.recv()

    def close(self) -> int:
        """End it; gives the peak memory of its last step."""
        self._line.send(None)
        told = self._line.recv()
        self._process.join()
        return told


def compare(case: Case, repetitions: int, memory_images: int) -> dict[str, Any]:
    """A row: ratios of time and memory, and by how much the first losses differ."""
    # The reference can do neither of these.
    plain = replace(case, compiled=False, decode_fraction=1.0)
    pair = {"reference": Process("reference", plain), "ours": Process("ours", case)}
    first = {kind: process.step()[2] for kind, process in pair.items()}
    times: dict[str, list[tuple[float, float, float]]] = {kind: [] for kind in pair}
    for number in range(repetitions):
        for kind in sorted(pair, reverse=bool(number % 2)):
            times[kind].append(pair[kind].step())
    for process in pair.values():
        process.close()
    row: dict[str, Any] = {"name": case.name, **asdict(case), "bar": bar(case)}
    row.pop("reference")
    for index, clock in enumerate(("wall", "cpu")):
        seconds = {kind: [told[index] for told in times[kind]] for kind in times}
        for kind, values in seconds.items():
            row[f"{kind}_{clock}"] = statistics.median(values)
        ratios = [a / b for a, b in zip(seconds["ours"], seconds["reference"], strict=True)]
        row[f"{clock}_ratio"] = statistics.median(ratios)
    row["loss_difference"] = abs(first["ours"] - first["reference"])
    peaks = {}
    for kind in pair:
        process = Process(kind, replace(plain if kind == "reference" else case, images=memory_images))
        process.step()
        process.step()
        peaks[kind] = process.close()
    row |= {f"{kind}_gb": value / 1e9 for kind, value in peaks.items()}
    row["memory_ratio"] = peaks["ours"] / peaks["reference"]
    return row


def cases(options: argparse.Namespace) -> list[Case]:
    """What is compared on a CPU."""
    common = {
        "views": options.views,
        "threads": options.threads,
        "reference": str(options.reference),
        "recompute": options.recompute,
        "wrapped": options.wrapped,
    }
    made = []
    for model in options.models:
        images = options.images or {"base": 16, "large": 8}[model]
        for precision, compiled, fraction in (
            ("fp32", False, 1.0),
            ("bf16", False, 1.0),
            ("bf16", True, 1.0),
            ("bf16", True, 0.5),
        ):
            made.append(
                Case(
                    model=model,
                    precision=precision,
                    compiled=compiled,
                    decode_fraction=fraction,
                    images=images,
                    **common,
                )
            )
    return [case for case in made if not options.only or options.only in case.name]


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Markdown."""
    lines = [
        "| step | reference s | ours s | CPU time, ratio | wall, ratio | bar | peak memory, ratio | bar | "
        "loss differs by |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row['name']} | {row['reference_cpu']:.2f} | {row['ours_cpu']:.2f} | {row['cpu_ratio']:.3f} | "
            f"{row['wall_ratio']:.3f} | {row['bar']:g} | {row['ours_gb']:.2f} / {row['reference_gb']:.2f} GB = "
            f"{row['memory_ratio']:.3f} | {MEMORY_BAR} | {row['loss_difference']:.1e} |"
        )
    return lines


def processor() -> str:
    """What the CPU calls itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(x.split(":")[1].strip() for x in lines if x.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def write(name: str, head: list[str], figures: dict[str, Any]) -> None:
    """Put the figures where the others are, as JSON and as a page."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(figures, indent=1) + "\n")
    (RESULTS / f"{name}.md").write_text("\n".join(head) + "\n")


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--reference", type=Path, default=os.environ.get("MUM_REFERENCE"), help="its checkout"
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--models", nargs="+", choices=list(HEADS), default=list(HEADS))
    parser.add_argument("--images", type=int, help="a step; 16 for ViT-B and 8 for ViT-L where not given")
    parser.add_argument("--memory-images", type=int, default=48, help="of the step whose memory is told")
    parser.add_argument("--views", type=int, default=4, help="a scene")
    parser.add_argument("--repetitions", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1, help="of each process")
    parser.add_argument("--recompute", choices=["none", "selective", "block"], default="selective")
    parser.add_argument(
        "--wrapped", action="store_true", help="each in its wrapper for several ranks, as one"
    )
    parser.add_argument("--only", help="words in the name of a row, such as 'B fp32'")
    parser.add_argument("--no-write", action="store_true", help="print only")
    options = parser.parse_args()
    if options.device == "cuda":
        from step_cuda import measure

        measure(options.reference, not options.no_write)
        return
    if options.reference is None:
        print("not measured: give --reference, the path of a checkout (see --help)")
        return
    rows, load = [], os.getloadavg()[0]
    for case in cases(options):
        rows.append(compare(case, options.repetitions, options.memory_images))
        print("\n".join(table(rows[-1:])[2:] if len(rows) > 1 else table(rows)), flush=True)
    if wrong := [x["name"] for x in rows if x["precision"] == "fp32" and x["loss_difference"] > 1e-5]:
        raise SystemExit(f"losses differ by more than 1e-5 at equal weights and masks: {', '.join(wrong)}")
    if not options.no_write:
        about = (
            f"{processor()}, {options.threads} thread(s) a process, torch {torch.__version__}, load {load:.1f} at "
            f"the start; medians of {options.repetitions} alternating repetitions, {options.views} views a scene, "
            f"memory at {options.memory_images} images."
        )
        head = ["# A training step against the reference", "", about, "", *table(rows)]
        write("step", head, {"about": about, "rows": rows})


if __name__ == "__main__":
    main()
