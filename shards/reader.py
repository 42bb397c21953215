"""A dataset, read by frame: index and manifest at opening, bytes by position, every read crc-checked.

Opening reads the chunk tables (64 bytes a chunk) into one array; the member tables stay memory-mapped, so
that 20 M frames cost no Python object each and forked workers share the pages. A chunk's meta and overlap
are read when they are asked for and kept in a small cache. Reads are by position (`pread`), so threads and
forked workers may share a Dataset; it pickles as its place. This file knows nothing of training.
"""

import os
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from shards import format as fmt
from shards.cache import Bytes, Unkept
from shards.chunk import Chunk, parse_meta, parse_overlap
from shards.crc import crc32
from shards.format import CorruptFrame, NotADataset, ShardsError
from shards.manifest import read_index_header, read_manifest
from shards.storage import Folder, Url, open_storage

_OPEN_TARS, _OPEN_PARTS = 64, 32
_CACHED_CHUNKS = 512
_MOST_BYTES = 1 << 28
"""A member that claims more than this is damage, not a picture."""
_MOST_OFFSET = 1 << 50
"""Likewise its place: no shard is that long."""


def open_dataset(
    path: str | Path,
    *,
    cache: str | Path | None = None,
    cache_bytes: int | None = None,
    options: dict[str, Any] | None = None,
) -> "Dataset":
    """Open a dataset folder, or the URL of one (`s3://`, `gs://`, `https://`, `hf://`, all that fsspec reads).

    A URL's chunks are downloaded whole into a folder below `cache` (default: `MUM_CACHE`, or the user's cache
    folder) that is kept within `cache_bytes` (default: `MUM_CACHE_GB`, or half of what its disk has free).
    `options` go to fsspec. NotADataset (a ValueError) says why where there is none that can be read.
    """
    return Dataset(open_storage(path, cache=cache, cache_bytes=cache_bytes, options=options))


