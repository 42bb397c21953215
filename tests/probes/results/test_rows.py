"""Rows come back from CSV as they were, whatever their columns hold."""

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes.errors import ProbeError
from probes.results.rows import columns, read_csv, to_csv

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\r\0"), max_size=8)
NUMBER = st.none() | st.integers() | st.floats(allow_nan=False)
ROWS = st.lists(
    st.fixed_dictionaries({
        "item": TEXT,
        "layer": NUMBER,
        "failed": st.booleans(),
        "mixed": st.none() | TEXT | st.lists(st.floats(allow_nan=False), max_size=3) | st.booleans(),
    }),
    min_size=1,
    max_size=5,
)  # fmt: skip


def through(rows: list[dict], path: Path) -> list[dict]:
    kinds = columns(rows)
    path.write_text(to_csv(rows, kinds), newline="")
    return read_csv(path, kinds)


@given(rows=ROWS)
def test_rows_come_back_bit_for_bit(tmp_path_factory: pytest.TempPathFactory, rows: list[dict]) -> None:
    again = through(rows, tmp_path_factory.mktemp("rows") / "rows.csv")
    assert again == rows
    kinds = [[{name: type(value) for name, value in row.items()} for row in side] for side in (again, rows)]
    assert kinds[0] == kinds[1]


def test_names_made_of_digits_stay_text(tmp_path: Path) -> None:
    (row,) = through([{"scene": "0015", "angle": math.inf}], tmp_path / "rows.csv")
    assert row == {"scene": "0015", "angle": math.inf}


def test_column_that_a_row_lacks_is_none(tmp_path: Path) -> None:
    assert through([{"a": 1}, {"a": 2, "b": [1.5]}], tmp_path / "rows.csv")[0] == {"a": 1, "b": None}


@pytest.mark.parametrize("damage", ["item,epe\na,1\nb,", "item,epe\na\n", "item,epe\na,x\n", "other\na\n"])
def test_damaged_file_is_one_sentence(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(damage)
    kinds = {"item": "text", "epe": "number"}
    if damage.endswith("b,"):  # a torn last line still reads: results.json is written after it
        assert len(read_csv(path, kinds)) == 2
        return
    with pytest.raises(ProbeError, match=r"rows\.csv"):
        read_csv(path, kinds)
