"""Quality per compute: matching error against training FLOPs for what the decoder is given to do.

Five ways to train the same tiny encoder on the same rendered scenes, each for the same training FLOPs (three
forward passes a step, by `model.flops()`), from several seeds: all masked patches decoded, half of them, a
quarter; single-view MAE; and an unmasked reference view in every scene, as CroCo has. Frozen features of
checkpoints along each run are matched between views of held-out scenes (other seeds, other textures),
zero-shot, and at the end by a linear probe too.

Differences to decoding all come with intervals that resample scenes and training seeds, and no sentence of the
results says more than its interval. Points along a run are of a learning rate that is still to fall: methods
are compared at the end.

    python benchmarks/quality.py                    # three seeds, about an hour on one core
    python benchmarks/quality.py --seeds 1 --steps 20 --scenes 24 --folder /path/to/try --results /path/to/try

Finished parts are kept in the folder and not run again. Results: benchmarks/results/quality.{json,md,svg}.
"""

import argparse
import json
import math
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from learning import MODEL, SIZE, command, gain

import mum
from probes import suite
from probes.charts import Series, line_chart, sheet
from probes.statistics import Interval

HERE = Path(__file__).parent
VIEWS = 6
IMAGES = 48
WHOLE = "all decoded"
METHODS: dict[str, tuple[str, ...]] = {
    WHOLE: (),
    "half decoded": ("--model.decode-fraction", "0.5"),
    "quarter decoded": ("--model.decode-fraction", "0.25"),
    "single-view MAE": ("--views", "1", "1", "--model.no-scene-wide"),
    "reference view": ("--model.reference-view",),
}
FORWARD: dict[str, dict[str, Any]] = {
    "half decoded": {"decode_fraction": 0.5},
    "quarter decoded": {"decode_fraction": 0.25},
    "reference view": {"reference_view": True},
}
LOWER_IS_BETTER = {"epe": True, "pck_patch": False}
Rows = list[dict[str, Any]]


def main() -> None:
    """Train, score, write the tables and the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="training seeds of each method")
    parser.add_argument(
        "--steps", type=int, default=800, help="steps with all decoded; others get equal FLOPs"
    )
    parser.add_argument("--points", type=int, default=4, help="checkpoints scored of each run")
    parser.add_argument("--scenes", type=int, default=1500, help="rendered scenes to train on")
    parser.add_argument(
        "--folder", type=Path, default=Path("runs/quality"), help="data and runs are kept here"
    )
    parser.add_argument("--results", type=Path, default=HERE / "results", help="where the tables go")
    given = parser.parse_args()
    torch.set_num_threads(1)

    data, seeds = given.folder / "shards", range(given.seeds)
    # Scenes of a seed that nothing else here is trained or looked at on.
    count = ("--scenes", given.scenes, "--val-scenes", "64", "--seed", "3")
    command("-m", "shards", "build", "scenes", *count, "--workers", 1, "--out", data)
    cost = {method: 3 * step_flops(method) for method in METHODS}
    steps = {method: round(given.steps * cost[WHOLE] / cost[method]) for method in METHODS}
    runs = train(given.folder, data, seeds, steps, given.points)
    found = score(given.folder, runs, data)

    report = {
        "machine": f"{platform.processor() or platform.machine()}, one thread, torch {torch.__version__}",
        "seeds": given.seeds,
        "steps": steps,
        "gflop_per_step": {method: cost[method] / 1e9 for method in METHODS},
        "curves": curves(found["knn"], runs, cost),
        "end": {reading: at_the_end(found[reading], runs) for reading in found},
        "gain": {
            method: gain([runs[method, seed] for seed in seeds], data, **reference_of(method))
            for method in METHODS
        },
    }
    given.results.mkdir(parents=True, exist_ok=True)
    (given.results / "quality.json").write_text(json.dumps(report, indent=1) + "\n")
    (given.results / "quality.md").write_text(text := as_markdown(report))
    (given.results / "quality.svg").write_text(plot(report))
    print(text)


# -- steps


def step_flops(method: str) -> int:
    """Forward FLOPs of one step."""
    model = mum.create_model(MODEL)
    if method == "single-view MAE":
        return model.flops([1] * IMAGES, SIZE)
    return model.flops([VIEWS] * (IMAGES // VIEWS), SIZE, **FORWARD.get(method, {}))


def reference_of(method: str) -> dict[str, Any]:
    """How the gain masks: as the method trains, but for the share decoded."""
    return {key: value for key, value in FORWARD.get(method, {}).items() if key == "reference_view"}


def train(
    folder: Path, data: Path, seeds: Sequence[int], steps: dict[str, int], points: int
) -> dict[tuple[str, int], Path]:
    """Pretrain by every method from every seed, one run after the other on one core."""
    runs = {}
    for seed in seeds:
        for method, options in METHODS.items():
            out = folder / f"{method.replace(' ', '-')}-{seed}"
            runs[method, seed] = out
            command(
                *("-m", "pretrain", "mum_tiny", "--data", data, "--out", out, "--seed", seed),
                *("--steps", steps[method], "--size", SIZE, "--views", VIEWS, VIEWS, *options),
                *("--precision", "bf16", "--parallel.threads", 1, "--workers", 0, "--evaluation.every", 0),
                *("--checkpoint.every", math.ceil(steps[method] / points), "--checkpoint.keep", 0),
                log=folder / f"{out.name}.log",
            )
    return runs


def checkpoints(run: Path) -> dict[int, Path]:
    """Weights of a run's checkpoints by step, oldest first."""
    files = sorted((run / "checkpoints").glob("step-*/model.safetensors"))
    return {int(file.parent.name.removeprefix("step-")): file for file in files}


