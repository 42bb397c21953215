"""The report: one HTML page that needs nothing beside itself, made from the results, the pairs and the runs' files.

What leads: the chart and table a reader came for; then how scores fall with the viewpoint, matches to look at,
the runs behind the encoders, and at the end exactly what was measured, with hashes and the command.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes import charts
from probes.charts import Series
from probes.match_pictures import BAD, GOOD, MOST_LINES, MatchPictures, choose_pairs
from probes.pairs import PairSet
from probes.report_parts import escape, figure, legend, minus, plural
from probes.report_run import run_section
from probes.report_style import STYLE
from probes.results import Results, Row
from probes.runs import read_run
from probes.statistics import bins, bootstrap_mean

READING_NAMES = {
    "knn": "Nearest neighbour, nothing trained",
    "linear": "Linear probe",
    "linear-soft": "Linear probe, soft read-out",
    "baseline": "Without features",
}
ANGLE_STEP = 10


def page(
    results: Results,
    scored: Sequence[PairSet],
    predictions: Mapping[tuple[str, str], Mapping[str, NDArray]],
) -> str:
    """The whole page as HTML.

    Args:
        results: rows, table, encoders, notes.
        scored: the pairs of each data set, in the order of ``results.data``.
        predictions: of (data, encoder label), the predicted points (n, 2) of every pair.
    """
    styles = {encoder["label"]: index for index, encoder in enumerate(results.encoders)}
    table = results.table
    body = [_header(results)]
    for number, (data, found) in enumerate(zip(results.data, scored, strict=True)):
        rows = [row for row in table if row["data"] == data["data"]]
        body.append(_data_section(results, data, rows, styles, number, found, predictions))
    stories = [(e["label"], read_run(Path(e["run"]))) for e in results.encoders if e["run"]]
    body += [run_section(label, story) for label, story in stories]
    body.append(_method(results))
    title = "Matching by frozen features"
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{STYLE}</style></head>\n<body><main>\n" + "\n".join(body) + "\n</main></body></html>\n"
    )


def _header(results: Results) -> str:
    pairs = sum(data["pairs"] for data in results.data)
    scenes = sum(data["scenes"] for data in results.data)
    size = results.data[0]["size"]
    facts = [
        (len(results.encoders), "encoders"),
        (pairs, "pairs of views"),
        (scenes, "scene" if scenes == 1 else "scenes"),
        (f"{size} px", "evaluated size"),
    ]
    notes = "".join(f"<p class=note>{escape(note)}</p>" for note in results.notes)
    return (
        "<header><h1>Matching by frozen features</h1><p class=lead>A point is seen in one view; where is it in "
        "another? Each encoder answers with nothing but its patch features, which are frozen. The better they "
        "say where things are in space, the more answers land on the right patch.</p><dl class=facts>"
        + "".join(f"<div><dd>{escape(value)}</dd><dt>{name}</dt></div>" for value, name in facts)
        + f"</dl>{notes}</header>"
    )


def _data_section(
    results: Results,
    data: dict[str, Any],
    rows: Sequence[Row],
    styles: Mapping[str, int],
    number: int,
    found: PairSet,
    predictions: Mapping[tuple[str, str], Mapping[str, NDArray]],
) -> str:
    leading = _leading(rows)
    truth = (
        "depth, with a check that nothing stands in between"
        if data["truth"] == "depth"
        else "the points whose tracks both photographs share"
    )
    parts = [
        f"<section><h2>Scores on {escape(_short(data['data']))}</h2>",
        f"<p>{data['pairs']:,} pairs from {data['scenes']:,} {plural(data['scenes'], 'scene')}, "
        f"{data['queries']:,} points, viewpoints {results.identity['config']['angles'][0]:g} to "
        f"{results.identity['config']['angles'][1]:g} degrees apart (mean {data['mean_angle']:.0f}). "
        f"True positions come from {truth}.</p>",
        _glance(rows, styles, leading),
        _score_table(rows, styles),
        _difference_table(results, data, leading),
        _angle_charts(results, data, styles, leading),
        _match_section(results, data, styles, leading, number, found, predictions),
        "</section>",
    ]
    return "\n".join(parts)


def _glance(rows: Sequence[Row], styles: Mapping[str, int], leading: str) -> str:
    shown = [r for r in rows if r["reading"] == leading and r["position"] == "kept" and _is_last(r, rows)]
    shown += [r for r in rows if r["reading"] == "baseline" and r["encoder"].startswith("same position")]

    def chart(metric: str, x_label: str, digits: int) -> str:
        return charts.interval_chart(
            [
                (
                    r["encoder"].partition(" (")[0] if r["reading"] == "baseline" else r["encoder"],
                    r[metric],
                    r[f"{metric}_lo"],
                    r[f"{metric}_hi"],
                    styles.get(r["encoder"]),
                )
                for r in shown
            ],
            x_label=x_label,
            title=x_label,
            digits=digits,
        )

    return (
        f"<h3>At a glance: {escape(READING_NAMES[leading].lower())}</h3><div class=pair>"
        + figure(chart("pck_patch", "right patch: share of errors below one patch (more is better)", 3))
        + figure(chart("epe", "mean error in px (less is better)", 1))
        + "</div>"
    )


def _score_table(rows: Sequence[Row], styles: Mapping[str, int]) -> str:
    several = rows[0]["scenes"] > 1
    small_print = "; small print is the 95 % bootstrap interval over scenes" if several else ""
    layered = len({(r["encoder"], r["layer"]) for r in rows}) > len({r["encoder"] for r in rows})
    removed = {(r["reading"], r["encoder"], r["layer"]): r for r in rows if r["position"] == "removed"}
    head = (
        "<thead><tr><th rowspan=2 class=name>Encoder</th>"
        + ("<th rowspan=2>Layer</th>" if layered else "")
        + "<th colspan=2>Error, px</th><th colspan=4>Share of errors below</th>"
        "<th rowspan=2>Robust</th><th colspan=2 class=split>Position removed</th></tr>"
        "<tr><th>mean</th><th>median</th><th>1 px</th><th>3 px</th><th>5 px</th><th>one patch</th>"
        "<th class=split>error</th><th>one patch</th></tr></thead>"
    )
    body = []
    columns = 10 + layered
    for reading in dict.fromkeys(r["reading"] for r in rows):
        group = [r for r in rows if r["reading"] == reading and r["position"] == "kept"]
        body.append(f"<tr class=group><th colspan={columns}>{escape(READING_NAMES[reading])}</th></tr>")
        best_epe = min(r["epe"] for r in group)
        best_pck = max(r["pck_patch"] for r in group)
        for r in group:
            other = removed.get((r["reading"], r["encoder"], r["layer"]))
            rank = reading != "baseline" and len(group) > 1
            mark = charts.swatch(styles[r["encoder"]]) if r["encoder"] in styles else ""
            name = (
                r["encoder"] if r["encoder"] in styles else r["encoder"].replace(" (", ", grid ").rstrip(")")
            )
            body.append(
                f"<tr><td class=name>{mark}{escape(name)}</td>"
                + (f"<td>{r['layer'] or ''}</td>" if layered else "")
                + _cell(r, "epe", 1, best=rank and r["epe"] == best_epe)
                + f"<td>{r['median']:.1f}</td>"
                + "".join(f"<td>{r[metric]:.3f}</td>" for metric in ("pck1", "pck3", "pck5"))
                + _cell(r, "pck_patch", 3, best=rank and r["pck_patch"] == best_pck)
                + f"<td>{r['robust']:.3f}</td>"
                + (
                    _cell(other, "epe", 1, css="split") + _cell(other, "pck_patch", 3)
                    if other
                    else '<td class="split none">&ndash;</td><td class=none>&ndash;</td>'
                )
                + "</tr>"
            )
    return (
        "<h3>All scores</h3><div class=scroll><table>"
        + head
        + "<tbody>"
        + "".join(body)
        + "</tbody></table></div>"
        f"<p class=caption>Each number is a mean over the points of a pair, then over pairs{small_print}. "
        "<em>Position removed</em>: the mean feature of each grid position over "
        "the data set is subtracted first, which takes away what an encoder gains by merely knowing where in "
        "the picture a patch lies. <em>Same position</em> answers with the query's own place, <em>chance</em> "
        "with any patch, and the <em>oracle</em> with the true patch: no reading by patches can do better, except "
        "a soft one.</p>"
    )


def _difference_table(results: Results, data: dict[str, Any], leading: str) -> str:
    differences = [
        d for d in results.differences if d["data"] == data["data"] and d["reading"] in ("knn", leading)
    ]
    if not differences:
        return ""
    rows = []
    for d in differences:
        cells = []
        for metric, digits, sign in (("pck_patch", 3, 1), ("epe", 2, -1)):
            mean, lo, hi = d[metric], d[f"{metric}_lo"], d[f"{metric}_hi"]
            interval = "no interval" if lo is None else f"{lo:+.{digits}f} to {hi:+.{digits}f}"
            verdict = ""
            if lo is not None and (lo > 0 or hi < 0):
                verdict = "better" if mean * sign > 0 else "worse"
            elif lo is not None:
                verdict = "undecided"
            cells.append(
                f"<td>{minus(f'{mean:+.{digits}f}')}<small>{minus(interval)}</small></td>"
                f'<td class="verdict {verdict}">{verdict}</td>'
            )
        position = "" if d["position"] == "kept" else ", position removed"
        rows.append(
            f"<tr><td class=name>{escape(d['encoder'])} &minus; {escape(d['minus'])}</td>"
            f"<td class=name>{escape(READING_NAMES[d['reading']].partition(',')[0])}{position}</td>"
            f"{''.join(cells)}</tr>"
        )
    return (
        f"<h3>{escape(differences[0]['encoder'])} against the others</h3><div class=scroll><table><thead><tr>"
        "<th class=name>Difference on the same pairs</th><th class=name>Reading</th>"
        "<th colspan=2>Right patch</th><th colspan=2>Mean error, px</th></tr></thead><tbody>"
        + "".join(rows)
        + "</tbody></table></div><p class=caption>"
        + (
            "Paired bootstrap over scenes. A difference counts as decided where its 95 % interval excludes zero."
            if data["scenes"] > 1
            else "One scene cannot decide a difference: there is nothing to resample."
        )
        + "</p>"
    )


def _angle_charts(results: Results, data: dict[str, Any], styles: Mapping[str, int], leading: str) -> str:
    low, high = results.identity["config"]["angles"]
    edges = [*np.arange(low, high, ANGLE_STEP).tolist(), high]
    rows = [r for r in results.rows if r["data"] == data["data"] and r["position"] == "kept"]
    last = {e["label"]: max(e["layers"]) for e in results.encoders}
    lines: dict[str, tuple[int | None, list[Row]]] = {
        label: (style, [
            r for r in rows
            if r["encoder"] == label and r["reading"] == leading and r["layer"] == last[label]
        ])
        for label, style in styles.items()
    }  # fmt: skip
    baseline = next((r["encoder"] for r in rows if r["encoder"].startswith("same position")), None)
    if baseline:
        lines["same position"] = (None, [r for r in rows if r["encoder"] == baseline])

    def chart(metric: str, y_label: str) -> str:
        series = []
        for name, (style, chosen) in lines.items():
            place = bins(np.array([r["angle"] for r in chosen]), edges)
            x, means = [], []
            for k in range(len(edges) - 1):
                inside = [r for r, at in zip(chosen, place, strict=True) if at == k]
                if inside:
                    x.append((edges[k] + edges[k + 1]) / 2)
                    means.append(bootstrap_mean((r[metric] for r in inside), (r["scene"] for r in inside)))
            series.append(
                Series(
                    label=name,
                    x=x,
                    y=[m.mean for m in means],
                    lo=[m.lo for m in means] if style is not None else (),
                    hi=[m.hi for m in means] if style is not None else (),
                    style=style,
                )
            )
        return charts.line_chart(
            series, x_label="viewpoint angle, degrees", y_label=y_label, title=f"{y_label} by viewpoint"
        )

    place = bins(np.array([pair["angle"] for pair in next(iter(lines.values()))[1]]), edges)
    counts = ", ".join(
        f"{int((place == k).sum())} at {edges[k]:g}&ndash;{edges[k + 1]:g}°" for k in range(len(edges) - 1)
    )
    return (
        f"<h3>By viewpoint: {escape(READING_NAMES[leading].lower())}</h3>"
        + legend({name: style for name, (style, _) in lines.items()})
        + "<div class=pair>"
        + figure(chart("pck_patch", "right patch"))
        + figure(chart("epe", "mean error, px"))
        + f"</div><p class=caption>Means over the pairs of each bin of {ANGLE_STEP} degrees ({counts})"
        + ("; bands are 95 % bootstrap intervals over scenes" if data["scenes"] > 1 else "")
        + ".</p>"
    )


def _match_section(
    results: Results,
    data: dict[str, Any],
    styles: Mapping[str, int],
    leading: str,
    number: int,
    found: PairSet,
    predictions: Mapping[tuple[str, str], Mapping[str, NDArray]],
) -> str:
    shown = [label for label in styles if (found.data, label) in predictions]
    errors = {
        pair.name: float(np.mean([
            np.linalg.norm(predictions[found.data, label][pair.name] - pair.targets, axis=1).mean()
            for label in shown
        ]))
        for pair in found.pairs
    }  # fmt: skip
    pictures = MatchPictures(found, f"view{number}")
    grids = {e["label"]: max(e["grid"]) for e in results.encoders}
    blocks = []
    for name, pair in choose_pairs(found, errors):
        figures = []
        for label in shown:
            predicted = predictions[found.data, label][pair.name]
            step = data["size"] / grids[label]
            distance = np.linalg.norm(predicted - pair.targets, axis=1)
            right = int((distance < step).sum())
            text = (
                f"{label}: {right} of {len(distance)} on the right patch, mean error {distance.mean():.1f} px"
            )
            figures.append(
                f"<figure>{pictures.draw(pair, predicted, step, text)}<figcaption><b>{escape(label)}</b> {right} of "
                f"{len(distance)} right, mean error {distance.mean():.1f} px</figcaption></figure>"
            )
        blocks.append(
            f"<h4>{name.capitalize()} pair <small>{pair.angle:.0f}° apart, {escape(pair.scene)}</small></h4>"
            f"<div class=matches>{''.join(figures)}</div>"
        )
    return (
        f"<h3>Matches to look at: {escape(READING_NAMES[leading].lower())}</h3><p class=caption>"
        f'<span style="color:{GOOD}">━━ solid</span>: within one patch of the truth. '
        f'<span style="color:{BAD}">╍╍ dashed</span>: off by more. Up to {MOST_LINES} points a pair, the same for '
        "all. The pairs stand at the 10th, 50th and 90th percentile of the error averaged over all encoders; "
        "they were not picked by hand.</p>" + "".join(blocks) + pictures.definitions()
    )


def _method(results: Results) -> str:
    config = results.identity["config"]
    linear = config["linear"]
    size = config["size"]
    trained = "; ".join(
        f"{escape(_short(d['data']))}, {d['split']}: {d['pairs']:,} pairs of {d['scenes']:,} scenes"
        for d in results.train_data
    )
    items = [
        f"Images are cropped to their central square and resized to {size} &times; {size} px (antialiased bicubic); "
        "errors are in pixels of that size.",
        "Pooling: the mean over the points of a pair, then the plain mean over pairs. Intervals: 4,000 bootstrap "
        "resamples of whole scenes, percentile method.",
        f"Robust: share of errors below {32 * size / 448:.1f} px, which is 32 px at 448 in proportion. One patch: "
        + ", ".join(f"{escape(e['label'])} {size / max(e['grid']):g} px" for e in results.encoders)
        + ".",
        f"Viewpoint angle: median angle between both cameras' rays to the shared points. Pairs have at least "
        f"{config['min_queries']} visible points and are chosen by a hash of their names.",
        "Nearest neighbour: cosine similarity on the patch grid; the answer is the best patch's centre.",
    ]
    if "linear" in config["readings"]:
        items += [
            f"Linear probe: one linear layer ({linear['width']} outputs) shared by both views, on channels "
            "standardised by the training set; kernel exp((cos &minus; 1) / T) with "
            f"T = {linear['temperature']:g}; cross-entropy of the true patch over the whole grid; AdamW, "
            f"{linear['steps']} steps of {linear['pairs']} pairs, peak rate {linear['lr']:g}, seed "
            f"{config['seed']}. Read by the most likely patch; the soft read-out is the kernel's expectation "
            f"over all patch centres. Trained on {trained}, scored on other scenes.",
        ]
    encoders = "".join(
        f"<tr><td class=name>{escape(e['label'])}</td><td class=name><code>{escape(e['spec'])}</code></td>"
        f"<td>{e['patch']}</td><td>{e['grid'][0]} &times; {e['grid'][1]}</td>"
        f"<td>{', '.join(map(str, e['layers']))}</td>"
        f"<td class=name><code>{escape(str(e['identity'].get('weights', 'none'))[:16])}</code></td></tr>"
        for e in results.encoders
    )
    lists = "".join(
        f"<tr><td class=name><code>{escape(d['data'])}</code></td><td class=name>{escape(d['split'])}</td>"
        f"<td>{d['pairs']:,}</td><td>{d['images']:,}</td>"
        f"<td class=name>{escape('; '.join(f'{count} {why}' for why, count in d['refused'].items()) or 'none')}</td>"
        f"<td class=name><code>{d['hash'][:16]}</code></td></tr>"
        for d in [*results.data, *results.train_data]
    )
    versions = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    command = f"<pre>{escape(results.command)}</pre>" if results.command else ""
    return (
        "<section><h2>How it was measured</h2><ul>"
        + "".join(f"<li>{item}</li>" for item in items)
        + "</ul><h3>Encoders</h3><div class=scroll><table><thead><tr><th class=name>Name</th>"
        "<th class=name>Given as</th>"
        "<th>Patch</th><th>Grid</th><th>Layer</th><th class=name>Weights (SHA-256)</th></tr></thead><tbody>"
        f"{encoders}</tbody></table></div><h3>Lists of pairs</h3><div class=scroll><table><thead><tr>"
        "<th class=name>Data</th><th class=name>Split</th><th>Pairs</th><th>Images</th>"
        "<th class=name>Candidates not taken</th><th class=name>List (SHA-256)</th></tr></thead><tbody>"
        f"{lists}</tbody></table></div><h3>To repeat it</h3>{command}<p class=caption>{escape(versions)}. "
        f"Configuration <code>{results.hash[:16]}</code>. Every pair's numbers are in <code>pairs.csv</code>, the "
        "table in <code>table.csv</code>, all else in <code>results.json</code>, beside this page.</p></section>"
    )


def _leading(rows: Sequence[Row]) -> str:
    readings = {row["reading"] for row in rows}
    return "linear" if "linear" in readings else "knn"


def _is_last(row: Row, rows: Sequence[Row]) -> bool:
    return row["layer"] == max(r["layer"] for r in rows if r["encoder"] == row["encoder"])


def _cell(row: Row, metric: str, digits: int, *, best: bool = False, css: str = "") -> str:
    mean, lo, hi = row[metric], row[f"{metric}_lo"], row[f"{metric}_hi"]
    small = "" if lo is None else f"<small>{lo:.{digits}f}&ndash;{hi:.{digits}f}</small>"
    classes = " ".join(filter(None, (css, "best" if best else "")))
    return f'<td class="{classes}">{mean:.{digits}f}{small}</td>'


def _short(data: str) -> str:
    return Path(data.removeprefix("colmap:")).resolve().name or data
