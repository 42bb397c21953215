"""Two results item by item: who is paired with whom, on which items, and where they differ most."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from probes.errors import ProbeError
from probes.report.comparison import page
from probes.results.compare import Comparison, compare, compare_folders, text
from probes.results.results import Results
from tests.probes.made_results import DATA, PROBES, encoder, matching_rows, pose_rows, results, task
from tests.probes.report.walker import walk


def side(
    skills: dict[str, float], tasks: list[dict] | None = None, *, pose: bool = False, **more: object
) -> Results:
    rows = matching_rows(skills) + (pose_rows(skills) if pose else [])
    encoders = [
        encoder(label, identity={"weights": "shared" if label == "pixels" else f"{label} {skill}"})
        for label, skill in skills.items()
    ]
    tasks = tasks or [task("matching"), *([task("pose")] if pose else [])]
    return results(rows=rows, encoders=encoders, tasks=tasks, **more)


@pytest.fixture(scope="module")
def found() -> Comparison:
    return compare(
        side({"new": 2.0, "pixels": 1.0}, pose=True),
        side({"old": 1.5, "pixels": 1.0}, pose=True),
        names=("new", "old"),
    )


def test_differences_are_of_the_means_of_both_sides(found: Comparison) -> None:
    a, b = side({"new": 2.0, "pixels": 1.0}), side({"old": 1.5, "pixels": 1.0})
    (line,) = [
        line for line in found.differences
        if (line["reading"], line["position"], line["metric"]) == ("linear", "kept", "epe")
    ]  # fmt: skip
    mine, theirs = (
        a.final("matching", DATA, "linear", "kept")["new"],
        b.final("matching", DATA, "linear", "kept")["old"],
    )
    assert (line["a"], line["b"]) == pytest.approx((mine["epe"], theirs["epe"]))
    assert line["difference"] == pytest.approx(mine["epe"] - theirs["epe"])
    assert (line["encoder"], line["minus"], line["verdict"], line["items"]) == ("new", "old", "better", 60)
    assert line["p_holm"] >= line["p"]


def test_encoders_of_one_name_are_paired_the_same_weights_left_out() -> None:
    a = side({"x": 1.0, "mine": 2.0, "pixels": 1.0})
    b = side({"mine": 1.0, "y": 1.0, "pixels": 1.0})
    pairs = {(line["encoder"], line["minus"]) for line in compare(a, b).differences}
    assert pairs == {("x", "y"), ("mine", "mine")}
    same = side({"pixels": 1.0})
    assert {line["encoder"] for line in compare(same, same).differences} == {"pixels"}


def test_named_encoders_are_compared_alone_even_within_one_result() -> None:
    a = side({"x": 2.0, "y": 1.0})
    found = compare(a, a, encoders=("x", "y"))
    assert {(line["encoder"], line["minus"]) for line in found.differences} == {("x", "y")}
    with pytest.raises(ProbeError, match="no encoder is called 'z'"):
        compare(a, a, encoders=("x", "z"))


def test_only_shared_items_count_and_other_lists_are_said() -> None:
    a, b = side({"x": 2.0}), side({"x": 1.0}, tasks=[task("matching", hash="cd" * 32, config={"size": 128})])
    b = results(rows=[row for row in b.rows if row["scene"] != "scene03"], encoders=b.encoders, tasks=b.tasks)
    found = compare(a, b)
    assert {line["items"] for line in found.differences} == {55}
    assert any("compared on the 55 items" in note for note in found.notes)
    assert any("size (64 and 128)" in note for note in found.notes)


def test_one_list_under_another_path_is_one_data_set() -> None:
    a = side({"x": 2.0})
    b = results(
        rows=matching_rows({"x": 1.0}, data="/elsewhere/held-out"),
        encoders=[encoder("x", identity={"weights": "b"})],
        tasks=[task("matching", data="/elsewhere/held-out")],
    )
    assert compare(a, b).differences


def test_nothing_in_common_is_one_sentence() -> None:
    other = results(
        rows=pose_rows({"x": 1.0}), encoders=[encoder("x", identity={"weights": "b"})], tasks=[task("pose")]
    )
    with pytest.raises(ProbeError, match="share no item"):
        compare(side({"x": 1.0}), other)


def test_items_run_from_where_a_does_best_to_where_it_does_worst(found: Comparison) -> None:
    for line, rows in found.leading():
        sign = 1 if found.metric(line).better == "more" else -1
        gains = [sign * row["difference"] for row in rows]
        assert gains == sorted(gains, reverse=True)
        assert len(rows) == 60
        assert not any(math.isnan(gain) for gain in gains)


def test_json_is_strict(found: Comparison) -> None:
    stored = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert stored.keys() == {"names", "hashes", "commands", "notes", "differences", "items"}
    assert len(stored["items"]) == 60 * 5


def test_text_names_scores_and_items(found: Comparison) -> None:
    lines = text(found).splitlines()
    assert lines[0] == "new minus old, on the items that both were scored on"
    assert sum("better" in line for line in lines) >= 4
    best = found.leading()[0][1][0]["item"]
    assert any(line.strip().startswith(best) for line in lines)


@pytest.mark.parametrize(
    ("names", "heads"),
    [
        (("scores/a", "scores/b/"), ("a", "b")),
        (("scores/a:run", "scores/a:random:tiny"), ("run", "random:tiny")),
        (("scores/a:run", "scores/b:run"), ("a:run", "b:run")),
        (("old/scores", "new/scores"), ("A", "B")),
    ],
)
def test_columns_are_headed_by_what_sets_the_names_apart(
    found: Comparison, names: tuple[str, str], heads: tuple[str, str]
) -> None:
    assert replace(found, names=names).heads == heads


def test_page_needs_nothing_beside_itself_and_shows_both_ends(found: Comparison) -> None:
    html = page(found)
    assert walk(html)
    for line, rows in found.leading():
        assert found.probes[line["probe"]].title in html
        assert rows[0]["item"].split("/")[1] in html
    assert html.count('class="chart"') == 2
    assert "Where new beats old most" in html
    behind = page(compare(side({"x": 1.0}), side({"x": 2.0})))
    assert "Where A falls behind B most" in behind and "beats" not in behind


def test_same_result_twice_has_no_difference() -> None:
    one = side({"x": 1.0})
    found = compare(one, one)
    assert {line["difference"] for line in found.differences} == {0.0}
    assert {line["verdict"] for line in found.differences} == {"undecided"}
    assert "largest" not in text(found)


def test_folders_are_given_with_or_without_an_encoder(tmp_path: Path) -> None:
    one = side({"x": 2.0, "random:tiny": 1.0})
    one.write(tmp_path / "a", "")
    side({"x": 1.0}).write(tmp_path / "b", "")
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    found = compare_folders(a, b, PROBES)
    assert found.names == (a, b)
    assert {(line["encoder"], line["minus"]) for line in found.differences} == {("x", "x")}
    found = compare_folders(f"{a}:x", f"{a}:random:tiny", PROBES)
    assert {(line["encoder"], line["minus"]) for line in found.differences} == {("x", "random:tiny")}
    with pytest.raises(ProbeError, match="no encoder is called 'y'"):
        compare_folders(f"{a}:y", b, PROBES)
    with pytest.raises(ProbeError, match="is no folder"):
        compare_folders(f"{tmp_path}/nowhere", b, PROBES)
