"""Is a dataset on disk what was written? Every byte against its hashes, every index row against its tar.

For each shard: size and sha256 of tar and index against the manifest, the tar's own headers against the
index, the crc32 of every member, and the schema of every chunk's meta and overlap. Shards are checked in
parallel.
"""

import hashlib
import io
import json
import mmap
import os
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shards import format as fmt
from shards.manifest import read_index_header, read_manifest
from shards.processes import pool

_BLOCK = 1 << 24


@dataclass(frozen=True, kw_only=True)
class Damage:
    """One thing that is not as it was written."""

    shard: str
    member: str
    """The member's name in the tar, or "" for the whole shard."""
    offset: int
    """Byte offset in the tar, or -1."""
    reason: str

    def __str__(self) -> str:
        where = f": {self.member} at byte {self.offset}" if self.member else ""
        return f"{self.shard}{where}: {self.reason}"


def verify(
    path: str | Path, *, workers: int = 1, progress: Callable[[int], Callable[[int], None]] | None = None
) -> list[Damage]:
    """Check a dataset and list what is wrong with it; an empty list says it is whole.

    `progress` is called with the number of shards and returns a callback for the number done. NotADataset
    where there is none.
    """
    root = Path(path)
    _, shards, _ = read_manifest(root)
    update = progress(len(shards)) if progress else None
    damage = [
        Damage(shard=f"shards/{p.name}", member="", offset=-1, reason="is not in the manifest")
        for p in sorted((root / "shards").glob("*"))
        if f"shards/{p.stem}.tar" not in {shard["name"] for shard in shards}
    ]
    for done, found in enumerate(_check_all(root, shards, workers), 1):
        damage += found
        if update:
            update(done)
    return damage


def _check_all(root: Path, shards: list[dict[str, Any]], workers: int) -> Iterator[list[Damage]]:
    if workers == 1 or len(shards) <= 1:
        yield from (check_shard(root, shard) for shard in shards)
        return
    with pool(min(workers, len(shards))) as processes:
        yield from processes.map(check_shard, [root] * len(shards), shards)


def check_shard(root: Path, shard: dict[str, Any]) -> list[Damage]:
    """What is wrong with one shard, given its line of the manifest."""
    damage: list[Damage] = []

    def report(reason: str, member: str = "", offset: int = -1) -> None:
        damage.append(Damage(shard=shard["name"], member=member, offset=offset, reason=reason))

    tar = root / shard["name"]
    if not tar.is_file():
        report("is missing")
        return damage
    size = os.path.getsize(tar)
    if size != shard["bytes"]:
        report(f"has {size} bytes, {shard['bytes']} were written")
    if _sha256(tar) != shard["sha256"]:
        report("fails its sha256")
    index = _read_index(tar.with_suffix(".idx"), shard, report)
    headers = _tar_members(tar, report)
    if index is not None and size:
        with tar.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            expected = set()
            for name, offset, length, crc in _index_members(*index, data, report):
                expected.add(name)
                if offset + length > size:
                    report(f"the shard ends before its {length} bytes do", name, offset)
                elif zlib.crc32(data[offset : offset + length]) != crc:
                    report("fails its crc32", name, offset)
                if headers is not None and headers.get(name) != (offset, length):
                    report("stands elsewhere in the tar than the index says", name, offset)
        for name in sorted(set(headers or ()) - expected):
            report("is not in the index", name, headers[name][0] if headers else -1)
    return damage


def _read_index(path: Path, shard: dict[str, Any], report: Callable) -> tuple[np.ndarray, np.ndarray] | None:
    """The index's two tables, or None where it is too damaged to go by."""
    if not path.is_file():
        report(f"its index {path.name} is missing")
        return None
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != shard["index_sha256"]:
        report(f"its index {path.name} fails its sha256")
    try:
        header = read_index_header(data, path)
    except fmt.NotADataset as error:
        report(str(error))
        return None
    split = fmt.INDEX_HEADER.itemsize + int(header["chunks"]) * fmt.INDEX_CHUNK.itemsize
    if len(data) != split + int(header["members"]) * fmt.INDEX_MEMBER.itemsize:
        report(f"its index {path.name} has {len(data)} bytes, its header tells of others")
        return None
    tables = data[fmt.INDEX_HEADER.itemsize : split], data[split:]
    if zlib.crc32(tables[0]) != header["chunks_crc"] or zlib.crc32(tables[1]) != header["members_crc"]:
        report(f"its index {path.name} fails its crc32")
        return None
    return np.frombuffer(tables[0], fmt.INDEX_CHUNK), np.frombuffer(tables[1], fmt.INDEX_MEMBER)


def _tar_members(path: Path, report: Callable) -> dict[str, tuple[int, int]] | None:
    try:
        with tarfile.open(path, "r:") as tar:
            return {member.name: (member.offset_data, member.size) for member in tar if member.isfile()}
    except (tarfile.TarError, OSError, ValueError) as error:
        report(f"its tar headers are damaged ({error})")
        return None


def _index_members(
    chunks: np.ndarray, members: np.ndarray, data: mmap.mmap, report: Callable
) -> Iterator[tuple[str, int, int, int]]:
    """(name, offset, size, crc) of every member the index lists; checks meta and overlap on the way."""
    for number, chunk in enumerate(chunks):
        count, first, kinds = int(chunk["frames"]), int(chunk["first"]), int(chunk["kinds"])
        start, size = int(chunk["meta_offset"]), int(chunk["meta_size"])
        key = _check_meta(data[start : start + size], chunk, number, start, report)
        yield f"{key}.meta.json", start, size, int(chunk["meta_crc"])
        start, size = int(chunk["covis_offset"]), int(chunk["covis_size"])
        _check_overlap(data[start : start + size], count, f"{key}.covis.npy", start, report)
        yield f"{key}.covis.npy", start, size, int(chunk["covis_crc"])
        suffixes = ["jpg"]
        suffixes += ["depth.png"] if kinds & fmt.HAS_DEPTH else []
        suffixes += ["label.png"] if kinds & fmt.HAS_LABELS else []
        rows = members[first : first + count * len(suffixes)]
        if len(rows) != count * len(suffixes):
            report(f"the index has too few rows for chunk {key}")
            continue
        for row, (offset, length, crc) in enumerate(rows.tolist()):
            if length:
                suffix = fmt.frame_suffix(row % count, suffixes[row // count])  # type: ignore[arg-type]
                yield f"{key}.{suffix}", offset, length, crc


def _check_meta(data: bytes, chunk: np.void, number: int, offset: int, report: Callable) -> str:
    try:
        meta = fmt.check_meta(json.loads(data))
        if len(meta["frames"]) != chunk["frames"] or fmt.SPLITS.index(meta["split"]) != chunk["split"]:
            report("frames or split are not those of the index", f"{meta['key']}.meta.json", offset)
        return str(meta["key"])
    except (ValueError, TypeError) as error:
        report(f"is no chunk's meta ({error})", f"meta of chunk {number}", offset)
        return f"chunk {number}"


def _check_overlap(data: bytes, count: int, name: str, offset: int, report: Callable) -> None:
    try:
        matrix = np.load(io.BytesIO(data), allow_pickle=False)
        if matrix.dtype != np.uint8 or matrix.shape != (count, count) or (matrix != matrix.T).any():
            report(f"is no symmetric uint8 matrix of {count} frames", name, offset)
    except (ValueError, OSError, EOFError) as error:
        report(f"is no matrix ({error})", name, offset)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
