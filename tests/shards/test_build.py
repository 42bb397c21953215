import dataclasses
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import webdataset
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import shards
from shards import format as fmt
from shards.build import BuildOptions, build
from shards.format import BadPhotograph, ShardsError
from shards.split import cut_split


@pytest.fixture
def photos(tmp_path: Path) -> Callable[..., Path]:
    """Write folders of photographs: `photos(a=3, b=2)` makes photos/a/0.jpg ... and returns photos/."""

    def make(folder: str = "photos", size: tuple[int, int] = (48, 64), **scenes: int) -> Path:
        rng = np.random.default_rng(0)
        for scene, count in scenes.items():
            (tmp_path / folder / scene).mkdir(parents=True)
            for number in range(count):
                noise = Image.fromarray(rng.integers(0, 255, (*size, 3), np.uint8))
                noise.save(tmp_path / folder / scene / f"{number}.jpg", quality=95)
        return tmp_path / folder

    return make


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_folders_become_scenes_and_every_frame_is_stored(photos: Callable, tmp_path: Path) -> None:
    report = build("images", [photos(a=3, b=12)], tmp_path / "out", workers=1)
    assert (report.frames_in, report.frames_out, report.scenes_out) == (15, 15, 2)
    dataset = shards.open_dataset(tmp_path / "out")
    scenes = {c.scene: c for c in map(dataset.chunk, range(dataset.num_chunks))}
    assert set(scenes) == {"a", "b"}
    assert scenes["b"].frame_names == [f"{n}.jpg" for n in range(12)]  # natural order
    assert (scenes["a"].covisibility[~np.eye(3, dtype=bool)] == fmt.UNKNOWN).all()
    for number in range(dataset.num_chunks):
        for frame in range(dataset.chunk(number).num_frames):
            assert dataset.read_image(number, frame).shape == (48, 64, 3)


def test_bytes_do_not_depend_on_the_number_of_workers(photos: Callable, tmp_path: Path) -> None:
    source = photos(a=3, b=4, c=5, d=2)
    build("images", [source], tmp_path / "one", workers=1)
    build("images", [source], tmp_path / "two", workers=2)
    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_large_scenes_are_cut_into_chunks_and_shards(photos: Callable, tmp_path: Path) -> None:
    source = photos(size=(16, 16), big=200)
    build("images", [source], tmp_path / "out", workers=1)
    dataset = shards.open_dataset(tmp_path / "out")
    assert dataset.frames_per_chunk.tolist() == [67, 67, 66]
    assert len(set(dataset.scene_hash.tolist())) == 1
    names = [name for i in range(3) for name in dataset.chunk(i).frame_names]
    assert names == [f"{n}.jpg" for n in range(200)]


def test_shards_are_closed_before_they_grow_too_large(photos: Callable, tmp_path: Path) -> None:
    source = photos(size=(300, 300), a=9, b=9, c=9)
    build("images", [source], tmp_path / "out", workers=1, options=BuildOptions(shard_mb=1))
    dataset = shards.open_dataset(tmp_path / "out")
    assert len(dataset.shards) == 3
    assert dataset.read_image(2, 8).shape == (300, 300, 3)


