"""A dataset is not taken for built when a picture or a depth map of its source has changed since."""

import importlib
import os
from functools import partial
from pathlib import Path

import pytest

from shards.build import build
from shards.format import ShardsError
from shards.sources import get_source
from tests.trees.world import render_world

CHANGED = {
    "co3d": ("*/*/images/*.jpg", "*/*/depths/*.png"),
    "wildrgbd": ("*/scenes/*/rgb/*.png", "*/scenes/*/depth/*.png"),
    "arkitscenes": ("3dod/*/*/*/lowres_wide/*.png", "3dod/*/*/*/lowres_depth/*.png"),
    "hypersim": ("*/images/*_preview/*.tonemap.jpg", "*/images/*_hdf5/*.hdf5"),
    "realestate10k": ("train/*/*.png", "train/*.txt"),
}


@pytest.mark.parametrize("source", CHANGED)
def test_a_changed_file_is_noticed(tmp_path: Path, source: str) -> None:
    if source == "hypersim":
        pytest.importorskip(
            "h5py", reason="Hypersim's files are read by h5py: pip install 'mumkit[datasets]'"
        )
    root = tmp_path / "root"
    importlib.import_module(f"tests.trees.{source}").write(root, render_world(4))
    options = get_source(source).Options(**({"stride": 1} if source == "realestate10k" else {}))
    again = partial(build, source, [root], tmp_path / "out", source_options=options, workers=1)
    assert [again().existed, again().existed] == [False, True]
    for pattern in CHANGED[source]:
        (first, *_) = sorted(root.glob(pattern))
        before = first.stat().st_mtime_ns
        os.utime(first, ns=(before, before + 10**9))
        with pytest.raises(ShardsError, match="built from other files"):
            again()
        os.utime(first, ns=(before, before))
