"""DTU: true warps inside the eroded masks, ten fixed views, and what is refused."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from probes.benchmarks import dtu as reader
from probes.errors import ProbeError
from tests.probes.benchmarks.opening import opener
from tests.trees import dtu, proof
from tests.trees.world import View

opened = opener("dtu")

Tree = tuple[Path, dict[str, View]]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    root = tmp_path_factory.mktemp("dtu")
    return root, dtu.write(root)


@pytest.fixture(autouse=True)
def _only_those(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the tree's scans and views were all."""
    monkeypatch.setattr(reader, "SCANS", dtu.SCANS)
    monkeypatch.setattr(reader, "VIEWS", dtu.VIEWS)


@pytest.fixture
def copy(tree: Tree, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tree[0], tmp_path / "tree"))


def test_cameras_and_depth_warp_as_the_world_does(tree: Tree) -> None:
    found = opened(tree[0]).test
    assert proof.benchmark_warp_error(found, tree[1]) < 0.01
    assert proof.benchmark_pixel_error(found, tree[1]) < 4


def test_depth_counts_inside_the_mask_as_opencv_erodes_it(tree: Tree) -> None:
    benchmark = opened(tree[0])
    assert (benchmark.unit, benchmark.truth) == ("mm", "depth")
    for index, frame in enumerate(benchmark.test.frames[: dtu.VIEWS]):
        eroded = cv2.erode(dtu.mask(index), np.ones((10, 10), np.uint8)) > 0
        np.testing.assert_array_equal(frame.mask(), eroded)
        known = eroded.copy()
        known[dtu.HOLE] = False
        depth = frame.depth()
        assert (depth[known] > 0).all() and (depth[~known] == 0).all()
        np.testing.assert_allclose(depth[known], 1000 * tree[1][frame.name].depth[known], rtol=1e-6)


def test_smaller_depth_maps_are_brought_to_the_picture(copy: Path) -> None:
    path = copy / "scan1/depths/00000000.npy"
    np.save(path, np.load(path)[::2, ::2].astype(np.float64))
    depth = opened(copy).test.frames[0].depth()
    assert depth.shape == dtu.SIZE and depth.dtype == np.float32
    np.testing.assert_array_equal(depth[::2, ::2], depth[1::2, 1::2])


def test_every_fifth_view_makes_the_sequence(tree: Tree) -> None:
    benchmark = opened(tree[0])
    names = [frame.name for frame in benchmark.test.frames]
    assert names == list(tree[1])
    assert [[names[i] for i in sequence.frames] for sequence in benchmark.test.sequences] == [
        [f"scan{scan}/00000000", f"scan{scan}/00000005"] for scan in dtu.SCANS
    ]


def test_the_published_lists_are_22_scans_of_ten_views(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert len(set(reader.SCANS)) == 22
    assert len(range(0, reader.VIEWS, reader.STEP)) == 10


def test_opening_decodes_nothing(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(*_: object, **__: object) -> None:
        raise AssertionError("a picture or a depth map was read")

    monkeypatch.setattr("probes.benchmarks.picture_files.read_photograph", decode)
    monkeypatch.setattr("numpy.load", decode)
    opened(tree[0])


def test_missing_files_are_listed_and_refused_unless_allowed(copy: Path) -> None:
    lost = "scan1/depths/00000005.npy", "scan110/binary_masks/00000003.png"
    for file in lost:
        (copy / file).unlink()
    with pytest.raises(
        ProbeError, match=rf"2 of 48 files are missing: {lost[0]}, {lost[1]}; .*--allow-missing"
    ):
        opened(copy)
    part = opened(copy, allow_missing=True)
    assert part.missing == lost and len(part.test.frames) == 10
    assert [sequence.name for sequence in part.test.sequences] == ["scan110"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("extrinsic 1 2 3", "4 words"),
        ("", "0 words"),
        ("extrinsic " + "x " * 16 + "intrinsic" + " 1" * 9, "could not"),
    ],
)
def test_damaged_cameras_are_named(copy: Path, text: str, reason: str) -> None:
    (copy / "scan1/cams/00000000_cam.txt").write_text(text)
    with pytest.raises(
        ProbeError, match=f"scan1/cams/00000000_cam.txt is no camera of MVSNet's form: {reason}"
    ):
        opened(copy)


def test_damaged_depth_and_masks_are_named(copy: Path) -> None:
    frame = opened(copy).test.frames[0]
    np.save(copy / "scan1/depths/00000000.npy", np.ones((96, 96), np.float32))
    with pytest.raises(
        ProbeError, match=r"holds float32 \(96, 96\), not the depth of a picture of 128 x 96 px"
    ):
        frame.depth()
    np.save(copy / "scan1/depths/00000000.npy", np.array([None]), allow_pickle=True)
    with pytest.raises(ProbeError, match=r"00000000.npy is no depth map"):
        frame.depth()
    (copy / "scan1/binary_masks/00000000.png").write_bytes(b"none")
    with pytest.raises(ProbeError, match=r"00000000.png cannot be read"):
        frame.mask()


def test_wrong_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "Rectified").mkdir()
    with pytest.raises(
        ProbeError, match=r"expected folders such as scan1 with images, cams, .* found Rectified/"
    ):
        opened(tmp_path)
