"""Charts of how scores change: with the angle between views, with their overlap, with the layer, with the step."""

import re
from collections.abc import Mapping, Sequence

import numpy as np

from probes import charts, statistics
from probes.charts import Series
from probes.probe import BASELINE, Metric, Row
from probes.report.parts import escape, figure, legend
from probes.report.sides import baseline_styles, reading_name, short_baseline, styles
from probes.results.aggregate import Sample, number
from probes.results.results import Results

COVARIATES = {
    "angle": "viewpoint angle, degrees",
    "overlap": "overlap of the two views",
}
"""Columns of rows that scores are drawn over, with the words of their axis."""
LEFT_OUT = ("chance", "exact correspondences")
"""Baselines so far from all encoders that they would flatten the curves; tables have them."""
SWEEPS = 4
"""Most readings whose layers are drawn."""
_STEP = re.compile(r"(.*?)step-0*(\d+)")


def curves(results: Results, probe: str, data: str) -> str:
    """All that a task's rows have; empty where they have none."""
    parts = [_covariate(results, probe, data, column) for column in COVARIATES]
    parts = [part for part in [*parts, *_layers(results, probe, data), _steps(results, probe, data)] if part]
    if not parts:
        return ""
    lines = results.baselines(probe, data)
    shown = {**styles(results), **baseline_styles(lines)}
    shown = {name: style for name, style in shown.items() if name not in LEFT_OUT}
    words = "Bands are 95 % intervals over scenes." if _several_scenes(results, probe, data) else ""
    return (
        f"<h4>How the score changes</h4>{legend(shown)}<div class=charts>{''.join(parts)}</div>"
        f"<p class=caption>{words}</p>"
    )


def _covariate(results: Results, probe: str, data: str, column: str) -> str:
    metric, (reading, position) = results.headline(probe), results.leading(probe, data)
    lines = results.final(probe, data, reading, position)
    baselines = results.baselines(probe, data)
    values: dict[str, float] = {}
    for line in lines.values():
        for row in _rows(results, line):
            value = row.get(column)
            if isinstance(value, int | float) and not isinstance(value, bool) and np.isfinite(value):
                values[row["item"]] = float(value)
    edges = (
        charts.ticks(min(values.values()), max(values.values()), 6) if len(set(values.values())) > 1 else []
    )
    if len(edges) < 3:
        return ""
    items = sorted(values)
    place = dict(zip(items, statistics.bins(np.array([values[i] for i in items]), edges), strict=True))
    series = [
        _binned(results.sample(line, metric), place, edges, label, styles(results)[label])
        for label, line in lines.items()
    ]
    grey = baseline_styles(baselines)
    drawn: set[str] = set()
    for line in baselines:
        name = short_baseline(line["encoder"])
        # Of an oracle on several grids the first stands for all: the chart shows a shape, the table the numbers.
        if name not in drawn and name not in LEFT_OUT:
            drawn.add(name)
            series.append(_binned(results.sample(line, metric), place, edges, name, grey[name]))
    counts = [sum(at == k for at in place.values()) for k in range(len(edges) - 1)]
    said = ", ".join(
        f"{count} at {charts.label(edges[k], edges)}\N{EN DASH}{charts.label(edges[k + 1], edges)}"
        for k, count in enumerate(counts)
    )
    chart = charts.line_chart(
        [s for s in series if s is not None],
        x_label=COVARIATES[column],
        y_label=_axis(metric),
        title=f"{metric.label} by {COVARIATES[column]}",
        width=460,
    )
    return figure(f"{chart}<figcaption>Items a bin: {escape(said)}.</figcaption>") if chart else ""


def _binned(
    found: Sample | None, place: Mapping[str, int], edges: Sequence[float], label: str, style: int
) -> Series | None:
    if found is None:
        return None
    x, y, lo, hi = [], [], [], []
    metric = found.metric
    for k in range(len(edges) - 1):
        items = [item for item in found.items if place.get(item) == k]
        if not items:
            continue
        part = found.only(items)
        # Fewer resamples than tables rest on: these are bands a reader looks at.
        interval = statistics.interval(part.flat, part.scenes, part.statistic, samples=1000)
        if number(interval.mean) is None:
            continue
        x.append((edges[k] + edges[k + 1]) / 2)
        y.append(interval.mean * metric.scale)
        lo.append(_scaled(number(interval.lo), metric) if style >= 0 else None)
        hi.append(_scaled(number(interval.hi), metric) if style >= 0 else None)
    return Series(label=label, x=x, y=y, lo=lo, hi=hi, style=style) if x else None


