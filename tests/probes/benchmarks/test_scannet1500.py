"""ScanNet-1500 in both forms: true warps and poses, lost poses, the real pairs, and what is refused."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mum import cameras
from probes.benchmarks import open_benchmark
from probes.benchmarks.scannet1500 import READER
from probes.data.pairs import PairConfig, choose_pairs
from probes.errors import ProbeError
from tests.trees import proof, scannet1500
from tests.trees.world import View

Tree = tuple[Path, dict[str, View]]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    root = tmp_path_factory.mktemp("scannet1500")
    return root, scannet1500.write(root)


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    root = tmp_path_factory.mktemp("scannet-lines")
    return root, scannet1500.write_lines(root)


@pytest.fixture
def copy(tree: Tree, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tree[0], tmp_path / "tree"))


def test_cameras_and_depth_warp_as_the_world_does(tree: Tree) -> None:
    found = open_benchmark(f"scannet1500:{tree[0]}").test
    assert {frame.height for frame in found.frames} == {480} and {f.width for f in found.frames} == {640}
    assert proof.benchmark_warp_error(found, tree[1]) < 0.5
    assert proof.benchmark_pixel_error(found, tree[1]) < 4


def test_pairs_have_the_lists_poses_and_lost_ones_are_counted(tree: Tree) -> None:
    benchmark = open_benchmark(f"scannet1500:{tree[0]}")
    pairs = benchmark.test.pairs
    assert [pair.name for pair in pairs] == [
        "scene0707_00/15|585",
        "scene0707_00/585|45",
        "scene0806_00/0|30",
    ]
    assert benchmark.notes == (
        "1 listed pairs have no measured pose (ScanNet's tracking failed) and are left out.",
    )
    for pair in pairs:
        a, b = (benchmark.test.frames[i] for i in (pair.a, pair.b))
        true = scannet1500.relative(tree[1][a.name], tree[1][b.name])
        np.testing.assert_allclose(pair.relative_pose, true, atol=1e-6)
        np.testing.assert_allclose(
            cameras.relative_pose(*(torch.from_numpy(frame.world_to_camera) for frame in (a, b))).numpy(),
            true,
            atol=1e-6,
        )
    assert (benchmark.truth, benchmark.unit, benchmark.auc) == ("depth", "m", "trapezoid")


def test_opening_decodes_nothing(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(*_: object, **__: object) -> None:
        raise AssertionError("a picture or a depth map was read")

    monkeypatch.setattr("probes.benchmarks.picture_files.read_photograph", decode)
    monkeypatch.setattr("shards.sources.depth_maps._open_png", decode)
    open_benchmark.__wrapped__(f"scannet1500:{tree[0]}")


def test_without_depth_only_poses_are_scored(tree: Tree, copy: Path) -> None:
    for folder in copy.glob("test/*/depth"):
        shutil.rmtree(folder)
    found = open_benchmark(f"scannet1500:{copy}")
    assert found.truth == "poses" and len(found.test.pairs) == 3 and not found.missing
    assert all(frame.depth is None for frame in found.test.frames)
    assert "only poses are scored" in found.notes[-1]
    chosen = choose_pairs(found.spec, found.test, PairConfig(size=64, fit="squash"), points=False)
    np.testing.assert_array_equal(chosen.pairs[0].relative_pose, found.test.pairs[0].relative_pose)


def test_lines_have_the_same_names_and_the_cameras_of_their_pictures(tree: Tree, lines: Tree) -> None:
    benchmark = open_benchmark(f"scannet1500:{lines[0]}")
    arrays = open_benchmark(f"scannet1500:{tree[0]}").test
    assert [pair.name for pair in benchmark.test.pairs[:3]] == [pair.name for pair in arrays.pairs]
    assert benchmark.truth == "poses"
    frames = benchmark.test.frames
    assert proof.benchmark_pixel_error(benchmark.test, lines[1]) < 4
    for frame in frames:
        assert (frame.height, frame.width) == (120, 160)
        np.testing.assert_allclose(frame.intrinsics, lines[1][frame.name].intrinsics, atol=1e-5)
    for pair in benchmark.test.pairs:
        true = scannet1500.relative(*(lines[1][frames[i].name] for i in (pair.a, pair.b)))
        np.testing.assert_allclose(pair.relative_pose, true, atol=1e-5)


def test_cameras_of_another_size_than_the_pictures_are_refused(lines: Tree, tmp_path: Path) -> None:
    root = Path(shutil.copytree(lines[0], tmp_path / "tree"))
    for path in (root / "images").glob("*.jpg"):
        with Image.open(path) as image:
            small = image.resize((80, 60))
        small.save(path)
    with pytest.raises(ProbeError, match="is 80 x 60 px, but its camera looks at"):
        open_benchmark(f"scannet1500:{root}")


def test_missing_files_are_listed_and_refused_unless_allowed(copy: Path) -> None:
    spec = f"scannet1500:{copy}"
    (copy / "test/scene0707_00/color/45.jpg").unlink()
    (copy / "test/scene0806_00/depth/0.png").unlink()
    files = "scene0707_00/color/45.jpg, scene0806_00/depth/0.png"
    with pytest.raises(ProbeError, match=f"2 of 18 files are missing: {files}; .*--allow-missing"):
        open_benchmark(spec)
    part = open_benchmark(spec, allow_missing=True)
    assert part.missing == tuple(files.split(", "))
    assert [pair.name for pair in part.test.pairs] == ["scene0707_00/15|585"]


def test_wrong_folders_and_damaged_files_are_refused_in_one_line(tmp_path: Path, copy: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ProbeError, match=r"expected test.npz with intrinsics.npz .* found an empty folder"):
        open_benchmark(
            f"scannet1500:{tmp_path / 'x'}" if (tmp_path / "x").mkdir() else f"scannet1500:{tmp_path}/x"
        )
    (copy / "test/scene0707_00/pose/15.txt").write_text("1 2 3")
    with pytest.raises(ProbeError, match=r"pose/15.txt holds no pose of 4 x 4 numbers"):
        open_benchmark(f"scannet1500:{copy}")
    (copy / "scannet_test_1500/test.npz").write_bytes(b"no archive")
    with pytest.raises(ProbeError, match=r"test.npz is no .npz file"):
        open_benchmark.__wrapped__(f"scannet1500:{copy}")
    assert "LoFTR" in READER.advice


def test_real_pairs_are_read_from_the_list_whose_pictures_are_there(testdata: Callable[[str], Path]) -> None:
    benchmark = open_benchmark(f"scannet1500:{testdata('data/real/scannet_pairs')}")
    frames, pairs = benchmark.test.frames, benchmark.test.pairs
    assert len(pairs) == 7 and len(frames) == 14 and len({pair.scene for pair in pairs}) == 7
    assert pairs[0].name == "scene0711_00/1680|1995" and benchmark.truth == "poses"
    for frame in frames:
        assert frame.image().shape == (480, 640, 3)
        assert 560 < frame.intrinsics[0, 0] < 620 and abs(frame.intrinsics[0, 2] - 320) < 10
    turns = [np.degrees(np.arccos((np.trace(pair.relative_pose[:, :3]) - 1) / 2)) for pair in pairs]
    assert min(turns) > 37 and max(turns) < 86
