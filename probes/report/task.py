"""The section of a probe on a data set: its scores, curves, pictures, differences and failures."""

from collections.abc import Mapping, Sequence
from typing import Any

from probes import charts
from probes.exhibits import Exhibit
from probes.probe import BASELINE, Metric, Row
from probes.report.curves import curves
from probes.report.differences import differences
from probes.report.gallery import gallery
from probes.report.parts import (
    breakable,
    escape,
    figure,
    head,
    notes,
    plural,
    score,
    sentence,
    table,
    wording,
)
from probes.report.sides import (
    baseline_name,
    baseline_styles,
    best,
    reading_name,
    short_baseline,
    styles,
)
from probes.report.summary import anchor
from probes.results.aggregate import compared
from probes.results.results import Results
from probes.words import NONE, short_data

LONG = 24
"""Letters from which on a head is given more width."""
LISTED = 60
"""Most failed items that the page lists; the rows have all."""


def task_section(results: Results, task: Mapping[str, Any], exhibits: Sequence[Exhibit]) -> str:
    """All about one probe on one data set, as HTML."""
    probe, data = task["probe"], task["data"]
    parts = [
        f'<h3 id="{anchor(probe, data)}">{escape(results.probes[probe].title)} on {escape(short_data(data))}</h3>'
    ]
    parts.append(f"<p>{escape(_counts(task))}</p>")
    parts.append(notes(task["notes"]))
    parts += [
        _glance(results, probe, data),
        _scores(results, probe, data),
        curves(results, probe, data),
        gallery(exhibits),
        differences(results, probe, data),
        _failures(results, probe, data),
    ]
    return "\n".join(part for part in parts if part)


def _counts(task: Mapping[str, Any]) -> str:
    known = task["facts"]

    def of(name: str, noun: str) -> str:
        # No scenes: nothing is resampled, as where time is measured.
        count = known.get(name)
        return f"{count:,} {plural(count, noun)}" if isinstance(count, int) and count else ""

    counted = [text for text in (of("scenes", "scene"), of("images", "image")) if text]
    text = of("items", "scored item") + (f" from {' and '.join(counted)}" if counted else "")
    if task.get("split"):
        text += f" ({task['split']})"
    if known.get("train_items"):
        trained = f"; heads were trained on {of('train_items', 'other item')}"
        text += trained + (f" of {of('train_scenes', 'scene')}" if known.get("train_scenes") else "")
    return f"{text}."


def _glance(results: Results, probe: str, data: str) -> str:
    reading, position = results.leading(probe, data)
    lines, baselines = results.final(probe, data, reading, position), results.baselines(probe, data)
    grey, style = baseline_styles(baselines), styles(results)
    parts = []
    for metric in compared(results.probes[probe])[:2]:
        rows = [(label, line, style[label]) for label, line in lines.items()]
        rows += [(line["encoder"], line, grey[short_baseline(line["encoder"])]) for line in baselines]
        drawn = [
            (label, *(_scaled(line.get(f"{metric.name}{end}"), metric) for end in ("", "_lo", "_hi")), index)
            for label, line, index in rows
            if line.get(metric.name) is not None
        ]
        if drawn:
            parts.append(
                figure(
                    charts.interval_chart(
                        drawn, x_label=wording(metric), title=wording(metric), digits=metric.digits, width=480
                    )
                )
            )
    return (
        f"<h4>{escape(sentence(reading_name(reading)))}</h4><div class=charts>{''.join(parts)}</div>"
        if parts
        else ""
    )


