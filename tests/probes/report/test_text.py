"""The terminal's table."""

from probes.report import text
from tests.probes.made_results import results, task


def test_table_has_a_line_a_score_and_says_failures_and_notes() -> None:
    found = results(tasks=[task("matching"), task("pose")], notes=["Mind the step."])
    lines = text.table(found).splitlines()
    assert lines[0] == "Dense matching on shards/held-out: 60 items of 12 scenes [95 % interval over scenes]"
    assert lines[1].split() == [
        "reading", "position", "encoder", "layer", "mean", "error", "(px)", "right", "patch", "(%)", "robust", "(%)"
    ]  # fmt: skip
    shown = [line for line in found.table if line["probe"] in ("matching", "pose")]
    assert sum(line.startswith("  ") for line in lines) == len(shown) + 2
    assert any("6 failed" in line for line in lines)
    assert lines[-1] == "note: Mind the step."
    readings = [line.split()[0] for line in lines[2 : 2 + 27]]
    assert readings == ["knn"] * 12 + ["linear"] * 12 + ["baseline"] * 3