class Dataset:
    """A dataset; chunks are numbered 0 .. num_chunks - 1 in the order of the manifest.

    `header` is the manifest's first line, `shards` its other lines, `hash` the sha256 of those lines: equal
    hash, equal bytes. `frames_per_chunk` (C,) int64, `split_of` (C,) uint8 (0 train, 1 val), `scene_hash`
    (C,) uint64, `overlap` (C,) float32 (mean over the chunk's pairs, nan = unknown). `root` is its folder, or
    its URL as a string; `files` is where its bytes come from.
    """

    def __init__(self, place: str | Path | Folder | Url) -> None:
        self.files = open_storage(place) if isinstance(place, str | Path) else place
        self.root = self.files.root
        self.header, self.shards, self.hash = read_manifest(self.files)
        self.files.prepare(self.hash, self.shards)
        tables = [self._read_chunk_table(shard) for shard in self.shards]
        counts = np.array([len(table) for table in tables], np.int64)
        self._table = np.concatenate([np.empty(0, fmt.INDEX_CHUNK), *tables])
        self._first_chunk = np.concatenate([[0], np.cumsum(counts)])
        self.frames_per_chunk = self._table["frames"].astype(np.int64)
        self.split_of = np.ascontiguousarray(self._table["split"])
        self.scene_hash = np.ascontiguousarray(self._table["scene"])
        self.overlap = np.ascontiguousarray(self._table["overlap"])
        self._members: dict[int, np.ndarray] = {}
        self._open = _Recent(_OPEN_PARTS if isinstance(self.files, Url) else _OPEN_TARS)
        self._renewed: set[int] = set()
        self._metas = _Recent(_CACHED_CHUNKS)
        self._overlaps = _Recent(_CACHED_CHUNKS)

    def __reduce__(self) -> tuple:
        return (Dataset, (self.files,))

    def __repr__(self) -> str:
        return f"Dataset({str(self.root)!r}: {self.num_chunks} chunks, {self.num_frames} frames)"

    @property
    def num_chunks(self) -> int:
        """C."""
        return len(self._table)

    @property
    def num_frames(self) -> int:
        """Frames in all chunks."""
        return int(self.frames_per_chunk.sum())

    @property
    def sources(self) -> list[str]:
        """Names of the sources it was built from."""
        return sorted({shard["source"] for shard in self.shards})

    def select(self, split: Literal["train", "val"] | None = None) -> np.ndarray:
        """(k,) int64 numbers of a split's chunks, ascending; of all chunks for None."""
        if split is None:
            return np.arange(self.num_chunks)
        if split not in fmt.SPLITS:
            raise ShardsError(f"there is no split {split!r}; known: {', '.join(fmt.SPLITS)}")
        return np.flatnonzero(self.split_of == fmt.SPLITS.index(split))

    def has(self, kind: int) -> np.ndarray:
        """(C,) bool: chunks with all bits of `kind` set (`HAS_DEPTH`, ... of shards.format)."""
        return (self._table["kinds"] & kind) == kind

    def shard_of(self, chunk: int) -> int:
        """Which line of the manifest holds the chunk."""
        return int(np.searchsorted(self._first_chunk, chunk, side="right")) - 1

    # -- what a chunk holds beside its pixels

    def meta(self, chunk: int) -> dict[str, Any]:
        """The chunk's `meta.json`, checked. CorruptFrame where its bytes are damaged."""
        return self._metas.get(chunk, lambda: self._read_meta(chunk))

    def covisibility(self, chunk: int) -> np.ndarray:
        """(N, N) uint8: round(254 x overlap), 255 = unknown. CorruptFrame where its bytes are damaged."""
        return self._overlaps.get(chunk, lambda: self._read_covisibility(chunk))

    def chunk(self, chunk: int) -> Chunk:
        """Everything about a chunk but its pixels."""
        return Chunk(number=int(chunk), meta=self.meta(chunk), covisibility=self.covisibility(chunk))

    # -- pixels

    def read_jpeg(self, chunk: int, frame: int) -> bytes:
        """A frame's JPEG file. CorruptFrame (shard, key, byte offset) where its crc is wrong."""
        offset, size, crc = self._member(chunk, frame, 0)
        return self._read(chunk, offset, size, crc)

    def read_image(self, chunk: int, frame: int) -> np.ndarray:
        """(H, W, 3) uint8 RGB."""
        from shards.decode import Decoder

        data = self.read_jpeg(chunk, frame)
        try:
            return Decoder().decode(data)
        except ValueError as error:
            raise self.damaged(chunk, frame, str(error)) from None

    def damaged(self, chunk: int, frame: int, reason: str) -> CorruptFrame:
        """The error for a frame whose bytes are as they were written but are no sound picture."""
        return self._corrupt(chunk, self._member(chunk, frame, 0)[0], reason)

    def read_depth(self, chunk: int, frame: int) -> np.ndarray | None:
        """(H, W) float32 depth along the camera's axis, 0 = unknown; None where the frame has none."""
        stored = self._read_png(chunk, frame, fmt.HAS_DEPTH)
        if stored is None:
            return None
        return stored.astype(np.float32) * np.float32(self.meta(chunk)["depth_scales"][frame])

    def read_labels(self, chunk: int, frame: int) -> np.ndarray | None:
        """(H, W) uint8 class ids; None where the frame has none."""
        return self._read_png(chunk, frame, fmt.HAS_LABELS)

    # -- bytes

    def _read_chunk_table(self, shard: dict[str, Any]) -> np.ndarray:
        path = self.files.index(shard)
        try:
            with path.open("rb") as file:
                header = read_index_header(file.read(fmt.INDEX_HEADER.itemsize), path)
                if header["chunks"] != shard["chunks"] or header["frames"] != shard["frames"]:
                    raise NotADataset(f"{path} is not the index that the manifest of {self.root} lists")
                data = file.read(int(header["chunks"]) * fmt.INDEX_CHUNK.itemsize)
                length = file.seek(0, os.SEEK_END)
        except FileNotFoundError:
            raise NotADataset(f"{path} is missing though the manifest lists it; copy it again") from None
        rows = int(header["members"]) * fmt.INDEX_MEMBER.itemsize
        mend = f"mend it with: python -m shards repair {self.root}"
        if length != fmt.INDEX_HEADER.itemsize + int(header["chunks"]) * fmt.INDEX_CHUNK.itemsize + rows:
            raise NotADataset(f"{path} is cut off: it has {length} bytes; {mend}")
        if crc32(data) != header["chunks_crc"]:
            raise NotADataset(f"{path} is damaged (its chunk table fails its crc); {mend}")
        return np.frombuffer(data, fmt.INDEX_CHUNK)

    def _member_table(self, shard: int) -> np.ndarray:
        if shard not in self._members:
            path = self.files.index(self.shards[shard])
            chunks = int(self._first_chunk[shard + 1] - self._first_chunk[shard])
            start = fmt.INDEX_HEADER.itemsize + chunks * fmt.INDEX_CHUNK.itemsize
            self._members[shard] = np.memmap(path, fmt.INDEX_MEMBER, "r", offset=start)
        return self._members[shard]

    def _member(self, chunk: int, frame: int, kind: int) -> tuple[int, int, int]:
        row = self._table[chunk]
        count = int(row["frames"])
        if not 0 <= frame < count:
            raise IndexError(f"chunk {chunk} has {count} frames, there is no frame {frame}")
        table, at = self._member_table(self.shard_of(chunk)), int(row["first"]) + kind * count + frame
        if at >= len(table):
            raise self._corrupt(chunk, 0, "its rows are missing from the index")
        offset, size, crc = table[at].tolist()
        return offset, size, crc

    def _read(self, chunk: int, offset: int, size: int, crc: int) -> bytes:
        if size > _MOST_BYTES or offset > _MOST_OFFSET:
            raise self._corrupt(
                chunk, offset, f"the index claims {size} bytes at byte {offset} for one member"
            )
        while True:
            data = self._bytes(chunk).read(size, offset)
            if len(data) == size and crc32(data) == crc:
                return data
            if not self._renew(chunk):
                break
        if len(data) != size:
            raise self._corrupt(chunk, offset, f"the shard ends after {len(data)} of {size} bytes")
        raise self._corrupt(chunk, offset, "its bytes fail their crc32")

    def _bytes(self, chunk: int) -> Bytes | Unkept:
        """What a chunk's bytes are read from: its shard on a disk, or its own part of it from far away."""
        shard = self.shard_of(chunk)
        if isinstance(self.files, Url):
            return self._open.get(chunk, lambda: self.fetch(chunk))
        name = self.shards[shard]["name"]
        try:
            return self._open.get(shard, lambda: self.files.open(name))
        except FileNotFoundError:
            raise NotADataset(
                f"{self.files.where(name)} is missing though the manifest lists it; copy it again"
            ) from None

    def fetch(self, chunk: int, *, needed: int | None = None) -> Bytes | Unkept | None:
        """A chunk of a URL's dataset, brought into the cache unless it is there. `needed` as in `Cache.open`."""
        assert isinstance(self.files, Url)
        name = self.shards[self.shard_of(chunk)]["name"]
        return self.files.part(name, chunk, self._extent(chunk), needed=needed)

    def _extent(self, chunk: int) -> tuple[int, int]:
        """First byte of a chunk's first member's header in its shard, and the one after its last member."""
        row = self._table[chunk]
        kinds = int(row["kinds"])
        count = int(row["frames"]) * (1 + bool(kinds & fmt.HAS_DEPTH) + bool(kinds & fmt.HAS_LABELS))
        members = self._member_table(self.shard_of(chunk))[int(row["first"]) : int(row["first"]) + count]
        members = members[members["size"] > 0]
        starts = [int(row["meta_offset"]), int(row["covis_offset"]), *members["offset"].tolist()]
        sizes = [int(row["meta_size"]), int(row["covis_size"]), *members["size"].tolist()]
        return max(min(starts) - 512, 0), max(start + size for start, size in zip(starts, sizes, strict=True))

    def _renew(self, chunk: int) -> bool:
        """Drop what was downloaded of a chunk, once; False where there is nothing to be hoped from it."""
        if not isinstance(self.files, Url) or chunk in self._renewed:
            return False
        self._renewed.add(chunk)
        self.files.forget(chunk)
        self._open.drop(chunk)
        return True

    def _read_meta(self, chunk: int) -> dict[str, Any]:
        row = self._table[chunk]
        data = self._read(chunk, int(row["meta_offset"]), int(row["meta_size"]), int(row["meta_crc"]))
        try:
            return parse_meta(data, int(row["frames"]))
        except ShardsError as error:
            raise self._corrupt(chunk, int(row["meta_offset"]), str(error)) from None

    def _read_covisibility(self, chunk: int) -> np.ndarray:
        row = self._table[chunk]
        offset = int(row["covis_offset"])
        data = self._read(chunk, offset, int(row["covis_size"]), int(row["covis_crc"]))
        try:
            return parse_overlap(data, int(row["frames"]))
        except ShardsError as error:
            raise self._corrupt(chunk, offset, str(error)) from None

    def _read_png(self, chunk: int, frame: int, kind: int) -> np.ndarray | None:
        from shards.png import decode_png

        kinds = int(self._table[chunk]["kinds"])
        if not kinds & kind:
            return None
        place = 2 if kind == fmt.HAS_LABELS and kinds & fmt.HAS_DEPTH else 1
        offset, size, crc = self._member(chunk, frame, place)
        if not size:
            return None
        data = self._read(chunk, offset, size, crc)
        try:
            return decode_png(data, np.uint16 if kind == fmt.HAS_DEPTH else np.uint8)
        except ValueError as error:
            raise self._corrupt(chunk, offset, str(error)) from None

    def _corrupt(self, chunk: int, offset: int, reason: str) -> CorruptFrame:
        """The error for a member, its name taken from the tar header before it."""
        shard = self.shard_of(chunk)
        name = self._bytes(chunk).read(100, offset - 512) if 512 <= offset <= _MOST_OFFSET else b""
        key = name.split(b"\0")[0].decode("ascii", "replace")
        key = key if key.isprintable() and key else f"chunk {chunk}"
        return CorruptFrame(self.files.where(self.shards[shard]["name"]), key, offset, reason)


class _Recent:
    """The most recently used values, by key."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.values: OrderedDict[int, Any] = OrderedDict()

    def get(self, key: int, make: Callable[[], Any]) -> Any:
        key = int(key)
        try:
            value = self.values[key]
            self.values.move_to_end(key)
        except KeyError:  # not there, or evicted by another thread just now
            value = self.values[key] = make()
            if len(self.values) > self.most:
                self.values.popitem(last=False)
        return value

    def drop(self, key: int) -> None:
        """Forget a value."""
        self.values.pop(int(key), None)
