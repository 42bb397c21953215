"""MegaDepth-1500: the lists' pairs with their true warps, the published lists, and what is refused."""

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from probes.benchmarks import open_benchmark
from probes.errors import ProbeError
from shards.index_files import read_megadepth_index
from tests.trees import megadepth1500, proof
from tests.trees.world import View

Tree = tuple[Path, dict[str, View]]
INDEX = "megadepth_test_1500_scene_info"


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    root = tmp_path_factory.mktemp("megadepth1500")
    return root, megadepth1500.write(root)


@pytest.fixture
def copy(tree: Tree, tmp_path: Path) -> Path:
    """The tree, to be damaged."""
    return Path(shutil.copytree(tree[0], tmp_path / "tree"))


def test_cameras_and_depth_warp_as_the_world_does(tree: Tree) -> None:
    root, views = tree
    found = open_benchmark(f"megadepth1500:{root}").test
    assert found is not None and {frame.name for frame in found.frames} == set(views)
    assert proof.benchmark_warp_error(found, views) < 0.01
    assert proof.benchmark_pixel_error(found, views) < 4


def test_pairs_are_the_lists_own(tree: Tree) -> None:
    benchmark = open_benchmark(f"megadepth1500:{tree[0]}")
    assert benchmark.auc == "trapezoid" and benchmark.fit == "squash" and not benchmark.missing
    frames, pairs = benchmark.test.frames, benchmark.test.pairs
    assert len(pairs) == 5 * megadepth1500.PAIRS and len({pair.name for pair in pairs}) == len(pairs)
    index = read_megadepth_index(tree[0] / INDEX / "0022_0.3_0.5.npz")
    own = [pair for pair in pairs if pair.name.startswith("0022_0.3_0.5/")]
    for pair, (a, b), overlap in zip(own, index.pairs, index.overlaps, strict=True):
        assert frames[pair.a].name == index.image_paths[a] and frames[pair.b].name == index.image_paths[b]
        assert pair.overlap == overlap and pair.scene == "0022" == frames[pair.a].scene
        np.testing.assert_array_equal(frames[pair.a].intrinsics, index.intrinsics[a])


def test_opening_decodes_nothing(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(*_: object, **__: object) -> None:
        raise AssertionError("a picture or a depth map was read")

    monkeypatch.setattr("probes.benchmarks.picture_files.read_photograph", decode)
    monkeypatch.setattr("shards.sources.megadepth.read_hdf5", decode)
    open_benchmark.__wrapped__(f"megadepth1500:{tree[0]}")


def test_hash_follows_photographs_lists_and_depth(tree: Tree, copy: Path) -> None:
    def content() -> str:
        return open_benchmark.__wrapped__(f"megadepth1500:{copy}").test.hash

    before = open_benchmark(f"megadepth1500:{tree[0]}").test.hash
    assert content() == before
    index = copy / INDEX / "0015_0.1_0.3.npz"
    data = pickle.loads(index.read_bytes())
    data["pair_infos"].reverse()
    index.write_bytes(pickle.dumps(data))
    reversed_list = content()
    depth = copy / data["depth_paths"][0]
    depth.write_bytes(depth.read_bytes() + b"\0")
    assert len({before, reversed_list, content()}) == 3


def test_missing_files_are_listed_and_refused_unless_allowed(copy: Path) -> None:
    spec = f"megadepth1500:{copy}"
    whole = open_benchmark.__wrapped__(spec)
    lost = whole.test.frames[whole.test.pairs[0].b].name
    (copy / lost).unlink()
    (copy / INDEX / "0022_0.5_0.7.npz").unlink()
    with pytest.raises(
        ProbeError, match=r"2 of \d+ files are missing: .*0022_0.5_0.7.npz, .*--allow-missing"
    ) as caught:
        open_benchmark.__wrapped__(spec)
    assert lost in str(caught.value) and "\n" not in str(caught.value)
    part = open_benchmark.__wrapped__(spec, allow_missing=True)
    assert part.missing == (f"{INDEX}/0022_0.5_0.7.npz", lost)
    kept = {pair.name for pair in part.test.pairs}
    expected = {
        pair.name
        for pair in whole.test.pairs
        if lost not in {whole.test.frames[i].name for i in (pair.a, pair.b)}
        and "0022_0.5_0.7" not in pair.name
    }
    assert kept == expected and kept
    assert lost not in {frame.name for frame in part.test.frames}


def test_wrong_folders_are_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(ProbeError, match=r"expected a list such as 0015_0.1_0.3.npz .* found photos/"):
        open_benchmark(f"megadepth1500:{tmp_path}")
    with pytest.raises(
        ProbeError, match=r"there is no .*MegaDepth-1500 is expected as .* from github.com/zju3dv/LoFTR"
    ):
        open_benchmark(f"megadepth1500:{tmp_path}/nowhere")
    (tmp_path / "0015_0.1_0.3.npz").write_bytes(b"no pickle")
    with pytest.raises(ProbeError, match=r"0015_0\.1_0\.3\.npz is no pickle of plain arrays"):
        open_benchmark(f"megadepth1500:{tmp_path}")


def test_photographs_of_another_size_than_their_cameras_are_refused(copy: Path) -> None:
    path = next(copy.glob("Undistorted_SfM/0015/images/*.jpg"))
    with Image.open(path) as image:
        small = image.resize((40, 30))
    small.save(path)
    with pytest.raises(ProbeError, match="is 40 x 30 px, but its camera looks at"):
        open_benchmark.__wrapped__(f"megadepth1500:{copy}")


def test_damaged_depth_is_named(copy: Path) -> None:
    frame = open_benchmark.__wrapped__(f"megadepth1500:{copy}").test.frames[0]
    path = copy / f"phoenix/S6/zl548/MegaDepth_v1/{frame.scene}/dense0/depths/{Path(frame.name).stem}.h5"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ProbeError, match=path.name):
        frame.depth()


