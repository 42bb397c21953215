"""Charts as files of their own."""

from xml.etree import ElementTree

from probes import charts


def test_sheet_stands_alone_with_every_chart_and_label():
    series = [charts.Series(label=name, x=[0, 1], y=[1, 2], style=k) for k, name in enumerate(("a & b", "c"))]
    chart = charts.line_chart(series, x_label="x", y_label="y", title="t")
    root = ElementTree.fromstring(charts.sheet([chart, chart], series, heading="two"))
    space = "{http://www.w3.org/2000/svg}"
    inner = [one for one in root.findall(f"{space}svg") if one.get("class") == "chart"]
    assert [one.get("x") for one in inner] == ["14", "548"]
    assert {"a & b", "c", "two"} <= {text.text for text in root.findall(f"{space}text")}
