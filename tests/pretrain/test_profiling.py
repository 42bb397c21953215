"""--profile: a trace of the window that was asked for, and plain words where there is none."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest

Arguments = Callable[..., list[str]]
Pretrain = Callable[[list[str]], tuple[int, str, str]]
OPTIONS = ("--evaluation.every", "0", "--profile", "--log.profile-window")


def test_trace_holds_the_steps_of_its_window(
    arguments: Arguments, pretrain: Pretrain, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    code, _, said = pretrain(arguments(out, *OPTIONS, "2", "2", "--steps", "6"))
    assert code == 0, said
    path = out / "profile" / "steps-00000003.json.gz"
    assert list(path.parent.iterdir()) == [path]
    assert f"a trace of 2 steps from step 3 is in {path}" in said
    names = [event.get("name", "") for event in json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]]
    assert {name for name in names if name.startswith("ProfilerStep#")} == {
        "ProfilerStep#2",
        "ProfilerStep#3",
    }
    assert any("scaled_dot_product" in name for name in names)


def test_run_that_ends_before_the_window_says_so(
    arguments: Arguments, pretrain: Pretrain, tmp_path: Path
) -> None:
    code, _, said = pretrain(arguments(tmp_path / "run", *OPTIONS, "2", "2", "--steps", "2"))
    assert code == 0
    assert "no trace: the run ended before step 3" in said


@pytest.mark.parametrize("window", [("0", "2"), ("2", "0")])
def test_window_that_cannot_be_is_refused(
    arguments: Arguments, pretrain: Pretrain, tmp_path: Path, window: tuple[str, str]
) -> None:
    code, _, said = pretrain(arguments(tmp_path / "run", *OPTIONS, *window))
    assert code == 2
    assert "--log.profile-window" in said
