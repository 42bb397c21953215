"""What readers say of missing files and of folders of another form."""

from pathlib import Path

import pytest

from probes.benchmarks.reader import BenchmarkReader, found_in, refuse_missing, unlike
from probes.errors import ProbeError


def test_missing_files_are_refused_with_names_counts_and_the_way_on() -> None:
    missing = [f"{i}.jpg" for i in range(7)]
    with pytest.raises(ProbeError) as caught:
        refuse_missing("x:y", missing, 20, allow_missing=False)
    assert str(caught.value) == (
        "data 'x:y': 7 of 20 files are missing: 0.jpg, 1.jpg, 2.jpg, 3.jpg, 4.jpg and 2 more; "
        "complete it, or --allow-missing to leave out what needs them"
    )


def test_missing_files_pass_where_none_is_missing_or_a_part_is_accepted() -> None:
    refuse_missing("x:y", [], 3, allow_missing=False)
    refuse_missing("x:y", ["a"], 3, allow_missing=True)


@pytest.mark.parametrize("allow", [False, True])
def test_nothing_at_all_is_refused_even_where_a_part_is_accepted(allow: bool) -> None:
    with pytest.raises(ProbeError, match="2 of 2 files are missing: a, b; nothing is left to score"):
        refuse_missing("x:y", ["a", "b"], 2, allow_missing=allow)


def test_what_a_folder_holds_is_said_in_a_few_words(tmp_path: Path) -> None:
    assert found_in(tmp_path / "none") == "no folder"
    assert found_in(tmp_path) == "an empty folder"
    (tmp_path / "b.txt").touch()
    (tmp_path / "a").mkdir()
    assert found_in(tmp_path) == "a/, b.txt"
    assert found_in(tmp_path / "b.txt") == "a file"
    for i in range(6):
        (tmp_path / f"c{i}").touch()
    assert found_in(tmp_path) == "a/, b.txt, c0, c1, c2 and 3 more"


def test_another_form_and_advice_are_one_sentence_each() -> None:
    assert str(unlike("x:y", "a/", "b")) == "data 'x:y': expected a/, found b"
    reader = BenchmarkReader(title="Name", where="there", layout="a/\nb.txt", open=lambda *_: None)
    assert reader.advice == "Name is expected as a/; b.txt, from there"
