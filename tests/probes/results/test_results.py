"""The result folder: finished ones are returned, others refused; files hold the rows and what was made of them."""

import csv
import json
import math
from pathlib import Path

import pytest

from probes.errors import ProbeError
from probes.results.results import Results, read_finished, scene_notes
from probes.words import short_data
from tests.probes.made_results import DATA, PROBES, encoder, matching_rows, results, task


@pytest.fixture(scope="module")
def made() -> Results:
    return results()


@pytest.fixture(scope="module")
def folder(made: Results, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("results") / "new" / "out"
    made.write(out, "<!doctype html>")
    return out


def test_what_is_read_is_what_was_written(made: Results, folder: Path) -> None:
    again = Results.read(folder, PROBES)
    assert json.dumps(again.rows) == json.dumps(made.rows)
    assert again.table == made.table
    assert again.differences == made.differences
    assert (again.identity, again.hash, again.command) == (made.identity, made.hash, made.command)
    assert again.failures
    assert all(row["error"] == math.inf for row in again.failures)


def test_json_is_strict_and_holds_no_rows(folder: Path) -> None:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    stored = json.loads((folder / "results.json").read_text(), parse_constant=refuse)
    assert {"format", "hash", "encoders", "tasks", "table", "differences", "selections"} < stored.keys()
    assert "inf" in {line.get("rotation_error") for line in stored["table"]}


def test_files_hold_every_row_and_the_table(made: Results, folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == [
        "report.html", "results.json", "rows-matching.csv", "rows-pose.csv", "rows-speed.csv", "table.csv", "table.tex"
    ]  # fmt: skip
    with (folder / "rows-matching.csv").open() as file:
        rows = list(csv.DictReader(file))
    with (folder / "table.csv").open() as file:
        table = list(csv.DictReader(file))
    assert len(table) == len(made.table)
    for line in table:
        if line["probe"] == "matching":
            mine = [
                float(row["epe"])
                for row in rows
                if all(row[key] == line[key] for key in ("encoder", "reading", "position", "layer"))
            ]
            assert float(line["epe"]) == pytest.approx(sum(mine) / len(mine))


def test_differences_are_all_pairs_at_the_last_layer_first_encoder_first(made: Results) -> None:
    found = [
        line for line in made.differences
        if (line["probe"], line["reading"], line["position"], line["metric"])
        == ("matching", "linear", "kept", "epe")
    ]  # fmt: skip
    pairs = [(line["encoder"], line["minus"]) for line in found]
    assert pairs == [
        ("trained", "random:mum_vittiny_patch8"), ("trained", "pixels"), ("random:mum_vittiny_patch8", "pixels")
    ]  # fmt: skip
    means = {label: line["epe"] for label, line in made.final("matching", DATA, "linear", "kept").items()}
    for line in found:
        assert line["difference"] == pytest.approx(means[line["encoder"]] - means[line["minus"]])
        assert (line["layer"], line["minus_layer"]) == (2, 2)
    assert [line["verdict"] for line in found][:2] == ["better", "better"]
    assert not [line for line in made.differences if line["probe"] == "speed"]


def test_three_scenes_decide_nothing() -> None:
    found = results(
        scenes=3, rows=matching_rows({"a": 5.0, "b": 1.0}, scenes=3), encoders=[encoder("a"), encoder("b")]
    )
    assert {line["verdict"] for line in found.differences} == {"too few scenes"}


def test_selected_layer_stands_for_the_encoder() -> None:
    found = results(
        selections=[
            {"probe": "matching", "data": DATA, "encoder": "trained", "selected": {"layer": {"chosen": 1}}}
        ]
    )
    lines = found.final("matching", DATA, "knn", "kept")
    assert {label: line["layer"] for label, line in lines.items()} == {
        "trained": 1, "random:mum_vittiny_patch8": 2, "pixels": 2
    }  # fmt: skip


def test_summary_leads_with_the_probes_own_reading_and_position_kept(made: Results) -> None:
    assert made.leading("matching", DATA) == ("linear", "kept")
    assert made.leading("pose", DATA) == ("poselib-mutual", "kept")
    assert {line["encoder"] for line in made.baselines("matching", DATA)} == {
        "same position", "oracle (8 x 8)", "chance (8 x 8)"
    }  # fmt: skip


def test_finished_folder_is_returned(made: Results, folder: Path, tmp_path: Path) -> None:
    assert read_finished(folder, made.identity, PROBES).table == made.table
    assert read_finished(tmp_path / "nothing", made.identity, PROBES) is None


def test_what_is_no_number_neither_breaks_the_file_nor_the_match(tmp_path: Path) -> None:
    identity = {"settings": {"most": math.inf, "layers": (1, 2)}}
    found = results(identity=identity, tasks=[task("matching", facts={"scenes": 12, "mean_angle": math.nan})])
    found.write(tmp_path, "")
    again = read_finished(tmp_path, identity, PROBES)
    assert again.tasks[0]["facts"] == {"scenes": 12, "mean_angle": None}


def test_another_configuration_is_refused_without_force(made: Results, folder: Path) -> None:
    other = made.identity | {"settings": {"size": 128, "seeds": [0, 1]}}
    with pytest.raises(
        ProbeError, match=r"another configuration \(it differs in size \(64 -> 128\)\).*--force"
    ):
        read_finished(folder, other, PROBES)
    assert read_finished(folder, other, PROBES, force=True) is None


def test_folder_with_a_file_gone_is_not_finished(made: Results, tmp_path: Path) -> None:
    made.write(tmp_path, "page")
    (tmp_path / "rows-pose.csv").unlink()
    assert read_finished(tmp_path, made.identity, PROBES) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [("[]", "not a result of the probes"), ("{", "not a result"), ('{"format": 99}', "of format 99")],
)
def test_foreign_results_file_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(ProbeError, match=message):
        Results.read(tmp_path, PROBES)
    with pytest.raises(ProbeError, match=message):
        read_finished(tmp_path, {}, PROBES)
    assert read_finished(tmp_path, {}, PROBES, force=True) is None


def test_folder_that_is_none_or_unfinished_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProbeError, match="is no folder"):
        Results.read(tmp_path / "nowhere", PROBES)
    with pytest.raises(ProbeError, match="did not finish"):
        Results.read(tmp_path, PROBES)
    (tmp_path / "file").touch()
    with pytest.raises(ProbeError, match="is a file"):
        read_finished(tmp_path / "file", {}, PROBES)


