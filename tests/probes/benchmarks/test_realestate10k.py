"""RealEstate10K: true cameras, ten frames a clip whatever videos are gone, and what is refused."""

from pathlib import Path

import numpy as np
import pytest

from probes.benchmarks import realestate10k as reader
from probes.benchmarks.draws import draw_frames
from probes.errors import ProbeError
from tests.probes.benchmarks.opening import opener
from tests.trees import realestate10k
from tests.trees.proof import benchmark_pixel_error, benchmark_point_error
from tests.trees.world import View, render_world

opened = opener("realestate10k", allow_missing=True)

TEST, ELSEWHERE = f"test/{realestate10k.TEST}", f"test/{realestate10k.ELSEWHERE}"
GONE, SHORT = f"test/{realestate10k.GONE}", f"test/{realestate10k.SHORT}"

Tree = tuple[Path, dict[str, View]]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    world, trained = (render_world(12, size=(36, 48), seed=seed) for seed in (0, 1))
    return tmp_path, realestate10k.write_test_set(tmp_path, world, trained)


def test_cameras_put_the_worlds_points_where_the_views_see_them(
    tree: Tree,
) -> None:
    root, views = tree
    found = opened(root)
    for split, seed in ((found.test, 0), (found.train, 1)):
        points = render_world(12, size=(36, 48), seed=seed).points
        assert benchmark_point_error(split.frames, views, points) < 0.5
        assert benchmark_pixel_error(split, views) == 0


def test_scored_are_ten_frames_of_each_clip_that_has_them(tree: Tree) -> None:
    found = opened(tree[0])
    assert {s.name for s in found.test.sequences} == {TEST, ELSEWHERE}
    assert [s.name for s in found.train.sequences] == [f"train/{realestate10k.CLIP}"]
    for sequence in found.test.sequences:
        frames = [found.test.frames[i] for i in sequence.frames]
        assert len({f.name for f in frames}) == 10 and {f.scene for f in frames} == {sequence.name}
    assert any("fewer than 10 frames, or fewer than two on disk: 1." in note for note in found.notes)
    assert (found.auc, found.fit, found.truth, found.split) == ("histogram", "squash", "poses", "test")


def test_which_ten_is_drawn_from_the_clips_name(tree: Tree) -> None:
    root, views = tree
    found = opened(root).test
    for clip in (TEST, ELSEWHERE):
        shown = [name for name in views if name.startswith(f"{clip}/")]
        assert [f.name for f in found.frames if f.scene == clip] == [
            shown[i] for i in draw_frames(clip, len(shown))
        ]


def test_a_video_that_is_gone_is_missing_and_changes_no_other_draw(
    tree: Tree,
) -> None:
    root, _ = tree
    with pytest.raises(ProbeError, match=f"1 of 21 files are missing: {GONE}/; complete it"):
        opened(root, allow_missing=False)
    before = opened(root)
    assert before.missing == (f"{GONE}/",)
    (root / f"{GONE}.txt").unlink()
    after = opened(root, allow_missing=False)
    assert not after.missing and after.test.hash == before.test.hash


def test_a_frame_that_was_not_extracted_is_missing(tree: Tree) -> None:
    root, _ = tree
    first = next(f for f in opened(root).test.frames if f.scene == TEST)
    (root / first.name).unlink()
    found = opened(root)
    assert set(found.missing) == {f"{GONE}/", first.name.removesuffix(".png")}
    assert sorted(len(s.frames) for s in found.test.sequences) == [9, 10]


def test_a_list_of_ids_says_what_is_scored(tree: Tree) -> None:
    root, _ = tree
    (root / "test_ids.txt").write_text(f"{realestate10k.ELSEWHERE}\nffff\n{realestate10k.TEST}.txt\n")
    found = opened(root)
    assert [s.name for s in found.test.sequences] == [ELSEWHERE, TEST]
    assert found.missing == ("test/ffff.txt",) and found.split == "test, ids of test_ids.txt"
    with pytest.raises(ProbeError, match=r"1 of 21 files are missing: test/ffff.txt"):
        opened(root, allow_missing=False)


def test_opening_reads_no_pixel(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*_: object, **__: object) -> None:
        raise AssertionError("read")

    monkeypatch.setattr(reader, "read_picture", read)
    assert opened(tree[0]).test.frames


def test_absent_training_frames_are_left_out_and_told(tree: Tree) -> None:
    root, _ = tree
    (root / opened(root).train.frames[0].name).unlink()
    found = opened(root)
    assert len(found.train.frames) == 9
    assert "Training frames left out because they are not on disk: 1." in found.notes


def test_distorted_clips_are_refused(tree: Tree) -> None:
    root, _ = tree
    path = root / f"{TEST}.txt"
    lines = path.read_text().splitlines()
    words = lines[3].split()
    words[5] = "0.1"
    path.write_text("\n".join([*lines[:3], " ".join(words), *lines[4:]]))
    with pytest.raises(ProbeError, match="has lens distortion"):
        opened(root)


def test_a_damaged_text_file_is_named(tree: Tree) -> None:
    root, _ = tree
    (root / f"{TEST}.txt").write_text("url\n1 2 3\n")
    with pytest.raises(ProbeError, match=f"{TEST}.txt: line 2 must hold 19 finite numbers"):
        opened(root)


@pytest.mark.parametrize("names", [[], ["train/a.txt"]])
def test_another_folder_is_refused_with_what_it_holds(tmp_path: Path, names: list[str]) -> None:
    (tmp_path / "train").mkdir()
    for name in names:
        (tmp_path / name).write_text("url\n")
    with pytest.raises(ProbeError, match=r"expected clips in test/<id>.txt, found train/"):
        opened(tmp_path)


def test_relative_poses_survive_single_rows(tree: Tree) -> None:
    """World-to-camera as it stands: rotations are orthonormal and differ between frames."""
    poses = np.array([f.world_to_camera for f in opened(tree[0]).test.frames])
    np.testing.assert_allclose(
        poses[:, :, :3] @ poses[:, :, :3].transpose(0, 2, 1), [np.eye(3)] * 20, atol=1e-6
    )
    assert np.ptp(poses, axis=0).max() > 0.1
