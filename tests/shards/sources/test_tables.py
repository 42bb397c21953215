from pathlib import Path

import pytest

from shards.format import ShardsError
from shards.sources.tables import read_rows


def test_rows_are_read_without_head_and_empty_lines(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("http://x\n1 2.5\n\n -3  4e2 \n")
    assert read_rows(tmp_path / "t.txt", 2, skip=1).tolist() == [[1, 2.5], [-3, 400]]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("1 2\n3\n", "line 2"),
        ("1 2\n3 x\n", "line 2"),
        ("1 2\n\n3 nan\n", "line 3"),
        ("", "holds no line"),
        ("\n\n", "holds no line"),
    ],
)
def test_a_line_that_is_no_row_is_named(tmp_path: Path, text: str, what: str) -> None:
    (tmp_path / "t.txt").write_text(text)
    with pytest.raises(ShardsError, match=rf"t\.txt.*{what}"):
        read_rows(tmp_path / "t.txt", 2)


def test_a_missing_or_binary_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe\x00")
    for name in ("none.txt", "b.txt"):
        with pytest.raises(ShardsError, match=rf"{name} cannot be read"):
            read_rows(tmp_path / name, 2)
