"""Small parts that the sections share: legends, figures, tables, words; and the frame of a page."""

import html
import re
from collections.abc import Mapping, Sequence
from math import isinf
from typing import Any

from probes import charts
from probes.probe import Metric, Row
from probes.report.style import STYLE
from probes.words import shown

_SEPARATOR = re.compile(r"([:_/=-])(?=\w)")


def document(title: str, body: Sequence[str]) -> str:
    """A whole page that asks for nothing beside itself."""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        # Browsers otherwise ask the host for an icon.
        '<link rel="icon" href="data:,">'
        f"<style>{STYLE}</style></head>\n<body><main>\n" + "\n".join(body) + "\n</main></body></html>\n"
    )


def legend(styles: Mapping[str, int | None]) -> str:
    """What is drawn how: names and the style of their line; None is a baseline."""
    items = "".join(f"<span>{charts.swatch(style)}{escape(name)}</span>" for name, style in styles.items())
    return f"<p class=legend>{items}</p>"


def figure(content: str) -> str:
    """A figure around a chart or picture."""
    return f"<figure>{content}</figure>"


def table(heads: Sequence[str], body: Sequence[str], css: str = "") -> str:
    """A table that scrolls sideways where it is too wide; heads and rows are HTML."""
    return (
        f'<div class=scroll><table class="{css}"><thead><tr>{"".join(heads)}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def facts(pairs: Sequence[tuple[Any, str]]) -> str:
    """Large figures, each over its noun."""
    return (
        "<dl class=facts>"
        + "".join(f"<div><dd>{escape(value)}</dd><dt>{escape(name)}</dt></div>" for value, name in pairs)
        + "</dl>"
    )


def notes(texts: Sequence[str]) -> str:
    """What a reader must not miss, each said once."""
    unique = list(dict.fromkeys(texts))
    if len(unique) < 2:
        return "".join(f"<p class=note>{escape(text)}</p>" for text in unique)
    return f"<ul class=note>{''.join(f'<li>{escape(text)}</li>' for text in unique)}</ul>"


def wording(metric: Metric) -> str:
    """A metric in words: its label, unit and which way is better."""
    unit = f", {metric.unit}" if metric.unit else ""
    return f"{metric.label}{unit} ({metric.better} is better)"


def score(
    line: Row, metric: Metric, *, css: str = "", best: bool = False, interval: bool = True, mark: str = ""
) -> str:
    """A table's cell: the score, below it its interval and its deviation over seeds."""
    name = metric.name
    if line.get(name) is None:
        return f'<td class="{css} none">{shown(None, metric)}</td>'
    lo, hi, seeds = (line.get(f"{name}_{end}") for end in ("lo", "hi", "seed_sd"))
    small = ""
    if interval and lo is not None and hi is not None and not (isinf(lo) and isinf(hi)):
        small += f"<small>{escape(between(lo, hi, metric))}</small>"
    if interval and seeds is not None:
        small += f"<small>seeds ± {escape(shown(seeds, metric, digits=metric.digits + 1))}</small>"
    if line.get(f"{name}_items"):
        small += f"<small>of {line[f'{name}_items']:,} items</small>"
    classes = " ".join(filter(None, (css, "best" if best else "")))
    return f'<td class="{classes}">{escape(minus(shown(line[name], metric)))}{mark}{small}</td>'


def between(lo: float, hi: float, metric: Metric, *, sign: bool = False) -> str:
    """An interval as text."""
    low, high = (minus(shown(end, metric, sign=sign)) for end in (lo, hi))
    return f"{low} to {high}" if sign or lo < 0 else f"{low}\N{EN DASH}{high}"


def breakable(text: str) -> str:
    """A name that may break after its separators, and nowhere else if that is enough."""
    return _SEPARATOR.sub(r"\1<wbr>", escape(text))


def head(metric: Metric) -> str:
    """A metric as a column's head."""
    arrow = "\N{DOWNWARDS ARROW}" if metric.better == "less" else "\N{UPWARDS ARROW}"
    return f"{metric.label}{f', {metric.unit}' if metric.unit else ''} {arrow}"


def sentence(text: str) -> str:
    """With a capital."""
    return text[:1].upper() + text[1:]


def plural(count: int, noun: str) -> str:
    """A noun as it follows a count."""
    return noun if count == 1 else f"{noun}s"


def minus(text: str) -> str:
    """With the typographic minus sign."""
    return text.replace("-", "\N{MINUS SIGN}")


def escape(value: Any) -> str:
    """Any value as text that HTML shows as it is."""
    return html.escape(str(value))
