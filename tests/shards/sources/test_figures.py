import importlib
from pathlib import Path

import pytest

from shards.sources import SOURCES


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_stores_what_its_files_show_within_half_a_pixel(tmp_path: Path, name: str) -> None:
    figures = importlib.import_module(f"tests.trees.{name}").figures(tmp_path)
    assert figures.source == name and figures.frames >= 4 and figures.scenes >= 1
    if figures.proof == "pixels":
        assert figures.error is None
    else:
        assert figures.error is not None and figures.error < 0.5
    assert figures.pixels < 6
