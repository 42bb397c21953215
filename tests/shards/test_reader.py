import json
import os
import pickle
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from shards import format as fmt
from shards.format import NotADataset, ShardsError
from shards.reader import Dataset, open_dataset
from shards.writer import pack_index


def test_tables_tell_of_chunks_without_reading_them(ramps: Callable[..., Dataset]) -> None:
    dataset = ramps([11, 25, 4])
    assert dataset.num_chunks == 3 and dataset.num_frames == 40
    assert dataset.frames_per_chunk.tolist() == [11, 25, 4]
    assert dataset.select(None).tolist() == [0, 1, 2]
    assert sorted([*dataset.select("train"), *dataset.select("val")]) == [0, 1, 2]
    with pytest.raises(ShardsError, match="there is no split 'test'"):
        dataset.select("test")  # type: ignore[arg-type]


def test_chunk_gives_what_was_written(ramps: Callable[..., Dataset]) -> None:
    chunk = ramps([5]).chunk(0)
    assert chunk.num_frames == 5 and chunk.frame_names[3] == "3.jpg"
    assert chunk.intrinsics is not None and chunk.intrinsics.shape == (5, 3, 3)
    assert chunk.world_to_camera is not None and chunk.world_to_camera.shape == (5, 3, 4)
    assert chunk.covisibility.dtype == np.uint8 and chunk.covisibility.shape == (5, 5)
    assert chunk.sizes.shape == (5, 2)


def test_dataset_without_depth_reads_none(ramps: Callable[..., Dataset]) -> None:
    dataset = ramps([3])
    assert dataset.read_depth(0, 0) is None and dataset.read_labels(0, 0) is None
    assert dataset.has(fmt.HAS_POSES).tolist() == [True] and dataset.has(fmt.HAS_DEPTH).tolist() == [False]


def test_frame_out_of_range_is_an_index_error(ramps: Callable[..., Dataset]) -> None:
    with pytest.raises(IndexError, match="3 frames"):
        ramps([3]).read_jpeg(0, 3)


def test_dataset_pickles_as_its_path(ramps: Callable[..., Dataset]) -> None:
    dataset = ramps([3])
    assert len(pickle.dumps(dataset)) < 500
    assert pickle.loads(pickle.dumps(dataset)).read_jpeg(0, 1) == dataset.read_jpeg(0, 1)


def test_threads_may_share_a_dataset(ramps: Callable[..., Dataset], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shards.reader._CACHED_CHUNKS", 1)
    dataset = open_dataset(ramps([6, 6, 6, 6]).root)
    expected = {(c, f): dataset.read_jpeg(c, f) for c in range(4) for f in range(6)}
    draws = list(np.random.default_rng(0).integers(0, (4, 6), (400, 2)).tolist())
    with ThreadPoolExecutor(8) as pool:
        read = pool.map(lambda d: (dataset.read_jpeg(*d), dataset.chunk(d[0]).number), draws)
        for (chunk, frame), (data, number) in zip(draws, read, strict=True):
            assert data == expected[chunk, frame] and number == chunk


def test_old_descriptors_are_closed(ramps: Callable[..., Dataset], monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = ramps([3])
    dataset.read_jpeg(0, 0)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        open_dataset(dataset.root).read_jpeg(0, 0)
    assert len(os.listdir("/proc/self/fd")) == before


def edit_manifest(root: Path, edit: Callable[[list], object]) -> None:
    lines = [json.loads(line) for line in (root / "manifest.jsonl").read_text().splitlines()]
    edit(lines)
    (root / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda lines: lines[0].update(version=fmt.VERSION + 1), "install a newer"),
        (lambda lines: lines[0].update(version=0), "no readable version"),
        (lambda lines: lines[0].update(format="other"), "not a dataset's manifest"),
        (lambda lines: lines.pop(), "not a dataset's manifest"),
        (lambda lines: lines[1].update(name="../../etc/passwd"), "not a dataset's manifest"),
        (lambda lines: lines[1].update(chunks=99), "not the index"),
    ],
)
def test_manifest_that_cannot_be_trusted_is_refused(
    ramps: Callable[..., Dataset], edit: Callable, reason: str
) -> None:
    root = ramps([3]).root
    edit_manifest(root, edit)
    with pytest.raises(NotADataset, match=reason):
        open_dataset(root)


def test_newer_index_is_refused(ramps: Callable[..., Dataset]) -> None:
    root = ramps([3]).root
    (path,) = (root / "shards").glob("*.idx")
    header = np.frombuffer(path.read_bytes()[:64], fmt.INDEX_HEADER).copy()
    header["version"] = fmt.VERSION + 1
    path.write_bytes(header.tobytes() + path.read_bytes()[64:])
    with pytest.raises(NotADataset, match="install a newer"):
        open_dataset(root)


@pytest.mark.parametrize("make", [lambda p: None, Path.mkdir, Path.touch])
def test_path_without_dataset_says_how_to_make_one(tmp_path: Path, make: Callable) -> None:
    make(tmp_path / "here")
    with pytest.raises(NotADataset, match="python -m shards build"):
        open_dataset(tmp_path / "here")


def test_hash_names_the_bytes(ramps: Callable[..., Dataset]) -> None:
    a, b, c = ramps([3], name="a"), ramps([3], name="b"), ramps([4], name="c")
    assert a.hash == b.hash != c.hash


def test_opening_makes_no_object_per_frame(tmp_path: Path) -> None:
    """A million frames cost the chunk table and nothing else."""
    chunks, frames = 10_000, 96
    row = (0, frames, 0, 0, 0, 1, 0.5, 0, 0, 0, 0, 0, 0, 0)
    table = np.array([row] * chunks, fmt.INDEX_CHUNK)
    table["first"] = np.arange(chunks) * frames
    members = np.zeros(chunks * frames, fmt.INDEX_MEMBER)
    (tmp_path / "shards").mkdir()
    index = pack_index(table, members, chunks * frames, 0)
    (tmp_path / "shards" / "big-000000.idx").write_bytes(index)
    shard = {"name": "shards/big-000000.tar", "chunks": chunks, "frames": chunks * frames, "source": "big"}
    first = {"format": "mumkit-shards", "version": fmt.VERSION, "shards": 1}
    lines = [first, shard | {"sha256": "", "bytes": 0}]
    (tmp_path / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    tracemalloc.start()
    dataset = open_dataset(tmp_path)
    dataset._member(9_999, 95, 0)
    used = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert dataset.num_frames == 960_000
    assert used < 5e6
