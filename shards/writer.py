"""Encoded chunks to a dataset on disk: tar, index and manifest, whole or not at all.

Everything is written below `<out>/.building`, each file flushed to the disk, and moved to its final name only
when the last chunk is in; the manifest comes last and makes the folder a dataset. A crash, a full disk or
Ctrl-C at any point leaves no half-written file under a final name. A build that keeps a journal there
(`shards/journal.py`) finds its closed shards again. The same chunks in the same order give the same bytes.
"""

import contextlib
import fcntl
import hashlib
import io
import json
import os
import re
import shutil
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from shards import format as fmt

SHARD_BYTES = 512 << 20
"""A shard is closed before it grows beyond this."""

CONVERTER = "mumkit-3"
"""Version of the conversion: a change in how frames become bytes changes it, and asks for a new build."""

SHARD_NAME = re.compile(r"[a-z0-9]+(-p\d+of\d+)?-\d{6}\.(tar|idx)")
"""What a shard's two files are called; `p2of3` where the second of three parts of a build made it."""

JOURNAL = "journal.jsonl"
"""A stopped build's journal, in `.building`."""

_BLOCK = 512


@dataclass(frozen=True, kw_only=True)
class EncodedChunk:
    """A chunk as bytes: what the workers of a build hand to the one writer."""

    key: str
    scene: int
    split: str
    kinds: int
    overlap: float
    meta: bytes
    covisibility: bytes
    jpegs: list[bytes]
    depths: list[bytes] = field(default_factory=list)
    """Empty, or one a frame, b"" where a frame has none."""
    labels: list[bytes] = field(default_factory=list)


class _Hashed:
    """A file that knows the sha256 of what was written to it."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.sha256 = file, hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        return self.file.write(data)


class ShardWriter:
    """One open tar and the rows of its index."""

    def __init__(self, folder: Path, name: str) -> None:
        from webdataset.writer import TarWriter

        self.path = folder / f"{name}.tar"
        self.raw = self.path.open("wb")
        self.file = _Hashed(self.raw)
        self.tar = TarWriter(self.file, user="", group="", compress=False, encoder=False, mtime=0)
        self.end = 0
        self.chunks: list[tuple[Any, ...]] = []
        self.members: list[tuple[int, int, int]] = []
        self.frames = 0

    def _member(self, key: str, suffix: str, data: bytes) -> tuple[int, int, int]:
        # one write call a member: TarWriter sorts the members of one call by name
        name = f"{key}.{suffix}"
        if len(name) > 100 or not name.isascii():
            raise ValueError(f"{name!r} does not fit a plain USTAR header")
        self.tar.write({"__key__": key, suffix: data})
        row = (self.end + _BLOCK, len(data), zlib.crc32(data))
        self.end += _BLOCK + -(-len(data) // _BLOCK) * _BLOCK
        return row

    def add(self, chunk: EncodedChunk) -> None:
        """Append a chunk: meta and overlap first, then its frames, each with what belongs to it."""
        count = len(chunk.jpegs)
        meta = self._member(chunk.key, "meta.json", chunk.meta)
        covis = self._member(chunk.key, "covis.npy", chunk.covisibility)
        kinds: list[tuple[str, list[bytes]]] = [("jpg", chunk.jpegs)]
        kinds += [("depth.png", chunk.depths)] if chunk.depths else []
        kinds += [("label.png", chunk.labels)] if chunk.labels else []
        rows = [[(0, 0, 0)] * count for _ in kinds]
        for frame in range(count):
            for row, (suffix, members) in zip(rows, kinds, strict=True):
                if members[frame]:
                    row[frame] = self._member(chunk.key, fmt.frame_suffix(frame, suffix), members[frame])
        split = fmt.SPLITS.index(chunk.split)
        head = (len(self.members), count, split, chunk.kinds, 0, chunk.scene, chunk.overlap, 0)
        self.chunks.append((*head, *meta, *covis))
        for row in rows:
            self.members += row
        self.frames += count

    def close(self) -> dict[str, Any]:
        """Flush tar and index to the disk; return the shard's line of the manifest."""
        self.tar.close()
        _sync(self.raw)
        self.raw.close()
        index = pack_index(self.chunks, self.members, self.frames, self.path.stat().st_size)
        index_path = self.path.with_suffix(".idx")
        with index_path.open("wb") as file:
            file.write(index)
            _sync(file)
        return {
            "name": f"shards/{self.path.name}",
            "bytes": self.path.stat().st_size,
            "chunks": len(self.chunks),
            "frames": self.frames,
            "sha256": self.file.sha256.hexdigest(),
            "index_sha256": hashlib.sha256(index).hexdigest(),
        }

    def abandon(self) -> None:
        """Close the file without finishing it."""
        self.file.file = io.BytesIO()  # tarfile's stream writes its buffer once more when it is collected
        with contextlib.suppress(OSError):
            self.raw.close()


