"""Who is drawn how and called what: a style for each encoder all over a page, grey baselines, readings in words."""

from collections.abc import Mapping, Sequence

from probes.probe import BASELINE, Metric, Row
from probes.results.results import Results


def styles(results: Results) -> dict[str, int]:
    """Style of every encoder by label."""
    return {label: index for index, label in enumerate(results.labels)}


def baseline_styles(lines: Sequence[Row]) -> dict[str, int]:
    """Grey styles of the baselines, by their name without the grid: those of several grids are drawn alike."""
    names = dict.fromkeys(short_baseline(line["encoder"]) for line in lines)
    return {name: -1 - index for index, name in enumerate(names)}


def short_baseline(name: str) -> str:
    """A baseline without its grid: ``oracle`` of ``oracle (8 x 8)``."""
    return name.partition(" (")[0]


def baseline_name(name: str) -> str:
    """A baseline as tables show it: ``oracle, grid 8 × 8``."""
    short, bracket, grid = name.partition(" (")
    return f"{short}, grid {grid.rstrip(')').replace(' x ', ' × ')}" if bracket and " x " in grid else name  # noqa: RUF001


def reading_name(reading: str) -> str:
    """A reading in words."""
    return {
        "knn": "nearest neighbour, nothing trained",
        "linear": "linear probe",
        "linear-soft": "linear probe, soft read-out",
        "linear-learned-t": "linear probe, learned temperature",
        "linear-layer-norm": "linear probe after a layer norm",
        "linear-no-norm": "linear probe on features as they are",
        "soft-argmax": "expected place (soft argmax)",
        "argmax": "most similar patch",
        "dpt": "DPT-light head",
        "poselib-mutual": "mutual nearest neighbours, PoseLib",
        "poselib-linear": "linear probe's matches, PoseLib",
        "opencv-linear": "linear probe's matches, OpenCV",
        "head": "learned head",
        BASELINE: "without features",
    }.get(reading, reading)


def best(lines: Mapping[str, Row], metric: Metric) -> float | None:
    """The best score among encoders; None where fewer than two have one."""
    values = [line[metric.name] for line in lines.values() if line.get(metric.name) is not None]
    if len(values) < 2:
        return None
    return min(values) if metric.better == "less" else max(values)
