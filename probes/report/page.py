"""The page: first what a reader came for; then each probe, the runs behind the encoders, and how it was measured."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from probes.exhibits import Exhibit
from probes.report.gallery import gallery
from probes.report.method import method
from probes.report.parts import document, escape
from probes.report.run import run_section
from probes.report.runs import read_run
from probes.report.summary import header, matrix
from probes.report.task import task_section
from probes.results.results import Results


def page(
    results: Results,
    exhibits: Mapping[tuple[str, str], Sequence[Exhibit]],
    *,
    feature_maps: Sequence[Exhibit] = (),
) -> str:
    """The whole page as HTML; it needs no network and no file beside it.

    Args:
        results: everything in numbers.
        exhibits: pictures of each (probe, data).
        feature_maps: of `probes.report.pca_exhibits`.
    """
    by_probe: dict[str, list] = {}
    for task in results.tasks:
        by_probe.setdefault(task["probe"], []).append(task)
    links = {"summary": "At a glance"}
    sections = []
    for name, tasks in by_probe.items():
        probe = results.probes[name]
        links[f"probe-{name}"] = probe.title
        sections.append(
            f'<section id="probe-{name}"><h2>{escape(probe.title)}</h2><p class=question>{escape(probe.question)}</p>'
        )
        sections += [task_section(results, task, exhibits.get((name, task["data"]), ())) for task in tasks]
        sections.append("</section>")
    if feature_maps:
        links["features"] = "Features as colours"
        sections.append('<section id="features"><h2>Features as colours</h2>')
        sections.append(
            gallery(feature_maps, title="The same views, seen by each encoder", css="pixels") + "</section>"
        )
    runs = [(e["label"], Path(e["run"])) for e in results.encoders if e.get("run")]
    if runs:
        links["runs"] = "Training"
        sections.append(
            '<div id="runs">' + "".join(run_section(label, read_run(run)) for label, run in runs) + "</div>"
        )
    links["method"] = "How it was measured"
    nav = "<nav>" + "".join(f'<a href="#{id_}">{escape(text)}</a>' for id_, text in links.items()) + "</nav>"
    return document(
        "What frozen features know", [header(results), nav, matrix(results), *sections, method(results)]
    )
