"""The paper's tables: every character set, every row as wide as its head, the best bold."""

import re

from probes.results import latex
from tests.probes.made_results import encoder, matching_rows, results, task


def test_characters_that_mean_something_to_latex_are_set() -> None:
    assert latex.escape(r"50 % of a_b & {c} #1 $2 ~^\ 5° δ1") == (
        r"50 \% of a\_b \& \{c\} \#1 \$2 \textasciitilde{}\textasciicircum{}\textbackslash{} 5$^\circ$ $\delta$1"
    )


def test_every_row_is_as_wide_as_its_head() -> None:
    text = latex.tables(results())
    tabulars = re.findall(r"\\begin\{tabular\}\{(l+r+)\}(.*?)\\end\{tabular\}", text, re.DOTALL)
    assert len(tabulars) == 4
    for kinds, body in tabulars:
        rows = re.findall(r"^(.*) \\\\$", body, re.MULTILINE)
        assert len(rows) >= 4
        assert {row.replace(r"\&", "").count("&") for row in rows} == {len(kinds) - 1}
    assert text.isascii()
    assert text.count("{") == text.count("}")


def test_best_of_a_column_is_bold_by_the_metrics_own_direction() -> None:
    rows = matching_rows({"a_b": 2.0, "pixels": 1.0})
    found = results(rows=rows, tasks=[task("matching")], encoders=[encoder("a_b"), encoder("pixels")])
    summary = latex.tables(found).split(r"\end{table}")[0]
    bold = [line for line in summary.splitlines() if r"\textbf" in line]
    assert len(bold) == 1
    assert bold[0].startswith(r"Dense matching, held-out & mean error [px] $\downarrow$ & \textbf{")
