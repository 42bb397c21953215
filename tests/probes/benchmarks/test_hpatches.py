"""HPatches: true homographies in spite of its pixel convention, the 108 sequences, and what is refused."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes.benchmarks import hpatches as reader
from probes.benchmarks import open_benchmark
from probes.data.correspondences import Correspondent
from probes.data.square import SquareFrames
from probes.errors import ProbeError
from tests.probes.benchmarks.opening import opener
from tests.trees import hpatches

opened = opener("hpatches", allow_missing=True)

Tree = tuple[Path, dict[str, np.ndarray]]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    root = tmp_path_factory.mktemp("hpatches")
    return root, hpatches.write(root)


@pytest.fixture
def copy(tree: Tree, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tree[0], tmp_path / "tree"))


@pytest.fixture
def _only_those(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the tree's sequences were all."""
    monkeypatch.setattr(reader, "SEQUENCES", hpatches.SEQUENCES)


def test_points_go_where_the_true_homography_takes_them(tree: Tree) -> None:
    found = opened(tree[0]).test
    squares = SquareFrames(found.frames, 64, "squash")
    correspondent = Correspondent(squares)
    assert [pair.name for pair in found.pairs] == list(tree[1])
    for pair in found.pairs:
        warped = correspondent.between(pair.a, pair.b, pair.homography)
        points = squares.square(pair.a).outward(warped.queries)
        true = np.column_stack([points, np.ones(len(points))]) @ tree[1][pair.name].T
        said = squares.square(pair.b).outward(warped.targets)
        assert len(points) > 10
        np.testing.assert_allclose(said, true[:, :2] / true[:, 2:], atol=1e-4)


def test_homographies_fit_the_pictures_to_a_fraction_of_a_pixel(tree: Tree) -> None:
    found = opened(tree[0]).test
    errors = []
    for pair in (pair for pair in found.pairs if pair.scene == "v_boat"):
        one, two = (found.frames[i].image().astype(float) for i in (pair.a, pair.b))
        inner = np.stack(np.meshgrid(np.arange(40, 80) + 0.5, np.arange(30, 66) + 0.5), -1).reshape(-1, 2)
        colours = hpatches.sample(one, inner)
        row = []
        for shift in (0, 0.5, -0.5):
            warped = np.column_stack([inner, np.ones(len(inner))]) @ pair.homography.T
            seen = hpatches.sample(two, warped[:, :2] / warped[:, 2:] + shift)
            known = seen.any(1)
            row.append(np.abs(seen - colours)[known].mean())
        errors.append(row)
    exact, *shifted = np.array(errors).T
    assert (exact < shifted[0]).all() and (exact < shifted[1]).all()


@given(
    st.lists(st.floats(-1.4, 1.4), min_size=8, max_size=8),
    st.tuples(st.floats(0, 1000), st.floats(0, 1000)),
)
def test_any_point_is_taken_as_on_disk_half_a_pixel_off(
    tmp_path_factory: pytest.TempPathFactory, entries: list[float], point: tuple[float, float]
) -> None:
    stored = np.diag([3.0, 3, 4]) + np.array([*entries[:6], entries[6] * 1e-4, entries[7] * 1e-4, 0]).reshape(
        3, 3
    )
    path = tmp_path_factory.mktemp("homography") / "H_1_2"
    np.savetxt(path, stored)
    on_disk = stored @ [*point, 1]
    read = reader.read_homography(path) @ [point[0] + 0.5, point[1] + 0.5, 1]
    np.testing.assert_allclose(read[:2] / read[2], on_disk[:2] / on_disk[2] + 0.5, rtol=1e-6, atol=1e-6)


def test_sequences_are_the_108_that_everyone_scores() -> None:
    assert len(set(reader.SEQUENCES)) == 108
    assert len(reader.ILLUMINATION) == 52 and len(reader.VIEWPOINT) == 56


@pytest.mark.usefixtures("_only_those")
def test_whole_tree_needs_no_permission_and_the_ignored_sequence_is_not_read(tree: Tree) -> None:
    found = open_benchmark.__wrapped__(f"hpatches:{tree[0]}")
    assert not found.missing and found.truth == "homography" and found.auc == "trapezoid"
    assert len(found.test.frames) == 18 and {frame.scene for frame in found.test.frames} == set(
        hpatches.SEQUENCES
    )
    sizes = {(frame.height, frame.width) for frame in found.test.frames if frame.scene == "v_boat"}
    assert sizes == set(hpatches.SIZES)


def test_opening_decodes_nothing(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(*_: object, **__: object) -> None:
        raise AssertionError("a picture was read")

    monkeypatch.setattr("probes.benchmarks.picture_files.read_photograph", decode)
    opened(tree[0])


@pytest.mark.usefixtures("_only_those")
def test_missing_files_are_listed_and_refused_unless_allowed(copy: Path) -> None:
    base = copy / "hpatches-sequences-release"
    (base / "v_boat" / "3.ppm").unlink()
    (base / "v_wall" / "1.ppm").unlink()
    with pytest.raises(
        ProbeError, match=r"2 of 33 files are missing: v_boat/3.ppm, v_wall/1.ppm; .*--allow-missing"
    ):
        open_benchmark.__wrapped__(f"hpatches:{copy}")
    part = opened(copy)
    assert part.missing == ("v_boat/3.ppm", "v_wall/1.ppm")
    names = [pair.name for pair in part.test.pairs]
    assert names == [f"i_dome/1|{k}" for k in range(2, 7)] + [f"v_boat/1|{k}" for k in (2, 4, 5, 6)]
    for pair in part.test.pairs:
        assert f"{part.test.frames[pair.a].name}|{part.test.frames[pair.b].name[-1]}" == pair.name


@pytest.mark.parametrize(
    ("text", "reason"), [("1 0 0 0 1 0 0 0", "holds no 3 x 3 numbers"), ("1 " * 9, "holds no homography")]
)
def test_damaged_homographies_are_named(copy: Path, text: str, reason: str) -> None:
    (copy / "hpatches-sequences-release" / "v_boat" / "H_1_4").write_text(text)
    with pytest.raises(ProbeError, match=f"v_boat/H_1_4 {reason}"):
        opened(copy)


def test_wrong_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "hpatches-release").mkdir()
    with pytest.raises(ProbeError, match=r"expected folders such as i_ajuntament .* found hpatches-release/"):
        open_benchmark(f"hpatches:{tmp_path}")
