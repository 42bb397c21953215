"""ETH3D: warps of undistorted photographs, raw depth, sequences, and what is refused."""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from probes.benchmarks import eth3d as reader
from probes.data.frames import FrameList
from probes.errors import ProbeError
from tests.probes.benchmarks.opening import opener
from tests.trees import eth3d, proof
from tests.trees.world import View

opened = opener("eth3d")

Tree = tuple[Path, dict[str, View]]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    root = tmp_path_factory.mktemp("eth3d")
    return root, eth3d.write(root)


@pytest.fixture(autouse=True)
def _only_this(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the tree's scene were all."""
    monkeypatch.setattr(reader, "SCENES", ("courtyard",))


@pytest.fixture
def copy(tree: Tree, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tree[0], tmp_path / "tree"))


def away_from_edges(frames: FrameList, views: Mapping[str, View]) -> FrameList:
    """Without depth within a pixel of an edge of the true depth, where the nearest pixel may be another surface's."""
    kept = []
    for frame in frames.frames:
        padded = np.pad(views[frame.name].depth, 1, mode="edge")
        near = np.stack(
            [padded[i : i + frame.height, j : j + frame.width] for i in range(3) for j in range(3)]
        )
        smooth = near.max(0) < 1.05 * near.min(0)
        depth = np.where(smooth, frame.depth(), np.float32(0))
        kept.append(replace(frame, depth=lambda depth=depth: depth))
    return FrameList(frames=tuple(kept))


def test_undistorted_photographs_warp_as_the_world_does(tree: Tree) -> None:
    found = opened(tree[0]).test
    assert proof.benchmark_warp_error(away_from_edges(found, tree[1]), tree[1]) < 0.25
    assert proof.benchmark_pixel_error(found, tree[1]) < 3.5
    for frame in found.frames:
        np.testing.assert_allclose(frame.intrinsics, tree[1][frame.name].intrinsics, atol=1e-9)


def test_depth_is_metres_and_infinity_is_unknown(tree: Tree) -> None:
    for frame in opened(tree[0]).test.frames:
        depth, true = frame.depth(), tree[1][frame.name].depth
        known = depth > 0
        assert np.isfinite(depth).all() and not known[0].any() and known[4:].all()
        assert np.median(np.abs(depth - true)[known] / true[known]) < 0.005


def test_every_fifth_photograph_by_name_makes_the_sequence(tree: Tree) -> None:
    benchmark = opened(tree[0])
    frames = benchmark.test.frames
    assert [frame.name for frame in frames] == sorted(tree[1])
    (sequence,) = benchmark.test.sequences
    assert [frames[i].name for i in sequence.frames] == ["courtyard/DSC_0286.JPG", "courtyard/DSC_0291.JPG"]
    assert (benchmark.unit, benchmark.truth, benchmark.auc) == ("m", "depth", "histogram")


def test_opening_decodes_nothing(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(*_: object, **__: object) -> None:
        raise AssertionError("a picture or a depth map was read")

    monkeypatch.setattr("probes.benchmarks.picture_files.read_photograph", decode)
    monkeypatch.setattr("numpy.memmap", decode)
    opened(tree[0])


def test_missing_files_are_listed_and_refused_unless_allowed(copy: Path) -> None:
    lost = (
        "courtyard/images/dslr_images/DSC_0287.JPG",
        "courtyard/ground_truth_depth/dslr_images/DSC_0289.JPG",
    )
    for file in lost:
        (copy / file).unlink()
    with pytest.raises(
        ProbeError, match=rf"2 of 16 files are missing: {lost[0]}, {lost[1]}; .*--allow-missing"
    ):
        opened(copy)
    part = opened(copy, allow_missing=True)
    assert part.missing == lost and len(part.test.frames) == 5
    (sequence,) = part.test.sequences
    names = [part.test.frames[i].name for i in sequence.frames]
    assert names == ["courtyard/DSC_0286.JPG", "courtyard/DSC_0291.JPG"]


def test_missing_scenes_are_listed(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "SCENES", ("courtyard", "meadow"))
    with pytest.raises(
        ProbeError, match=r"2 of 18 files are missing: meadow/dslr_calibration_jpg/cameras.txt"
    ):
        opened(tree[0])


def test_undistorted_calibrations_are_refused_with_the_way_out(copy: Path) -> None:
    path = copy / "courtyard/dslr_calibration_jpg/cameras.txt"
    path.write_text("0 PINHOLE 256 192 300 300 128 96\n")
    with pytest.raises(
        ProbeError, match=r"is PINHOLE, not THIN_PRISM_FISHEYE: use the distorted photographs"
    ):
        opened(copy)
    path.write_text("0 THIN_PRISM_FISHEYE 256 192 300\n")
    with pytest.raises(ProbeError, match=r"cameras\.txt is damaged: camera 0"):
        opened(copy)


def test_photographs_and_depth_of_another_size_are_refused(copy: Path) -> None:
    depth = copy / "courtyard/ground_truth_depth/dslr_images/DSC_0286.JPG"
    depth.write_bytes(depth.read_bytes()[:-4])
    with pytest.raises(
        ProbeError, match=r"DSC_0286.JPG holds 196604 bytes, the depth of 256 x 192 px has 196608"
    ):
        opened(copy).test.frames[0].depth()
    Image.new("RGB", (128, 96)).save(copy / "courtyard/images/dslr_images/DSC_0286.JPG")
    with pytest.raises(ProbeError, match=r"is 128 x 96 px, but its camera 256 x 192"):
        opened(copy)


def test_wrong_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "training").mkdir()
    with pytest.raises(ProbeError, match=r"expected folders of scenes such as courtyard .* found training/"):
        opened(tmp_path)


def test_the_published_scenes_are_thirteen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert len(set(reader.SCENES)) == 13
