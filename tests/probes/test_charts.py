"""Charts: round ticks, what is not finite is not drawn, and files of their own."""

import math
import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes import charts


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.5, 1]),
        (0.21, 0.33, [0.2, 0.25, 0.3, 0.35]),
        (-0.01, 0.04, [-0.02, 0, 0.02, 0.04]),
        (5, 5, [5, 5.2, 5.4, 5.6]),
    ],
)
def test_ticks_are_round_and_cover_the_data(low: float, high: float, expected: list[float]) -> None:
    marks = charts.ticks(low, high)
    assert marks[0] <= low
    assert marks[-1] >= high
    assert 3 <= len(marks) <= 8
    if high > low:
        assert marks == pytest.approx(expected)


@given(low=st.floats(-1e6, 1e6), span=st.floats(1e-3, 1e6))
def test_ticks_cover_any_range_in_even_steps(low: float, span: float) -> None:
    marks = charts.ticks(low, low + span)
    steps = [b - a for a, b in pairwise(marks)]
    assert marks[0] <= low + 1e-6 * span
    assert marks[-1] >= low + span * (1 - 1e-6)
    assert steps == pytest.approx([steps[0]] * len(steps), rel=1e-3)


def test_tick_labels_have_the_digits_their_step_needs() -> None:
    assert charts.label(0.25, [0.2, 0.25]) == "0.25"
    assert charts.label(1500, [1000, 1500]) == "1,500"
    assert charts.label(-0.02, [-0.02, 0]) == "\N{MINUS SIGN}0.02"


def test_what_is_not_finite_is_left_out_of_lines_and_said_in_intervals() -> None:
    series = [charts.Series(label="a", x=[1, 2, 3], y=[1.0, math.inf, 3.0])]
    line = charts.line_chart(series, x_label="x", y_label="y", title="t")
    assert len(re.search(r'polyline points="([^"]+)"', line)[1].split()) == 2
    rows = [("a", 1.0, 0.5, 2.0, 0), ("b", math.inf, math.inf, math.inf, 1)]
    chart = charts.interval_chart(rows, x_label="x", title="t", digits=1)
    assert "\N{INFINITY}" in chart
    assert charts.colour(1) not in chart
    assert "nan" not in line + chart
    assert charts.line_chart(series[:0], x_label="x", y_label="y", title="t") == ""
    assert "\N{INFINITY}" in charts.interval_chart(rows[1:], x_label="x", title="t", digits=1)


def test_marks_of_the_axis_can_be_given() -> None:
    series = [charts.Series(label="a", x=[1, 6, 12], y=[1.0, 2.0, 3.0])]
    chart = charts.line_chart(series, x_label="layer", y_label="y", title="t", x_marks=[1, 6, 12])
    below = re.findall(r'text-anchor="middle"[^>]*>(\d+)<', chart)
    assert below == ["1", "6", "12"]


def test_styles_differ_without_colour() -> None:
    drawn = [re.sub(r"#[0-9a-f]{6}", "", charts.swatch(style)) for style in (*range(8), None, -1, -2, -3)]
    assert len(set(drawn)) == len(drawn)
    assert {charts.colour(style) for style in (None, -1, -2)} == {charts.GREY}


def test_bars_rise_and_fall_from_zero_with_their_values() -> None:
    chart = charts.bar_chart([3.0, 0.0, -1.0, -math.inf], x_label="x", y_label="y", title="t")
    bars = [
        tuple(map(float, found))
        for found in re.findall(r'<rect x="([\d.]+)" y="([\d.]+)" width="[\d.]+" height="([\d.]+)"', chart)
    ]
    assert len(bars) == 3, "nothing is drawn of zero"
    (_, up, tall), (_, zero, small), (_, also, most) = bars
    assert up + tall == pytest.approx(zero, abs=0.11)
    assert also == zero
    assert tall == pytest.approx(3 * small, rel=0.02)
    assert most >= small


def test_sheet_stands_alone_with_every_chart_and_label() -> None:
    series = [charts.Series(label=name, x=[0, 1], y=[1, 2], style=k) for k, name in enumerate(("a & b", "c"))]
    chart = charts.line_chart(series, x_label="x", y_label="y", title="t")
    root = ElementTree.fromstring(charts.sheet([chart, chart], series, heading="two"))
    space = "{http://www.w3.org/2000/svg}"
    inner = [one for one in root.findall(f"{space}svg") if one.get("class") == "chart"]
    assert [one.get("x") for one in inner] == ["14", "548"]
    assert {"a & b", "c", "two"} <= {text.text for text in root.findall(f"{space}text")}
