"""Where a dataset's files lie: a folder on a disk, or a URL whose chunks are downloaded whole and kept a while.

Both give the same few things: small files, the path of a shard's index (which is memory-mapped, so a URL's is
downloaded once and kept), a whole shard as a file, and the bytes around a chunk. On a disk those are the open
shard, to be read by position; of a URL they are the chunk's own part of it, one range from its first member
to its last, in the cache that all processes of the node share. This file knows the dataset's names, not its
tables.
"""

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

from shards.cache import Bytes, Cache, Unkept, write_whole
from shards.forecast import Forecast
from shards.format import NotADataset
from shards.ranges import Remote, is_url

_STREAMS = 32
"""Indices that are downloaded at once."""

Extent = tuple[int, int]
"""First byte of a chunk in its shard, and the one after its last."""


def open_storage(
    path: str | Path,
    *,
    cache: str | Path | None = None,
    cache_bytes: int | None = None,
    options: dict[str, Any] | None = None,
) -> "Folder | Url":
    """The storage that a path or URL names; `cache`, `cache_bytes` and fsspec's `options` are a URL's alone."""
    if is_url(path):
        return Url(str(path), cache=cache, cache_bytes=cache_bytes, options=options)
    return Folder(Path(str(path).removeprefix("file://")))


class Folder:
    """A dataset's files in a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __reduce__(self) -> tuple:
        return Folder, (self.root,)

    def where(self, name: str) -> str:
        """What to call a file in a sentence."""
        return str(self.root / name)

    def read(self, name: str) -> bytes:
        """A small file. OSError where it cannot be read."""
        return (self.root / name).read_bytes()

    def exists(self) -> bool:
        """Whether the folder is there, dataset or not."""
        return self.root.exists()

    def index(self, shard: dict[str, Any]) -> Path:
        """The path of a shard's index; whether it is there and sound is for the reader to see."""
        return self.root / index_name(shard)

    def prepare(self, digest: str, shards: Sequence[dict[str, Any]]) -> None:
        """Nothing: the indices are here."""

    @contextlib.contextmanager
    def whole(self, name: str) -> Iterator[Path]:
        """A shard as a file on a disk, for as long as the context lasts. FileNotFoundError."""
        if not (self.root / name).is_file():
            raise FileNotFoundError(self.root / name)
        yield self.root / name

    def open(self, name: str) -> Bytes:
        """A shard, open. FileNotFoundError where it is missing."""
        return Bytes(self.root / name)


class Url:
    """A dataset's files below a URL that fsspec reads."""

    def __init__(
        self,
        url: str,
        *,
        cache: str | Path | None = None,
        cache_bytes: int | None = None,
        options: dict[str, Any] | None = None,
    ) -> None:
        self._made_of = (url, cache, cache_bytes, options)
        self.remote = Remote(url, options)
        self.root = self.remote.url
        self.cache = Cache(cache, cache_bytes)
        self.group = ""
        """Name of this dataset's entries in the cache, from its hash."""

    def __reduce__(self) -> tuple:
        return _reopen, self._made_of

    def where(self, name: str) -> str:
        """What to call a file in a sentence."""
        return f"{self.root}/{name}"

    def read(self, name: str) -> bytes:
        """A small file. FileNotFoundError where there is none; ShardsError where it cannot be read."""
        return self.remote.read(name)

    def exists(self) -> bool:
        """Nobody knows: an object store has no folders."""
        return True

    def index(self, shard: dict[str, Any]) -> Path:
        """The path of a shard's index, downloaded and checked by `prepare`."""
        return self.cache.folder / self.group / "index" / Path(index_name(shard)).name

    def prepare(self, digest: str, shards: Sequence[dict[str, Any]]) -> None:
        """Download the indices that are not here yet; `digest` is the dataset's hash.

        NotADataset where one is missing or is not what the manifest says.
        """
        self.group = digest[:16]
        folder = self.cache.folder / self.group / "index"
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("a") as lock, ThreadPoolExecutor(_STREAMS) as threads:
            # One process of the node downloads them, the others wait and find them.
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                missing = [shard for shard in shards if not self.index(shard).exists()]
                list(threads.map(self._fetch_index, missing))
            finally:
                fcntl.flock(lock, fcntl.LOCK_UN)

    def _fetch_index(self, shard: dict[str, Any]) -> None:
        name = index_name(shard)
        try:
            data = self.read(name)
        except FileNotFoundError:
            raise NotADataset(
                f"{self.where(name)} is missing though the manifest lists it; copy it again"
            ) from None
        if hashlib.sha256(data).hexdigest() != shard.get("index_sha256"):
            raise NotADataset(f"{self.where(name)} is damaged (it fails its sha256); copy it again")
        write_whole(self.index(shard), data)

    @contextlib.contextmanager
    def whole(self, name: str) -> Iterator[Path]:
        """A shard as a file on a disk, for as long as the context lasts; not kept. FileNotFoundError."""
        path = self.cache.folder / f"whole.{os.getpid()}.{Path(name).name}"
        try:
            with path.open("wb") as file:
                self.remote.fetch(name, file)
            yield path
        finally:
            path.unlink(missing_ok=True)

    def part(
        self, name: str, chunk: int, extent: Extent, *, needed: int | None = None
    ) -> Bytes | Unkept | None:
        """A chunk's part of a shard, from the cache or downloaded; its members' crcs are for the reader to check.

        With `needed`, a number of steps, it is fetched ahead: None where the cache has no room for that.
        ShardsError where the network gives up; NotADataset where the shard is missing.
        """
        start, end = extent

        def download(sink: BinaryIO) -> None:
            try:
                self.remote.fetch(name, sink, start, end)
            except FileNotFoundError:
                raise NotADataset(
                    f"{self.where(name)} is missing though the manifest lists it; copy it again"
                ) from None

        return self.cache.open(self.group, chunk, end - start, start, download, needed=needed)

    def forget(self, chunk: int) -> None:
        """Drop a chunk whose bytes turned out to be wrong, so that it is downloaded again."""
        self.cache.forget(self.group, chunk)

    def holds(self, chunk: int) -> bool:
        """Whether a chunk is in the cache."""
        return self.cache.holds(self.group, chunk)

    def forecast(self) -> Forecast:
        """Where to announce which chunks will be needed."""
        return Forecast(self.cache.plans, self.group)


def index_name(shard: dict[str, Any]) -> str:
    """The name of a shard's index beside it."""
    return str(Path(shard["name"]).with_suffix(".idx"))


def _reopen(url: str, cache: Any, cache_bytes: int | None, options: dict[str, Any] | None) -> Url:
    return Url(url, cache=cache, cache_bytes=cache_bytes, options=options)
