"""How it was measured: encoders, lists, recipes, statistics, what was chosen and on what, the command to repeat it."""

import json
from collections.abc import Mapping
from typing import Any

from probes.report.parts import breakable, escape, table
from probes.results.results import Results
from probes.words import short_data

_ABOUT = (
    "Scores are taken item by item (a pair, a frame, a sequence) and then averaged over items, or made of all items "
    "where the score says so (AUC, mean IoU). Items without a prediction count as failures, never as missing.",
    "Intervals: 95 %, from 4,000 bootstrap resamples of whole scenes, widened for few scenes. Items of one scene share "
    "its textures and its geometry, so they are not independent.",
    "Differences: on the same items; the p value is that of a test that swaps two encoders' results scene by scene, "
    "corrected by Holm's method over all comparisons of a score (the reading that the summary shows apart from all "
    "others). Where there are too few scenes for any difference to be decided, that is said.",
    "Nothing was chosen on scored items: what had to be chosen was chosen on held-out scenes of the training part and "
    "is listed below.",
)
_SHOWN = ("items", "scenes", "images", "train_items", "train_scenes")


def method(results: Results) -> str:
    """The section, as HTML."""
    parts = ['<section id="method"><h2>How it was measured</h2><ul>']
    parts += [f"<li>{escape(text)}</li>" for text in _ABOUT]
    parts += ["</ul>", _encoders(results), _tasks(results), _missing(results), _selections(results)]
    parts += [_recipes(results), _repeat(results), "</section>"]
    return "\n".join(part for part in parts if part)


def _encoders(results: Results) -> str:
    heads = ["<th class=name>Encoder</th>", "<th class=name>Given as</th>", "<th>Patch, px</th>", "<th>Grid</th>",
             "<th>Layers read</th>", "<th class=name>Weights (SHA-256)</th>",
             "<th class=name>Features</th>"]  # fmt: skip
    body = []
    for e in results.encoders:
        grid = " × ".join(map(str, e["grid"])) if e.get("grid") else ""  # noqa: RUF001
        identity = e["identity"]
        body.append(
            f"<tr><td class=name>{breakable(e['label'])}</td><td class=name><code>{escape(e['spec'])}</code></td>"
            f"<td>{escape(e.get('patch', ''))}</td><td>{escape(grid)}</td><td>{escape(_range(e['layers']))}</td>"
            f"<td class=name><code>{escape(str(identity.get('weights', 'none'))[:16])}</code></td>"
            f"<td class=name>{escape(identity.get('norm', ''))}</td></tr>"
        )
    return "<h3>Encoders</h3>" + table(heads, body)


def _tasks(results: Results) -> str:
    heads = ["<th class=name>Probe</th>", "<th class=name>Data</th>", "<th class=name>Part</th>", "<th>Items</th>",
             "<th>Scenes</th>", "<th>Images</th>", "<th>Training items</th>", "<th>Training scenes</th>",
             "<th class=name>Square by</th>", "<th class=name>Not taken</th>",
             "<th class=name>Lists (SHA-256)</th>"]  # fmt: skip
    body = []
    for task in results.tasks:
        known = task["facts"]
        counts = "".join(f"<td>{_count(known.get(name))}</td>" for name in _SHOWN)
        refused = known.get("refused")
        words = (
            "; ".join(f"{n} {why}" for why, n in refused.items())
            if isinstance(refused, Mapping)
            else refused or "none"
        )
        body.append(
            f"<tr><td class=name>{breakable(task['probe'])}</td>"
            f"<td class=name><code>{breakable(task['data'])}</code></td>"
            f"<td class=name>{escape(task.get('split', ''))}</td>{counts}"
            f"<td class=name>{escape(task.get('fit', ''))}</td>"
            f"<td class=name>{escape(words)}</td><td class=name><code>{escape(task['hash'][:16])}</code></td></tr>"
        )
    return "<h3>Lists</h3>" + table(heads, body)


def _missing(results: Results) -> str:
    parts = []
    for data, files in {task["data"]: task["missing"] for task in results.tasks if task["missing"]}.items():
        names = "\n".join(map(str, files))
        parts.append(f"<h4>{escape(short_data(data))}: {len(files):,}</h4><pre>{escape(names)}</pre>")
    return (
        "<h3>Missing files</h3><p>The benchmark's lists name them and the disk has them not; what they belong to was "
        "left out of every score, so these are not the benchmark's own figures.</p>" + "".join(parts)
        if parts
        else ""
    )


def _selections(results: Results) -> str:
    if not results.selections:
        return ""
    heads = ["<th class=name>Probe</th>", "<th class=name>Data</th>", "<th class=name>Encoder</th>",
             "<th class=name>Chosen</th>"]  # fmt: skip
    body = [
        f"<tr><td class=name>{escape(one['probe'])}</td><td class=name>{escape(short_data(one['data']))}</td>"
        f"<td class=name>{escape(one['encoder'])}</td><td class=name>{escape(_words(one['selected']))}</td></tr>"
        for one in results.selections
    ]
    return (
        f"<h3>What was chosen</h3><details><summary>{len(body)} choices, none on scored items</summary>"
        + table(heads, body)
        + "</details>"
    )


def _recipes(results: Results) -> str:
    parts = [
        f"<details><summary>{escape(task['probe'])} on {escape(short_data(task['data']))}</summary>"
        f"<pre>{escape(json.dumps({'config': task['config'], 'lists': task['facts']}, indent=1))}</pre></details>"
        for task in results.tasks
    ]
    return "<h3>Recipes</h3>" + "".join(parts)


def _repeat(results: Results) -> str:
    command = f"<pre>{escape(results.command)}</pre>" if results.command else ""
    versions = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    files = ", ".join(
        f"<code>rows-{escape(name)}.csv</code>" for name in dict.fromkeys(t["probe"] for t in results.tasks)
    )
    return (
        f"<h3>To repeat it</h3>{command}<p class=caption>{escape(versions)}. Configuration "
        f"<code>{results.hash[:16]}</code>; {results.seconds:,.0f} seconds. Every item's numbers are in {files}, the "
        "table in <code>table.csv</code> and <code>table.tex</code>, all else in <code>results.json</code>, beside "
        "this page.</p>"
    )


def _count(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else ""


def _range(layers: list[int]) -> str:
    if len(layers) > 2 and layers == list(range(layers[0], layers[-1] + 1)):
        return f"{layers[0]} to {layers[-1]}"
    return ", ".join(map(str, layers))


def _words(selected: Any) -> str:
    if isinstance(selected, Mapping):
        return "; ".join(f"{name}: {_words(value)}" for name, value in selected.items())
    if isinstance(selected, list | tuple):
        return ", ".join(map(_words, selected))
    return f"{selected:.4g}" if isinstance(selected, float) else str(selected)
