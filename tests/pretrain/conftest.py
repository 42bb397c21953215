"""A small rendered dataset, a small run over it, and ranks: by torchrun, or forked with the imports done."""

import json
import multiprocessing
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pretrain.__main__ import main
from shards.build import build
from shards.sources import scenes

from .kills import TIMING

STEPS = 12
OPTIONS = [
    *("--size", "16", "--images-per-lane", "4", "--views", "2", "2"),
    *("--steps", str(STEPS), "--workers", "0", "--parallel.threads", "1"),
    *("--evaluation.every", "4", "--evaluation.views", "2", "--evaluation.pictures", "1"),
    *("--checkpoint.every", "4", "--log.every", "1", "--log.no-tensorboard"),
]
"""mum_tiny, small enough for a test; later options win."""

Rows = list[dict[str, Any]]


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight train and three val scenes of four small views."""
    folder = tmp_path_factory.mktemp("data") / "scenes"
    options = scenes.Options(scenes=8, val_scenes=3, frames=4, size=32)
    build("scenes", [], folder, source_options=options, workers=1)
    return folder


@pytest.fixture(scope="session")
def arguments(data: Path) -> Callable[..., list[str]]:
    """The command line of a small run in a folder, with more options."""

    def make(out: Path, *more: str) -> list[str]:
        return ["mum_tiny", "--data", str(data), "--out", str(out), *OPTIONS, *more]

    return make


@pytest.fixture
def pretrain(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[list[str]], tuple[int, str, str]]:
    """Run the command line in this process, alone: exit code, stdout, stderr."""

    def run(arguments: list[str]) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["pretrain", *arguments])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def torchrun(ranks: int, arguments: list[str], **options: Any) -> subprocess.Popen[str]:
    """Start real torchrun."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(ranks)]
    command += ["--master-port", str(free_port()), "-m", "pretrain", *arguments]
    return subprocess.Popen(command, text=True, **options)


def _rank(rank: int, size: int, port: int, arguments: list[str], log: str, plant: Any) -> None:
    os.environ |= {
        "RANK": str(rank),
        "WORLD_SIZE": str(size),
        "LOCAL_RANK": str(rank),
        "LOCAL_WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    sys.argv = ["pretrain", *arguments]
    sys.stderr = open(f"{log}.{rank}", "w", buffering=1)  # noqa: SIM115
    if plant is not None:
        plant(rank)
    main()


def run_ranks(
    size: int, arguments: list[str], log: Path, plant: Callable[[int], None] | None = None
) -> tuple[list[int], list[str]]:
    """The same processes that torchrun would start, forked with the imports done: exit codes and stderr of each.

    `plant` is called with the rank before it begins.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pretrain.launch", "shards.loader", "mum.pictures"])
    port = free_port()
    ranks = [
        context.Process(target=_rank, args=(rank, size, port, arguments, str(log), plant))
        for rank in range(size)
    ]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join()
    codes = [process.exitcode for process in ranks]
    return codes, [Path(f"{log}.{rank}").read_text() for rank in range(size)]


def die_at(step: int, rank: int) -> None:
    """Die two steps after a checkpoint, once that is on the disk."""
    from pretrain.trainer import Trainer

    update = Trainer._update

    def dying(self: Trainer, *given: object) -> None:
        if self.step == step:
            self.saver.close()
            os._exit(9)
        update(self, *given)

    Trainer._update = dying  # type: ignore[method-assign]


def rows(run: Path) -> Rows:
    """The rows of a run's metrics.jsonl."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def figures(run: Path) -> Rows:
    """What must be the same bit for bit, step by step."""
    return [{key: value for key, value in row.items() if key not in TIMING} for row in rows(run)]


@pytest.fixture(scope="session")
def two_ranks(tmp_path_factory: pytest.TempPathFactory, arguments: Callable[..., list[str]]) -> Path:
    """A run of two ranks under torchrun that nobody disturbed."""
    out = tmp_path_factory.mktemp("runs") / "two"
    process = torchrun(2, arguments(out), stderr=subprocess.PIPE)
    _, said = process.communicate()
    assert process.returncode == 0, said
    return out
