"""The report's section on a run, from its files alone, however unfinished."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from probes.report import page
from probes.report.run import run_section
from probes.report.runs import read_run, smoothed
from tests.probes.made_results import encoder, matching_rows, results, task


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run as pretraining leaves it: the files are the seam."""
    run = tmp_path_factory.mktemp("runs") / "tiny<run>"
    (run / "pictures").mkdir(parents=True)
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


def test_page_shows_the_run_behind_an_encoder(run_folder: Path) -> None:
    found = results(
        rows=matching_rows({"tiny<run>": 2.0, "pixels": 1.0}),
        encoders=[encoder("tiny<run>", run=str(run_folder)), encoder("pixels")],
        tasks=[task("matching")],
    )
    made = page(found, {})
    for text in (
        "The run behind tiny&lt;run&gt;", "recipe mum_tiny, 4 steps", "Reconstructions at step 4", "last 0.0300",
        "frozen encoder, last 0.500", "on 96 pairs of 12 scenes at 64 px",
    ):  # fmt: skip
        assert text in made
    assert made[made.index('id="runs"') :].count('class="chart"') == 4
    assert "<run>" not in made


def test_run_without_files_is_no_error(tmp_path: Path) -> None:
    story = read_run(tmp_path)
    assert (story.steps, story.gain, story.picture, story.recipe) == ([], [], None, None)
    assert "no steps yet" in run_section("empty", story)


def test_newest_picture_and_whole_lines_are_taken(run_folder: Path) -> None:
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
