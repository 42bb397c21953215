"""Damaged data in a run: each damaged frame is written down once, and too much of it stops all ranks."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pretrain.guards import DAMAGE_WINDOW, DamageGuard, TooMuchDamageError
from shards.build import build
from shards.sources import scenes

from .conftest import run_ranks

Arguments = Callable[..., list[str]]
Pretrain = Callable[[list[str]], tuple[int, str, str]]


def rows(*frames: int, first: int = 1) -> list[dict]:
    """A row a step, with so many damaged frames and one damaged overlap."""
    events = [[{"frame": n} for n in range(count)] + [{"frame": None}] for count in frames]
    return [{"step": first + i, "substituted": e} if e else {"step": first + i} for i, e in enumerate(events)]


def test_the_share_is_taken_over_a_window_of_steps() -> None:
    guard = DamageGuard(0.01, 10)  # ten frames of a window's thousand
    guard.watch(rows(10))
    with pytest.raises(TooMuchDamageError, match=r"step 2: 11 of the frames of 100 steps \(1\.10%\)"):
        guard.watch(rows(1, first=2))
    guard = DamageGuard(0.01, 10)
    guard.watch(rows(10, *[0] * (DAMAGE_WINDOW - 1)))
    guard.watch(rows(10, first=DAMAGE_WINDOW + 1))


@pytest.fixture
def spoilt(tmp_path: Path) -> Path:
    """Rendered scenes with one bit of one frame flipped."""
    folder = tmp_path / "d"
    options = scenes.Options(scenes=4, val_scenes=0, frames=4, size=24)
    build("scenes", [], folder, source_options=options, workers=1)
    tar = next((folder / "shards").glob("*.tar"))
    content = bytearray(tar.read_bytes())
    content[content.index(b"\xff\xd8\xff") + 100] ^= 0xFF
    tar.write_bytes(content)
    return folder


def test_a_damaged_frame_is_in_quarantine_once_over_interruptions(
    arguments: Arguments, pretrain: Pretrain, spoilt: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    for steps in ("4", "8"):
        code, _, err = pretrain(arguments(out, "--data", str(spoilt), "--steps", steps))
        assert code == 0, err
    (row,) = map(json.loads, (out / "quarantine.jsonl").read_text().splitlines())
    assert row["reason"] == "its bytes fail their crc32"
    met = [
        e
        for line in (out / "metrics.jsonl").read_text().splitlines()
        for e in json.loads(line).get("substituted", [])
    ]
    assert len(met) > 1


def test_too_much_damage_stops_the_run_in_one_sentence(
    arguments: Arguments, pretrain: Pretrain, spoilt: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    code, _, err = pretrain(arguments(out, "--data", str(spoilt), "--steps", "8", "--damage-limit", "0"))
    assert code == 2
    last = err.strip().splitlines()[-1]
    assert "were damaged and others stood in for them, more than --damage-limit 0:" in last
    assert "shards repair DIR --quarantine FILE" in last
    assert json.loads((out / "status.json").read_text())["state"] == "failed"
    assert (out / "quarantine.jsonl").exists()


@pytest.mark.torchrun
def test_two_ranks_stop_together_though_one_of_them_met_the_damage(
    arguments: Arguments, spoilt: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    more = ("--data", str(spoilt), "--steps", "8", "--damage-limit", "0")
    codes, said = run_ranks(2, arguments(out, *more), tmp_path / "log")
    assert codes == [2, 2]
    stopped = [line for text in said for line in text.splitlines() if "were damaged" in line]
    assert len(stopped) == 1
    assert json.loads((out / "status.json").read_text())["state"] == "failed"
