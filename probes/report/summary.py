"""What leads the page: how much was measured, what to beware of, and every encoder's headline on every task."""

from collections.abc import Iterable, Mapping
from math import isfinite

from probes import charts
from probes.probe import Metric, Row
from probes.report.parts import breakable, escape, facts, minus, notes, plural, score, table
from probes.report.sides import baseline_name, best, reading_name, styles
from probes.results.results import Results, scene_notes
from probes.words import short_data, shown

Mark = tuple[str, str]
"""Text and class of a rank."""


def header(results: Results) -> str:
    """Title, what frozen features are, counts and notes."""
    data = dict.fromkeys(task["data"] for task in results.tasks)
    items = sum(task["facts"].get("items", 0) for task in results.tasks)
    probes = dict.fromkeys(task["probe"] for task in results.tasks)
    missing = len({(task["data"], file) for task in results.tasks for file in task["missing"]})
    said = []
    if missing:
        said.append(
            f"{missing:,} {plural(missing, 'file')} of the benchmarks' lists {'was' if missing == 1 else 'were'} "
            "missing: what they belong to was left out. They are listed at the end of this page."
        )
    of_tasks = {text for task in results.tasks for text in task["notes"]}
    said += [*scene_notes(results.tasks), *(text for text in results.notes if text not in of_tasks)]
    return (
        "<header><h1>What frozen features know</h1><p class=lead>Each image encoder below was frozen: it turns an "
        "image into one feature vector a patch, and learns nothing more. Every probe asks those features a question "
        "about the world in the images, and scores the answers.</p>"
        + facts([
            (len(results.encoders), plural(len(results.encoders), "encoder")),
            (len(probes), plural(len(probes), "probe")),
            (len(data), plural(len(data), "data set")),
            (f"{items:,}", f"scored {plural(items, 'item')}"),
        ])
        + notes(said)
        + "</header>"
    )  # fmt: skip


def matrix(results: Results) -> str:
    """A line for each probe and data set, a column for each encoder: headline, interval, rank."""
    style = styles(results)
    heads = ["<th class='name stick'>Probe</th>"]
    heads += [f"<th>{charts.swatch(style[label])}<br>{breakable(label)}</th>" for label in style]
    heads.append('<th class="name split">Without features</th>')
    body = [
        _line(results, task["probe"], task["data"], style)
        for task in results.tasks
        if results.leading(task["probe"], task["data"])[0]
    ]
    return (
        '<section id="summary"><h2>At a glance</h2>'
        + table(heads, body, "summary")
        + "<p class=caption>Small print: 95 % intervals, from resampling whole scenes; the bar below a score draws it "
        'on a scale of its line, better to the right. <span class="rank first">1</span> the best score, '
        '<span class="rank tied">≈1</span> one that the test cannot tell from the best (paired, by scenes, corrected '
        'for the number of comparisons), <span class="rank">2</span> one that is behind it. '
        "<em>Without features</em>: what can be had without looking, and the best that "
        "the grid of patches allows (oracle).</p></section>"
    )


def ranks(results: Results, probe: str, data: str, lines: Mapping[str, Row]) -> dict[str, Mark]:
    """Each encoder's place by its headline: 1, or ``≈1`` where the test cannot tell it from the best."""
    metric = results.headline(probe)
    known = [label for label, line in lines.items() if line.get(metric.name) is not None]
    if len(known) < 2:
        return {}
    order = sorted(known, key=lambda label: lines[label][metric.name] * _sign(metric))
    reading, position = results.leading(probe, data)
    decided = {
        frozenset((d["encoder"], d["minus"]))
        for d in results.differences
        if (d["probe"], d["data"], d["reading"], d["position"], d["metric"])
        == (probe, data, reading, position, metric.name)
        and d["verdict"] in ("better", "worse")
    }
    top = order[0]
    return {
        label: ("1", "first") if label == top
        else (str(place), "") if frozenset((top, label)) in decided or results.probes[probe].timed
        else ("≈1", "tied")
        for place, label in enumerate(order, 1)
    }  # fmt: skip


def _line(results: Results, probe: str, data: str, style: Mapping[str, int]) -> str:
    metric, (reading, position) = results.headline(probe), results.leading(probe, data)
    lines = results.final(probe, data, reading, position)
    baselines = results.baselines(probe, data)
    first, marks = best(lines, metric), ranks(results, probe, data, lines)
    scale = _scale(lines.values(), metric)
    unit = f", {metric.unit}" if metric.unit else ""
    arrow = "\N{DOWNWARDS ARROW}" if metric.better == "less" else "\N{UPWARDS ARROW}"
    cells = [
        f'<tr><th class=stick><a href="#{anchor(probe, data)}">{escape(results.probes[probe].title)}</a>'
        f"<small>{breakable(short_data(data))}; {escape(reading_name(reading))}; "
        f"{escape(metric.label)}{escape(unit)} {arrow}</small></th>"
    ]
    for label, index in style.items():
        line = lines.get(label)
        if line is None:
            cells.append("<td class=none>\N{EN DASH}</td>")
            continue
        text, css = marks.get(label, ("", ""))
        mark = f'<span class="rank {css}">{text}</span>' if text else ""
        cell = score(
            line, metric, best=line.get(metric.name) is not None and line[metric.name] == first, mark=mark
        )
        cells.append(cell.removesuffix("</td>") + _spark(line, metric, scale, index) + "</td>")
    floors = "".join(
        f"<small>{escape(baseline_name(line['encoder']))}: {escape(minus(shown(line[metric.name], metric)))}</small>"
        for line in baselines
        if line.get(metric.name) is not None
    )
    cells.append(f'<td class="name split">{floors or "<small>none</small>"}</td></tr>')
    return "".join(cells)


def anchor(probe: str, data: str) -> str:
    """The id of a task's section."""
    return f"{probe}-" + "".join(c if c.isalnum() else "-" for c in data)


def _sign(metric: Metric) -> int:
    return 1 if metric.better == "less" else -1


def _scale(lines: Iterable[Row], metric: Metric) -> tuple[float, float]:
    values = [line.get(f"{metric.name}{end}") for line in lines for end in ("", "_lo", "_hi")]
    finite = [value for value in values if value is not None and isfinite(value)]
    return (min(finite), max(finite)) if finite else (0.0, 1.0)


def _spark(line: Row, metric: Metric, scale: tuple[float, float], style: int) -> str:
    """The interval as a bar of 104 by 12 px, better to the right."""
    low, high = scale
    if not isfinite(line[metric.name] if line.get(metric.name) is not None else float("inf")) or high <= low:
        return ""

    def px(value: float) -> float:
        share = (min(max(value, low), high) - low) / (high - low)
        return 4 + 96 * (1 - share if metric.better == "less" else share)

    lo, hi = line[f"{metric.name}_lo"], line[f"{metric.name}_hi"]
    bar = ""
    if lo is not None and hi is not None:
        bar = (
            f'<line x1="{px(lo):.1f}" x2="{px(hi):.1f}" y1="6" y2="6" stroke="{charts.colour(style)}" '
            'stroke-width="4" stroke-opacity="0.45"/>'
        )
    return (
        '<svg class="spark" viewBox="0 0 104 12" aria-hidden="true"><line x1="2" x2="102" y1="6" y2="6" '
        f'stroke="currentColor" stroke-opacity="0.18"/>{bar}<circle cx="{px(line[metric.name]):.1f}" cy="6" r="3.4" '
        f'fill="{charts.colour(style)}"/></svg>'
    )
