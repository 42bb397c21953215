"""A pretraining run as its files tell it: curves, state and pictures, read without the code that wrote them.

The files are the seam: ``config.json``, ``status.json``, ``metrics.jsonl``, ``probes.jsonl`` and ``pictures/`` of a
run folder. A run may still be going on, so a missing file or a torn last line is no error.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class ProbeCurve:
    """Scores of the frozen encoder by nearest-neighbour matching, taken while the run went on."""

    steps: list[int] = field(default_factory=list)
    pck: list[float] = field(default_factory=list)
    """Share of points on the right patch."""
    pck_ends: list[tuple[float | None, float | None]] = field(default_factory=list)
    """Ends of its interval; None where one scene gives none."""
    epe: list[float] = field(default_factory=list)
    """Mean error in px."""
    epe_ends: list[tuple[float | None, float | None]] = field(default_factory=list)
    pixels_pck: list[float] = field(default_factory=list)
    """The same of raw pixels, the baseline without weights."""
    pixels_epe: list[float] = field(default_factory=list)
    pairs: int = 0
    """Scored pairs of the newest score, and of how many scenes, at which size in px."""
    scenes: int = 0
    size: int = 0


@dataclass(frozen=True, kw_only=True)
class RunStory:
    """What a report shows of a run."""

    path: Path
    recipe: str | None
    state: str | None
    steps: list[int] = field(repr=False)
    loss: list[float] = field(repr=False)
    eval_steps: list[int] = field(repr=False)
    own: list[float] = field(repr=False)
    """Held-out masked loss with a scene's own other views."""
    strangers: list[float] = field(repr=False)
    """The same with strangers' views in their place."""
    gain: list[float] = field(repr=False)
    """Strangers minus own: the cross-view gain."""
    probe: ProbeCurve = field(repr=False)
    """Empty where the run was not probed."""
    picture: Path | None
    """The newest reconstruction."""
    picture_step: int | None


def read_run(path: Path) -> RunStory:
    """Read a run folder; parts that are not there stay empty."""
    rows = _rows(path / "metrics.jsonl")
    evaluated = [row for row in rows if isinstance(row.get("cross_view_gain"), int | float)]
    trained = [row for row in rows if isinstance(row.get("loss"), int | float)]
    pictures = sorted((path / "pictures").glob("reconstruction-*.png"))
    newest = pictures[-1] if pictures else None
    digits = newest.stem.rpartition("-")[2] if newest else ""
    return RunStory(
        path=path,
        recipe=_json(path / "config.json").get("recipe"),
        state=_json(path / "status.json").get("state"),
        steps=[row["step"] for row in trained],
        loss=[row["loss"] for row in trained],
        eval_steps=[row["step"] for row in evaluated],
        own=[row.get("val_loss", float("nan")) for row in evaluated],
        strangers=[row.get("val_loss_strangers", float("nan")) for row in evaluated],
        gain=[row["cross_view_gain"] for row in evaluated],
        probe=_probe_curve(_rows(path / "probes.jsonl")),
        picture=newest,
        picture_step=int(digits) if digits.isdecimal() else None,
    )


def smoothed(values: list[float], window: int) -> list[float]:
    """Mean over the last ``window`` values at each place (fewer at the start)."""
    out, total = [], 0.0
    for index, value in enumerate(values):
        total += value
        if index >= window:
            total -= values[index - window]
        out.append(total / min(index + 1, window))
    return out


def _probe_curve(rows: list[dict[str, Any]]) -> ProbeCurve:
    # Scores come when they are ready; one that failed tells no figure.
    scored = sorted((row for row in rows if "probe_pck" in row), key=lambda row: row["step"])
    if not scored:
        return ProbeCurve()
    return ProbeCurve(
        steps=[row["step"] for row in scored],
        pck=[row["probe_pck"] for row in scored],
        pck_ends=[(row.get("probe_pck_lo"), row.get("probe_pck_hi")) for row in scored],
        epe=[row["probe_epe"] for row in scored],
        epe_ends=[(row.get("probe_epe_lo"), row.get("probe_epe_hi")) for row in scored],
        pixels_pck=[row["pixels_pck"] for row in scored],
        pixels_epe=[row["pixels_epe"] for row in scored],
        **{name: scored[-1][name] for name in ("pairs", "scenes", "size")},
    )


def _rows(path: Path) -> list[dict[str, Any]]:
    rows = []
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            rows.append(row)
    return rows


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
