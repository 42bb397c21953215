"""The page: self-contained, complete, escaped, honest about ties, failures and missing files."""

import math
import re

import numpy as np
import pytest

from probes.exhibits import Exhibit, Panel, image_tag
from probes.report import page
from probes.report.summary import ranks
from tests.probes.made_results import DATA, encoder, matching_rows, results, task
from tests.probes.report.walker import text_of, walk


def exhibit(title: str) -> Exhibit:
    picture = image_tag(np.zeros((4, 4, 3), np.uint8), "a picture")
    return Exhibit(
        title=title,
        detail="43° apart",
        panels=(Panel(label="trained", caption="3 px", content=picture),),
        caption="Lines join what is thought to be one point.",
    )


@pytest.fixture(scope="module")
def html() -> str:
    found = results(
        tasks=[
            task("matching", missing=["depths/0015/a.h5"], notes=["Only odd frames have depth."]),
            task("pose"),
            task("speed"),
        ],
        notes=["Only odd frames have depth.", "A word about the run & all."],
        selections=[
            {
                "probe": "matching",
                "data": DATA,
                "encoder": "trained",
                "selected": {"layer": {"chosen": 2, "among": [1, 2], "on": "held-out training scenes"}},
            }
        ],
    )
    pictures = [exhibit("Best pair"), exhibit("Worst pair")]
    return page(found, {("matching", DATA): pictures}, feature_maps=[exhibit("View 1")])


def test_page_needs_nothing_beside_itself(html: str) -> None:
    addresses = walk(html)
    assert sum(address.startswith("#") for address in addresses) >= 6
    assert any(address.startswith("data:image/png") for address in addresses)


def test_what_the_user_typed_is_escaped() -> None:
    bad = "<img src=x onerror=y>"
    found = results(
        encoders=[encoder(bad, spec=bad), encoder("pixels")],
        rows=matching_rows({bad: 2.0, "pixels": 1.0}),
        tasks=[task("matching", missing=[bad], notes=[bad], split=bad)],
        notes=[bad],
        command=bad,
    )
    made = page(found, {("matching", DATA): [Exhibit(title=bad, detail=bad, panels=(), caption=bad)]})
    assert bad not in made
    assert "<img src" not in made


def test_every_headline_stands_beside_what_needs_no_features(html: str) -> None:
    glance = text_of(html[html.index('id="summary"') : html.index('id="probe-matching"')])
    for words in ("same position: 75.3", "oracle, grid 8 \N{MULTIPLICATION SIGN} 8: 5.0", "chance, grid"):
        assert words in glance


def test_missing_files_notes_choices_and_command_are_on_the_page(html: str) -> None:
    words = text_of(html)
    for part in (
        "1 file of the benchmarks", "depths/0015/a.h5", "A word about the run &amp; all.", "torch 2.10",
        "python -m probes run matching", "ab12ab12ab12ab12", "0123456789abcdef", "held-out training scenes",
        "6 predictions failed",
    ):  # fmt: skip
        assert part in words, part
    assert words.count("Only odd frames have depth.") == 1


def test_curves_are_drawn_over_what_the_rows_have(html: str) -> None:
    section = html[html.index('id="probe-matching"') : html.index('id="probe-pose"')]
    titles = re.findall(r'aria-label="([^"]+)"', section)
    assert [title for title in titles if " by " in title] == [
        "mean error by viewpoint angle, degrees",
        "mean error by overlap of the two views",
        "mean error by layer, linear probe",
        "mean error by layer, nearest neighbour, nothing trained",
    ]
    pose = html[html.index('id="probe-pose"') : html.index('id="probe-speed"')]
    assert "by viewpoint angle" in pose
    assert "by overlap" not in pose


def test_exhibits_share_their_caption(html: str) -> None:
    section = html[html.index('id="probe-matching"') : html.index('id="probe-pose"')]
    assert section.count("Lines join what is thought to be one point.") == 1
    assert (section.count("Best pair"), section.count("Worst pair")) == (1, 1)
    assert "Features as colours" in html


def test_no_number_is_missing(html: str) -> None:
    assert not re.search(r"\bnan\b|\bNone\b|\binf\b", text_of(html))


def test_rank_says_what_the_test_decided() -> None:
    found = results(skills={"good": 2.0, "also good": 2.0, "bad": 1.0})
    reading = found.leading("matching", DATA)
    marks = ranks(found, "matching", DATA, found.final("matching", DATA, *reading))
    assert sorted(text for text, _ in marks.values()) == ["1", "3", "≈1"]
    assert marks["bad"] == ("3", "")


def test_rank_of_too_few_scenes_is_a_tie() -> None:
    found = results(scenes=3)
    reading = found.leading("matching", DATA)
    marks = ranks(found, "matching", DATA, found.final("matching", DATA, *reading))
    assert [marks[label][0] for label in found.labels] == ["1", "≈1", "≈1"]
    assert "too few scenes" in page(found, {})


def test_checkpoints_of_one_run_are_a_curve_over_training_steps() -> None:
    skills = {f"at {step}": skill for step, skill in ((100, 1.0), (200, 1.5), (300, 2.0))}
    encoders = [
        encoder(label, spec=f"runs/a/checkpoints/step-{int(label[3:]):08d}/model.safetensors")
        for label in skills
    ]
    found = results(skills=skills, rows=matching_rows(skills), encoders=encoders, tasks=[task("matching")])
    assert 'aria-label="mean error by training step"' in page(found, {})


def test_encoders_of_other_depths_share_an_axis_of_shares() -> None:
    rows = matching_rows({"deep": 2.0, "shallow": 1.0})
    found = results(
        rows=rows,
        tasks=[task("matching")],
        encoders=[encoder("deep", depth=12), encoder("shallow", depth=2)],
    )
    assert "depth read, as a share" in page(found, {})


def test_page_of_one_encoder_one_item_and_one_scene_is_made() -> None:
    (row, *_) = matching_rows({"alone": 1.0})
    made = page(
        results(rows=[row], encoders=[encoder("alone")], tasks=[task("matching", facts={"scenes": 1})]), {}
    )
    assert "one scene only: no interval can be given" in made


def test_all_failed_is_shown_as_infinite() -> None:
    rows = [
        row | {"failed": True, "epe": math.inf, "pck_patch": 0.0}
        for row in matching_rows({"a": 1.0, "b": 1.0})
    ]
    made = page(results(rows=rows, encoders=[encoder("a"), encoder("b")], tasks=[task("matching")]), {})
    assert "∞" in made
    assert not re.search(r"\bnan\b", text_of(made))


def test_chance_is_in_the_tables_and_does_not_flatten_the_curves(html: str) -> None:
    section = html[html.index('id="probe-matching"') : html.index('id="probe-pose"')]
    curves = text_of(section[section.index("How the score changes") : section.index("Items to look at")])
    assert "same position" in curves
    assert "chance" not in curves
    assert "150" not in re.findall(r"\b\d+\b", curves), "the axis reaches as far as chance does"
