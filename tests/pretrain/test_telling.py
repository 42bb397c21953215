"""What a run says of itself: MFU and memory in every row, and one run at Weights & Biases whatever interrupts it."""

import importlib.util
import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import mum
from pretrain.ledger import Row
from pretrain.recipes import mum_tiny
from pretrain.run_folder import RunFolder
from pretrain.telling import Telling

from .conftest import rows, run_ranks

Arguments = Callable[..., list[str]]
Pretrain = Callable[[list[str]], tuple[int, str, str]]
TERA = 1e-4
"""A peak so low that rounded shares of it can be compared."""


def test_mfu_is_the_models_flops_over_the_peak_of_all_ranks(arguments: Arguments, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = arguments(out, "--steps", "3", "--log.peak-tflops", str(TERA), "--evaluation.every", "0")
    codes, said = run_ranks(2, command, tmp_path / "log")
    assert codes == [0, 0], said
    forward = mum.create_model("mum_vittiny_patch8").flops([2, 2], 16, mask_ratio=0.75)
    for row in rows(out):
        per_second = 3 * forward / 4 * row["images_per_s"]
        rounding = 0.05 / row["images_per_s"] + 0.001
        assert row["mfu"] == pytest.approx(per_second / (2 * TERA * 1e12), rel=2 * rounding)
        assert 0.1 < row["memory_gb"] < 20
    assert f"MFU {rows(out)[-1]['mfu']:.0%}" in said[0]
    assert "unknown device" not in said[0]


def test_unknown_device_is_said(arguments: Arguments, pretrain: Pretrain, tmp_path: Path) -> None:
    code, _, said = pretrain(arguments(tmp_path / "run", "--steps", "1", "--evaluation.every", "0"))
    assert code == 0
    assert "unknown device" in said
    assert rows(tmp_path / "run")[0]["mfu"] is None


def test_a_board_that_fails_is_left_and_the_run_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Broken:
        def write(self, rows: list[Row]) -> None:
            raise ConnectionError("no route to the host")

    folder = RunFolder(tmp_path)
    telling = Telling(mum_tiny(), folder, 0)
    telling._boards = [Broken()]
    row = {"step": 1, "images": 48, "loss": 1.0, "images_per_s": 2.0, "data_wait": 0.0}
    telling.tell([row], None)
    telling.tell([row | {"step": 2}], None)
    telling.close()
    assert len(rows(tmp_path)) == 2
    assert capsys.readouterr().err.count("no route to the host") == 1


def stored_history(path: Path) -> Iterator[dict[str, Any]]:
    """What a .wandb file logs, in its order: LevelDB's log format, blocks of 32 KB with records of protobuf."""
    from wandb.proto import wandb_internal_pb2

    content, at, whole = path.read_bytes(), 7, b""
    while at + 7 <= len(content):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", content[at : at + 7])
        whole += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            if record.WhichOneof("record_type") == "history":
                items = record.history.item
                yield {(i.key or "/".join(i.nested_key)): json.loads(i.value_json) for i in items}
            whole = b""


@pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="wandb is not installed")
def test_resumed_run_goes_on_as_the_same_run_at_wandb(
    arguments: Arguments, pretrain: Pretrain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    out = tmp_path / "run"
    command = arguments(out, "--log.wandb", "seeing", "--steps")
    for steps in ("4", "8"):
        code, _, said = pretrain([*command, steps])
        assert code == 0, said
    name = json.loads((out / "config.json").read_text())["logger"]["wandb"]
    states = sorted((out / "checkpoints").glob("*/state.json"))
    assert [json.loads(state.read_text())["logger"]["wandb"] for state in states] == [name, name]
    files = sorted(out.glob(f"wandb/offline-run-*-{name}/run-{name}.wandb"))
    assert len(files) == 2
    told = [entry for file in files for entry in stored_history(file)]
    losses = [(entry["step"], entry["train/loss"]) for entry in told if "train/loss" in entry]
    assert losses == [(row["step"], row["loss"]) for row in rows(out)]
    assert [entry["step"] for entry in told if "reconstruction/path" in entry] == [4, 8]
    # Another folder is another run.
    other = tmp_path / "other"
    assert pretrain(arguments(other, "--log.wandb", "seeing", "--steps", "1"))[0] == 0
    assert json.loads((other / "config.json").read_text())["logger"]["wandb"] != name


def test_wandb_that_is_missing_is_said_before_anything_starts(
    arguments: Arguments, pretrain: Pretrain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pretrain.sinks.find_spec", lambda name: None)
    code, _, said = pretrain(arguments(tmp_path / "run", "--log.wandb", "seeing"))
    assert code == 2
    assert "pip install" in said
    assert not (tmp_path / "run").exists()
