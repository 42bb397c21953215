"""The page of a comparison: what A and B differ in, and the items where they differ most."""

from collections.abc import Sequence

from probes import charts
from probes.probe import Metric, Row
from probes.report.differences import difference_cells
from probes.report.parts import (
    breakable,
    document,
    escape,
    facts,
    figure,
    head,
    minus,
    notes,
    plural,
    table,
)
from probes.report.sides import reading_name
from probes.results.compare import Comparison
from probes.words import short_data, shown

SHOWN = 8
"""Items on either side."""


def page(found: Comparison) -> str:
    """The whole page as HTML; it needs no network and no file beside it."""
    (a, b), names = found.heads, map(escape, found.names)
    encoders = f" ({escape(found.pair)})" if found.pair and found.pair not in f"{a} - {b}" else ""
    leading = found.leading()
    items = sum(len(rows) for _, rows in leading)
    body = [
        f"<header><h1>{breakable(a)} against {breakable(b)}</h1><p class=lead>Every difference is "
        f"{' minus '.join(names)}{encoders}, on the same items.</p>"
        + facts(
            [
                (len(leading), plural(len(leading), "headline")),
                (f"{items:,}", f"shared {plural(items, 'item')}"),
            ]
        )
        + notes(found.notes)
        + "</header>",
        '<section id="summary"><h2>Differences</h2>' + _table(found) + "</section>",
        *(_section(found, line, rows) for line, rows in leading),
        _origin(found),
    ]
    return document(f"{a} against {b}", body)


def _table(found: Comparison) -> str:
    a, b = map(breakable, found.heads)
    several = not found.pair
    heads = ["<th class='name stick'>Probe</th>", "<th class=name>Encoders</th>" if several else ""]
    heads += ["<th class=name>Score</th>"]
    heads += [f"<th>{a}</th>", f"<th>{b}</th>", "<th>Difference</th>", f"<th class=verdict>{a} is</th>"]
    body = []
    for line in sorted(found.differences, key=lambda line: not line["leads"]):
        metric = found.metric(line)
        position = "" if line["position"] == "kept" else ", position removed"
        body.append(
            f"<tr><td class='name stick'>{breakable(line['probe'])}<small>{breakable(short_data(line['data']))}; "
            f"{escape(reading_name(line['reading']))}{position}</small></td>"
            + (f"<td class=name>{_encoders(line)}</td>" if several else "")
            + f"<td class=name>{escape(head(metric))}</td>"
            f"<td>{escape(minus(shown(line['a'], metric)))}</td><td>{escape(minus(shown(line['b'], metric)))}</td>"
            f"{difference_cells(line, metric)}</tr>"
        )
    return (
        table(heads, body)
        + "<p class=caption>Small print: the 95 % interval of the difference over scenes, and p of the paired test "
        "that swaps whole scenes, after Holm's correction; decided where p is below 0.05.</p>"
    )


def _section(found: Comparison, line: Row, rows: Sequence[Row]) -> str:
    metric = found.metric(line)
    sign = 1 if metric.better == "more" else -1
    gains = [row for row in rows if sign * row["difference"] > 0]
    losses = [row for row in rows if sign * row["difference"] < 0]
    better, worse = len(gains), len(losses)
    title = f"{found.probes[line['probe']].title} on {short_data(line['data'])}"
    chart = charts.bar_chart(
        [sign * row["difference"] * metric.scale for row in rows],
        x_label=f"items, in the order of what {found.heads[0]} gains",
        y_label=f"gain in {metric.label}{f', {metric.unit}' if metric.unit else ''} "
        f"(upwards: {found.heads[0]} is better)",
        title=f"{title}: differences item by item",
    )
    a, b = map(escape, found.heads)
    ends = [("beats", gains[:SHOWN]), ("falls behind", losses[-SHOWN:][::-1])]
    tables = "".join(
        f"<div><h5>Where {a} {name} {b} most</h5>{_items(found, shown_rows, metric)}</div>"
        for name, shown_rows in ends
        if shown_rows
    )
    return (
        f"<section><h2>{escape(title)}</h2><p>{_encoders(line)}: of {len(rows):,} {plural(len(rows), 'item')} {a} does "
        f"better on {better:,}, worse on {worse:,}, the same on {len(rows) - better - worse:,}.</p>"
        f"{figure(chart)}<div class=charts>{tables}</div></section>"
    )


def _items(found: Comparison, rows: Sequence[Row], metric: Metric) -> str:
    heads = [
        "<th class=name>Item</th>",
        *(f"<th>{escape(name)}</th>" for name in found.heads),
        "<th>Difference</th>",
    ]
    body = [
        f"<tr><td class=name>{breakable(row['item'])}</td>"
        + "".join(f"<td>{escape(minus(shown(row[side], metric)))}</td>" for side in ("a", "b"))
        + f"<td>{escape(minus(shown(row['difference'], metric, sign=True)))}</td></tr>"
        for row in rows
    ]
    return table(heads, body)


def _origin(found: Comparison) -> str:
    parts = [
        f"<h4>{escape(name)}</h4><pre>{escape(command or '')}</pre>"
        f"<p class=caption>Configuration <code>{hash_[:16]}</code></p>"
        for name, command, hash_ in zip(found.names, found.commands, found.hashes, strict=True)
    ]
    return f'<section id="origin"><h2>Where they come from</h2>{"".join(parts)}</section>'


def _encoders(line: Row) -> str:
    a, b = line["encoder"], line["minus"]
    return breakable(a) if a == b else f"{breakable(a)} \N{MINUS SIGN} {breakable(b)}"
