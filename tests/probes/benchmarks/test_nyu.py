"""NYU Depth v2: the file's own pixels and raw depth, Eigen's crop, the toolbox's camera, and what is refused."""

import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io

from probes.benchmarks import nyu as reader
from probes.data.square import SquareFrames
from probes.errors import ProbeError
from tests.probes.benchmarks.opening import opener
from tests.trees import nyu
from tests.trees.world import render_world

opened = opener("nyu")

Tree = tuple[Path, np.ndarray, np.ndarray]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return tmp_path, *nyu.write(tmp_path, render_world(6, size=nyu.SIZE))


def test_pixels_and_raw_depth_are_the_files_own(tree: Tree) -> None:
    root, images, raw = tree
    found = opened(root)
    for split, numbers in ((found.test, nyu.TEST), (found.train, nyu.TRAIN)):
        assert [f.name for f in split.frames] == [f"{number:04d}" for number in numbers]
        for frame, number in zip(split.frames, numbers, strict=True):
            assert (frame.image() == images[number - 1]).all()
            assert (frame.depth() == raw[number - 1]).all() and frame.depth().dtype == np.float32
            assert frame.scene == nyu.SCENES[(number - 1) % 2]
    assert found.unit == "m" and found.depth_range == (0.001, 10.0) and found.fit == "squash"


def test_eigens_crop_counts(tree: Tree) -> None:
    mask = opened(tree[0]).test.frames[0].mask()
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    assert (rows[0], rows[-1], columns[0], columns[-1]) == (45, 470, 41, 600)
    assert mask.sum() == 426 * 560
    squares = SquareFrames(opened(tree[0]).test.frames, 64, "squash")
    assert squares.mask(0).shape == squares.depth(0).shape == (64, 64)


def test_intrinsics_are_the_toolboxs_with_pixel_centres_at_a_half(tree: Tree) -> None:
    """MATLAB's pixel 1 has its centre at 0.5 here."""
    k = opened(tree[0]).test.frames[0].intrinsics
    np.testing.assert_allclose(k, [[518.8579, 0, 325.0824], [0, 519.4696, 253.2362], [0, 0, 1]], atol=1e-4)


def test_digests_are_of_the_pixels_and_opening_reads_none(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, images, _ = tree
    digest = opened(root).test.frames[0].digest()
    with h5py.File(root / reader.FILE, "r+") as file:
        file["images"][nyu.TEST[0] - 1, 0, 0, 0] = 255 - images[nyu.TEST[0] - 1, 0, 0, 0]
    assert opened(root).test.frames[0].digest() != digest

    def read(*_: object) -> None:
        raise AssertionError("read")

    monkeypatch.setattr(reader, "_read", read)
    assert len(opened(root).test.frames) == 3


@pytest.mark.parametrize("name", ["splits.mat", "nyu_depth_v2_labeled.mat"])
def test_one_missing_file_is_refused_even_where_a_part_is_accepted(tree: Tree, name: str) -> None:
    (tree[0] / name).unlink()
    with pytest.raises(ProbeError, match=f"1 of 2 files are missing: {name}"):
        opened(tree[0], allow_missing=True)


def test_another_folder_is_refused_with_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "official_splits").mkdir()
    with pytest.raises(ProbeError, match=r"expected nyu_depth_v2_labeled.mat and .*, found official_splits/"):
        opened(tmp_path)


def test_files_of_another_form_are_named(tree: Tree) -> None:
    root, _, _ = tree
    for lists in ({"testNdxs": [[7]], "trainNdxs": [[1]]}, {"testNdxs": [[0]], "trainNdxs": [[1]]}):
        scipy.io.savemat(root / "splits.mat", lists)
        with pytest.raises(ProbeError, match=r"splits.mat does not split the 6 images"):
            opened(root)
    (root / "splits.mat").write_bytes(b"no")
    with pytest.raises(ProbeError, match=r"splits.mat holds no testNdxs and trainNdxs"):
        opened(root)
    with h5py.File(root / reader.FILE, "r+") as file:
        del file["scenes"]
    with pytest.raises(ProbeError, match=r"is not NYU's labelled set: it lacks scenes"):
        opened(root)
    (root / reader.FILE).write_bytes(b"no")
    with pytest.raises(ProbeError, match=r"nyu_depth_v2_labeled.mat cannot be read"):
        opened(root)


def test_images_of_another_size_are_refused(tree: Tree) -> None:
    with h5py.File(tree[0] / reader.FILE, "r+") as file:
        del file["images"]
        file["images"] = np.zeros((6, 3, 320, 240), np.uint8)
    with pytest.raises(ProbeError, match=r"its images and depths are \(\(3, 320, 240\), \(640, 480\)\)"):
        opened(tree[0])


@pytest.mark.parametrize("module", ["scipy.io", "h5py"])
def test_a_library_that_is_not_installed_is_named(
    tree: Tree, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ProbeError, match=r"need.* (scipy|h5py): pip install 'mumkit"):
        opened(tree[0])
