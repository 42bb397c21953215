"""The result folder: finished ones are returned, others refused; files hold the rows."""

import csv
import json
from pathlib import Path

import pytest

from probes import matching
from probes.errors import ProbeError


@pytest.fixture(scope="module")
def finished(rendered: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("results") / "out"
    run(rendered, out)
    return out


def run(data: Path, out: Path, **options: object) -> matching.Results:
    options = {"size": 64, "pairs": 12, "readings": ["knn"]} | options
    return matching.run(["pixels:8", "fine=pixels:4"], [str(data)], out=out, **options)


def test_a_finished_folder_is_returned_at_once(
    rendered: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = run(rendered, None)
    monkeypatch.setattr(matching, "open_pairs", None)  # nothing may be searched or scored again
    again = run(rendered, finished)
    assert again.table == fresh.table
    assert again.rows == fresh.rows


def test_another_configuration_in_the_same_folder_is_refused_without_force(
    rendered: Path, finished: Path
) -> None:
    before = (finished / "results.json").read_bytes()
    with pytest.raises(
        ProbeError, match=r"another configuration \(it differs in pairs \(12 -> 6\)\).*--force"
    ):
        run(rendered, finished, pairs=6)
    assert (finished / "results.json").read_bytes() == before


def test_force_replaces_it(rendered: Path, tmp_path: Path) -> None:
    run(rendered, tmp_path, pairs=6)
    replaced = run(rendered, tmp_path, pairs=12, force=True)
    assert json.loads((tmp_path / "results.json").read_text())["hash"] == replaced.hash
    assert not list(tmp_path.glob(".*"))


def test_a_foreign_results_file_is_refused(rendered: Path, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text("[]")
    with pytest.raises(ProbeError, match="not a result of the probes"):
        run(rendered, tmp_path)


def test_files_hold_every_pair_and_the_table(finished: Path) -> None:
    results = json.loads((finished / "results.json").read_text())
    with (finished / "pairs.csv").open() as file:
        rows = list(csv.DictReader(file))
    with (finished / "table.csv").open() as file:
        table = list(csv.DictReader(file))
    assert len(table) == len(results["table"])
    for printed, line in zip(table, results["table"], strict=True):
        mine = [
            float(row["epe"])
            for row in rows
            if (row["encoder"], row["reading"], row["position"])
            == (line["encoder"], line["reading"], line["position"])
        ]
        assert line["epe"] == pytest.approx(sum(mine) / len(mine))
        assert float(printed["epe"]) == line["epe"]


def test_differences_are_first_minus_others(finished: Path) -> None:
    results = json.loads((finished / "results.json").read_text())
    means = {
        row["encoder"]: row["epe"]
        for row in results["table"]
        if row["reading"] == "knn" and row["position"] == "kept"
    }
    (difference,) = [d for d in results["differences"] if d["position"] == "kept"]
    assert (difference["encoder"], difference["minus"]) == ("pixels:8", "fine")
    assert difference["epe"] == pytest.approx(means["pixels:8"] - means["fine"])


def test_a_full_disk_leaves_the_old_file_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from probes.files import write_whole

    path = tmp_path / "results.json"
    write_whole(path, "old")

    def half(self: Path, data: bytes) -> None:
        with self.open("wb") as file:
            file.write(data[:1])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(OSError, match="No space"):
        write_whole(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
