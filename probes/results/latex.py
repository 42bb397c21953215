"""Tables for a paper: one of every encoder and headline, one of each probe on each data set.

They need the packages ``booktabs`` and ``graphicx`` and stand in a document by ``\\input{table.tex}``. The best of a
column is bold and intervals are small; nothing is computed here.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from probes.probe import BASELINE, Metric, Row
from probes.results.aggregate import compared
from probes.words import short_data, shown

if TYPE_CHECKING:
    from probes.results.results import Results

COLUMNS = 4
"""Most metrics of a probe's table."""
_SPECIAL = {c: f"\\{c}" for c in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "°": r"$^\circ$",
    "\N{MULTIPLICATION SIGN}": r"$\times$",
    "≤": r"$\le$",
    "≥": r"$\ge$",
    "δ": r"$\delta$",
    "\N{GREEK SMALL LETTER SIGMA}": r"$\sigma$",
    "²": r"$^2$",
    "\N{EN DASH}": "--",
    "∞": r"$\infty$",
}


def tables(results: "Results") -> str:
    """The file's text."""
    parts = [
        "% Written by `python -m probes`; needs \\usepackage{booktabs,graphicx}.",
        f"% Configuration {results.hash}",
        _summary(results),
    ]
    parts += [_of_task(results, task["probe"], task["data"]) for task in results.tasks]
    return "\n".join(part for part in parts if part) + "\n"


def escape(text: str) -> str:
    """Text as LaTeX shows it; what it could not set is left out."""
    written = "".join(_SPECIAL.get(character, character) for character in text)
    return written.encode("ascii", "ignore").decode()


def _summary(results: "Results") -> str:
    body = []
    for task in results.tasks:
        probe, data = task["probe"], task["data"]
        metric = results.headline(probe)
        lines = results.final(probe, data, *results.leading(probe, data))
        if lines:
            cells = _cells(lines, metric)
            title = f"{results.probes[probe].title}, {short_data(data)}"
            body.append([
                escape(title), _head(f"{metric.label}{_unit(metric)}{_arrow(metric)}"),
                *(cells.get(label, "--") for label in results.labels),
            ])  # fmt: skip
    caption = "Frozen features: the headline of every probe, with 95\\,\\% intervals over scenes."
    return _table(caption, ["probe", "score", *results.labels], body, words=2) if body else ""


def _of_task(results: "Results", probe: str, data: str) -> str:
    metrics = compared(results.probes[probe])
    rest = [metric for metric in results.probes[probe].metrics if metric not in metrics]
    metrics = [*metrics, *rest][:COLUMNS]
    body: list[list[str]] = []
    kinds = dict.fromkeys(
        (line["reading"], line["position"])
        for line in results.table
        if (line["probe"], line["data"]) == (probe, data) and line["reading"] != BASELINE
    )
    for reading, position in kinds:
        lines = results.final(probe, data, reading, position)
        cells = [_cells(lines, metric) for metric in metrics]
        kind = reading if position == "kept" else f"{reading}, position removed"
        body += [
            [escape(kind if k == 0 else ""), escape(label), *(c.get(label, "--") for c in cells)]
            for k, label in enumerate(lines)
        ]
    body += [
        ["", escape(line["encoder"]), *(_cell(line, metric, best=False) for metric in metrics)]
        for line in results.baselines(probe, data)
    ]
    if not body:
        return ""
    heads = ["reading", "encoder", *(f"{metric.label}{_unit(metric)}{_arrow(metric)}" for metric in metrics)]
    title = f"{results.probes[probe].title} on {short_data(data)}"
    return _table(escape(title) + ", with 95\\,\\% intervals over scenes.", heads, body, words=2)


def _cells(lines: Mapping[str, Row], metric: Metric) -> dict[str, str]:
    values = {label: line[metric.name] for label, line in lines.items() if line[metric.name] is not None}
    best = best_of(values.values(), metric) if len(values) > 1 else None
    return {label: _cell(lines[label], metric, best=value == best) for label, value in values.items()}


def best_of(values: Iterable[float], metric: Metric) -> float:
    """The best of some scores."""
    return min(values) if metric.better == "less" else max(values)


def _cell(line: Row, metric: Metric, *, best: bool) -> str:
    value = line.get(metric.name)
    if value is None:
        return "--"
    text = escape(shown(value, metric))
    text = rf"\textbf{{{text}}}" if best else text
    lo, hi = line[f"{metric.name}_lo"], line[f"{metric.name}_hi"]
    if lo is None or hi is None:
        return text
    return rf"{text} {{\scriptsize [{escape(shown(lo, metric))}, {escape(shown(hi, metric))}]}}"


def _unit(metric: Metric) -> str:
    return f" [{metric.unit}]" if metric.unit else ""


def _arrow(metric: Metric) -> str:
    return " (less)" if metric.better == "less" else " (more)"


def _head(text: str) -> str:
    for mark, arrow in ((" (less)", r" $\downarrow$"), (" (more)", r" $\uparrow$")):
        if text.endswith(mark):
            return escape(text.removesuffix(mark)) + arrow
    return escape(text)


def _table(caption: str, heads: Sequence[str], body: Sequence[Sequence[str]], *, words: int) -> str:
    lines = [
        r"\begin{table}",
        rf"\caption{{{caption}}}",
        r"\centering\small",
        # No wider than the text.
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        rf"\begin{{tabular}}{{{'l' * words}{'r' * (len(heads) - words)}}}",
        r"\toprule",
        " & ".join(map(_head, heads)) + r" \\",
        r"\midrule",
        *(" & ".join(cells) + r" \\" for cells in body),
        r"\bottomrule",
        r"\end{tabular}}",
        r"\end{table}",
    ]
    return "\n".join(lines)
