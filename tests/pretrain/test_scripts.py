"""The launch scripts of runs/: what they do about each way in which a run can end."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import figures

ROOT = Path(__file__).parents[2]

PYTHON = """#!/bin/bash
# Stands for the interpreter: torchrun becomes one line of $ENDS, a status.json to write, and fails.
case "$*" in *torch.distributed.run*) ;; *) exec {python} "$@" ;; esac
echo "$*" >> {folder}/launched
line=$(sed -n "$(wc -l < {folder}/launched)p" {folder}/ends)
[ -n "$line" ] && echo "$line" > {folder}/run/status.json
exit 1
"""


@pytest.fixture
def script(tmp_path: Path) -> Callable[..., tuple[int, str, list[str]]]:
    """Run a script of runs/ with stand-ins for torchrun and SLURM, whose run ends so and so: its exit code, what
    it said, and the commands it gave to SLURM."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (tmp_path / "run").mkdir()
    stands = {
        "python": PYTHON.format(python=sys.executable, folder=tmp_path),
        "srun": '#!/bin/bash\nshift\nexec "$@"\n',
        "scontrol": f'#!/bin/bash\n[ "$1" = show ] && echo node1 || echo "scontrol $*" >> {tmp_path}/slurm\n',
    }
    for name, text in stands.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)

    def run(name: str, *ends: dict[str, object], **environment: str) -> tuple[int, str, list[str]]:
        (tmp_path / "ends").write_text("".join(json.dumps(end) + "\n" for end in ends))
        done = subprocess.run(
            [ROOT / "runs" / name, "mum_tiny", "--data", "data", "--out", tmp_path / "run"],
            env=os.environ
            | {"PATH": f"{folder}:{os.environ['PATH']}", "PAUSE_SECONDS": "0"}
            | {"SLURM_JOB_NODELIST": "node[1-2]", "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_ID": "77"}
            | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        told = tmp_path / "slurm"
        return done.returncode, done.stdout, told.read_text().splitlines() if told.exists() else []

    return run


def end(state: str, *, signal: str = "", again: bool = True, step: int = 5) -> dict[str, object]:
    return {"state": state, "step": step, "reason": "why", "signal": signal, "again": again}


@pytest.mark.parametrize(
    ("how", "code", "requeued"),
    [
        pytest.param(end("finished", again=False), 0, False, id="finished"),
        pytest.param(end("stopped", signal="SIGUSR1"), 0, True, id="out of time"),
        pytest.param(end("stopped", signal="SIGTERM"), 3, False, id="cancelled"),
        pytest.param(end("failed", again=False), 1, False, id="failed by its own decision"),
        pytest.param(end("failed"), 0, True, id="crashed"),
        pytest.param(end("running"), 0, True, id="killed"),
        pytest.param(None, 1, False, id="never began"),
    ],
)
def test_slurm_job_is_queued_again_by_status_json(script, how, code, requeued) -> None:
    ended, said, slurm = script("slurm.sh", *([how] if how else []))
    assert ended == code, said
    assert slurm == (["scontrol requeue 77"] if requeued else [])


def test_slurm_job_that_always_crashes_is_not_queued_for_ever(script) -> None:
    ended, said, slurm = script("slurm.sh", end("running"), SLURM_RESTART_COUNT="2", MAX_REQUEUES="2")
    assert ended == 1
    assert not slurm
    assert "2 times already" in said


def test_single_node_gives_the_command_again_after_crashes_that_got_further(script, tmp_path: Path) -> None:
    ends = [end("running", step=5), end("failed", step=9), end("finished", again=False, step=12)]
    ended, said, _ = script("single_node.sh", *ends, MAX_ATTEMPTS="1")
    assert ended == 0, said
    assert len((tmp_path / "launched").read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("ends", "code", "launched"),
    [
        pytest.param([end("running")] * 9, 1, 3, id="crashes at one step"),
        pytest.param([end("failed", again=False)] * 9, 1, 1, id="failed by its own decision"),
        pytest.param([end("stopped", signal="SIGINT")] * 9, 3, 1, id="stopped"),
        pytest.param([], 1, 1, id="never began"),
    ],
)
def test_single_node_gives_up(script, tmp_path: Path, ends, code, launched) -> None:
    ended, said, _ = script("single_node.sh", *ends, MAX_ATTEMPTS="2")
    assert ended == code, said
    assert len((tmp_path / "launched").read_text().splitlines()) == launched


def test_scripts_ask_for_a_run_folder() -> None:
    for name in ("slurm.sh", "single_node.sh"):
        done = subprocess.run(
            [ROOT / "runs" / name, "mum_tiny"], stderr=subprocess.PIPE, text=True, check=False
        )
        assert done.returncode == 2
        assert "usage" in done.stderr


@pytest.mark.torchrun
def test_signal_to_the_single_node_script_saves_and_the_same_command_goes_on(
    two_ranks: Path, arguments: Callable[..., list[str]], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    command = [ROOT / "runs" / "single_node.sh", *arguments(out, "--workers", "1")]
    environment = os.environ | {"PYTHON": sys.executable, "RANKS": "2", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    metrics = out / "metrics.jsonl"
    while process.poll() is None and not (metrics.exists() and metrics.read_bytes().count(b"\n") >= 2):
        time.sleep(0.01)
    process.send_signal(signal.SIGUSR1)
    _, said = process.communicate()
    assert process.returncode == 3, said
    status = json.loads((out / "status.json").read_text())
    assert (status["state"], status["signal"]) == ("stopped", "SIGUSR1"), said
    assert (out / "checkpoints" / f"step-{status['step']:08d}").is_dir()
    done = subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert figures(out) == figures(two_ranks)
