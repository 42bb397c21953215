"""Tables of differences between encoders, each with its interval, its corrected p and what they decide."""

from collections.abc import Sequence
from math import isinf

from probes.probe import Metric, Row
from probes.report.parts import between, breakable, escape, head, minus, sentence, table
from probes.report.sides import reading_name
from probes.results.aggregate import compared
from probes.results.results import Results
from probes.words import shown


def differences(results: Results, probe: str, data: str) -> str:
    """All tested differences of a task, those of the leading reading first; empty where there are none."""
    found = [d for d in results.differences if (d["probe"], d["data"]) == (probe, data)]
    if not found:
        return ""
    metrics = compared(results.probes[probe])
    reading, position = results.leading(probe, data)
    parts = []
    for kind in dict.fromkeys((d["reading"], d["position"]) for d in found):
        mine = [d for d in found if (d["reading"], d["position"]) == kind]
        leads = kind == (reading, position)
        name = sentence(reading_name(kind[0])) + ("" if kind[1] == "kept" else ", position removed")
        parts.append((leads, name, _difference_table(mine, metrics)))
    parts.sort(key=lambda part: not part[0])
    shown_first = f"<h5>{escape(parts[0][1])}</h5>{parts[0][2]}"
    rest = "".join(f"<h5>{escape(name)}</h5>{content}" for _, name, content in parts[1:])
    more = f"<details><summary>The same for the other readings</summary>{rest}</details>" if rest else ""
    return (
        f"<h4>Differences between encoders</h4>{shown_first}<p class=caption>The first minus the second, on the same "
        "items, with the 95 % interval of the difference over scenes. <em>p</em>: paired test that swaps whole scenes, "
        "after Holm's correction over all comparisons of that score; a difference counts as decided where p is below "
        f"0.05.</p>{more}"
    )


def _difference_table(found: Sequence[Row], metrics: Sequence[Metric]) -> str:
    by_pair: dict[tuple[str, str], dict[str, Row]] = {}
    for d in found:
        by_pair.setdefault((d["encoder"], d["minus"]), {})[d["metric"]] = d
    metrics = [metric for metric in metrics if any(metric.name in one for one in by_pair.values())]
    heads = ["<th class=name>Encoders</th>"]
    heads += [f"<th colspan=2>{escape(head(metric))}</th>" for metric in metrics]
    body = []
    for (a, b), by_metric in by_pair.items():
        cells = [f"<td class=name>{breakable(a)} \N{MINUS SIGN} {breakable(b)}</td>"]
        for metric in metrics:
            cells.append(
                difference_cells(by_metric[metric.name], metric)
                if metric.name in by_metric
                else "<td colspan=2></td>"
            )
        body.append(f"<tr>{''.join(cells)}</tr>")
    return table(heads, body)


def difference_cells(d: Row, metric: Metric) -> str:
    """Two cells: the difference with its interval, and the verdict with its p."""
    interval = ""
    if d["lo"] is not None and d["hi"] is not None and not (isinf(d["lo"]) and isinf(d["hi"])):
        interval = f"<small>{escape(between(d['lo'], d['hi'], metric, sign=True))}</small>"
    p = "" if d["p_holm"] is None else f"<small>p {probability(d['p_holm'])}</small>"
    verdict = d["verdict"]
    return (
        f"<td class=split>{escape(minus(shown(d['difference'], metric, sign=True)))}{interval}</td>"
        f'<td class="verdict {verdict.partition(" ")[0]}">{verdict}{p}</td>'
    )


def probability(p: float) -> str:
    """A p value as text."""
    return "&lt; 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"
