import importlib
from pathlib import Path

import pytest

TREES = ("megadepth", "megascenes", "blendedmvs", "scannetpp", "dl3dv", "jgz")


@pytest.mark.parametrize("name", TREES)
def test_every_sources_row_is_within_half_a_pixel(tmp_path: Path, name: str) -> None:
    figures = importlib.import_module(f"tests.trees.{name}").figures(tmp_path)
    assert figures.source == name and figures.frames >= 4 and figures.scenes >= 1
    assert figures.proof in {"depth", "poses"} and figures.error is not None and figures.error < 0.5
    assert figures.pixels < 4
