"""Datasets by URL: S3 and HTTP with one request in five going wrong give the bytes of the folder."""

import io
import itertools
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import fsspec
import pytest

from shards import ranges
from shards.format import CorruptFrame, NotADataset, ShardsError
from shards.loader import Loader
from shards.plan import DataConfig
from shards.ranges import Remote
from shards.reader import Dataset, open_dataset
from shards.writer import DatasetWriter
from tests.shards.conftest import encoded_chunk
from tests.shards.servers import Answer, Server, files, passed_on, serving

CONFIG = DataConfig(size=32, images_per_lane=12, views=(3, 6), lanes=2)


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Twenty chunks in several shards."""
    root = tmp_path_factory.mktemp("remote") / "data"
    with DatasetWriter(root, source="ramps", shard_bytes=1 << 17) as writer:
        for number in range(20):
            writer.add(encoded_chunk(number, 6 + number % 5, size=(48, 64), known=True, split="train"))
        writer.finish({})
    return Dataset(root)


@pytest.fixture(scope="module")
def moto() -> Iterator[tuple[str, int]]:
    """moto's S3 server."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    yield server.get_host_and_port()
    server.stop()


@pytest.fixture(scope="module")
def expected(local: Dataset) -> list[tuple[int, bytes]]:
    """An epoch of batches from the disk."""
    return epoch(local)


Open = Callable[..., Dataset]


@pytest.fixture(params=["s3", "https"])
def far(request: pytest.FixtureRequest, local: Dataset, tmp_path: Path) -> Iterator[tuple[Server, Open]]:
    """A server that has the dataset, and a function that opens it there."""
    if request.param == "s3":
        host, port = request.getfixturevalue("moto")
        with serving(passed_on(host, port)) as server:
            options = {"endpoint_url": server.url, "key": "k", "secret": "s"}
            filesystem = fsspec.filesystem("s3", **options)
            if not filesystem.exists("frames/mine/manifest.jsonl"):
                filesystem.mkdir("frames")
                filesystem.put(str(local.root), "frames/mine", recursive=True)
            yield (
                server,
                lambda **more: open_dataset(
                    "s3://frames/mine", **{"cache": tmp_path / "cache", "options": options, **more}
                ),
            )
    else:
        with serving(files(Path(local.root))) as server:
            yield server, lambda **more: open_dataset(server.url, **{"cache": tmp_path / "cache", **more})


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "_FIRST_WAIT", 0.001)
    monkeypatch.setattr(ranges, "_LONGEST_WAIT", 0.01)


def epoch(dataset: Dataset, **options) -> list[tuple[int, bytes]]:
    """Everything in the batches of an epoch."""
    loader = Loader(dataset, CONFIG, lanes_at_once=2, **options)
    batches = islice(loader, loader.plan.steps_per_epoch)
    return [
        (b.step, b.images.numpy().tobytes() + b.crcs.tobytes() + b.views.numpy().tobytes()) for b in batches
    ]


def sizes(dataset: Dataset) -> int:
    return sum(shard["bytes"] for shard in dataset.shards)


@pytest.mark.parametrize(("share", "workers"), [(2.0, 0), (0.1, 2)])
def test_an_epoch_over_a_troubled_network_is_byte_identical(
    far: tuple[Server, Open],
    local: Dataset,
    expected: list[tuple[int, bytes]],
    share: float,
    workers: int,
) -> None:
    server, opened = far
    server.troubled = True
    dataset = opened(cache_bytes=int(share * sizes(local)))
    assert dataset.hash == local.hash
    assert str(dataset.root).startswith(("s3://frames/mine", "http://127"))
    assert epoch(dataset, workers=workers) == expected
    kept = sum(p.stat().st_size for p in dataset.files.cache.folder.glob("*/[0-9]*"))
    in_flight = (workers or 1) * 20_000 if share else 0
    assert kept <= dataset.files.cache.limit + in_flight


def chunk_bytes(dataset: Dataset) -> list[bytes]:
    return [
        b"".join(dataset.read_jpeg(c, f) for f in range(n)) for c, n in enumerate(dataset.frames_per_chunk)
    ]


