"""CO3D: true warps, ten frames a sequence whatever else is there, masks, and what is refused."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from probes.benchmarks import co3d as reader
from probes.errors import ProbeError
from tests.probes.benchmarks.opening import opener
from tests.trees import co3d
from tests.trees.proof import benchmark_pixel_error, benchmark_warp_error
from tests.trees.world import View, render_world

opened = opener("co3d")


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, dict[str, View]]:
    monkeypatch.setattr(reader, "CATEGORIES", ("apple", "teddybear"))
    worlds = [render_world(12, size=(36, 48), seed=seed) for seed in (0, 1)]
    return tmp_path, co3d.write_test_set(tmp_path, *worlds)


def test_warps_and_pixels_are_the_worlds(tree: tuple[Path, dict[str, View]]) -> None:
    root, views = tree
    found = opened(root)
    for split in (found.test, found.train):
        assert benchmark_warp_error(split, views, size=48) < 0.5
        assert benchmark_pixel_error(split, views) < 4


def test_scored_are_ten_sound_frames_of_each_good_test_sequence(tree: tuple[Path, dict[str, View]]) -> None:
    found = opened(tree[0])
    assert [s.name for s in found.test.sequences] == [co3d.SCORED, co3d.OTHER]
    assert [s.group for s in found.test.sequences] == ["apple", "teddybear"]
    assert [s.name for s in found.train.sequences] == [co3d.TRAINED]
    for sequence in found.test.sequences:
        frames = [found.test.frames[i] for i in sequence.frames]
        assert len({f.name for f in frames}) == 10 and {f.scene for f in frames} == {sequence.name}
        assert max(np.abs(f.world_to_camera).max() for f in frames) < 100
    assert found.notes == ("Test sequences left out for fewer than 10 frames with a sound camera: 1.",)
    assert (found.auc, found.fit, found.truth, found.split) == (
        "histogram",
        "squash",
        "depth",
        "fewview_dev test",
    )


def test_the_draw_depends_on_the_sequence_alone(
    tree: tuple[Path, dict[str, View]], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, _ = tree
    names = [f.name for f in opened(root).test.frames]
    assert [f.name for f in opened(root).test.frames] == names
    monkeypatch.setattr(reader, "CATEGORIES", ("teddybear",))
    assert [f.name for f in opened(root).test.frames] == names[10:]
    numbers = [int(name[-10:-4]) for name in names]
    assert numbers[:10] != numbers[10:] and numbers[:10] == sorted(numbers[:10])


def test_depth_is_unknown_where_its_mask_says_so(tree: tuple[Path, dict[str, View]]) -> None:
    root, views = tree
    frame = opened(root).test.frames[0]
    depth, true = frame.depth(), views[frame.name].depth
    assert (depth[:, :4] == 0).all() and depth[0, -1] == 0
    np.testing.assert_allclose(depth[5:, 5:], true[5:, 5:], rtol=2e-3)


def test_opening_reads_no_picture_and_no_depth(
    tree: tuple[Path, dict[str, View]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*_: object, **__: object) -> None:
        raise AssertionError("read")

    monkeypatch.setattr(reader, "read_picture", read)
    monkeypatch.setattr(reader, "read_half_bits", read)
    assert opened(tree[0]).test.hash


def test_missing_files_and_categories_are_refused_and_may_be_left_out(
    tree: tuple[Path, dict[str, View]], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, _ = tree
    gone = opened(root).test.frames[3].name
    (root / gone).unlink()
    with pytest.raises(ProbeError, match=f"1 of 60 files are missing: {gone}; complete it"):
        opened(root)
    monkeypatch.setattr(reader, "CATEGORIES", ("apple", "banana", "teddybear"))
    with pytest.raises(ProbeError, match=r"2 of 61 files are missing: .*banana/frame_annotations.jgz"):
        opened(root)
    found = opened(root, allow_missing=True)
    assert set(found.missing) == {gone, "banana/frame_annotations.jgz"}
    assert [len(s.frames) for s in found.test.sequences] == [9, 10]
    assert gone not in {f.name for f in found.test.frames}


def test_a_missing_depth_map_takes_its_frame_along(tree: tuple[Path, dict[str, View]]) -> None:
    root, _ = tree
    name = opened(root).test.frames[0].name
    depth = root / (name.replace("/images/", "/depths/") + ".geometric.png")
    depth.unlink()
    with pytest.raises(ProbeError, match=r"1 of 60 files are missing: .*geometric.png"):
        opened(root)
    assert name not in {f.name for f in opened(root, allow_missing=True).test.frames}


def test_absent_training_frames_are_left_out_and_told(tree: tuple[Path, dict[str, View]]) -> None:
    root, _ = tree
    (root / opened(root).train.frames[0].name).unlink()
    found = opened(root)
    assert len(found.train.frames) == 9 and not found.missing
    assert "Training frames left out because they are not on disk: 1." in found.notes


def test_a_sequence_with_frames_held_out_is_not_trained_on(tree: tuple[Path, dict[str, View]]) -> None:
    root, _ = tree
    path = root / "apple" / "set_lists" / "set_lists_fewview_dev.json"
    sets = json.loads(path.read_text())
    sets["val"] = sets["train"][:1]
    path.write_text(json.dumps(sets))
    assert opened(root).train is None


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: (root / "apple/set_lists/set_lists_fewview_dev.json").unlink(), "does not exist"),
        (lambda root: (root / "apple/frame_annotations.jgz").write_bytes(b"no"), "no gzipped JSON list"),
        (lambda root: (root / "apple/sequence_annotations.jgz").unlink(), "sequence_annotations.jgz"),
    ],
)
def test_a_damaged_category_is_named(tree: tuple[Path, dict[str, View]], damage, message: str) -> None:
    root, _ = tree
    damage(root)
    with pytest.raises(ProbeError, match=message) as caught:
        opened(root)
    assert "\n" not in str(caught.value) and f"co3d:{root}" in str(caught.value)


@pytest.mark.parametrize("key", ["size", "R", "scale_adjustment"])
def test_an_annotation_that_lacks_something_is_told(tree: tuple[Path, dict[str, View]], key: str) -> None:
    root, _ = tree
    path = root / "apple" / "frame_annotations.jgz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()).replace(f'"{key}"'.encode(), b'"x"')))
    with pytest.raises(ProbeError, match=rf"apple/frame_annotations.jgz holds an element .*'{key}'"):
        opened(root)


def test_another_folder_is_refused_with_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    with pytest.raises(ProbeError, match=r"expected CO3D's root with <category>/.*, found images/"):
        opened(tmp_path)


def test_a_broken_picture_is_named(tree: tuple[Path, dict[str, View]]) -> None:
    root, _ = tree
    frame = opened(root).test.frames[0]
    (root / frame.name).write_bytes(b"\xff\xd8 no")
    with pytest.raises(ProbeError, match=frame.name):
        frame.image()