def score(
    folder: Path, runs: dict[tuple[str, int], Path], data: Path
) -> dict[str, dict[tuple[str, int, int], Rows]]:
    """Rows of the matching probe by reading and (method, seed, step): the linear one of the last step alone."""
    files = {
        (method, seed, step): file
        for (method, seed), run in runs.items()
        for step, file in checkpoints(run).items()
    }
    last = {key: file for key, file in files.items() if key[2] == max(checkpoints(runs[key[:2]]))}
    scored = {}
    for reading, chosen in (("knn", files), ("linear", last)):
        # Labels are numbers, since a method's name has blanks.
        labels = {key: f"encoder-{number}" for number, key in enumerate(chosen)}
        results = suite.run(
            ["matching"],
            [f"{labels[key]}={file}" for key, file in chosen.items()],
            [str(data)],
            out=folder / f"probes-{reading}",
            preset="small",
            items=384,
            size=SIZE,
            readings=(reading,),
            force=True,
        )
        scored[reading] = {
            key: results.select(encoder=labels[key], reading=reading, position="kept") for key in chosen
        }
    return scored


# -- figures


def curves(
    rows: dict[tuple[str, int, int], Rows], runs: dict[tuple[str, int], Path], cost: dict[str, int]
) -> list[dict[str, Any]]:
    """Zero-shot figures at every checkpoint of each method, the seeds together."""
    lines = []
    for method in METHODS:
        seeds = [seed for m, seed in runs if m == method]
        for step in checkpoints(runs[method, seeds[0]]):
            line: dict[str, Any] = {"method": method, "step": step, "train_tflop": step * cost[method] / 1e12}
            for metric in LOWER_IS_BETTER:
                table, scenes = by_seed([rows[method, seed, step] for seed in seeds], metric)
                line[metric] = over_scenes_and_seeds(table, scenes)
                line[f"{metric}_seeds"] = table.mean(axis=1).tolist()
            lines.append(line)
    return lines


def at_the_end(
    rows: dict[tuple[str, int, int], Rows], runs: dict[tuple[str, int], Path]
) -> list[dict[str, Any]]:
    """Figures of the finished runs, and their differences to decoding all, paired by seed and pair of views."""
    tables: dict[tuple[str, str], tuple[np.ndarray, list[str]]] = {}
    for method in METHODS:
        last = {seed: max(checkpoints(run)) for (m, seed), run in runs.items() if m == method}
        for metric in LOWER_IS_BETTER:
            tables[method, metric] = by_seed(
                [rows[method, seed, step] for seed, step in last.items()], metric
            )
    lines = []
    for method in METHODS:
        line: dict[str, Any] = {"method": method}
        for metric in LOWER_IS_BETTER:
            table, scenes = tables[method, metric]
            line[metric] = over_scenes_and_seeds(table, scenes)
            line[f"{metric}_seeds"] = table.mean(axis=1).tolist()
            if method != WHOLE:
                line[f"{metric}_difference"] = over_scenes_and_seeds(table - tables[WHOLE, metric][0], scenes)
        lines.append(line)
    return lines


def by_seed(rows: list[Rows], metric: str) -> tuple[np.ndarray, list[str]]:
    """A metric as (seeds, pairs), pairs in one order, and each pair's scene."""
    ordered = [sorted(of_seed, key=lambda row: row["pair"]) for of_seed in rows]
    names = [[row["pair"] for row in of_seed] for of_seed in ordered]
    if any(name != names[0] for name in names):
        raise ValueError("the seeds were scored on different pairs")
    table = np.array([[row[metric] for row in of_seed] for of_seed in ordered])
    return table, [str(row["scene"]) for row in ordered[0]]