def parts_asked(server: Server) -> list[str]:
    """Ranges of the tars that were asked for."""
    return [span for method, path, span in server.asked if method == "GET" and path.endswith(".tar")]


def test_whole_chunks_are_asked_for_once_by_all_threads_of_all_processes(
    far: tuple[Server, Open], local: Dataset
) -> None:
    server, opened = far
    datasets = [opened() for _ in range(3)]
    expected = chunk_bytes(local)
    found: list[list[bytes]] = []
    threads = [
        threading.Thread(target=lambda d=d: found.append(chunk_bytes(d))) for d in datasets for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 6
    assert len(parts_asked(server)) == len(set(parts_asked(server))) == local.num_chunks


@pytest.mark.parametrize("far", ["https"], indirect=True)
def test_workers_find_what_was_brought_before_them(
    far: tuple[Server, Open], local: Dataset, expected: list[tuple[int, bytes]]
) -> None:
    server, opened = far
    assert epoch(opened(), workers=2) == expected
    assert len(parts_asked(server)) == len(set(parts_asked(server)))
    assert not [t for t in threading.enumerate() if t.name.startswith("prefetch")]


@pytest.mark.parametrize("far", ["https"], indirect=True)
def test_indices_are_fetched_once_and_the_manifest_is_always_read(
    far: tuple[Server, Open], local: Dataset
) -> None:
    server, opened = far
    threads = [threading.Thread(target=opened) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([path for _, path, _ in server.asked if path.endswith(".idx")]) == len(local.shards)
    server.asked.clear()
    opened()
    assert {Path(path).name for method, path, _ in server.asked if method == "GET"} == {"manifest.jsonl"}


def test_after_a_cut_the_read_goes_on_from_the_last_byte(tmp_path: Path) -> None:
    data = bytes(range(256)) * 4000
    (tmp_path / "file").write_bytes(data)
    with serving(files(tmp_path)) as server:
        server.troubled, server.troubles = True, itertools.count(4)  # the first is cut in its middle
        sink = io.BytesIO()
        Remote(server.url).fetch("file", sink, 1000, 501_000)
    assert sink.getvalue() == data[1000:501_000]
    assert [span for _, _, span in server.asked] == ["bytes=1000-500999", "bytes=251000-500999"]


def test_a_file_that_is_shorter_than_asked_ends_where_it_ends(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 100)
    with serving(files(tmp_path)) as server:
        sink = io.BytesIO()
        Remote(server.url).fetch("file", sink, 50, 1000)
        assert sink.getvalue() == b"x" * 50
        Remote(server.url).fetch("file", empty := io.BytesIO(), 200, 1000)
        assert empty.getvalue() == b""


@pytest.mark.parametrize(
    ("status", "said"),
    [(503, "gave nothing more after 0 bytes in 12 attempts.*503"), (403, "cannot be read: .*answers 403")],
)
def test_a_server_that_never_answers_is_given_up_in_one_sentence(status: int, said: str) -> None:
    with serving(lambda *_: (status, {}, b"")) as server, pytest.raises(ShardsError, match=said) as caught:
        Remote(server.url).read("file")
    assert "\n" not in str(caught.value)
    assert len(server.asked) == (12 if status == 503 else 1)


def test_a_server_without_byte_ranges_is_refused_with_the_mend(local: Dataset, tmp_path: Path) -> None:
    with serving(files(Path(local.root), ranges=False)) as server:
        dataset = open_dataset(server.url, cache=tmp_path)
        with pytest.raises(ShardsError, match="serves no byte ranges: copy the dataset"):
            dataset.read_jpeg(0, 0)


def test_no_dataset_and_no_backend_are_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(files(tmp_path)) as server, pytest.raises(NotADataset, match=r"holds no manifest\.jsonl"):
        open_dataset(server.url, cache=tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ShardsError, match="reading gs:// needs gcsfs: pip install gcsfs"):
        open_dataset("gs://bucket/data", cache=tmp_path)


def test_bytes_that_change_on_their_way_are_asked_for_again(local: Dataset, tmp_path: Path) -> None:
    honest, lies = files(Path(local.root)), itertools.count()

    def answer(method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        status, more, data = honest(method, path, headers, body)
        if path.endswith(".tar") and next(lies) == 0:
            data = data[:-100] + bytes(100)
        return status, more, data

    with serving(answer) as server:
        dataset = open_dataset(server.url, cache=tmp_path)
        assert dataset.read_jpeg(0, 5) == local.read_jpeg(0, 5)
        assert len(parts_asked(server)) == 2


def test_a_frame_that_is_damaged_far_away_is_corrupt_and_costs_two_more_requests_at_most(
    local: Dataset, tmp_path: Path
) -> None:
    copy = tmp_path / "data"
    shutil.copytree(local.root, copy)
    offset, size, _ = local._member(0, 2, 0)
    with (copy / local.shards[0]["name"]).open("r+b") as shard:
        shard.seek(offset + size // 2)
        shard.write(b"\0\1\2\3")
    with serving(files(copy)) as server:
        dataset = open_dataset(server.url, cache=tmp_path)
        for _ in range(4):
            with pytest.raises(CorruptFrame, match=r"0002\.jpg at byte \d+: its bytes fail their crc32"):
                dataset.read_jpeg(0, 2)
        assert dataset.read_jpeg(0, 1) == local.read_jpeg(0, 1)
        assert len(parts_asked(server)) <= 4


@pytest.mark.parametrize("far", ["https"], indirect=True)
def test_a_kept_chunk_that_went_bad_is_fetched_again(far: tuple[Server, Open], local: Dataset) -> None:
    _, opened = far
    dataset = opened()
    dataset.read_jpeg(3, 0)
    (entry,) = dataset.files.cache.folder.glob("*/000000003")
    entry.write_bytes(bytes(entry.stat().st_size))
    assert opened().read_jpeg(3, 0) == local.read_jpeg(3, 0)


def test_a_shard_that_is_missing_far_away_is_not_taken_for_damage(local: Dataset, tmp_path: Path) -> None:
    copy = tmp_path / "data"
    shutil.copytree(local.root, copy)
    (copy / local.shards[0]["name"]).unlink()
    with serving(files(copy)) as server:
        dataset = open_dataset(server.url, cache=tmp_path)
        with pytest.raises(NotADataset, match="is missing though the manifest lists it"):
            dataset.read_jpeg(0, 0)


@pytest.mark.parametrize("far", ["https"], indirect=True)
def test_descriptors_and_threads_stay_as_many(far: tuple[Server, Open]) -> None:
    _, opened = far
    dataset = opened(cache_bytes=40_000)
    chunk_bytes(dataset)
    before = len(os.listdir("/proc/self/fd")), threading.active_count()
    for _ in range(3):
        chunk_bytes(dataset)
    after = len(os.listdir("/proc/self/fd")), threading.active_count()
    assert after[0] <= before[0] + 2 and after[1] <= before[1] + 2


def test_a_damaged_frame_far_away_gets_the_same_stand_in_as_nearby(local: Dataset, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(local.root, tmp_path / "data"))
    for chunk in range(0, 20, 2):
        offset, size, _ = local._member(chunk, 2, 0)
        with (copy / local.shards[local.shard_of(chunk)]["name"]).open("r+b") as shard:
            shard.seek(offset + size // 2)
            shard.write(b"\0\1\2\3")

    def met(dataset: Dataset) -> list[tuple]:
        loader = Loader(dataset, CONFIG, lanes_at_once=2)
        batches = islice(loader, loader.plan.steps_per_epoch)
        return [
            (
                b.crcs.tolist(),
                b.views.tolist(),
                [(e["chunk"], e["frame"], e["by"], e["key"]) for e in b.substituted],
            )
            for b in batches
        ]

    near = met(open_dataset(copy))
    assert sum(len(events) for _, _, events in near) >= 10
    with serving(files(copy)) as server:
        server.troubled = True
        assert met(open_dataset(server.url, cache=tmp_path / "cache")) == near
