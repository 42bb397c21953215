"""The suite: the same numbers from any number of processes, from the cache, and after a kill."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from probes import asking, suite
from probes.encoders.encoder import PixelEncoder
from probes.errors import ProbeError
from probes.results.results import Results

ENCODERS = ["random:mum_vittiny_patch8", "pixels"]


def score(rendered: Path, cache: Path | str, **options: object) -> Results:
    given = {
        "probes": ["matching"],
        "readings": ["knn"],
        "items": 12,
        "size": 64,
        "preset": "small",
    } | options
    return suite.run(given.pop("probes"), ENCODERS, [str(rendered)], cache=cache, **given)


def numbers(results: Results) -> str:
    return json.dumps(results.rows)


def test_second_run_encodes_nothing_and_gives_the_same(
    rendered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = score(rendered, tmp_path / "cache")

    def refuse(*_: object) -> None:
        raise AssertionError("an image was encoded although its features are in the cache")

    units = sorted((tmp_path / "cache" / "units").iterdir())
    assert len(units) == 3, "one unit an encoder, and the baselines"
    opened = PixelEncoder.encode
    monkeypatch.setattr(
        PixelEncoder,
        "encode",
        lambda self, images, layers: opened(self, images, layers) if len(images) == 1 else refuse(),
    )
    assert numbers(score(rendered, tmp_path / "cache")) == numbers(first)
    # Units that are lost are scored again, from features that are still there.
    for unit in units:
        unit.unlink()
    assert numbers(score(rendered, tmp_path / "cache")) == numbers(first)


def test_any_number_of_processes_gives_the_same_numbers(rendered: Path, tmp_path: Path) -> None:
    alone = score(rendered, tmp_path / "one")
    assert numbers(score(rendered, tmp_path / "two", workers=2)) == numbers(alone)


def test_consistency_tells_what_is_left_of_a_base_model(rendered: Path, tmp_path: Path) -> None:
    twins = ["base=random:mum_vittiny_patch8", "other=random:mum_vittiny_patch8:1"]
    found = suite.run(
        ["consistency"], twins, [str(rendered)], preset="small", size=64, items=6, base="base", cache=tmp_path
    )
    alike = {row["encoder"]: row["base_similarity"] for row in found.rows if row["reading"] != "baseline"}
    assert alike["base"] == pytest.approx(1)
    assert alike["other"] < 0.9
    assert alike["pixels"] is None, "pixels have another width"
    with pytest.raises(ProbeError, match="the base 'bases' is not among the encoders; did you mean 'base'"):
        suite.run(["consistency"], twins, [str(rendered)], size=64, base="bases", cache=tmp_path)


def test_without_a_cache_nothing_is_left(
    rendered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", None)
    score(rendered, "none")
    assert list((tmp_path / "tmp").iterdir()) == []
    assert not (tmp_path / "home").exists()


def test_killed_and_started_again_it_goes_on(rendered: Path, tmp_path: Path) -> None:
    cache, out = tmp_path / "cache", tmp_path / "out"
    command = [
        *(sys.executable, "-m", "probes", "run", "matching", "--encoder", *ENCODERS, "--data", str(rendered)),
        *("--out", str(out), "--cache", str(cache), "--preset", "small", "--size", "64", "--items", "12"),
        *("--workers", "1"),
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True)
    while process.poll() is None and not list((cache / "units").glob("[!.]*.npz")):
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (out / "results.json").exists(), "it was over before it was killed"
    kept = {path: path.stat().st_mtime_ns for path in (cache / "units").glob("[!.]*.npz")}
    assert 1 <= len(kept) < 3
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {path: path.stat().st_mtime_ns for path in kept} == kept, "a finished unit was scored again"
    again = score(rendered, tmp_path / "other", readings=None)
    with (out / "rows-matching.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["epe"]) for row in rows] == [row["epe"] for row in again.rows]


def test_other_configuration_is_refused_and_forced(rendered: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = score(rendered, tmp_path / "cache", out=out)
    assert numbers(score(rendered, tmp_path / "cache", out=out)) == numbers(first)
    with pytest.raises(ProbeError, match=r"another configuration \(it differs in .*items"):
        score(rendered, tmp_path / "cache", out=out, items=6)
    assert len(score(rendered, tmp_path / "cache", out=out, items=6, force=True).rows) < len(first.rows)


def test_results_that_could_not_be_written_are_refused_at_once(
    rendered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Root may write anywhere, so the answer of the system is what is changed.
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) != tmp_path)
    with pytest.raises(ProbeError, match="cannot be written to, choose another folder"):
        score(rendered, tmp_path / "cache", out=tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []


def test_units_of_other_library_versions_are_not_taken(
    rendered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    score(rendered, tmp_path)
    monkeypatch.setattr("probes.units.versions", lambda: {"poselib": "another"})
    score(rendered, tmp_path)
    assert len(list((tmp_path / "units").iterdir())) == 6


def test_damaged_unit_is_scored_again(rendered: Path, tmp_path: Path) -> None:
    first = score(rendered, tmp_path)
    for unit in (tmp_path / "units").iterdir():
        unit.write_bytes(unit.read_bytes()[:100])
    assert numbers(score(rendered, tmp_path)) == numbers(first)


def test_probe_that_the_data_cannot_feed_is_refused_by_name_and_noted_among_all(
    rendered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "PROBES", ("matching", "segmentation"))
    monkeypatch.setattr(
        "probes.dense.segmentation.SegmentationProbe.refuses", lambda self, benchmark: "no labels"
    )
    with pytest.raises(ProbeError, match=r"segmentation was not scored on .*: no labels"):
        score(rendered, tmp_path, probes=["segmentation"], readings=None)
    found = score(rendered, tmp_path, probes=["all"])
    assert {row["probe"] for row in found.rows} == {"matching"}
    assert any("segmentation was not scored" in note for note in found.notes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"probes": ["mathcing"]}, "unknown probe 'mathcing'; did you mean 'matching'"),
        ({"probes": []}, "no probe is named"),
        ({"readings": ["lineer"]}, "unknown reading 'lineer'; did you mean 'linear'"),
        ({"size": 8}, "at least 16"),
        ({"seeds": (0, -1)}, "seeds are numbers from 0"),
        ({"train_data": ["nowhere"]}, "no such folder"),
        ({"layers": (13,)}, "has layers 1 to"),
    ],
)
def test_bad_input_is_one_sentence(rendered: Path, tmp_path: Path, options: dict, message: str) -> None:
    with pytest.raises(ProbeError, match=message):
        score(rendered, tmp_path, **options)
