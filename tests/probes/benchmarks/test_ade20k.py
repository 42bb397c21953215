"""ADE20K: classes counted from 0, the list against the disk, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from probes.benchmarks import ade20k as reader
from probes.data.frames import IGNORED
from probes.data.square import SquareFrames
from probes.errors import ProbeError
from tests.probes.benchmarks.opening import opener
from tests.trees import ade20k
from tests.trees.world import render_world

opened = opener("ade20k")

Tree = tuple[Path, dict[str, tuple[np.ndarray, np.ndarray]]]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return tmp_path, ade20k.write(tmp_path, render_world(6, size=(36, 48)))


def test_pictures_and_classes_are_the_files_own_counted_from_0(tree: Tree) -> None:
    root, shown = tree
    found = opened(root)
    names = [[f.name for f in split.frames] for split in (found.test, found.train)]
    assert names == [[f"ADE_val_{i:08d}" for i in (1, 2, 3)], [f"ADE_train_{i:08d}" for i in (1, 2, 3)]]
    for frame in (*found.test.frames, *found.train.frames):
        picture, stored = shown[frame.name]
        assert np.abs(frame.image().astype(int) - picture).mean() < 4
        labels = frame.labels()
        assert labels.dtype == np.uint8 and (labels[stored == 0] == IGNORED).all()
        assert (labels[stored > 0] == stored[stored > 0] - 1).all()
        assert 149 in labels and frame.scene == frame.name
    assert found.truth == "labels" and found.split == "validation"


def test_classes_bear_their_first_names_in_order(tree: Tree) -> None:
    assert opened(tree[0]).classes == ade20k.NAMES


def test_labels_follow_the_picture_into_the_square(tree: Tree) -> None:
    root, shown = tree
    frames = SquareFrames(opened(root).test.frames, 12, "squash")
    stored = shown["ADE_val_00000001"][1]
    assert (frames.labels(0) == (stored - 1)[1::3, 2::4]).all()


def test_the_list_says_what_must_be_there(tree: Tree) -> None:
    root, _ = tree
    gone = "annotations/validation/ADE_val_00000002.png"
    (root / gone).unlink()
    with pytest.raises(ProbeError, match=f"1 of 6 files are missing: {gone}; complete it"):
        opened(root)
    found = opened(root, allow_missing=True)
    assert found.missing == (gone,)
    assert [f.name for f in found.test.frames] == ["ADE_val_00000001", "ADE_val_00000003"]


def test_absent_training_files_are_left_out_and_told(tree: Tree) -> None:
    root, _ = tree
    (root / "images" / "training" / "ADE_train_00000003.jpg").unlink()
    found = opened(root)
    assert len(found.train.frames) == 2 and not found.missing
    assert "whose images are left out: 1." in found.notes[-1]


def test_opening_decodes_nothing(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*_: object, **__: object) -> None:
        raise AssertionError("read")

    monkeypatch.setattr(reader, "read_picture", read)
    monkeypatch.setattr(reader, "_read_labels", read)
    assert opened(tree[0]).test.hash


def test_the_hash_sees_that_an_annotation_was_exchanged(tree: Tree) -> None:
    root, _ = tree
    before = opened(root).test.hash
    Image.fromarray(np.zeros((36, 48), np.uint8)).save(root / "annotations/validation/ADE_val_00000001.png")
    assert opened(root).test.hash != before


@pytest.mark.parametrize("stored", [np.full((36, 48), 151, np.uint8), np.zeros((36, 48, 3), np.uint8)])
def test_annotations_of_another_kind_are_named(tree: Tree, stored: np.ndarray) -> None:
    root, _ = tree
    path = root / "annotations/validation/ADE_val_00000001.png"
    Image.fromarray(stored).save(path)
    with pytest.raises(ProbeError, match=f"{path.name} must hold one channel of class numbers 0 to 150"):
        opened(root).test.frames[0].labels()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("sceneCategories.txt", "ADE_test_1 x\n", "line 1: 'ADE_test_1' is neither"),
        ("sceneCategories.txt", "ADE_train_00000001 x\n", "names no validation image"),
        ("objectInfo150.txt", "Idx\tName\n1\twall\n", "does not list the classes 1 to 150"),
        ("images/validation/ADE_val_00000001.jpg", "no", "ADE_val_00000001.jpg is no picture"),
    ],
)
def test_damaged_files_are_named(tree: Tree, name: str, text: str, message: str) -> None:
    root, _ = tree
    (root / name).write_text(text)
    with pytest.raises(ProbeError, match=message):
        opened(root)


def test_another_folder_is_refused_with_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "ADEChallengeData2016").mkdir()
    with pytest.raises(ProbeError, match=r"expected ADEChallengeData2016's .*, found ADEChallengeData2016/"):
        opened(tmp_path)
