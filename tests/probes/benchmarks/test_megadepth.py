"""MegaDepth for training: pairs from tracks and from LoFTR's lists, what is held out, and what is refused."""

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from probes.benchmarks import megadepth as reader
from probes.benchmarks import open_benchmark
from probes.errors import ProbeError
from shards.covisibility import overlap_from_tracks
from tests.trees import megadepth, megadepth1500, proof
from tests.trees.world import View, render_world

Tree = tuple[Path, dict[str, View]]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    """Two scenes to train on, and one of MegaDepth-1500."""
    root = tmp_path_factory.mktemp("megadepth")
    views = {}
    for number, scene in enumerate(("0001", "0002", "0015")):
        written = megadepth.write(root, render_world(10, size=megadepth.SIZE, seed=2 + number), scene)
        views |= {f"Undistorted_SfM/{scene}/images/{name}": view for name, view in written.items()}
    return root, views


@pytest.fixture
def copy(tree: Tree, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tree[0], tmp_path / "tree"))


def test_cameras_and_depth_warp_as_the_world_does(tree: Tree) -> None:
    found = open_benchmark(f"megadepth:{tree[0]}").train
    assert proof.benchmark_warp_error(found, tree[1]) < 0.01


def test_pairs_overlap_as_their_tracks_do(tree: Tree) -> None:
    found = open_benchmark(f"megadepth:{tree[0]}")
    frames, pairs = found.train.frames, found.train.pairs
    assert found.test is None and {pair.scene for pair in pairs} == {"0001", "0002"}
    for scene in ("0001", "0002"):
        names = [name for name in tree[1] if Path(name).parts[1] == scene]
        # The tree's first photograph observes no point of the model.
        seen = [tree[1][name].points if at else [] for at, name in enumerate(names)]
        overlap = overlap_from_tracks(seen)
        expected = {
            frozenset((names[i], names[j])): overlap[i, j]
            for i in range(len(names))
            for j in range(i + 1, len(names))
            if min(overlap[i, j], overlap[j, i]) >= 0.1 and max(overlap[i, j], overlap[j, i]) <= 0.7
        }
        own = {frozenset((frames[p.a].name, frames[p.b].name)): p.overlap for p in pairs if p.scene == scene}
        assert own == pytest.approx(expected)


def test_a_fixed_number_of_pairs_and_scenes_is_taken(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = f"megadepth:{tree[0]}"
    every = [pair.name for pair in open_benchmark(spec).train.pairs]
    monkeypatch.setattr(reader, "PAIRS_A_SCENE", 1)
    fewer = [pair.name for pair in open_benchmark.__wrapped__(spec).train.pairs]
    assert len(fewer) == 2 and set(fewer) < set(every)
    monkeypatch.setattr(reader, "SCENES", 1)
    assert [pair.name for pair in open_benchmark.__wrapped__(spec).train.pairs] == fewer[:1]


def test_lists_go_before_tracks(tree: Tree, copy: Path) -> None:
    views = {name: view for name, view in tree[1].items() if "/0002/" in name}
    folder = copy / "index" / "scene_info_0.1_0.7"
    folder.mkdir(parents=True)
    listed = megadepth1500.describe(views, [(0, 1), (2, 3)])
    listed["pair_infos"][1] = (*listed["pair_infos"][1][:1], 0.9)
    for name in ("0002_0.1_0.3", "0022_0.1_0.3"):
        (folder / f"{name}.npz").write_bytes(pickle.dumps(listed))
    pairs = open_benchmark(f"megadepth:{copy}").train.pairs
    stems = [Path(name).stem for name in views]
    assert [pair.name for pair in pairs] == [f"0002/{stems[0]}|{stems[1]}"]
    (folder / "0002_0.1_0.3.npz").write_bytes(b"damaged")
    with pytest.raises(ProbeError, match="no pickle of plain arrays"):
        open_benchmark(f"megadepth:{copy}", allow_missing=True)


def test_lists_of_roma_are_read(tree: Tree, copy: Path) -> None:
    views = {name: view for name, view in tree[1].items() if "/0002/" in name}
    (copy / "prep_scene_info").mkdir()
    described = megadepth1500.describe(views, [(0, 1), (2, 3), (1, 4), (3, 4)])
    described["depth_paths"][2 * 4] = None
    infos = described.pop("pair_infos")
    pairs = np.array([info[0] for info in infos])
    listed = described | {"pairs": pairs, "overlaps": np.array([0.05, 0.4, 0.9, 0.4])}
    np.save(copy / "prep_scene_info" / "0002.npy", listed)
    benchmark = open_benchmark(f"megadepth:{copy}")
    stems = [Path(name).stem for name in views]
    assert [(p.name, p.overlap) for p in benchmark.train.pairs] == [(f"0002/{stems[2]}|{stems[3]}", 0.4)]
    assert benchmark.notes == ("Training pairs of 1 scenes by RoMa's lists.",)


def test_opening_decodes_nothing(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(*_: object, **__: object) -> None:
        raise AssertionError("a picture or a depth map was read")

    monkeypatch.setattr("probes.benchmarks.picture_files.read_photograph", decode)
    monkeypatch.setattr("shards.sources.megadepth.read_hdf5", decode)
    open_benchmark.__wrapped__(f"megadepth:{tree[0]}")


def test_missing_files_are_listed_and_refused_unless_allowed(copy: Path) -> None:
    spec = f"megadepth:{copy}"
    whole = open_benchmark.__wrapped__(spec).train
    lost = next(whole.frames[pair.a].name for pair in whole.pairs if pair.scene == "0001")
    (copy / lost).unlink()
    shutil.rmtree(copy / "phoenix/S6/zl548/MegaDepth_v1/0002")
    with pytest.raises(ProbeError, match=r"2 of \d+ files are missing") as caught:
        open_benchmark.__wrapped__(spec)
    assert lost in str(caught.value) and "0002/dense0/depths" in str(caught.value)
    part = open_benchmark.__wrapped__(spec, allow_missing=True)
    assert len(part.missing) == 2 and {pair.scene for pair in part.train.pairs} == {"0001"}
    assert lost not in {frame.name for frame in part.train.frames}


def test_wrong_folders_are_refused_in_one_line(tmp_path: Path, copy: Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(
        ProbeError, match=r"expected Undistorted_SfM/<scene>/\{images,sparse-txt\}, found photos/"
    ):
        open_benchmark(f"megadepth:{tmp_path / 'photos'}/..")
    for scene in ("0001", "0002"):
        shutil.rmtree(copy / "Undistorted_SfM" / scene)
    with pytest.raises(ProbeError, match="in a scene that may be trained on"):
        open_benchmark(f"megadepth:{copy}")