def over_scenes_and_seeds(table: np.ndarray, scenes: Sequence[str], samples: int = 4000) -> Interval:
    """Mean of (seeds, pairs) with a 95 % bootstrap interval that draws seeds and scenes, each with replacement.

    A paired difference is one of tables. With a handful of seeds the interval is the least that can be said.
    """
    rng = np.random.Generator(np.random.Philox(0))
    names, member = np.unique(np.asarray(scenes), return_inverse=True)
    sums = np.stack([np.bincount(member, weights=row) for row in table])
    counts = np.bincount(member).astype(float)
    seeds = rng.multinomial(len(table), np.full(len(table), 1 / len(table)), size=samples)
    drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=samples)
    means = np.einsum("bs,sn,bn->b", seeds, sums, drawn) / (len(table) * (drawn @ counts))
    lo, hi = np.quantile(means, [0.025, 0.975])
    return Interval(float(table.mean()), float(lo), float(hi))


def verdict(method: str, difference: Interval, metric: str) -> str:
    """What an interval of a difference to decoding all allows to say, and nothing beyond it."""
    if difference.lo <= 0 <= difference.hi:
        return f"{method} and {WHOLE} are not told apart"
    better = (difference.mean < 0) == LOWER_IS_BETTER[metric]
    return f"{method} is {'better' if better else 'worse'} than {WHOLE}"


# -- telling


def interval(value: Sequence[float], digits: int) -> str:
    """Mean and interval."""
    mean, lo, hi = value
    return f"{mean:.{digits}f} ({lo:.{digits}f} to {hi:.{digits}f})"


def as_markdown(report: dict[str, Any]) -> str:
    """The report as a person reads it."""
    total = report["steps"][WHOLE] * report["gflop_per_step"][WHOLE] / 1e3
    lines = [
        "# Quality per compute",
        "",
        f"`python benchmarks/quality.py` on {report['machine']}; {report['seeds']} seeds, "
        f"{total:.0f} TFLOP of training a run, whatever the method.",
        "Held-out rendered scenes; 95 % intervals resample scenes and seeds, and so few seeds leave more uncertain "
        "than they show.",
        "",
        "![matching error against training FLOPs](quality.svg)",
        "",
        "## At the end, at equal training FLOPs",
    ]
    names = {"knn": "zero-shot", "linear": "linear probe"}
    for reading, table in report["end"].items():
        lines += [
            "",
            f"### {names[reading].capitalize()}",
            "",
            "| method | steps | GFLOP a step | EPE px | minus all decoded | PCK | minus all decoded |",
            "|---|---|---|---|---|---|---|",
        ]
        for t in table:
            method = t["method"]
            epe, pck = (
                interval(t[key], digits) if key in t else ""
                for key, digits in (("epe_difference", 2), ("pck_patch_difference", 4))
            )
            lines.append(
                f"| {method} | {report['steps'][method]} | {report['gflop_per_step'][method]:.1f} "
                f"| {interval(t['epe'], 2)} | {epe} | {interval(t['pck_patch'], 3)} | {pck} |"
            )
    lines += ["", "## What the intervals allow to say", ""]
    lines += ["One in twenty such intervals lies beside 0 by chance, so a lone one says little.", ""]
    for reading, table in report["end"].items():
        for t in table:
            if t["method"] != WHOLE:
                told = {
                    metric: verdict(t["method"], Interval(*t[f"{metric}_difference"]), metric)
                    for metric in LOWER_IS_BETTER
                }
                lines.append(f"- {names[reading]}: by EPE {told['epe']}; by PCK {told['pck_patch']}.")
    lines += ["", "## Along the runs, zero-shot", "", "| method | step | training TFLOP | EPE px | PCK |"]
    lines += ["|---|---|---|---|---|"]
    lines += [
        f"| {c['method']} | {c['step']} | {c['train_tflop']:.1f} | {interval(c['epe'], 2)} "
        f"| {interval(c['pck_patch'], 3)} |"
        for c in report["curves"]
    ]
    lines += ["", "## Cross-view gain at the end", "", "| method | gain |", "|---|---|"]
    lines += [f"| {method} | {interval(value, 4)} |" for method, value in report["gain"].items()]
    lines += ["", "With a reference view the gain is that of the other views, which see it whole."]
    return "\n".join(lines) + "\n"


def plot(report: dict[str, Any]) -> str:
    """Zero-shot matching error and PCK against training FLOPs, a line a method."""
    charts = []
    for metric, name in (("epe", "zero-shot EPE, px"), ("pck_patch", "zero-shot PCK")):
        series = []
        for number, method in enumerate(METHODS):
            points = [c for c in report["curves"] if c["method"] == method]
            mean, lo, hi = zip(*(c[metric] for c in points), strict=True)
            x = [c["train_tflop"] for c in points]
            series.append(Series(label=method, x=x, y=mean, lo=lo, hi=hi, style=number))
        charts.append(line_chart(series, x_label="training TFLOP", y_label=name, title=name))
    heading = f"Held-out rendered scenes, {report['seeds']} seeds; bands: 95 % over scenes and seeds"
    return sheet(charts, series, heading=heading)


if __name__ == "__main__":
    main()