def test_second_build_returns_at_once(
    photos: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = photos(a=2, b=2)
    first = build("images", [source], tmp_path / "out", workers=1)
    monkeypatch.setattr("shards.executor.convert_scene", None)  # anything converted would fail
    again = build("images", [source], tmp_path / "out", workers=2)
    assert again.existed and dataclasses.replace(again, existed=False) == first


@pytest.mark.parametrize("change", ["options", "input"])
def test_another_build_into_the_same_folder_is_refused_unless_forced(
    photos: Callable, tmp_path: Path, change: str
) -> None:
    source = photos(a=2, b=2)
    build("images", [source], tmp_path / "out", workers=1)
    before = files(tmp_path / "out")
    options = BuildOptions(short_side=32) if change == "options" else None
    if change == "input":
        (source / "a" / "0.jpg").write_bytes((source / "a" / "1.jpg").read_bytes())
    with pytest.raises(ShardsError, match=r"--short-side 384 there, 32 now" if options else "other files"):
        build("images", [source], tmp_path / "out", workers=1, options=options)
    assert files(tmp_path / "out") == before
    build("images", [source], tmp_path / "out", workers=1, options=options, force=True)
    assert files(tmp_path / "out") != before


def test_force_leaves_files_alone_that_no_build_made(photos: Callable, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("...")
    with pytest.raises(ShardsError, match=r"thesis\.tex"):
        build("images", [photos(a=2)], tmp_path / "out", workers=1, force=True)
    assert (tmp_path / "out" / "thesis.tex").exists()


def test_smaller_dataset_that_replaces_a_larger_leaves_no_old_shards(
    photos: Callable, tmp_path: Path
) -> None:
    source = photos(size=(300, 300), a=9, b=9, c=9)
    build("images", [source], tmp_path / "out", workers=1, options=BuildOptions(shard_mb=1))
    build("images", [source / "a"], tmp_path / "out", workers=1, force=True)
    assert sorted(p.name for p in (tmp_path / "out" / "shards").iterdir()) == [
        "images-000000.idx",
        "images-000000.tar",
    ]


def test_scene_with_one_photograph_is_dropped_by_name(photos: Callable, tmp_path: Path) -> None:
    report = build("images", [photos(pair=2, single=1)], tmp_path / "out", workers=1)
    assert (report.scenes_out, report.scenes_dropped) == (1, 1)
    assert report.dropped == [("single", "1 frame, at least 2 are needed")]


def test_scene_with_one_photograph_is_kept_where_allowed(photos: Callable, tmp_path: Path) -> None:
    options = BuildOptions(allow_single_views=True)
    report = build("images", [photos(pair=2, single=1)], tmp_path / "out", workers=1, options=options)
    assert (report.scenes_out, report.frames_out) == (2, 3)


def test_nothing_left_to_build_is_an_error(photos: Callable, tmp_path: Path) -> None:
    with pytest.raises(ShardsError, match=r"no scene is left .*single"):
        build("images", [photos(single=1)], tmp_path / "out", workers=1)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_truncated_photograph_stops_the_build_by_name(photos: Callable, tmp_path: Path, workers: int) -> None:
    source = photos(a=3, b=3)
    broken = source / "b" / "1.jpg"
    broken.write_bytes(broken.read_bytes()[:900])
    with pytest.raises(BadPhotograph, match=r"b/1\.jpg: is truncated"):
        build("images", [source], tmp_path / "new" / "out", workers=workers)
    assert not (tmp_path / "new").exists()


def test_truncated_photograph_is_counted_and_named_with_skip_bad(photos: Callable, tmp_path: Path) -> None:
    source = photos(a=3, b=3)
    broken = source / "b" / "1.jpg"
    broken.write_bytes(broken.read_bytes()[:900])
    report = build("images", [source], tmp_path / "out", workers=1, options=BuildOptions(skip_bad=True))
    assert (report.frames_in, report.frames_out, report.frames_refused) == (6, 5, 1)
    assert report.refused[0][0] == str(broken)


def test_existing_dataset_survives_a_forced_build_that_fails(photos: Callable, tmp_path: Path) -> None:
    source = photos(a=3, b=3)
    build("images", [source], tmp_path / "out", workers=1)
    before = files(tmp_path / "out")
    broken = source / "b" / "1.jpg"
    broken.write_bytes(broken.read_bytes()[:900])
    with pytest.raises(BadPhotograph):
        build("images", [source], tmp_path / "out", workers=1, force=True)
    assert files(tmp_path / "out") == before


def test_left_overs_of_a_killed_build_do_not_matter(photos: Callable, tmp_path: Path) -> None:
    source = photos(a=3, b=3)
    build("images", [source], tmp_path / "clean", workers=1)
    staging = tmp_path / "out" / ".building"
    staging.mkdir(parents=True)
    (staging / "images-000007.tar").write_bytes(b"half")
    (tmp_path / "out" / "shards").mkdir()
    (tmp_path / "out" / "shards" / "images-000003.tar").write_bytes(b"moved before the kill")
    build("images", [source], tmp_path / "out", workers=1)
    assert files(tmp_path / "out") == files(tmp_path / "clean")


def test_plain_webdataset_yields_every_chunk(photos: Callable, tmp_path: Path) -> None:
    build("images", [photos(a=3, b=11)], tmp_path / "out", workers=1)
    dataset = shards.open_dataset(tmp_path / "out")
    urls = [str(dataset.root / shard["name"]) for shard in dataset.shards]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False).decode())
    assert [s["__key__"] for s in samples] == [dataset.chunk(i).key for i in range(dataset.num_chunks)]
    for number, sample in enumerate(samples):
        chunk = dataset.chunk(number)
        assert sample["meta.json"] == chunk.meta
        assert np.array_equal(sample["covis.npy"], chunk.covisibility)
        frames = [sample[name] for name in sample if name.endswith(".jpg")]
        assert len(frames) == chunk.num_frames


