"""NAVI: true warps, frozen pairs, disparity as depth, large pictures reduced, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from probes.benchmarks import navi as reader
from probes.errors import ProbeError
from tests.probes.benchmarks.opening import opener
from tests.trees import navi
from tests.trees.proof import benchmark_pixel_error, benchmark_warp_error
from tests.trees.world import View, render_world

opened = opener("navi")

VIEWS = 9


@pytest.fixture
def tree(tmp_path: Path) -> tuple[Path, dict[str, View]]:
    worlds = [render_world(VIEWS, size=(54, 72), centred=True, seed=seed) for seed in (0, 1)]
    return tmp_path, navi.write(tmp_path, *worlds)


def test_warps_and_pixels_are_the_worlds(tree: tuple[Path, dict[str, View]]) -> None:
    root, views = tree
    found = opened(root)
    for split in (found.test, found.train):
        assert benchmark_warp_error(split, views, size=54, fit="crop") < 0.5
        assert benchmark_pixel_error(split, views) < 5


def test_wild_sets_are_scored_and_multiview_sets_trained_on(tree: tuple[Path, dict[str, View]]) -> None:
    found = opened(tree[0])
    assert {f.name.split("/")[1] for f in found.test.frames} == {navi.WILD}
    assert {f.name.split("/")[1] for f in found.train.frames} == {navi.MULTIVIEW}
    assert len(found.train.frames) == 2 * VIEWS
    assert {f.scene for f in found.test.frames} == {f.scene for f in found.train.frames} == set(navi.OBJECTS)
    assert (found.unit, found.fit, found.truth, found.auc) == ("mm", "crop", "depth", "exact")


def test_pairs_are_every_fourth_image_with_a_near_partner(tree: tuple[Path, dict[str, View]]) -> None:
    root, _ = tree
    split = opened(root).test
    assert len(split.pairs) == 2 * 3
    for pair in split.pairs:
        a, b = split.frames[pair.a], split.frames[pair.b]
        assert pair.name == f"{a.name}|{b.name}" and pair.scene == a.scene == b.scene
        cosine = (np.trace(a.world_to_camera[:, :3] @ b.world_to_camera[:, :3].T) - 1) / 2
        assert a is not b and np.degrees(np.arccos(np.clip(cosine, -1, 1))) <= 120
    assert [split.frames[p.a].name[-7:] for p in split.pairs] == ["000.jpg", "004.jpg", "008.jpg"] * 2
    assert {i for p in split.pairs for i in (p.a, p.b)} == set(range(len(split.frames)))


def test_a_partner_too_far_away_is_passed_over(tree: tuple[Path, dict[str, View]]) -> None:
    """All images but one turn their back on the first: that one must be its partner."""
    root, _ = tree
    path = root / navi.OBJECTS[0] / navi.WILD / "annotations.json"
    rows = json.loads(path.read_text())
    for row in rows:
        row["camera"]["q"] = [1, 0, 0, 0] if row["filename"] in {"000.jpg", "003.jpg"} else [0, 0, 1, 0]
    path.write_text(json.dumps(rows))
    first = opened(root).test.pairs[0].name
    assert first.split("|")[0].endswith("000.jpg") and first.split("|")[1].endswith("003.jpg")


def test_pairs_of_an_object_do_not_depend_on_the_others(tree: tuple[Path, dict[str, View]]) -> None:
    root, _ = tree
    before = [p.name for p in opened(root).test.pairs]
    (root / navi.OBJECTS[0]).rename(root.parent / f"{root.name}-elsewhere")
    assert [p.name for p in opened(root).test.pairs] == before[3:]


def test_depth_is_millimetres_and_unknown_off_the_object(tree: tuple[Path, dict[str, View]]) -> None:
    root, views = tree
    frame = opened(root).test.frames[0]
    depth, true = frame.depth(), views[frame.name].depth
    assert depth.dtype == np.float32 and (depth[:, :7] == 0).all()
    np.testing.assert_allclose(depth[:, 7:], 100 * true[:, 7:], rtol=2e-3)


def test_large_pictures_are_reduced_with_their_cameras_and_depth(
    tree: tuple[Path, dict[str, View]], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, views = tree
    split = opened(root).test
    whole = {f.name: (f.intrinsics, f.depth()) for f in split.frames}
    monkeypatch.setattr(reader, "SHORT_SIDE", 27)
    reduced = opened(root).test
    assert reduced.hash != split.hash
    for frame in reduced.frames:
        intrinsics, depth = whole[frame.name]
        assert (frame.height, frame.width) == (27, 36) == frame.image().shape[:2] == frame.depth().shape
        np.testing.assert_allclose(frame.intrinsics[:2], intrinsics[:2] / 2)
        assert (frame.depth() == depth[1::2, 1::2]).all()
        box = Image.fromarray(views[frame.name].image).resize((36, 27), Image.Resampling.BOX)
        assert np.abs(frame.image().astype(int) - np.asarray(box)).mean() < 6


def test_missing_files_are_refused_and_may_be_left_out(tree: tuple[Path, dict[str, View]]) -> None:
    root, _ = tree
    split = opened(root).test
    gone = split.frames[split.pairs[0].a].name
    total = 2 * len(split.frames)
    (root / gone).unlink()
    with pytest.raises(ProbeError, match=f"1 of {total} files are missing: {gone}; complete it"):
        opened(root)
    found = opened(root, allow_missing=True)
    assert found.missing == (gone,) and len(found.test.pairs) < len(split.pairs)
    assert not any(gone in pair.name for pair in found.test.pairs)
    for pair in found.test.pairs:
        assert pair.name == f"{found.test.frames[pair.a].name}|{found.test.frames[pair.b].name}"


def test_absent_training_files_are_left_out_and_told(tree: tuple[Path, dict[str, View]]) -> None:
    root, _ = tree
    (root / navi.OBJECTS[1] / navi.MULTIVIEW / "depth" / "002.png").unlink()
    found = opened(root)
    assert len(found.train.frames) == 2 * VIEWS - 1 and not found.missing
    assert "want of their picture or depth file: 1." in found.notes[-1]


def test_opening_reads_no_picture_and_no_depth(
    tree: tuple[Path, dict[str, View]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*_: object, **__: object) -> None:
        raise AssertionError("read")

    monkeypatch.setattr(reader, "read_picture", read)
    monkeypatch.setattr(reader, "read_png16", read)
    assert opened(tree[0]).test.hash


@pytest.mark.parametrize("kind", ["image", "depth"])
def test_a_file_of_another_size_than_annotated_is_named(
    tree: tuple[Path, dict[str, View]], kind: str
) -> None:
    root, _ = tree
    frame = opened(root).test.frames[0]
    path = root / frame.name
    if kind == "image":
        Image.new("RGB", (60, 50)).save(path)
    else:
        path = path.parents[1] / "depth" / f"{path.stem}.png"
        Image.fromarray(np.ones((50, 60), np.uint16)).save(path)
    with pytest.raises(ProbeError, match=f"{path.name} is 60 x 50, annotated is 72 x 54"):
        getattr(frame, kind)()


def test_damaged_annotations_are_named(tree: tuple[Path, dict[str, View]]) -> None:
    root, _ = tree
    path = root / navi.OBJECTS[0] / navi.WILD / "annotations.json"
    for text in ("[{}]", "no", '{"a": 1}'):
        path.write_text(text)
        with pytest.raises(ProbeError, match=r"wild_set/annotations.json is no list of NAVI's annotations"):
            opened(root)


def test_another_folder_is_refused_with_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "apple").mkdir()
    with pytest.raises(ProbeError, match=r"expected NAVI's root with <object>/wild_set/.*, found apple/"):
        opened(tmp_path)
