"""Checkpoints are whole or absent."""

import json
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mum
from pretrain import checkpoint

from .conftest import STEPS, figures, rows

Arguments = Callable[..., list[str]]
Pretrain = Callable[[list[str]], tuple[int, str, str]]


@pytest.mark.parametrize("where", ["tensors", "model"])
def test_full_disk_leaves_the_previous_checkpoint_whole(
    arguments: Arguments,
    pretrain: Pretrain,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
) -> None:
    out = tmp_path / "run"
    owner, name = (checkpoint.dcp, "save") if where == "tensors" else (mum, "save")
    write = getattr(owner, name)
    calls = 0

    def second_fails(*given: Any, **named: Any) -> Any:
        # The kernel refuses to write more than 4 MB to a file, as it would on a full disk.
        nonlocal calls
        calls += 1
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        if calls == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (4 << 20, hard))
        try:
            return write(*given, **named)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, second_fails)
        code, _, err = pretrain(arguments(out))
    assert code == 2
    last = err.splitlines()[-1]
    assert "step 8 could not be saved" in last
    assert "step-00000004" in last
    assert sorted(p.name for p in (out / "checkpoints").iterdir()) == ["step-00000004"]
    assert json.loads((out / "status.json").read_text())["state"] == "failed"

    code, _, err = pretrain(arguments(out))
    assert code == 0, err
    assert [row["step"] for row in rows(out)] == list(range(1, STEPS + 1))


def test_checkpoint_holds_a_model_that_mum_reads(
    arguments: Arguments, pretrain: Pretrain, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    code, _, err = pretrain(arguments(out, "--checkpoint.keep", "2"))
    assert code == 0, err
    names = sorted(p.name for p in (out / "checkpoints").iterdir())
    assert names == ["step-00000008", "step-00000012"]
    model = mum.load(out)
    assert model.decoder is not None
    header = mum.read_header(checkpoint.newest(out / "checkpoints") / "model.safetensors")
    assert header["summary"]["step"] == STEPS
    assert header["summary"]["images"] == STEPS * 16
    assert header["preprocessing"]["size"] == 16
    state = json.loads((out / "checkpoints" / "step-00000012" / "state.json").read_text())
    assert state["loader"]["step"] == STEPS
    assert figures(out)[-1]["val_loss"] == header["summary"]["val_loss"]


def test_what_is_half_written_is_no_checkpoint(tmp_path: Path) -> None:
    assert checkpoint.newest(tmp_path / "none") is None
    for name in ("step-00000004", "step-00000010", ".step-00000012.part", "step-00000011"):
        (tmp_path / name).mkdir()
    for name in ("step-00000004", "step-00000010"):
        (tmp_path / name / "state.json").write_text("{}")
    assert checkpoint.newest(tmp_path) == tmp_path / "step-00000010"