def test_tar_is_plain_ustar_without_times_and_names(photos: Callable, tmp_path: Path) -> None:
    build("images", [photos(a=3)], tmp_path / "out", workers=1)
    header = (tmp_path / "out" / "shards" / "images-000000.tar").read_bytes()[:512]
    assert header[257:263] == b"ustar\0" and header[156:157] == b"0"
    assert int(header[136:147], 8) == 0  # mtime
    assert header[265:329].strip(b"\0") == b""  # user and group


@given(st.lists(st.text("abcdef", min_size=1), unique=True, min_size=1, max_size=40), st.floats(0, 0.99))
def test_split_holds_out_the_share_asked_for_but_never_all(names: list[str], fraction: float) -> None:
    splits = cut_split(names, fraction)
    held_out = sum(split == "val" for split in splits.values())
    assert set(splits) == set(names)
    assert held_out < len(names) or not held_out
    assert (held_out >= 1) == (fraction > 0 and len(names) > 1)
    assert splits == cut_split(names[::-1], fraction)


def test_split_is_cut_by_scene_and_written_to_the_index(photos: Callable, tmp_path: Path) -> None:
    source = photos(size=(16, 16), a=100, b=100, c=2)
    build("images", [source], tmp_path / "out", workers=1, options=BuildOptions(val_fraction=0.4))
    dataset = shards.open_dataset(tmp_path / "out")
    splits: dict = {}
    for number in range(dataset.num_chunks):
        chunk = dataset.chunk(number)
        splits.setdefault(chunk.scene, set()).add(chunk.split)
        assert fmt.SPLITS[dataset.split_of[number]] == chunk.split
    assert sorted(map(sorted, splits.values())) == [["train"], ["train"], ["val"]]


def test_rendered_scenes_bring_their_own_split_depth_and_labels(tmp_path: Path) -> None:
    from shards.sources.scenes import Options

    options = Options(scenes=1, val_scenes=1, frames=3, size=32)
    build("scenes", [], tmp_path / "out", workers=1, source_options=options)
    dataset = shards.open_dataset(tmp_path / "out")
    assert dataset.split_of.tolist() == [0, 1]
    chunk = dataset.chunk(0)
    assert chunk.intrinsics is not None and chunk.world_to_camera is not None
    assert chunk.intrinsics.shape == (3, 3, 3) and chunk.world_to_camera.shape == (3, 3, 4)
    assert (chunk.covisibility != fmt.UNKNOWN).all() and chunk.classes
    depth, labels = dataset.read_depth(0, 0), dataset.read_labels(0, 2)
    assert depth is not None and depth.shape == (32, 32) and depth.dtype == np.float32 and depth.max() > 0
    assert labels is not None and labels.shape == (32, 32) and labels.max() < len(chunk.classes)


def test_metadata_of_photographs_does_not_reach_the_shards(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010E] = "my house"
    for name in ("large", "small"):
        (tmp_path / "photos").mkdir(exist_ok=True)
        size = (640, 480) if name == "large" else (64, 48)
        Image.new("RGB", size).save(tmp_path / "photos" / f"{name}.jpg", exif=exif, quality=80)
    build("images", [tmp_path / "photos"], tmp_path / "out", workers=1)
    for data in files(tmp_path / "out").values():
        assert b"my house" not in data


def test_encoded_pictures_are_what_pillow_reads(photos: Callable, tmp_path: Path) -> None:
    build("images", [photos(a=2)], tmp_path / "out", workers=1)
    dataset = shards.open_dataset(tmp_path / "out")
    assert Image.open(io.BytesIO(dataset.read_jpeg(0, 1))).size == (64, 48)
