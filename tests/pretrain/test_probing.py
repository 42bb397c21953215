"""--probe-every: scores of snapshots beside the run, which neither wait for each other nor change a number."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pretrain.probing import ProbeConfig, Probing
from probes import suite
from shards.build import build
from shards.sources import scenes

from .conftest import figures, run_ranks

Arguments = Callable[..., list[str]]
Pretrain = Callable[[list[str]], tuple[int, str, str]]


def scores(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "probes.jsonl").read_text().splitlines()]


def test_scores_come_beside_the_run_and_change_nothing(
    arguments: Arguments, pretrain: Pretrain, tmp_path: Path
) -> None:
    data = tmp_path / "held-out"
    options = scenes.Options(scenes=0, val_scenes=3, frames=5, size=64, seed=3)
    build("scenes", [], data, source_options=options, workers=1)
    probe = ("--probe-every", "6", "--probe.data", str(data), "--probe.size", "64", "--probe.pairs", "12")
    out, plain = tmp_path / "run", tmp_path / "plain"
    code, _, said = pretrain(arguments(out, *probe, "--steps", "6"))
    assert code == 0, said
    assert pretrain(arguments(plain, "--steps", "6"))[0] == 0
    told = scores(out)
    assert [row["step"] for row in told] == [0, 6], said
    assert said.count("nearest neighbours find") == 2
    assert list((out / "probes").iterdir()) == []
    assert figures(out) == figures(plain)
    # The same weights from the last checkpoint, scored by hand.
    by_hand = suite.run(
        ["matching"], [str(plain)], [str(data)], size=64, items=12, readings=["knn"], cache="none"
    )
    own, pixels = (row for row in by_hand.table if (row["reading"], row["position"]) == ("knn", "kept"))
    last = told[1]
    assert (last["probe_pck"], last["probe_epe"]) == pytest.approx((own["pck_patch"], own["epe"]))
    assert (last["pixels_pck"], last["pixels_epe"]) == pytest.approx((pixels["pck_patch"], pixels["epe"]))
    assert told[0]["probe_epe"] != last["probe_epe"]


class Stand:
    """A Probing whose process is a command of the test's own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path, script: str) -> None:
        self.folder, self.started = folder, []

        def start(probing: Probing, step: int) -> subprocess.Popen[bytes]:
            self.started.append(step)
            out = probing._out(step)
            out.mkdir(parents=True, exist_ok=True)
            (out / "results.json").write_text(json.dumps(RESULTS))
            with (out / "said").open("wb") as said:
                return subprocess.Popen(["sh", "-c", script], stderr=said)

        monkeypatch.setattr(Probing, "_start", start)

    def open(self, start: int) -> Probing:
        rows = self.folder / "probes.jsonl"
        folder, config = self.folder / "probes", ProbeConfig()
        return Probing(folder, rows, start=start, config=config, data="D", size=32, device="cpu")


def scored(probing: Probing) -> list[dict[str, Any]]:
    while probing.busy:
        time.sleep(0.01)
    return probing.ready()


RESULTS = {
    "tasks": [{"facts": {"items": 3, "scenes": 1}, "size": 32}],
    "table": [
        {"encoder": name, "reading": "knn", "position": "kept"}
        | {f"{metric}{end}": 0.5 for metric in ("epe", "pck_patch") for end in ("", "_lo", "_hi")}
        for name in ("model", "pixels")
    ],
}


def write(path: Path) -> None:
    path.write_text("weights")


def test_failed_probe_is_noted_and_not_tried_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stand = Stand(monkeypatch, tmp_path, "echo 'no such thing' >&2; exit 2")
    probing = stand.open(0)
    probing.take(0, write)
    assert scored(probing) == scores(tmp_path) == [{"step": 0, "failed": "no such thing"}]
    stand.open(0)
    assert stand.started == [0]


def test_what_a_kill_interrupted_is_scored_when_the_run_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    slow = Stand(monkeypatch, tmp_path, "exec sleep 60").open(0)
    slow.take(4, write)
    assert slow.ready() == []
    slow.close()
    assert not (tmp_path / "probes.jsonl").exists()
    stand = Stand(monkeypatch, tmp_path, "exit 0")
    probing = stand.open(6)
    assert stand.started == [4]
    assert [row["step"] for row in scored(probing)] == [4]
    # The run is at step 4 again if that is where it goes on.
    probing.take(4, write)
    probing.take(8, write)
    assert [row["step"] for row in scored(probing)] == [8]
    assert list((tmp_path / "probes").iterdir()) == []
    # A run that goes on from step 6 is at step 8 another one.
    assert scored(stand.open(6)) == []
    assert [row["step"] for row in scores(tmp_path)] == [4]


def test_snapshot_of_a_later_step_goes_when_a_run_falls_back(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    slow = Stand(monkeypatch, tmp_path, "exec sleep 60").open(0)
    slow.take(8, write)
    slow.close()
    stand = Stand(monkeypatch, tmp_path, "exit 0")
    assert scored(stand.open(6)) == []
    assert stand.started == []
    assert list((tmp_path / "probes").iterdir()) == []


def test_snapshot_that_cannot_be_written_is_noted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    probing = Stand(monkeypatch, tmp_path, "exit 0").open(0)
    probing.take(4, full)
    (row,) = scored(probing)
    assert "No space left" in row["failed"]


def test_data_without_depth_are_refused_before_the_run(
    arguments: Arguments, pretrain: Pretrain, tmp_path: Path
) -> None:
    options = scenes.Options(scenes=8, val_scenes=0, frames=4, size=24)
    build("scenes", [], tmp_path / "shards", source_options=options, workers=1)
    more = ("--data", str(tmp_path / "shards"), "--probe-every", "4")
    code, _, said = pretrain(arguments(tmp_path / "run", *more))
    assert code == 2
    assert "--probe.data" in said
    assert not (tmp_path / "run").exists()


def _plant(folder: Path, rank: int) -> None:
    def start(probing: Probing, step: int) -> subprocess.Popen[bytes]:
        metrics = folder / "run" / "metrics.jsonl"
        script = f"until grep -q '\"step\": 4' {metrics}; do sleep 0.1; done; kill -TERM $(cat {folder}/pid)"
        return subprocess.Popen(["sh", "-c", f"{script}; exec sleep 600"])

    if rank == 1:
        (folder / "pid").write_text(str(os.getpid()))
    Probing._start = start


def test_signal_on_any_rank_ends_a_run_that_waits_for_a_score(
    arguments: Arguments, pretrain: Pretrain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    command = arguments(out, "--probe-every", "4", "--steps", "8", "--evaluation.every", "0")
    codes, said = run_ranks(2, command, tmp_path / "log", partial(_plant, tmp_path))
    assert codes == [128 + signal.SIGTERM] * 2, said
    status = json.loads((out / "status.json").read_text())
    assert (status["state"], status["step"]) == ("stopped", 4)
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["step-00000004"]
    # The snapshot that waited is scored when the run goes on, and the one that was due is taken.
    stand = Stand(monkeypatch, out, "exit 0")
    assert pretrain(command)[0] == 0
    assert stand.started == [row["step"] for row in scores(out)] == [0, 4, 8]
