"""The page: self-contained, complete, and honest about runs that are half written."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import mum
from probes import charts, matching
from probes.runs import read_run, smoothed


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run as pretraining leaves it: the files are the seam."""
    run = tmp_path_factory.mktemp("runs") / "tiny<run>"
    step = run / "checkpoints" / "step-00000004"
    step.mkdir(parents=True)
    (run / "pictures").mkdir()
    model = mum.create_model("mum_vittiny_patch8")
    preprocessing = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "size": 64}
    mum.save(model, step / "model.safetensors", config=model.config, preprocessing=preprocessing, summary={})
    rows = [{"step": i + 1, "loss": 1 / (i + 1)} for i in range(4)]
    rows[3] |= {"val_loss": 0.7, "val_loss_strangers": 0.73, "cross_view_gain": 0.03}
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 5, "lo')
    scores = [
        {"step": 4, "probe_pck": 0.5, "probe_pck_lo": 0.4, "probe_pck_hi": 0.6}
        | {"probe_epe": 7.25, "probe_epe_lo": 6.0, "probe_epe_hi": 8.0}
        | {"pixels_pck": 0.3, "pixels_epe": 9.0, "pairs": 96, "scenes": 12, "size": 64},
        {"step": 2, "failed": "no such thing"},
        {"step": 0, "probe_pck": 0.25, "probe_pck_lo": None, "probe_pck_hi": None}
        | {"probe_epe": 11.0, "probe_epe_lo": None, "probe_epe_hi": None}
        | {"pixels_pck": 0.3, "pixels_epe": 9.0, "pairs": 96, "scenes": 12, "size": 64},
    ]
    (run / "probes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in scores))
    (run / "config.json").write_text(json.dumps({"recipe": "mum_tiny", "hash": "x", "config": {}}))
    (run / "status.json").write_text(json.dumps({"state": "running", "step": 4, "steps": 8}))
    for number in (2, 4):
        Image.fromarray(np.full((6, 9, 3), number, np.uint8)).save(
            run / "pictures" / f"reconstruction-{number:08d}.png"
        )
    return run


@pytest.fixture(scope="module")
def page(rendered: Path, run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("report")
    matching.run(
        [str(run_folder), "raw=pixels:8"],
        [str(rendered)],
        readings=["knn"],
        size=64,
        pairs=24,
        out=out,
        command="python -m probes run matching --encoder '<b>'",
    )
    return (out / "report.html").read_text()


class Walker(HTMLParser):
    """Collects addresses and checks that tags close in order."""

    VOID = frozenset({"meta", "img", "br", "link"})

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.ids: set[str] = set()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.addresses += [value for name, value in attrs if name in {"href", "src", "xlink:href", "action"}]
        self.ids |= {value for name, value in attrs if name == "id"}
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_needs_nothing_beside_itself(page: str) -> None:
    walker = Walker()
    walker.feed(page)
    assert walker.open == []
    assert walker.addresses
    for address in walker.addresses:
        assert address.startswith("data:image/") or address[1:] in walker.ids, address[:60]
    assert not re.search(r"https?://|@import|url\(|<script|<link", page)


def test_the_page_shows_table_baselines_matches_and_curves(page: str) -> None:
    for text in ("chance", "same position", "oracle", "raw", "Position removed", "Easy pair", "Hard pair"):
        assert text in page
    assert page.count('class="match"') == 6
    assert page.count('class="chart"') == 8  # two at a glance, two by viewpoint, four of the run


def test_the_page_shows_the_run_from_its_files(page: str) -> None:
    assert "The run behind tiny&lt;run&gt;" in page
    assert "recipe mum_tiny, 4 steps" in page
    assert "Reconstructions at step 4" in page
    assert "last 0.0300" in page
    assert "frozen encoder, last 0.500" in page
    assert "on 96 pairs of 12 scenes at 64 px" in page


def test_what_the_user_typed_is_escaped(page: str) -> None:
    assert "<run>" not in page
    assert "<b>'" not in page


def test_no_number_is_missing(page: str) -> None:
    assert not re.search(r"\bnan\b|\bNone\b|\binf\b", re.sub(r"data:image/[^\"]+", "", page))


def test_a_run_without_files_is_no_error(tmp_path: Path) -> None:
    story = read_run(tmp_path)
    assert (story.steps, story.gain, story.picture, story.recipe) == ([], [], None, None)


def test_the_newest_picture_and_the_whole_lines_are_taken(run_folder: Path) -> None:
    story = read_run(run_folder)
    assert story.steps == [1, 2, 3, 4]
    assert story.picture_step == 4
    assert (story.eval_steps, story.gain) == ([4], [0.03])


def test_scores_of_a_run_come_in_the_order_of_their_steps(run_folder: Path, tmp_path: Path) -> None:
    probe = read_run(run_folder).probe
    assert (probe.steps, probe.pck, probe.epe) == ([0, 4], [0.25, 0.5], [11.0, 7.25])
    assert probe.pck_ends == [(None, None), (0.4, 0.6)]
    assert read_run(tmp_path).probe.steps == []


def test_smoothing_is_a_trailing_mean() -> None:
    assert smoothed([2, 4, 6, 8], 2) == [2, 3, 5, 7]


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


def test_tick_labels_have_the_digits_their_step_needs() -> None:
    assert charts.label(0.25, [0.2, 0.25]) == "0.25"
    assert charts.label(1500, [1000, 1500]) == "1,500"
    assert charts.label(-0.02, [-0.02, 0]) == "\N{MINUS SIGN}0.02"
