"""metrics.jsonl and the progress line."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pretrain.errors import InputError
from pretrain.sinks import Board, ProgressLine, cut_back


def write(path: Path, steps: int, torn: str = "") -> None:
    path.write_text("".join(json.dumps({"step": s + 1}) + "\n" for s in range(steps)) + torn)


@pytest.mark.parametrize("torn", ["", '{"step": 1', '{"loss": 3}\n'])
@pytest.mark.parametrize("step", [0, 3, 7])
def test_rows_after_the_checkpoint_go(tmp_path: Path, torn: str, step: int) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, 7, torn)
    cut_back(path, step)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == list(range(1, step + 1))


def test_rows_that_are_missing_are_not_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, 4)
    with pytest.raises(InputError, match="ends at step 4"):
        cut_back(path, 6)


def test_line_tells_loss_gain_speed_and_time_left() -> None:
    stream = io.StringIO()
    line = ProgressLine(100, stream)
    row = {"step": 50, "images": 2400, "loss": 0.5, "images_per_s": 24.0, "data_wait": 0.25}
    line.show([row | {"cross_view_gain": 0.031, "val_loss": 0.6}])
    line.show([row | {"step": 51, "images": 2448}], last=True)
    assert stream.getvalue().splitlines() == [
        "step 50/100  loss 0.5000  gain +0.0310  24 images/s  data wait 25%  1:40 left",
        "step 51/100  loss 0.5000  gain +0.0310  24 images/s  data wait 25%  1:38 left",
    ]


def test_tensorboard_forgets_what_a_resumed_run_does_again(tmp_path: Path) -> None:
    first = Board(tmp_path, 0)
    first.write([{"step": step, "loss": 1.0, "mfu": None} for step in (1, 2, 3)])
    first.picture("reconstruction", np.zeros((4, 6, 3), np.uint8), 3)
    first.close()
    again = Board(tmp_path, 2)
    again.write([{"step": 3, "loss": 2.0, "mfu": 0.5}, {"step": 2, "probe_pck": 0.25, "pairs": 9}])
    again.close()
    drawn = EventAccumulator(str(tmp_path))
    drawn.Reload()
    curves = {tag: [(e.step, e.value) for e in drawn.Scalars(tag)] for tag in drawn.Tags()["scalars"]}
    assert curves == {
        "train/loss": [(1, 1.0), (2, 1.0), (3, 2.0)],
        "train/mfu": [(3, 0.5)],
        "probe/probe_pck": [(2, 0.25)],
    }