def _layers(results: Results, probe: str, data: str) -> list[str]:
    """A chart for each reading that was scored at several layers."""
    metric = results.headline(probe)
    lines = [
        line for line in results.table
        if (line["probe"], line["data"], line["position"]) == (probe, data, "kept")
        and line["layer"] is not None and line["reading"] != BASELINE
    ]  # fmt: skip
    depth = {
        encoder["label"]: encoder.get("depth") or max(encoder["layers"], default=1)
        for encoder in results.encoders
    }
    order = {reading: rank for rank, reading in enumerate(results.probes[probe].leading)}
    readings = sorted(
        dict.fromkeys(line["reading"] for line in lines), key=lambda r: order.get(r, len(order))
    )
    parts = []
    for reading in readings:
        by_encoder: dict[str, list[Row]] = {}
        for line in lines:
            if line["reading"] == reading and line.get(metric.name) is not None:
                by_encoder.setdefault(line["encoder"], []).append(line)
        deep = {label for label, mine in by_encoder.items() if len(mine) > 1}
        if not deep or len(parts) == SWEEPS:
            continue
        same = len({depth[label] for label in deep}) == 1
        reach = [
            line["layer"] / (1 if same else depth[label]) for label in deep for line in by_encoder[label]
        ]
        ends = (min(reach), max(reach))
        series = [
            _swept(label, sorted(mine, key=lambda line: line["layer"]), metric, styles(results)[label],
                   1 if same else depth[label], flat=ends if label not in deep else None)
            for label, mine in by_encoder.items()
        ]  # fmt: skip
        marks = sorted({line["layer"] for label in deep for line in by_encoder[label]}) if same else []
        parts.append(
            figure(
                charts.line_chart(
                    series,
                    x_label=f"layer read, {reading_name(reading)}"
                    if same
                    else f"depth read, as a share; {reading_name(reading)}",
                    y_label=_axis(metric),
                    title=f"{metric.label} by layer, {reading_name(reading)}",
                    x_marks=marks[:: -(-len(marks) // 12)] if marks else (),
                    width=460,
                )
            )
        )
    return parts


def _swept(
    label: str,
    lines: Sequence[Row],
    metric: Metric,
    style: int,
    divide: int,
    *,
    flat: tuple[float, float] | None,
) -> Series:
    """Of an encoder with one layer, such as pixels, a level line from end to end."""
    x = [line["layer"] / divide for line in lines]
    if flat:
        x, lines = list(flat), [lines[0], lines[0]]
    name = metric.name
    return Series(
        label=label,
        x=x,
        y=[line[name] * metric.scale for line in lines],
        lo=[_scaled(line[f"{name}_lo"], metric) for line in lines],
        hi=[_scaled(line[f"{name}_hi"], metric) for line in lines],
        style=style,
        markers=flat is None,
    )


def _steps(results: Results, probe: str, data: str) -> str:
    """Over the step of training, where several encoders are checkpoints of one run."""
    metric, (reading, position) = results.headline(probe), results.leading(probe, data)
    lines = results.final(probe, data, reading, position)
    runs: dict[str, list[tuple[int, Row]]] = {}
    for encoder in results.encoders:
        found, line = _STEP.match(str(encoder["spec"])), lines.get(encoder["label"])
        if found and line and line.get(metric.name) is not None:
            runs.setdefault(found[1], []).append((int(found[2]), line))
    runs = {run: sorted(steps, key=lambda one: one[0]) for run, steps in runs.items() if len(steps) > 1}
    if not runs:
        return ""
    name = metric.name
    series = [
        Series(
            label=run,
            x=[step for step, _ in steps],
            y=[line[name] * metric.scale for _, line in steps],
            lo=[_scaled(line[f"{name}_lo"], metric) for _, line in steps],
            hi=[_scaled(line[f"{name}_hi"], metric) for _, line in steps],
            style=styles(results)[steps[-1][1]["encoder"]],
        )
        for run, steps in runs.items()
    ]
    chart = charts.line_chart(
        series,
        x_label="training step",
        y_label=_axis(metric),
        title=f"{metric.label} by training step",
        width=460,
    )
    return figure(f"{chart}<figcaption>Checkpoints of {escape(', '.join(runs))}.</figcaption>")


def _axis(metric: Metric) -> str:
    unit = f", {metric.unit}" if metric.unit else ""
    return f"{metric.label}{unit} ({metric.better} is better)"


def _scaled(value: float | None, metric: Metric) -> float | None:
    return None if value is None else value * metric.scale


def _rows(results: Results, line: Row) -> list[Row]:
    key = tuple(line[name] for name in ("probe", "data", "reading", "position", "encoder", "layer"))
    return results.groups.get(key, [])


def _several_scenes(results: Results, probe: str, data: str) -> bool:
    return any(line["scenes"] > 1 for line in results.table if (line["probe"], line["data"]) == (probe, data))
