from pathlib import Path

import pytest

from shards.build import Report, build
from shards.format import ShardsError
from shards.reader import Dataset
from shards.sources.realestate10k import Options, find, read
from tests.trees import proof, realestate10k
from tests.trees.world import View, render_world

WORLD = render_world(6)
OPTIONS = Options(stride=realestate10k.BURST)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, View]]:
    root = tmp_path_factory.mktemp("re10k") / "RealEstate10K"
    return root, realestate10k.write(root, WORLD)


@pytest.fixture(scope="module")
def built(tree: tuple[Path, dict[str, View]]) -> tuple[Dataset, Report]:
    out = tree[0].parent / "out"
    report = build("realestate10k", [tree[0]], out, source_options=OPTIONS, workers=1)
    return Dataset(out), report


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    realestate10k.write(tmp_path, render_world(4))
    return tmp_path


def test_cameras_and_pixels_are_those_of_the_world(
    tree: tuple[Path, dict[str, View]], built: tuple[Dataset, Report]
) -> None:
    assert proof.point_error(built[0], tree[1], WORLD.points) < 0.5
    assert proof.pixel_error(built[0], tree[1]) < 5


def test_of_a_burst_one_frame_is_taken_and_frames_follow_one_another_in_time(
    tree: tuple[Path, dict[str, View]], built: tuple[Dataset, Report]
) -> None:
    dataset = built[0]
    assert set(proof.stored_frames(dataset, tree[1])) == set(tree[1])
    meta = dataset.chunk(0).meta
    assert meta["frames"] == ["9800000.png", "10000000.png", "10200000.png"]  # in time, not by letters
    assert meta["timestamps"] == [9.8, 10, 10.2] and meta["overlap_from"] == "poses"


def test_clips_whose_video_is_gone_are_counted_and_named(built: tuple[Dataset, Report]) -> None:
    report = built[1]
    gone = f"train/{realestate10k.GONE}"
    assert report.dropped == [(gone, "its video is gone: no frames were extracted")]
    assert (report.scenes_in, report.scenes_out) == (3, 2)


def test_an_empty_folder_of_frames_is_a_gone_video_too(copy: Path) -> None:
    (copy / "train" / realestate10k.GONE).mkdir()
    task = next(t for t in find([copy], OPTIONS) if realestate10k.GONE in t.name)
    assert read(task).dropped.startswith("its video is gone: none of its 6 frames are in")


def test_a_frame_that_was_not_extracted_is_counted_and_named(built: tuple[Dataset, Report]) -> None:
    ((name, reason),) = built[1].refused
    assert name.endswith(f"{realestate10k.CLIP}/99999000") and reason == "was not extracted"


def test_test_clips_are_held_out(built: tuple[Dataset, Report]) -> None:
    dataset = built[0]
    splits = {d.meta["scene"]: d.meta["split"] for d in map(dataset.chunk, range(dataset.num_chunks))}
    assert splits == {f"train/{realestate10k.CLIP}": "train", f"test/{realestate10k.TEST}": "val"}


@pytest.mark.parametrize("nested", [False, True])
def test_frames_may_lie_elsewhere(copy: Path, nested: bool) -> None:
    clip = copy / "train" / realestate10k.CLIP
    elsewhere = copy / "frames" / "train" if nested else copy / "frames"
    elsewhere.mkdir(parents=True)
    clip.rename(elsewhere / clip.name)
    tasks = {t.clip.stem: t for t in find([copy], Options(frames=copy / "frames", stride=1))}
    assert len(read(tasks[realestate10k.CLIP]).frames) == 6
    assert tasks[realestate10k.TEST].views == 0  # its frames lie beside it, not where --frames says


def test_the_stride_counts_frames_that_are_there(copy: Path) -> None:
    """Frames may have been extracted with a stride already."""
    folder = copy / "train" / realestate10k.CLIP
    for path in folder.glob("*33000.png"):
        path.unlink()
    task = next(t for t in find([copy], Options(stride=2)) if realestate10k.CLIP in t.name)
    assert [frame.name for frame in read(task).frames] == ["9800000.png", "10000000.png"]


def test_lens_distortion_is_noted_where_there_is_any(copy: Path) -> None:
    clip = copy / "train" / f"{realestate10k.CLIP}.txt"
    lines = clip.read_text().splitlines()
    words = lines[1].split()
    words[5] = "0.01"
    clip.write_text("\n".join([lines[0], " ".join(words), *lines[2:]]))
    task = next(t for t in find([copy], OPTIONS) if realestate10k.CLIP in t.name)
    first, second = read(task).frames[:2]
    assert first.distortion["params"][4] == 0.01 and second.distortion is None


def test_a_line_of_another_length_is_named(copy: Path) -> None:
    (copy / "train" / f"{realestate10k.CLIP}.txt").write_text("url\n9800000 1 2 3\n")
    with pytest.raises(ShardsError, match=rf"{realestate10k.CLIP}\.txt: line 2 must hold 19 finite numbers"):
        build("realestate10k", [copy], copy / "out", workers=1)


def test_options_and_folders_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ShardsError, match="--stride must be at least 1"):
        Options(stride=0)
    with pytest.raises(ShardsError, match=r"--frames .* is no folder"):
        Options(frames=tmp_path / "none")
    with pytest.raises(ShardsError, match="holds no clips"):
        list(find([tmp_path], Options()))
