"""Results without an encoder: probes, rows and tasks of drawn numbers, for tests of tables and pages."""

from typing import Any, ClassVar

import numpy as np

from probes.probe import Metric, Probe, Row
from probes.results.results import Results

SCENES = 12
PAIRS = 5
ENCODERS = ("trained", "random:mum_vittiny_patch8", "pixels")
DATA = "shards/held-out"


def auc5(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The exact AUC at 5 degrees: a score that is no mean of what its column holds."""
    return (weights @ np.clip(1 - values / 5, 0, None)) / weights.sum(axis=1)


class MadeProbe(Probe):
    """Opens nothing; only its metrics are asked for."""

    def refuses(self, benchmark: object) -> str | None: ...

    def config(self, benchmark: object, settings: object) -> Any: ...

    def open(self, benchmark: object, train: object, config: object) -> Any: ...


class Matching(MadeProbe):
    """Two readings, trained from two seeds, at two layers, with position kept and removed."""

    name = "matching"
    title = "Dense matching"
    question = "A point is seen in one view; where is it in another?"
    metrics = (
        Metric(name="pck_patch", label="right patch", digits=1, scale=100, unit="%"),
        Metric(name="epe", label="mean error", unit="px", better="less", digits=1),
        Metric(name="robust", label="robust", digits=1, scale=100, unit="%"),
        Metric(name="pck1", label="within 1 px", digits=1, scale=100, unit="%"),
    )
    headline = "epe"
    leading = ("linear", "knn")


class Pose(MadeProbe):
    """Errors with failures; its headline is made of a column of another name."""

    name = "pose"
    title = "Two-view pose"
    question = "How did the camera move between two views?"
    metrics = (
        Metric(
            name="auc5_exact", label="AUC@5° (exact)", scale=100, digits=1, column="error", statistic=auc5
        ),
        Metric(name="rotation_error", label="rotation error", unit="°", better="less", digits=2),
    )
    headline = "auc5_exact"
    leading = ("poselib-mutual",)


class Speed(MadeProbe):
    """One row an encoder."""

    name = "speed"
    title = "Speed"
    question = "What does an encoder cost?"
    metrics = (
        Metric(name="images_per_second", label="images per second", digits=1),
        Metric(name="parameters", label="parameters", unit="M", better="less", scale=1e-6, digits=1),
    )
    headline = "images_per_second"
    leading = ("forward",)
    timed: ClassVar[bool] = True


PROBES = {probe.name: probe for probe in (Matching(), Pose(), Speed())}


def matching_rows(skills: dict[str, float], *, scenes: int = SCENES, data: str = DATA) -> list[Row]:
    """Pairs that are hard or easy for everyone, and encoders that err by 1 / skill times as much."""
    rng = np.random.Generator(np.random.Philox(7))
    hard = {(s, p): rng.gamma(4, 4) * (1 + 0.1 * s) for s in range(scenes) for p in range(PAIRS)}
    rows: list[Row] = []
    for encoder, skill in skills.items():
        for layer in (1, 2):
            for reading, seeds in (("knn", (None,)), ("linear", (0, 1))):
                for position in ("kept", "removed"):
                    for seed in seeds:
                        for (s, p), error in hard.items():
                            epe = error / skill * (1.3 if layer == 1 else 1) * rng.uniform(0.9, 1.1)
                            epe *= (0.8 if reading == "linear" else 1) * (1.1 if position == "removed" else 1)
                            rows.append(
                                _row("matching", data, encoder, s, p, layer, reading, position, seed)
                                | {"angle": 10.0 + 10 * p, "overlap": round(0.9 - 0.15 * p, 2), "queries": 40}
                                | {"pck_patch": float(np.exp(-epe / 16)), "epe": float(epe)}
                                | {"robust": float(np.exp(-epe / 64)), "pck1": float(np.exp(-epe))}
                            )
    for encoder, factor in (("same position", 3.0), ("oracle (8 x 8)", 0.2), ("chance (8 x 8)", 5.0)):
        for (s, p), error in hard.items():
            epe = error * factor
            rows.append(
                _row("matching", data, encoder, s, p, None, "baseline", "kept", None)
                | {"angle": 10.0 + 10 * p, "overlap": round(0.9 - 0.15 * p, 2), "queries": 40}
                | {"pck_patch": float(np.exp(-epe / 16)), "epe": float(epe)}
                | {"robust": float(np.exp(-epe / 64)), "pck1": float(np.exp(-epe))}
            )
    return rows


def pose_rows(skills: dict[str, float], *, scenes: int = SCENES, data: str = DATA) -> list[Row]:
    """Pairs of which every eleventh fails under the last encoder."""
    rng = np.random.Generator(np.random.Philox(3))
    rows: list[Row] = []
    for encoder, skill in skills.items():
        for s in range(scenes):
            for p in range(PAIRS):
                failed = encoder == list(skills)[-1] and (s * PAIRS + p) % 11 == 0
                error = float("inf") if failed else float(rng.gamma(2, 1.5) / skill)
                rows.append(
                    _row("pose", data, encoder, s, p, 2, "poselib-mutual", "kept", None)
                    | {"failed": failed, "angle": 10.0 + 10 * p, "error": error, "rotation_error": error}
                )
    return rows


def _row(
    probe: str, data: str, encoder: str, s: int, p: int, layer: int | None, reading: str, position: str,
    seed: int | None,
) -> Row:  # fmt: skip
    return {
        "probe": probe,
        "data": data,
        "encoder": encoder,
        "item": f"scene{s:02d}/{p:04d}",
        "scene": f"scene{s:02d}",
        "layer": layer,
        "reading": reading,
        "position": position,
        "seed": seed,
        "failed": False,
    }


def speed_rows(skills: dict[str, float]) -> list[Row]:
    """A row an encoder."""
    return [
        _row("speed", DATA, encoder, 0, 0, None, "forward", "kept", None)
        | {"item": "all", "scene": "all", "images_per_second": 100 / skill, "parameters": 6e6 * skill}
        for encoder, skill in skills.items()
    ]


def task(probe: str, data: str = DATA, **more: Any) -> dict[str, Any]:
    """A task's entry."""
    return {
        "probe": probe,
        "data": data,
        "benchmark": "shards",
        "hash": "ab12" * 16,
        "facts": {"items": SCENES * PAIRS, "scenes": SCENES, "images": 120, "train_items": 60, "train_scenes": 9,
                  "truth": "depth", "split": "val"},
        "notes": [],
        "missing": [],
        "config": {"size": 64, "steps": 200, "lr": 0.001},
        "split": "val",
        "fit": "crop",
        "auc": "trapezoid",
    } | more  # fmt: skip


def encoder(label: str, **more: Any) -> dict[str, Any]:
    """An encoder's entry."""
    return {
        "label": label,
        "spec": label,
        "patch": 8,
        "grid": [8, 8],
        "layers": [1, 2],
        "run": None,
        "identity": {"kind": "timm", "weights": "0123456789abcdef" * 4},
    } | more


def results(*, scenes: int = SCENES, skills: dict[str, float] | None = None, **more: Any) -> Results:
    """Three encoders, the first the best by far, on three probes."""
    skills = skills or dict(zip(ENCODERS, (2.0, 1.02, 1.0), strict=True))
    arguments = {
        "identity": {"version": 1, "settings": {"size": 64, "seeds": [0, 1]}, "encoders": list(skills)},
        "encoders": [encoder(label) for label in skills],
        "tasks": [task("matching"), task("pose"), task("speed")],
        "rows": matching_rows(skills, scenes=scenes) + pose_rows(skills, scenes=scenes) + speed_rows(skills),
        "probes": PROBES,
        "notes": [],
        "versions": {"python": "3.12", "torch": "2.10"},
        "command": "python -m probes run matching --encoder '<b>'",
        "seconds": 12.5,
    }
    return Results(**arguments | more)
