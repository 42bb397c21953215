"""The command line: what it prints, and what it refuses in one sentence with exit code 2."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from probes.__main__ import main

CALL = ["run", "matching", "--size", "64", "--pairs", "6", "--readings", "knn", "--cache", "none"]


def test_it_prints_the_table_and_the_page(
    rendered: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main([*CALL, "--encoder", "pixels", "--data", str(rendered), "--out", str(tmp_path / "o")]) == 0
    printed = capsys.readouterr().out
    assert "same position (8 x 8)" in printed
    assert printed.rstrip().endswith(str(tmp_path / "o" / "report.html"))
    assert (tmp_path / "o" / "report.html").is_file()


def test_json_is_json(rendered: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    main([*CALL, "--encoder", "pixels", "--data", str(rendered), "--out", str(tmp_path), "--json"])
    printed = json.loads(capsys.readouterr().out)
    assert printed["data"][0]["size"] == 64
    assert "--json" in printed["command"]
    assert {row["encoder"] for row in printed["table"]} >= {"pixels", "chance (8 x 8)"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["run", "mathcing"], "unknown probe 'mathcing'; did you mean 'matching'?"),
        (["--raedings", "knn"], "unknown option --raedings; did you mean '--readings'?"),
        (["--readings", "lineer"], "unknown reading 'lineer'; did you mean 'linear'?"),
        (["--layers", "first"], "--layers takes last, all or block numbers"),
        (["--encoder", "pixle"], "did you mean 'pixels'"),
        (["--encoder", "missing.safetensors"], "no such file"),
        (["--data", "missing"], "no such folder"),
        (["--pairs", "0"], "--pairs must be at least 1"),
        (["--device", "gpu"], "no device of torch's"),
        (["--size", "x"], "invalid int value: 'x'"),
    ],
)
def test_bad_input_is_one_sentence(
    rendered: Path, tmp_path: Path, capsys: pytest.CaptureFixture, changes: list[str], message: str
) -> None:
    out = tmp_path / "o"
    arguments = [*CALL, "--encoder", "pixels", "--data", str(rendered), "--out", str(out)]
    arguments = changes + arguments[2:] if changes[0] == "run" else arguments + changes
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert printed.out == ""
    assert not out.exists()


def test_missing_options_are_named(capsys: pytest.CaptureFixture) -> None:
    assert main(["run", "matching"]) == 2
    assert "--encoder, --data, --out" in capsys.readouterr().err
    assert main([]) == 2


def test_help_has_an_example_and_does_not_import_torch() -> None:
    code = (
        "import sys; from probes.__main__ import main\n"
        "try: main(['run', '--help'])\nexcept SystemExit: pass\n"
        "sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "example:" in done.stdout