def test_depth_of_another_size_follows_its_photograph_and_nonsense_is_unknown(copy: Path) -> None:
    frame = open_benchmark.__wrapped__(f"megadepth1500:{copy}").test.frames[0]
    path = copy / f"phoenix/S6/zl548/MegaDepth_v1/{frame.scene}/dense0/depths/{Path(frame.name).stem}.h5"
    small = frame.depth()[::2, ::2].astype(np.float64)
    small[:4] = np.array([np.nan, np.inf, -1, 0])[:, None]
    with h5py.File(path, "w") as file:
        file.create_dataset("depth", data=small)
    depth = frame.depth()
    assert depth.shape == (frame.height, frame.width) and depth.dtype == np.float32
    np.testing.assert_array_equal(depth[8:], small[4:].repeat(2, 0).repeat(2, 1).astype(np.float32))
    assert (depth[:8] == 0).all()
    with h5py.File(path, "w") as file:
        file.create_dataset("depth", data=small[:, :20])
    with pytest.raises(ProbeError, match="belongs to another undistortion"):
        frame.depth()


@pytest.fixture
def views(tmp_path: Path) -> Tree:
    """Glue-factory's form."""
    return tmp_path, megadepth1500.write_views(tmp_path)


def test_views_as_text_warp_as_the_world_does(views: Tree) -> None:
    found = open_benchmark(f"megadepth1500:{views[0]}").test
    assert [pair.name for pair in found.pairs] == [
        "0015/0_o.jpg|0015/1_o.jpg",
        "0015/2_o.jpg|0015/0_o.jpg",
        "0015/1_o.jpg|0015/3_o.jpg",
    ]
    assert {frame.scene for frame in found.frames} == {"0015"}
    assert proof.benchmark_warp_error(found, views[1]) < 0.01
    assert proof.benchmark_pixel_error(found, views[1]) < 4


def test_missing_files_of_views_are_listed_and_refused_unless_allowed(views: Tree) -> None:
    spec = f"megadepth1500:{views[0]}"
    (views[0] / "depths/0015/3_o.h5").unlink()
    (views[0] / "images/0015/4_o.jpg").unlink()  # of no pair
    with pytest.raises(ProbeError, match=r"1 of 8 files are missing: depths/0015/3_o.h5; .*--allow-missing"):
        open_benchmark(spec)
    part = open_benchmark(spec, allow_missing=True)
    assert (
        part.missing == ("depths/0015/3_o.h5",) and len(part.test.pairs) == 2 and len(part.test.frames) == 3
    )


@pytest.mark.parametrize(
    ("file", "line", "reason"),
    [
        ("views.txt", "a.jpg 1 2 3", "line 6: 4 words are no name, pose and camera"),
        (
            "views.txt",
            "a.jpg" + " 1" * 12 + " OPENCV 9 9" + " 1" * 8,
            "line 6: OPENCV with 8 parameters is no",
        ),
        ("views.txt", "a.jpg" + " x" * 12 + " PINHOLE 9 9 1 1 1 1", "line 6: could not convert"),
        ("pairs.txt", "0015/0_o.jpg 0015/9_o.jpg", "line 4: must name two pictures of views.txt"),
    ],
)
def test_damaged_views_are_named_by_their_line(views: Tree, file: str, line: str, reason: str) -> None:
    with (views[0] / file).open("a") as opened:
        opened.write(f"{line}\n")
    with pytest.raises(ProbeError, match=f"{file}, {reason}"):
        open_benchmark(f"megadepth1500:{views[0]}")


def test_published_lists_are_read(testdata: Callable[[str], Path], tmp_path: Path) -> None:
    lists = testdata("data/real/megadepth_test_1500")
    with pytest.raises(ProbeError, match=r"659 of 661 files are missing: 0022_0.1_0.3.npz"):
        open_benchmark(f"megadepth1500:{lists}")
    with pytest.raises(ProbeError, match="of no pair are complete"):
        open_benchmark(f"megadepth1500:{lists}", allow_missing=True)
    index = read_megadepth_index(lists / "0015_0.1_0.3.npz")
    for name in ("0015_0.1_0.3.npz", "0015_0.3_0.5.npz"):
        shutil.copy(lists / name, tmp_path)
    wanted = index.pairs[:2]
    for row in set(wanted.ravel().tolist()):
        width, height = (2 * index.intrinsics[row, :2, 2]).astype(int)
        for path in (index.image_paths[row], index.depth_paths[row]):
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (width, height)).save(tmp_path / index.image_paths[row])
        (tmp_path / index.depth_paths[row]).touch()
    found = open_benchmark(f"megadepth1500:{tmp_path}", allow_missing=True)
    assert len(found.missing) == 3 + 2 * (328 - len(set(wanted.ravel().tolist())))
    names = [
        f"0015_0.1_0.3/{Path(index.image_paths[a]).stem}|{Path(index.image_paths[b]).stem}" for a, b in wanted
    ]
    assert set(names) <= {pair.name for pair in found.test.pairs}
    first = found.test.pairs[[pair.name for pair in found.test.pairs].index(names[0])]
    np.testing.assert_array_equal(
        found.test.frames[first.b].world_to_camera, index.world_to_camera[wanted[0, 1]]
    )
