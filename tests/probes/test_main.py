"""The command line: what it prints, and what it refuses in one sentence with exit code 2."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from probes import asking
from probes.__main__ import main
from probes.benchmarks import NAMES
from probes.units import PROBES
from tests.trees import colmap
from tests.trees.world import render_world

SCORED = ["--preset", "small", "--size", "64", "--items", "6", "--workers", "1", "--device", "cpu"]


def call(out: Path, data: object, *more: str, probe: str = "matching", cache: str = "none") -> list[str]:
    """A command that scores pixels in a moment."""
    given = ["run", probe, "--encoder", "pixels", "--data", str(data), "--out", str(out)]
    return [*given, "--readings", "knn", "--cache", cache, *SCORED, *more]


def refusal(arguments: list[str], capsys: pytest.CaptureFixture) -> str:
    """The one line on stderr of a command that ends with 2 and prints nothing else."""
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("mum-probe: ")
    assert printed.err.endswith("\n") and printed.err.count("\n") == 1
    return printed.err


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A COLMAP model of one scene, of which one photograph is missing."""
    root = tmp_path_factory.mktemp("colmap") / "fountain"
    names = list(colmap.write(root, render_world(6)))
    (root / "images" / names[-1]).unlink()
    return root


@pytest.fixture(scope="session")
def scored(rendered: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of results of two encoders."""
    out = tmp_path_factory.mktemp("scored") / "out"
    assert main(call(out, rendered, "--encoder", "pixels", "fine=pixels:4", "--no-pixels")) == 0
    return out


# -- what is printed


def test_run_prints_a_table_its_notes_and_the_page(
    rendered: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(call(tmp_path / "o", rendered)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"Dense matching on {rendered}: 5 items of 5 scenes [95 % interval over scenes]"
    assert any(line.split()[:3] == ["knn", "kept", "pixels"] and "[" in line for line in lines)
    for baseline in ("same position (8 x 8)", "chance (8 x 8)", "oracle (8 x 8)"):
        assert any(line.startswith("  baseline") and baseline in line for line in lines)
    assert lines[-1] == f"report: {tmp_path / 'o' / 'report.html'}"
    names = {path.name for path in (tmp_path / "o").iterdir()}
    assert names == {"report.html", "results.json", "rows-matching.csv", "table.csv", "table.tex"}


def test_run_prints_json(rendered: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(call(tmp_path / "o", rendered, "--json")) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["out"] == str(tmp_path / "o")
    assert printed["tasks"][0]["size"] == 64
    assert printed["command"].startswith("python -m probes run matching --encoder pixels")
    assert {line["encoder"] for line in printed["table"]} >= {"pixels", "chance (8 x 8)"}
    assert printed == {"out": printed["out"]} | {
        name: value for name, value in json.loads((tmp_path / "o" / "results.json").read_text()).items()
        if name != "rows"
    }  # fmt: skip


def test_readings_without_anything_to_train_on_are_named(
    photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    given = call(tmp_path / "o", f"colmap:{photographs}", "--allow-missing")
    assert main([word for word in given if word not in ("--readings", "knn")]) == 0
    printed = capsys.readouterr().out
    assert "note: matching on colmap fountain: linear, linear-soft not scored" in printed
    assert "note: colmap fountain: one scene only: no interval can be given." in printed


def test_report_joins_results_and_says_where_pictures_are(
    scored: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    page = tmp_path / "all.html"
    assert main(["report", str(scored), str(scored), "--out", str(page)]) == 0
    assert capsys.readouterr().out == f"report: {page}\n"
    assert str(scored / "report.html") in page.read_text()


def test_compare_prints_differences_of_two_encoders_and_writes_a_page(
    scored: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    page = tmp_path / "difference.html"
    given = ["compare", f"{scored}:fine", f"{scored}:pixels", "--out", str(page)]
    assert main(given) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{scored}:fine minus {scored}:pixels, on the items that both were scored on"
    assert lines[1].split()[-7:] == ["score", "fine", "pixels", "difference", "p", "fine", "is"]
    assert lines[-1] == f"report: {page}"
    assert "fine against pixels" in page.read_text()
    assert main([*given, "--json"]) == 0
    printed = capsys.readouterr()
    assert {line["minus"] for line in json.loads(printed.out)["differences"]} == {"pixels"}
    assert printed.err == f"report: {page}\n"


def test_list_names_every_probe_and_benchmark_and_what_it_must_hold(capsys: pytest.CaptureFixture) -> None:
    assert main(["list"]) == 0
    printed = capsys.readouterr().out
    heads = {line.split()[0] for line in printed.splitlines() if line.startswith("  ") and line[2] != " "}
    assert heads >= {*PROBES, *NAMES, "timm:NAME", "pixels[:PATCH]"}
    assert "readings: linear, dpt" in printed
    assert "or PATH/images/, depths/*.h5, views.txt and pairs.txt" in printed
    assert main(["list", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in printed["probes"]] == list(PROBES)
    assert all(row["where"] and row["layout"] for row in printed["benchmarks"])


# -- what is refused


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--readings", "lineer"], "unknown reading 'lineer'; did you mean 'linear'?"),
        (["--raedings", "knn"], "unknown option --raedings; did you mean '--readings'?"),
        (["--encoder", "pixle"], "unknown encoder 'pixle'; did you mean 'pixels'?"),
        (["--encoder", "random:mum_vittiny_patch9"], "did you mean 'mum_vittiny_patch8'?"),
        (["--encoder", "missing.safetensors"], "no such file"),
        (["--encoder", "a=pixels", "a=pixels:4"], "two encoders are called 'a'"),
        (["--data", "megadept:/nowhere"], "unknown benchmark 'megadept'; did you mean 'megadepth'?"),
        (["--data", "scannet1500"], "(write scannet1500:PATH)"),
        (["--data", "missing"], "no such folder"),
        (["--data", "nyu:/nowhere"], "there is no /nowhere; NYU Depth v2"),
        (["--train-data", "missing"], "no such folder"),
        (["--preset", "tiny"], "--preset 'tiny' is unknown"),
        (["--fit", "squish"], "--fit 'squish' is unknown; did you mean 'squash'?"),
        (["--base", "pixel"], "the base 'pixel' is not among the encoders; did you mean 'pixels'?"),
        (["--layers", "first"], "--layers takes last, all or block numbers"),
        (["--items", "0"], "--items must be at least 1"),
        (["--device", "gpu"], "no device of torch's"),
        (["--size", "x"], "invalid int value: 'x'"),
        (["--size", "8"], "at least 16 are needed"),
    ],
)
def test_bad_option_is_one_sentence(
    rendered: Path, tmp_path: Path, capsys: pytest.CaptureFixture, given: list[str], message: str
) -> None:
    assert message in refusal(call(tmp_path / "o", rendered, *given), capsys)
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "COMMAND"),
        (["lst"], "unknown command 'lst'; did you mean 'list'?"),
        (["run", "matching"], "--encoder, --data, --out"),
        (["compare", "nowhere", "nothing"], "'nowhere' is no folder"),
        (["report", "nowhere", "--out", "x.html"], "'nowhere' is no folder"),
        (["list", "--jsn"], "unknown option --jsn; did you mean '--json'?"),
    ],
)
def test_bad_command_is_one_sentence(
    given: list[str], message: str, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    assert message in refusal(given, capsys)


def test_unknown_probe_is_told_the_nearest(
    rendered: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    said = refusal(call(tmp_path, rendered, probe="mathcing"), capsys)
    assert "unknown probe 'mathcing'; did you mean 'matching'?" in said


def test_probe_that_the_data_cannot_feed_says_why(
    rendered: Path, photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    given = call(tmp_path, f"colmap:{photographs}", "--allow-missing", "--readings", "linear", probe="depth")
    assert "its frames have no depth" in refusal(given, capsys)


def test_probe_without_training_data_is_refused_alone_and_noted_among_all(
    photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = f"colmap:{photographs}"
    alone = call(tmp_path / "o", data, "--allow-missing", "--readings", "head", probe="multiview_pose")
    assert "has nothing to train on: name other scenes with --train-data" in refusal(alone, capsys)
    monkeypatch.setattr(asking, "PROBES", ("matching", "multiview_pose"))
    assert main(call(tmp_path / "o", data, "--allow-missing", probe="all")) == 0
    printed = capsys.readouterr().out
    assert "note: multiview_pose: not scored, because" in printed
    assert "Dense matching on" in printed


def test_data_without_a_pair_are_noted_beside_others_and_refused_alone(
    rendered: Path, photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    # A model of one photograph can be read and has no pair.
    single = tmp_path / "single"
    shutil.copytree(photographs, single)
    for file in sorted((single / "images" / "left").iterdir())[1:]:
        file.unlink()
    given = call(tmp_path / "o", f"colmap:{single}", "--allow-missing")
    assert "has no pair of views to score" in refusal(given, capsys)
    assert main([*given, "--data", f"colmap:{single}", str(rendered)]) == 0
    printed = capsys.readouterr().out
    assert (
        "note: matching: not scored, because data" in printed and f"Dense matching on {rendered}" in printed
    )


@pytest.mark.parametrize("name", [name for name in NAMES if name != "megadepth"])
def test_wrong_benchmark_folder_says_what_was_expected_and_found(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "data" / "holiday").mkdir(parents=True)
    said = refusal(call(tmp_path / "o", f"{name}:{tmp_path / 'data'}"), capsys)
    assert "holiday/" in said, "what was found"
    assert "expected" in said or "holds no COLMAP model" in said


def test_missing_files_are_listed_and_refused_and_if_allowed_printed_in_the_report(
    photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    given = call(tmp_path / "o", f"colmap:{photographs}")
    said = refusal(given, capsys)
    assert "1 of 6 files are missing: left/5.jpg; complete it, or --allow-missing" in said
    assert main([*given, "--allow-missing"]) == 0
    assert "note: colmap fountain: files missing: 1" in capsys.readouterr().out
    page = (tmp_path / "o" / "report.html").read_text()
    assert "Missing files" in page and "left/5.jpg" in page
    assert json.loads((tmp_path / "o" / "results.json").read_text())["tasks"][0]["missing"] == ["left/5.jpg"]


def test_features_of_other_weights_are_refused(
    rendered: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    cache = tmp_path / "cache"
    given = call(tmp_path / "o", rendered, cache=str(cache))
    assert main(given) == 0
    capsys.readouterr()
    for file in (cache / "features").glob("*/key.json"):
        key = json.loads(file.read_text())
        key["encoder"]["weights"] = "of another encoder"
        file.write_text(json.dumps(key, sort_keys=True))
    for unit in (cache / "units").iterdir():
        unit.unlink()
    said = refusal([*given, "--force", "--out", str(tmp_path / "p")], capsys)
    assert "holds features of something else (weights of another" in said


def test_results_of_other_options_are_refused(
    rendered: Path, scored: Path, capsys: pytest.CaptureFixture
) -> None:
    said = refusal(call(scored, rendered), capsys)
    assert "holds results of another configuration" in said and "--force to replace them" in said


# -- help


def test_help_of_every_command_has_an_example_and_imports_no_torch() -> None:
    code = (
        "import sys\nfrom probes.__main__ import main\n"
        "for command in (['run'], ['report'], ['compare'], ['list'], []):\n"
        "    try: main([*command, '--help'])\n"
        "    except SystemExit as left: assert left.code == 0\n"
        "sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for command in ("run", "report", "compare", "list"):
        assert f"\n  python -m probes {command}" in done.stdout, f"{command} shows no example"