def test_kill_while_writing_leaves_no_finished_folder(
    made: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.write(tmp_path, "old")

    def die(path: Path, data: str) -> None:
        if path.name == "table.csv":
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("probes.results.results.write_whole", die)
    with pytest.raises(ProbeError, match="cannot be written"):
        made.write(tmp_path, "new")
    assert not (tmp_path / "results.json").exists()


def test_rows_of_a_probe_that_is_gone_do_not_stay(made: Results, tmp_path: Path) -> None:
    made.write(tmp_path, "")
    results(rows=matching_rows({"a": 1.0, "b": 2.0}), tasks=[task("matching")]).write(tmp_path, "")
    assert not (tmp_path / "rows-pose.csv").exists()


def test_unknown_probe_in_a_folder_names_it(folder: Path) -> None:
    known = {name: probe for name, probe in PROBES.items() if name != "pose"}
    with pytest.raises(ProbeError, match="unknown probe 'pose'"):
        Results.read(folder, known)


def test_joined_results_stand_side_by_side() -> None:
    one = results(rows=matching_rows({"a": 1.0, "pixels": 2.0}), encoders=[encoder("a"), encoder("pixels")])
    two = results(rows=matching_rows({"b": 1.0, "pixels": 2.0}), encoders=[encoder("b"), encoder("pixels")])
    found = Results.join([one, two])
    assert found.labels == ["a", "pixels", "b"]
    assert len(found.rows) == len(one.rows) + sum(row["encoder"] == "b" for row in two.rows)
    assert list(found.final("matching", DATA, "knn", "kept")) == ["a", "pixels", "b"]


def test_joining_leaves_the_parts_as_they_were() -> None:
    one = results(encoders=[encoder("trained", layers=[1])])
    found = Results.join([one, results(encoders=[encoder("trained", layers=[2])])])
    assert found.encoders[0]["layers"] == [1, 2]
    assert one.encoders[0]["layers"] == [1]


def test_what_several_parts_scored_is_taken_from_the_first() -> None:
    sides = [results(rows=matching_rows({"a": skill}), encoders=[encoder("a")]) for skill in (1.0, 2.0)]
    assert Results.join(sides).rows == sides[0].rows
    assert Results.join(sides[::-1]).rows == sides[1].rows


def test_joined_results_of_other_lists_or_one_name_for_two_are_refused() -> None:
    one = results()
    with pytest.raises(ProbeError, match="other lists"):
        Results.join([one, results(tasks=[task("matching", hash="cd" * 32)])])
    with pytest.raises(ProbeError, match="two encoders are called 'trained'"):
        Results.join([one, results(encoders=[encoder("trained", identity={"weights": "other"})])])


def test_few_scenes_are_said_once_a_data_set() -> None:
    facts = {"scenes": 2}
    notes = scene_notes([task("matching", facts=facts), task("pose", facts=facts), task("pose", data="many")])
    assert notes == [f"{short_data(DATA)}: only 2 scenes: the interval is unreliable."]


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


def test_rows_are_selected_by_columns(made: Results) -> None:
    found = made.select(probe="matching", encoder="pixels", reading="knn", position="kept", layer=1)
    assert len(found) == 60
    assert {row["encoder"] for row in found} == {"pixels"}