def pack_index(chunks: list, members: list, frames: int, tar_bytes: int) -> bytes:
    """The bytes of an `.idx`: header, chunk table, member table (rows as in `shards.format`)."""
    chunk_table = np.array(chunks, fmt.INDEX_CHUNK).tobytes()
    member_table = np.array(members, fmt.INDEX_MEMBER).tobytes()
    header = np.zeros((), fmt.INDEX_HEADER)
    header["magic"], header["version"] = fmt.INDEX_MAGIC, fmt.VERSION
    header["chunks"], header["members"], header["frames"] = len(chunks), len(members), frames
    header["tar_bytes"] = tar_bytes
    header["chunks_crc"], header["members_crc"] = zlib.crc32(chunk_table), zlib.crc32(member_table)
    return header.tobytes() + chunk_table + member_table


class DatasetWriter:
    """Writes one dataset: a context manager; `add` chunks, then `finish` with the manifest's first line.

    Leaving the block without `finish` removes what was written, unless a journal lies in `staging`: then the
    closed shards stay there and `keep` takes them up. `out` may hold a dataset already: it stays whole until
    `finish` replaces it. Shards are called `<stem>-000000`, by default by their source. Raises ShardsError if
    another process is building there.
    """

    def __init__(
        self, out: Path, *, source: str, stem: str | None = None, shard_bytes: int = SHARD_BYTES
    ) -> None:
        self.out, self.source, self.shard_bytes = Path(out), source, shard_bytes
        self.stem = stem or source
        self.staging = self.out / ".building"
        self.journal = self.staging / JOURNAL
        self._made = [p for p in (self.out, *self.out.parents) if not p.exists()]
        self._shard: ShardWriter | None = None
        self._lines: list[dict[str, Any]] = []
        self._finished = False

    def __enter__(self) -> "DatasetWriter":
        with self.writing():
            self.staging.mkdir(parents=True, exist_ok=True)
            self._lock = (self.staging / "lock").open("w")
        if not _lock(self._lock):
            self._lock.close()
            raise fmt.ShardsError(f"another build is writing to {self.out}; wait for it or stop it")
        if not self.journal.exists():
            self.keep([])
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if self._shard is not None:
            self._shard.abandon()
            self._shard.path.unlink(missing_ok=True)
        holds = self._lines or {p.name for p in self.staging.iterdir()} - {"lock", JOURNAL}
        if self._finished or not (holds and self.journal.exists()):
            shutil.rmtree(self.staging, ignore_errors=True)
        self._lock.close()
        if not self._finished:
            for folder in self._made:
                with contextlib.suppress(OSError):
                    folder.rmdir()

    @property
    def bytes(self) -> int:
        """Bytes of the closed shards."""
        return sum(line["bytes"] for line in self._lines)

    def is_whole(self, line: dict[str, Any]) -> bool:
        """Whether the shard of a manifest's line is on the disk, finished by a build that was stopped.

        One that was stopped while it moved its shards to their final names gets them back.
        """
        name = Path(line["name"]).name
        tar, index = self.staging / name, (self.staging / name).with_suffix(".idx")
        for file in (tar, index):
            moved = self.out / "shards" / file.name
            if not file.exists() and moved.exists() and not (self.out / "manifest.jsonl").exists():
                os.replace(moved, file)
        if not (tar.exists() and index.exists()) or tar.stat().st_size != line["bytes"]:
            return False
        return hashlib.sha256(index.read_bytes()).hexdigest() == line["index_sha256"]

    def keep(self, lines: list[dict[str, Any]]) -> None:
        """Begin behind the shards of these manifest lines; anything else in `staging` goes."""
        self._lines = list(lines)
        names = {Path(line["name"]).stem for line in lines}
        for left_over in self.staging.iterdir():
            if left_over.name not in {"lock", JOURNAL} and left_over.stem not in names:
                left_over.unlink()

    def add(self, chunk: EncodedChunk) -> dict[str, Any] | None:
        """Append one chunk, opening a new shard where this one is full; then the full one's manifest line."""
        size = sum(map(len, (*chunk.jpegs, *chunk.depths, *chunk.labels)))
        closed = None
        with self.writing():
            if self._shard is not None and self._shard.end + size > self.shard_bytes:
                closed = self.close_shard()
            if self._shard is None:
                self._shard = ShardWriter(self.staging, f"{self.stem}-{len(self._lines):06d}")
            self._shard.add(chunk)
        return closed

    def close_shard(self) -> dict[str, Any] | None:
        """Finish the open shard, if any, and return its line of the manifest."""
        if self._shard is None:
            return None
        with self.writing():
            line = self._shard.close() | {"source": self.source, "converter": CONVERTER}
            self._lines.append(line)
            self._shard = None
            _sync_folder(self.staging)
        return line

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """A full disk or a folder that is not ours is the user's to mend: in the block an OSError says so."""
        try:
            yield
        except OSError as error:
            left = "the same command goes on behind the shards that are finished"
            left = left if self.journal.exists() else "nothing was left there"
            raise fmt.ShardsError(
                f"{self.out} cannot be written: {error.strerror or error}; {left}"
            ) from error

    def finish(self, header: dict[str, Any]) -> dict[str, Any]:
        """Move everything to its final name, the manifest last; returns the manifest's first line.

        `header` holds what the builder knows (splits, licences, options); totals and version are added here.
        """
        with self.writing():
            return self._finish(header)

    def _finish(self, header: dict[str, Any]) -> dict[str, Any]:
        self.close_shard()
        totals = {key: sum(line[key] for line in self._lines) for key in ("bytes", "chunks", "frames")}
        first = (
            {"format": "mumkit-shards", "version": fmt.VERSION, "shards": len(self._lines)} | totals | header
        )
        text = io.StringIO()
        for line in (first, *self._lines):
            text.write(json.dumps(line, sort_keys=True) + "\n")
        manifest = self.staging / "manifest.jsonl"
        with manifest.open("w") as file:
            file.write(text.getvalue())
            _sync(file)
        self._replace_old()
        folder = self.out / "shards"
        folder.mkdir(exist_ok=True)
        for line in self._lines:
            for suffix in (".tar", ".idx"):
                name = Path(line["name"]).with_suffix(suffix).name
                os.replace(self.staging / name, folder / name)
        listed = {Path(line["name"]).stem for line in self._lines}
        for stale in folder.iterdir():  # of a build that was killed while it moved its shards
            if SHARD_NAME.fullmatch(stale.name) and stale.stem not in listed:
                stale.unlink()
        _sync_folder(folder)
        os.replace(manifest, self.out / "manifest.jsonl")
        _sync_folder(self.out)
        self._finished = True
        return first

    def _replace_old(self) -> None:
        """Take away the dataset that is being replaced, its manifest first, and nothing else."""
        old = self.out / "manifest.jsonl"
        if old.exists():
            lines = [json.loads(line) for line in old.read_text().splitlines()[1:]]
            old.unlink()
            for line in lines:
                name = Path(line["name"]).name
                for path in (self.out / "shards" / name, (self.out / "shards" / name).with_suffix(".idx")):
                    path.unlink(missing_ok=True)


def clear_staging(out: Path) -> None:
    """Take away what a build that was stopped at its very end has left beside the finished dataset."""
    staging = out / ".building"
    if staging.exists():
        with (staging / "lock").open("w") as lock:
            if _lock(lock):
                shutil.rmtree(staging, ignore_errors=True)


def _lock(file: Any) -> bool:
    """Take the lock of a file as long as it is open; False where another process has it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        mend = "build on a file system with locks (Lustre: mounted with -o flock)"
        raise fmt.ShardsError(f"{file.name} cannot be locked: {error.strerror}; {mend}") from None
    return True


def _sync(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
