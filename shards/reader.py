"""A dataset on disk, read by frame: index and manifest at opening, bytes by position, every read crc-checked.

Opening reads the chunk tables (64 bytes a chunk) into one array; the member tables stay memory-mapped, so
that 20 M frames cost no Python object each and forked workers share the pages. A chunk's meta and overlap
are read when they are asked for and kept in a small cache. Reads are by position (`pread`), so threads and
forked workers may share a Dataset; it pickles as its path. This file knows nothing of training.
"""

import hashlib
import io
import json
import os
import zlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from shards import format as fmt
from shards.format import CorruptFrame, NotADataset, ShardsError

_OPEN_TARS = 64
_CACHED_CHUNKS = 512
_MOST_BYTES = 1 << 28
"""A member that claims more than this is damage, not a picture."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Chunk:
    """Up to 96 frames of one scene: everything but their pixels."""

    number: int
    meta: dict[str, Any]
    covisibility: np.ndarray
    """(N, N) uint8, symmetric: round(254 x overlap), 255 = unknown."""

    @property
    def key(self) -> str:
        """The tar sample's key."""
        return self.meta["key"]

    @property
    def scene(self) -> str:
        """The scene's name."""
        return self.meta["scene"]

    @property
    def source(self) -> str:
        """The source it was built from."""
        return self.meta["source"]

    @property
    def split(self) -> str:
        """`train` or `val`."""
        return self.meta["split"]

    @property
    def num_frames(self) -> int:
        """N."""
        return len(self.meta["frames"])

    @property
    def frame_names(self) -> list[str]:
        """The frames' names in the source."""
        return self.meta["frames"]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the class ids in the labels; empty without labels."""
        return tuple(self.meta["classes"])

    @cached_property
    def sizes(self) -> np.ndarray:
        """(N, 2) int64: height and width as stored."""
        return np.array(self.meta["sizes"], np.int64).reshape(-1, 2)

    @cached_property
    def intrinsics(self) -> np.ndarray | None:
        """(N, 3, 3) float64 in stored pixels, or None unless every frame has them."""
        return _all_or_none(self.meta["intrinsics"], (3, 3))

    @cached_property
    def world_to_camera(self) -> np.ndarray | None:
        """(N, 3, 4) float64, or None unless every frame has a pose."""
        return _all_or_none(self.meta["world_to_camera"], (3, 4))


def _all_or_none(rows: list | None, shape: tuple[int, ...]) -> np.ndarray | None:
    if rows is None or any(row is None for row in rows):
        return None
    return np.array(rows, np.float64).reshape(-1, *shape)


def open_dataset(path: str | Path) -> "Dataset":
    """Open a dataset folder. NotADataset (a ValueError) says why where there is none that can be read."""
    return Dataset(path)


class Dataset:
    """A dataset folder; chunks are numbered 0 .. num_chunks - 1 in the order of the manifest.

    `header` is the manifest's first line, `shards` its other lines, `hash` the sha256 of those lines: equal
    hash, equal bytes. `frames_per_chunk` (C,) int64, `split_of` (C,) uint8 (0 train, 1 val), `scene_hash`
    (C,) uint64, `overlap` (C,) float32 (mean over the chunk's pairs, nan = unknown).
    """

    def __init__(self, path: str | Path) -> None:
        self.root = Path(path)
        self.header, self.shards, self.hash = read_manifest(self.root)
        tables = [self._read_chunk_table(shard) for shard in self.shards]
        counts = np.array([len(table) for table in tables], np.int64)
        self._table = np.concatenate([np.empty(0, fmt.INDEX_CHUNK), *tables])
        self._first_chunk = np.concatenate([[0], np.cumsum(counts)])
        self.frames_per_chunk = self._table["frames"].astype(np.int64)
        self.split_of = np.ascontiguousarray(self._table["split"])
        self.scene_hash = np.ascontiguousarray(self._table["scene"])
        self.overlap = np.ascontiguousarray(self._table["overlap"])
        self._members: dict[int, np.ndarray] = {}
        self._tars = _Recent(_OPEN_TARS)
        self._metas = _Recent(_CACHED_CHUNKS)
        self._overlaps = _Recent(_CACHED_CHUNKS)

    def __reduce__(self) -> tuple:
        return (Dataset, (self.root,))

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
        import simplejpeg

        data = self.read_jpeg(chunk, frame)
        try:
            return simplejpeg.decode_jpeg(data)
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

    def frame_crc(self, chunk: int, frame: int) -> int:
        """The crc32 of a frame's JPEG file, from the index."""
        return self._member(chunk, frame, 0)[2]

    # -- bytes

    def _read_chunk_table(self, shard: dict[str, Any]) -> np.ndarray:
        path = (self.root / shard["name"]).with_suffix(".idx")
        try:
            with path.open("rb") as file:
                header = read_index_header(file.read(fmt.INDEX_HEADER.itemsize), path)
                if header["chunks"] != shard["chunks"] or header["frames"] != shard["frames"]:
                    raise NotADataset(f"{path} is not the index that the manifest of {self.root} lists")
                data = file.read(int(header["chunks"]) * fmt.INDEX_CHUNK.itemsize)
        except FileNotFoundError:
            raise NotADataset(f"{path} is missing though the manifest lists it; copy it again") from None
        if zlib.crc32(data) != header["chunks_crc"]:
            raise NotADataset(f"{path} is damaged (its chunk table fails its crc); copy it again or rebuild")
        return np.frombuffer(data, fmt.INDEX_CHUNK)

    def _member_table(self, shard: int) -> np.ndarray:
        if shard not in self._members:
            path = (self.root / self.shards[shard]["name"]).with_suffix(".idx")
            chunks = int(self._first_chunk[shard + 1] - self._first_chunk[shard])
            start = fmt.INDEX_HEADER.itemsize + chunks * fmt.INDEX_CHUNK.itemsize
            if path.stat().st_size <= start:
                raise NotADataset(f"{path} is cut off; copy it again or rebuild")
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
        if size > _MOST_BYTES:
            raise self._corrupt(chunk, offset, f"the index claims {size} bytes for one member")
        data = self._tar(self.shard_of(chunk)).read(size, offset)
        if len(data) != size:
            raise self._corrupt(chunk, offset, f"the shard ends after {len(data)} of {size} bytes")
        if zlib.crc32(data) != crc:
            raise self._corrupt(chunk, offset, "its bytes fail their crc32")
        return data

    def _tar(self, shard: int) -> "_Tar":
        path = self.root / self.shards[shard]["name"]
        try:
            return self._tars.get(shard, lambda: _Tar(path))
        except FileNotFoundError:
            raise NotADataset(f"{path} is missing though the manifest lists it; copy it again") from None

    def _read_meta(self, chunk: int) -> dict[str, Any]:
        row = self._table[chunk]
        data = self._read(chunk, int(row["meta_offset"]), int(row["meta_size"]), int(row["meta_crc"]))
        try:
            meta = fmt.check_meta(json.loads(data))
            if len(meta["frames"]) != row["frames"]:
                raise ShardsError(f"meta has {len(meta['frames'])} frames, the index {row['frames']}")
        except ValueError as error:
            raise self._corrupt(chunk, int(row["meta_offset"]), str(error)) from None
        return meta

    def _read_covisibility(self, chunk: int) -> np.ndarray:
        row = self._table[chunk]
        offset = int(row["covis_offset"])
        data = self._read(chunk, offset, int(row["covis_size"]), int(row["covis_crc"]))
        try:
            matrix = np.load(io.BytesIO(data), allow_pickle=False)
        except ValueError as error:
            raise self._corrupt(chunk, offset, str(error)) from None
        if matrix.dtype != np.uint8 or matrix.shape != (row["frames"], row["frames"]):
            raise self._corrupt(chunk, offset, f"overlap is {matrix.dtype} {matrix.shape}")
        matrix.flags.writeable = False
        return matrix

    def _read_png(self, chunk: int, frame: int, kind: int) -> np.ndarray | None:
        from PIL import Image

        kinds = int(self._table[chunk]["kinds"])
        if not kinds & kind:
            return None
        place = 2 if kind == fmt.HAS_LABELS and kinds & fmt.HAS_DEPTH else 1
        offset, size, crc = self._member(chunk, frame, place)
        if not size:
            return None
        data = self._read(chunk, offset, size, crc)
        try:
            with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
                return np.array(image, np.uint16 if kind == fmt.HAS_DEPTH else np.uint8)
        except (OSError, ValueError) as error:
            raise self._corrupt(chunk, offset, str(error)) from None

    def _corrupt(self, chunk: int, offset: int, reason: str) -> CorruptFrame:
        """The error for a member, its name taken from the tar header before it."""
        shard = self.shard_of(chunk)
        name = self._tar(shard).read(100, offset - 512) if offset >= 512 else b""
        key = name.split(b"\0")[0].decode("ascii", "replace")
        key = key if key.isprintable() and key else f"chunk {chunk}"
        return CorruptFrame(str(self.root / self.shards[shard]["name"]), key, offset, reason)


class _Tar:
    """An open shard; closed with its last reference, so that no thread loses it in the middle of a read."""

    def __init__(self, path: Path) -> None:
        self.descriptor = -1
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def read(self, size: int, offset: int) -> bytes:
        return os.pread(self.descriptor, size, offset)

    def __del__(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)


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


def read_index_header(data: bytes, path: Path) -> np.void:
    """The header of an `.idx` (a record of `shards.format.INDEX_HEADER`); NotADataset where it is none."""
    if len(data) < fmt.INDEX_HEADER.itemsize:
        raise NotADataset(f"{path} is cut off: it has {len(data)} bytes")
    header = np.frombuffer(data, fmt.INDEX_HEADER, count=1)[0]
    if header["magic"] != fmt.INDEX_MAGIC:
        raise NotADataset(f"{path} is not a shard's index")
    _check_version(int(header["version"]), path)
    return header


def _check_version(version: Any, path: Path) -> None:
    if not isinstance(version, int) or version < 1:
        raise NotADataset(f"{path} has no readable version ({version!r})")
    if version > fmt.VERSION:
        newer = f"newer than this mumkit's {fmt.VERSION}: install a newer mumkit"
        raise NotADataset(f"{path} has format version {version}, {newer}")
    if version < fmt.VERSION:
        raise NotADataset(
            f"{path} has format version {version}, this mumkit reads {fmt.VERSION}: build the dataset again"
        )


def read_manifest(root: Path) -> tuple[dict[str, Any], list[dict[str, Any]], str]:
    """First line, shard lines, and sha256 of the shard lines of `root`'s manifest; NotADataset says why not."""
    path = root / "manifest.jsonl"
    try:
        lines = path.read_text().splitlines()
    except (FileNotFoundError, NotADirectoryError):
        what = "is not a dataset (it holds no manifest.jsonl)" if root.exists() else "does not exist"
        make = f"python -m shards build SOURCE PATH --out {root}"
        raise NotADataset(f"{root} {what}; make one with: {make}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise NotADataset(f"{path} cannot be read: {error}") from None
    try:
        header, *shards = [json.loads(line) for line in lines]
        if header["format"] != "mumkit-shards":
            raise KeyError(header["format"])
        _check_version(header["version"], path)
        for shard in shards:
            parts = Path(shard["name"]).parts
            if len(parts) != 2 or parts[0] != "shards" or ".." in parts:
                raise KeyError(shard["name"])
            _ = shard["chunks"], shard["frames"], shard["source"], shard["sha256"]
        if len(shards) != header["shards"]:
            raise KeyError(f"{header['shards']} shards")
    except (json.JSONDecodeError, KeyError, TypeError, IndexError) as error:
        raise NotADataset(f"{path} is not a dataset's manifest ({error})") from None
    digest = hashlib.sha256("\n".join(lines[1:]).encode()).hexdigest()
    return header, shards, digest
