"""What a tiny MuM learns: against raw pixels, random weights and single-view MAE of equal compute.

Part one trains on rendered scenes and scores on held-out ones (other seeds, other textures): the cross-view gain,
the linear probe and zero-shot matching, each with its interval over scenes. Part two trains on photographs of five
scenes and scores on the sixth (needs MUM_TESTDATA). Every difference stands beside the bar it was set before the
first run; a missed bar is printed as missed. Nothing here tunes an evaluation.

Single-view MAE comes twice: `mae` draws every image of a step from another scene, as its users would, and so sees
more scenes a step than MuM; `mae_packs` gets MuM's very batches and differs from it in the decoder's attention alone.

    python benchmarks/learning.py                  # three seeds, some 60 minutes on two cores
    python benchmarks/learning.py --seeds 1 --steps 100 --folder /path/to/try

Finished parts are kept in the folder and not run again. Results: benchmarks/results/learning.{json,md}.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

import mum
import shards
from probes import suite
from probes.results.results import Results
from probes.statistics import Interval, interval, paired_interval

HERE = Path(__file__).parent
MODEL = "mum_vittiny_patch8"
SIZE = 64
SCORED_SCENE = "strecha_fountain_p11"
SINGLE_VIEW = {"mae": "single-view MAE", "mae_packs": "single-view MAE on MuM's batches"}
TRAINED_SCENES = ("llff_fern", "opensfm_lund", "sceaux_castle", "strecha_herzjesu_p25", "vggt_kitchen")


def main() -> int:
    """Train, score, write the tables; 0 if every bar is met, else 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="training seeds of each method")
    parser.add_argument(
        "--steps", type=int, default=1200, help="steps of MuM; single-view MAE gets equal compute"
    )
    parser.add_argument(
        "--folder", type=Path, default=Path("runs/learning"), help="where data and runs are kept"
    )
    parser.add_argument("--results", type=Path, default=HERE / "results", help="where the tables go")
    given = parser.parse_args()
    torch.set_num_threads(os.cpu_count() or 1)

    seeds = range(given.seeds)
    ratio = flops_an_image(views=6) / flops_an_image(views=1)
    single_view_steps = round(given.steps * ratio)
    steps = {"mum": given.steps, "mae": single_view_steps, "mae_packs": single_view_steps}
    print(f"one image costs {ratio:.3f} times as much among six views as alone: {steps} steps")
    report = {
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}",
        "seeds": given.seeds,
        "steps": steps,
        "rendered": rendered(given.folder / "rendered", seeds, steps),
    }
    if photographs := os.environ.get("MUM_TESTDATA"):
        report["photographs"] = photographed(
            given.folder / "photographs",
            seeds,
            # A picture of 96 px costs over twice as much as one of 64, and five scenes are soon learnt.
            {method: count // 4 for method, count in steps.items()},
            Path(photographs) / "data" / "real",
        )
    else:
        print("MUM_TESTDATA is not set: the part on photographs is left out")

    given.results.mkdir(parents=True, exist_ok=True)
    (given.results / "learning.json").write_text(json.dumps(report, indent=1) + "\n")
    text = as_markdown(report)
    (given.results / "learning.md").write_text(text)
    print(text)
    return (
        0 if all(bar["met"] for part in ("rendered", "photographs") for bar in bars_of(report, part)) else 1
    )


# -- the two parts


def rendered(folder: Path, seeds: Sequence[int], steps: dict[str, int]) -> dict[str, Any]:
    """Held-out rendered scenes: gain, linear probe, zero-shot."""
    data = folder / "shards"
    # Scenes of another seed than the default's, which was looked at while the renderer was made.
    count = ("--scenes", "1500", "--val-scenes", "64", "--seed", "1")
    command("-m", "shards", "build", "scenes", *count, "--out", data)
    runs = train(folder, data, seeds, steps, size=SIZE, views=6)
    gains = {method: gain(runs[method], data) for method in runs}
    results = score(folder, runs, seeds, [str(data)], [], size=SIZE)
    rows = rows_of(results, runs, seeds)

    linear, knn = rows["linear", "kept"], rows["knn", "kept"]
    bars = [
        bar("cross-view gain of MuM", gains["mum"], at_least=0.02),
        *(bar(f"cross-view gain of {SINGLE_VIEW[mae]}", gains[mae], at_most=0.005) for mae in SINGLE_VIEW),
        difference("linear PCK, MuM - random", linear["mum"], linear["random"], "pck_patch", at_least=0.03),
        difference(
            "linear PCK, MuM - raw pixels", linear["mum"], linear["pixels"], "pck_patch", at_least=0.045
        ),
        difference("linear EPE in px, random - MuM", linear["random"], linear["mum"], "epe", at_least=1.5),
    ]
    for mae, name in SINGLE_VIEW.items():
        bars += [
            difference(f"zero-shot EPE in px, {name} - MuM", knn[mae], knn["mum"], "epe", at_least=0.4),
            difference(f"zero-shot PCK, MuM - {name}", knn["mum"], knn[mae], "pck_patch", at_least=0.015),
        ]
    return {"bars": bars, "table": table_of(rows, results), "gain": gains}


def photographed(
    folder: Path, seeds: Sequence[int], steps: dict[str, int], photographs: Path
) -> dict[str, Any]:
    """Photographs: trained on five scenes, scored on the sixth by shared tracks."""
    data, size = folder / "shards", 96
    command(
        *("-m", "shards", "build", "colmap"),
        *(photographs / scene for scene in TRAINED_SCENES),
        *("--val-fraction", "0", "--out", data),
    )
    runs = train(folder, data, seeds, steps, size=size, views=4)
    results = score(
        folder,
        runs,
        seeds,
        [f"colmap:{photographs / SCORED_SCENE}"],
        [f"colmap:{photographs / scene}" for scene in TRAINED_SCENES],
        size=size,
    )
    rows = rows_of(results, runs, seeds)
    bars = [
        difference(
            f"{reading} PCK, MuM - random, position {position}",
            rows[reading, position]["mum"],
            rows[reading, position]["random"],
            "pck_patch",
            at_least=0.02 if position == "kept" else None,
            by="item",
        )
        for reading in ("linear", "knn")
        for position in ("kept", "removed")
    ]
    return {"bars": bars, "table": table_of(rows, results)}


# -- steps


def command(*arguments: object, log: Path | None = None) -> None:
    """Run one of the toolkit's own commands, printed as a person would type it; its words go to `log` if given."""
    line = [sys.executable, *map(str, arguments)]
    print("$", " ".join(line), flush=True)
    if log is None:
        subprocess.run(line, check=True)
        return
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as words:
        subprocess.run(line, check=True, stdout=words, stderr=words)


def train(
    folder: Path,
    data: Path,
    seeds: Sequence[int],
    steps: dict[str, int],
    *,
    size: int,
    views: int,
) -> dict[str, list[Path]]:
    """Pretrain MuM and single-view MAE from every seed; a run that was finished before returns at once."""
    frame_wise = "--model.no-scene-wide"
    options = {
        "mum": ("--views", views, views),
        "mae": ("--views", 1, 1, frame_wise),
        "mae_packs": ("--views", views, views, frame_wise),
    }
    runs = {method: [folder / f"{method}-{seed}" for seed in seeds] for method in options}

    def one(method: str, seed: int) -> None:
        out = runs[method][seed]
        command(
            *("-m", "pretrain", "mum_tiny", "--data", data, "--out", out, "--seed", seed),
            *("--steps", steps[method], "--size", size, *options[method]),
            *("--precision", "bf16", "--parallel.threads", 1),
            log=folder / f"{out.name}.log",
        )

    # A run on each core does more in all than one run on all cores.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done in [pool.submit(one, method, seed) for seed in seeds for method in options]:
            done.result()
    return runs


def score(
    folder: Path,
    runs: dict[str, list[Path]],
    seeds: Sequence[int],
    data: list[str],
    train_data: list[str],
    *,
    size: int,
) -> Results:
    """The matching probe over all runs, random weights from every seed, and raw pixels."""
    encoders = [f"{method}-{seed}={runs[method][seed]}" for method in runs for seed in seeds]
    encoders += [f"random-{seed}=random:{MODEL}:{seed}" for seed in seeds]
    return suite.run(
        ["matching"],
        [*encoders, "pixels=pixels:8"],
        data,
        train_data=train_data,
        out=folder / "probes",
        preset="small",
        items=384,
        size=size,
        readings=("knn", "linear"),
        progress=True,
        force=True,
    )


def gain(runs: Sequence[Path], data: Path, **masking: Any) -> Interval:
    """Cross-view gain on all held-out scenes, mean over runs; interval over groups of eight scenes.

    `masking` as of `mum.cross_view_gain`.
    """
    images, _ = shards.fixed_views(shards.open_dataset(data), split="val", scenes=64, views=6, size=SIZE)
    values, groups = [], []
    for run in runs:
        model = mum.load(run)
        for start in range(0, len(images) - 7, 8):
            part = images[start : start + 8]
            noise = mum.mask_noise(0, 0, start, (part.shape[0] * part.shape[1], (SIZE // 8) ** 2))
            own, strangers = mum.cross_view_gain(model, part, noise, **masking)
            values.append(strangers - own)
            groups.append(str(start))
    return interval(values, groups)


def flops_an_image(views: int) -> float:
    """Forward FLOPs of one image of a scene of so many views."""
    return mum.create_model(MODEL).flops([views], SIZE) / views


# -- figures


def rows_of(
    results: Results, runs: dict[str, list[Path]], seeds: Sequence[int]
) -> dict[tuple[str, str], dict[str, list]]:
    """Per-pair rows by (reading, position) and method, the seeds of a method together."""
    labels = {method: [f"{method}-{seed}" for seed in seeds] for method in [*runs, "random"]}
    labels["pixels"] = ["pixels"]
    return {
        (reading, position): {
            method: [
                # The depth of an encoder is not the same kind of number for raw pixels.
                row | {"layer": None}
                for label in names
                for row in results.select(encoder=label, reading=reading, position=position)
            ]
            for method, names in labels.items()
        }
        for reading in ("linear", "knn")
        for position in ("kept", "removed")
    }


def bar(
    name: str,
    value: Interval,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    clear: bool = False,
) -> dict[str, Any]:
    """A figure beside the bar it was set; `clear` also asks that its interval exclude 0."""
    met = (at_least is None or value.mean >= at_least) and (at_most is None or value.mean <= at_most)
    if clear:
        met = met and value.lo is not None and value.lo > 0
    wanted = f">= {at_least}" if at_least is not None else f"<= {at_most}" if at_most is not None else ""
    return {"name": name, "mean": value.mean, "lo": value.lo, "hi": value.hi, "bar": wanted, "met": bool(met)}


def difference(
    name: str, better: list, worse: list, metric: str, *, at_least: float | None, by: str = "scene"
) -> dict[str, Any]:
    """A paired difference beside its bar; its interval must exclude 0 too where there are scenes to resample."""
    a, b = by_item(better, metric), by_item(worse, metric)
    if a.keys() != b.keys():
        raise ValueError(f"{name}: the two sides were scored on different items")
    groups = {row["item"]: row[by] for row in better}
    value = paired_interval(list(a.values()), [b[item] for item in a], [groups[item] for item in a])
    return bar(name, value, at_least=at_least, clear=by == "scene")


def by_item(rows: list[dict[str, Any]], metric: str) -> dict[str, float]:
    """A metric of every item, the seeds' mean."""
    values: dict[str, list[float]] = {}
    for row in rows:
        values.setdefault(row["item"], []).append(row[metric])
    return {item: float(np.mean(found)) for item, found in values.items()}


def table_of(rows: dict[tuple[str, str], dict[str, list]], results: Results) -> list[dict[str, Any]]:
    """Means over pairs and seeds, by reading and method, with the spread of the seeds; then the baselines."""
    table = []
    for (reading, position), methods in rows.items():
        for method, found in methods.items():
            table.append({"reading": reading, "position": position, "encoder": method, **summary(found)})
    for name in dict.fromkeys(row["encoder"] for row in results.rows if row["reading"] == "baseline"):
        found = results.select(encoder=name, reading="baseline")
        table.append({"reading": "baseline", "position": "kept", "encoder": name, **summary(found)})
    return table


def summary(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Means of the metrics; the deviation of EPE and PCK between encoders (seeds)."""
    mean: Callable[[str], float] = lambda metric: float(np.mean([row[metric] for row in rows]))  # noqa: E731
    by_seed = {
        metric: [
            np.mean([row[metric] for row in rows if row["encoder"] == label])
            for label in dict.fromkeys(row["encoder"] for row in rows)
        ]
        for metric in ("epe", "pck_patch")
    }
    return {
        "epe": mean("epe"),
        "epe_seeds": float(np.std(by_seed["epe"])),
        "median": mean("median"),
        "pck_patch": mean("pck_patch"),
        "pck_seeds": float(np.std(by_seed["pck_patch"])),
    }


def bars_of(report: dict[str, Any], part: str) -> list[dict[str, Any]]:
    """The bars of a part; none where it was not run."""
    return report.get(part, {}).get("bars", [])


def as_markdown(report: dict[str, Any]) -> str:
    """The report as a person reads it."""
    lines = [
        "# What a tiny MuM learns",
        "",
        f"`python benchmarks/learning.py` on {report['machine']}; {report['seeds']} seeds, steps {report['steps']}.",
        "Intervals: 95 % bootstrap over scenes (over pairs for the photographs, which have one scored scene).",
    ]
    for part in ("rendered", "photographs"):
        if not (bars := bars_of(report, part)):
            continue
        lines += [
            "",
            f"## {part.capitalize()}",
            "",
            "| figure | mean | interval | bar | met |",
            "|---|---|---|---|---|",
        ]
        for b in bars:
            interval = "one scene" if b["lo"] is None else f"{b['lo']:.3f} to {b['hi']:.3f}"
            met = ("yes" if b["met"] else "**no**") if b["bar"] else "reported"
            lines.append(f"| {b['name']} | {b['mean']:.3f} | {interval} | {b['bar']} | {met} |")
        lines += [
            "",
            "| reading | position | encoder | EPE px (seeds) | median px | PCK (seeds) |",
            "|---|---|---|---|---|---|",
        ]
        for t in report[part]["table"]:
            lines.append(
                f"| {t['reading']} | {t['position']} | {t['encoder']} | {t['epe']:.2f} ± {t['epe_seeds']:.2f} "
                f"| {t['median']:.2f} | {t['pck_patch']:.3f} ± {t['pck_seeds']:.3f} |"
            )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