def _scores(results: Results, probe: str, data: str) -> str:
    metrics = results.probes[probe].metrics
    tested = compared(results.probes[probe])
    metrics = [*tested, *(metric for metric in metrics if metric not in tested)]
    mine = [line for line in results.table if (line["probe"], line["data"]) == (probe, data)]
    metrics = [metric for metric in metrics if any(line.get(metric.name) is not None for line in mine)]
    readings = dict.fromkeys(line["reading"] for line in mine if line["reading"] != BASELINE)
    removed = any(line["position"] == "removed" for line in mine)
    failed = any(line["failed"] for line in mine)
    layered = any(line["layer"] is not None for line in mine)
    heads = ['<th class="name stick">Encoder</th>', "<th>Layer</th>" if layered else ""]
    heads += [
        f'<th class="{"long" if len(head(metric)) > LONG else ""}">{escape(head(metric))}</th>'
        for metric in metrics
    ]
    heads.append("<th>Failed items</th>" if failed else "")
    split = tested[: 2 if removed else 0]
    heads += [f'<th class="{"" if k else "split"}">Position removed: {escape(metric.label)}</th>'
              for k, metric in enumerate(split)]  # fmt: skip
    width = sum(bool(head) for head in heads)
    body = []
    for reading in readings:
        body.append(_group(reading_name(reading), width))
        lines = results.final(probe, data, reading, "kept")
        without = results.final(probe, data, reading, "removed")
        first = {metric.name: best(lines, metric) for metric in tested}
        for label, line in lines.items():
            cells = [_name(label, styles(results)[label])]
            cells.append(f"<td>{line['layer'] or ''}</td>" if layered else "")
            for metric in metrics:
                top = first.get(metric.name)
                wins = top is not None and line.get(metric.name) == top
                cells.append(score(line, metric, best=wins, interval=metric in tested))
            cells.append(f"<td>{line['failed'] or ''}</td>" if failed else "")
            cells += [
                score(without.get(label, {}), metric, css="" if k else "split")
                for k, metric in enumerate(split)
            ]
            body.append(f"<tr>{''.join(cells)}</tr>")
    baselines = results.baselines(probe, data)
    if baselines:
        body.append(_group(reading_name(BASELINE), width))
    grey = baseline_styles(baselines)
    for line in baselines:
        name = line["encoder"]
        cells = [_name(baseline_name(name), grey[short_baseline(name)]), "<td></td>" if layered else ""]
        cells += [score(line, metric, interval=metric in tested) for metric in metrics]
        cells.append(f"<td>{line['failed'] or ''}</td>" if failed else "")
        cells += [f'<td class="none {"" if k else "split"}">{NONE}</td>' for k, _ in enumerate(split)]
        body.append(f"<tr>{''.join(cells)}</tr>")
    swept = any(len(layers) > 1 for layers in _layers_of(mine).values())
    return (
        "<h4>All scores</h4>"
        + table(heads, body)
        + "<p class=caption>Bold: the best of its column. Small print: 95 % intervals over scenes, and the standard "
        "deviation over training seeds where there are several. "
        + ("Each encoder at the layer that did best on held-out training scenes, or else at its last; the other layers "
           "are in <code>table.csv</code>. " if swept else "")
        + ("<em>Position removed</em>: the mean feature of every grid position is subtracted first, which takes away "
           "what an encoder gains by merely knowing where in the picture a patch lies. " if removed else "")
        + "</p>"
    )  # fmt: skip


def _failures(results: Results, probe: str, data: str) -> str:
    rows = [row for row in results.failures if (row["probe"], row["data"]) == (probe, data)]
    if not rows:
        return ""
    body = [
        f"<tr><td class=name>{escape(row['item'])}</td><td class=name>{escape(row['encoder'])}</td>"
        f"<td class=name>{escape(row['reading'])}</td><td>{'' if row['seed'] is None else row['seed']}</td></tr>"
        for row in rows[:LISTED]
    ]
    heads = [
        "<th class=name>Item</th>",
        "<th class=name>Encoder</th>",
        "<th class=name>Reading</th>",
        "<th>Seed</th>",
    ]
    more = (
        f"<p class=caption>The first {LISTED} of {len(rows):,}; all are in the rows.</p>"
        if len(rows) > LISTED
        else ""
    )
    return (
        f"<h4>Failed items</h4><p>{len(rows):,} {plural(len(rows), 'prediction')} failed: each counts with an infinite "
        f"error.</p><details><summary>List them</summary>{table(heads, body)}{more}</details>"
    )


def _layers_of(lines: Sequence[Row]) -> dict[tuple, set]:
    layers: dict[tuple, set] = {}
    for line in lines:
        layers.setdefault((line["reading"], line["position"], line["encoder"]), set()).add(line["layer"])
    return layers


def _group(text: str, width: int) -> str:
    return f"<tr class=group><th colspan={width}><span>{escape(sentence(text))}</span></th></tr>"


def _name(label: str, style: int) -> str:
    return f'<td class="name stick">{charts.swatch(style)}{breakable(label)}</td>'


def _scaled(value: float | None, metric: Metric) -> float | None:
    return None if value is None else value * metric.scale
