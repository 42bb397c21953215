"""The cache of downloaded chunks: bounded, shared, and never the place of a sole copy."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import BinaryIO

import pytest

from shards.cache import TAG, Cache
from shards.forecast import Forecast, next_needs
from shards.format import ShardsError

GROUP = "0123456789abcdef"


class Source:
    """Ten bytes an entry, and a note of what was downloaded, from which byte on."""

    def __init__(self, cache: Cache) -> None:
        self.cache, self.sent = cache, []

    def read(self, number: int, **options) -> bytes | None:
        found = self.cache.open(GROUP, number, 10, 100, lambda sink: self.send(number, sink), **options)
        return found and found.read(10, 100)

    def send(self, number: int, sink: BinaryIO) -> None:
        self.sent.append((number, sink.tell()))
        sink.write((b"%010d" % number)[sink.tell() :])

    @property
    def kept(self) -> list[int]:
        return sorted(int(path.name) for path in self.cache.folder.glob("*/?????????"))


def test_what_nobody_announced_goes_first_and_the_longest_unused_of_it(tmp_path: Path) -> None:
    source = Source(Cache(tmp_path, 30))
    for number in (1, 2, 3):
        assert source.read(number) == b"%010d" % number
        time.sleep(0.002)
    assert source.read(1) == b"%010d" % 1
    source.read(4)
    assert source.kept == [1, 3, 4]
    assert source.sent == [(1, 0), (2, 0), (3, 0), (4, 0)]


def test_what_is_needed_last_is_evicted_first(tmp_path: Path) -> None:
    """Of 1 2 3 1 2 4 1 2 3 with room for two, 7 downloads are the fewest; least recently used takes 9."""
    source = Source(Cache(tmp_path, 20))
    forecast, sequence = Forecast(source.cache.plans, GROUP), [1, 2, 3, 1, 2, 4, 1, 2, 3]
    for step, number in enumerate(sequence):
        forecast.announce(step + 1, list(enumerate(sequence))[step + 1 :])
        source.read(number)
    assert len(source.sent) == 7
    forecast.withdraw()
    assert next_needs(source.cache.plans) == {}


def test_fetching_ahead_never_costs_what_is_needed_sooner(tmp_path: Path) -> None:
    source = Source(Cache(tmp_path, 20))
    Forecast(source.cache.plans, GROUP).announce(5, [(6, 1), (9, 2), (12, 3)])
    keep = Forecast(source.cache.plans, GROUP)
    keep.announce(5, [(6, 1), (9, 2), (12, 3)])
    assert source.read(1, needed=1) and source.read(2, needed=4)
    assert source.read(3, needed=7) is None
    assert source.kept == [1, 2]
    assert source.read(3) == b"%010d" % 3  # asked for now: the one that is needed last makes room
    assert source.kept == [1, 3]


def test_an_announcement_ends_with_its_process(tmp_path: Path) -> None:
    forecast = Forecast(tmp_path, GROUP)
    forecast.announce(0, [(3, 7)])
    assert next_needs(tmp_path) == {(GROUP, 7): 3}
    del forecast
    assert next_needs(tmp_path) == {}
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("limit", [0, 5])
def test_a_limit_below_one_chunk_reads_without_keeping(tmp_path: Path, limit: int) -> None:
    source = Source(Cache(tmp_path, limit))
    assert source.read(1) == b"%010d" % 1
    assert source.read(1, needed=3) is None
    assert source.kept == []


def test_a_limit_below_what_is_open_waits_for_nothing(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 10)
    source = Source(cache)
    opened = [cache.open(GROUP, n, 10, 0, lambda sink, n=n: source.send(n, sink)) for n in range(5)]
    assert [each.read(10, 0) for each in opened] == [b"%010d" % n for n in range(5)]
    assert source.kept == [4]


def test_nothing_but_entries_of_its_own_is_ever_deleted(tmp_path: Path) -> None:
    (tmp_path / "photographs").mkdir()
    (tmp_path / "photographs" / "only.jpg").write_bytes(b"x" * 50)
    source = Source(Cache(tmp_path, 10))
    strange = source.cache.folder / GROUP / "mine.tar"
    source.read(1)
    strange.write_bytes(b"y" * 50)
    (source.cache.folder / "notes").write_bytes(b"z" * 50)
    for number in range(2, 6):
        source.read(number)
    assert source.kept == [5]
    assert strange.exists() and (source.cache.folder / "notes").exists()
    assert (tmp_path / "photographs" / "only.jpg").exists()


def test_a_folder_that_is_no_cache_is_refused(tmp_path: Path) -> None:
    folder = Cache(tmp_path, 10).folder
    (folder / TAG).unlink()
    (folder / "000000001").write_bytes(b"the only copy")
    with pytest.raises(ShardsError, match=f"is no cache of mumkit's .*no {TAG}"):
        Cache(tmp_path, 10)
    assert (folder / "000000001").read_bytes() == b"the only copy"


def test_users_have_folders_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shards.cache._user", lambda: "ada")
    ada = Cache(tmp_path, 10).folder
    monkeypatch.setattr("shards.cache._user", lambda: "b/../o b")
    assert Cache(tmp_path, 10).folder.parent == ada.parent == tmp_path
    assert {p.name for p in tmp_path.iterdir()} == {
        f"mumkit-ada-{os.getuid()}",
        f"mumkit-b-o-b-{os.getuid()}",
    }


def test_a_folder_that_cannot_be_written_is_told_with_the_mend(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ShardsError, match="name another folder in the environment variable MUM_CACHE"):
        Cache(tmp_path / "file")


def test_a_download_that_fails_is_continued_by_the_next(tmp_path: Path) -> None:
    source = Source(Cache(tmp_path, 100))

    def half(sink: BinaryIO) -> None:
        sink.write(b"00000")
        raise ShardsError("cut")

    with pytest.raises(ShardsError, match="cut"):
        source.cache.open(GROUP, 7, 10, 100, half)
    assert source.read(7) == b"%010d" % 7
    assert source.sent == [(7, 5)]


def test_a_killed_download_is_continued_by_another_process(tmp_path: Path) -> None:
    program = f"""
import sys, time
from shards.cache import Cache
def slow(sink):
    sink.write(b"0000"); sink.flush(); print("half", flush=True); time.sleep(60)
Cache({str(tmp_path)!r}, 100).open({GROUP!r}, 7, 10, 100, slow)
"""
    child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert child.stdout.readline() == b"half\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    source = Source(Cache(tmp_path, 100))
    assert source.read(7) == b"%010d" % 7
    assert source.sent == [(7, 4)]


def test_a_full_disk_reads_without_keeping(tmp_path: Path) -> None:
    source = Source(Cache(tmp_path, 100))
    full = [True]

    def send(sink: BinaryIO) -> None:
        if full.pop() if full else False:
            sink.write(b"000")
            raise OSError(28, "No space left on device")
        source.send(3, sink)

    found = source.cache.open(GROUP, 3, 10, 100, send)
    assert found.read(10, 100) == b"%010d" % 3
    assert source.kept == []


def test_threads_that_make_a_cache_at_the_same_moment_all_have_it(tmp_path: Path) -> None:
    for turn in range(20):
        folder, gate, made = tmp_path / str(turn), threading.Barrier(8), []

        def make(folder: Path = folder, gate: threading.Barrier = gate, made: list = made) -> None:
            gate.wait()
            made.append(Cache(folder, 100))
            (made[-1].folder / "plans").mkdir(exist_ok=True)

        threads = [threading.Thread(target=make) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(made) == 8
