"""Is a dataset what was written? Every byte against its hashes, every index row against its tar.

For each shard: size and sha256 of tar and index against the manifest, the tar's own headers against the
index, the crc32 of every member, the schema of every chunk's meta and overlap, and whether the pictures
decode, if that is asked for. Shards are checked in parallel, those of a URL one download at a time each. With
a state file a check that was stopped goes on where it was.
"""

import contextlib
import hashlib
import json
import mmap
import os
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shards import format as fmt
from shards.cache import write_whole
from shards.chunk import parse_meta, parse_overlap
from shards.manifest import read_index_header, read_manifest
from shards.png import decode_png
from shards.processes import pool
from shards.storage import Folder, Url, index_name, open_storage
from shards.tarscan import Fault, Member, scan

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
    place: str | Path | Folder | Url,
    *,
    workers: int = 1,
    decode: bool = False,
    state: Path | None = None,
    progress: Callable[[int], Callable[[int], None]] | None = None,
) -> list[Damage]:
    """Check a dataset and list what is wrong with it, shard by shard; an empty list says it is whole.

    `decode` decodes every picture too. `state` is a file that keeps what is known while the check lasts: the
    same call goes on from it, and takes it away in the end. `progress` is called with the number of shards
    and returns a callback for the number done. NotADataset where there is none.
    """
    files = open_storage(place) if isinstance(place, str | Path) else place
    _, shards, digest = read_manifest(files)
    update = progress(len(shards)) if progress else None
    with _State(state, f"{digest} {decode}") as known:
        found = {name: [Damage(**row) for row in rows] for name, rows in known.rows.items()}
        left = [shard for shard in shards if shard["name"] not in found]
        for done, (name, damage) in enumerate(_check_all(files, left, workers, decode), 1):
            found[name] = damage
            known.add(name, [asdict(each) for each in damage])
            if update:
                update(len(shards) - len(left) + done)
    stray = _strangers(files, shards) if isinstance(files, Folder) else []
    return stray + [each for shard in shards for each in found[shard["name"]]]


class _State:
    """Shards that were checked, in a file; what a kill left torn at its end is dropped."""

    def __init__(self, path: Path | None, what: str) -> None:
        self.path, self.what = path, what
        self.rows: dict[str, list[dict[str, Any]]] = {}

    def __enter__(self) -> "_State":
        self.file = None
        if self.path is not None:
            lines = self.path.read_text().splitlines() if self.path.exists() else []
            if lines and lines[0] != json.dumps(self.what):
                raise fmt.ShardsError(
                    f"{self.path} is not the state of this check: remove it, or name another"
                )
            for line in lines[1:]:
                with contextlib.suppress(ValueError):
                    self.rows.update(json.loads(line))
            kept = (self.what, *({name: rows} for name, rows in self.rows.items()))
            write_whole(self.path, "".join(json.dumps(line) + "\n" for line in kept).encode())
            self.file = self.path.open("a")
        return self

    def add(self, name: str, rows: list[dict[str, Any]]) -> None:
        if self.file:
            self.rows[name] = rows
            self.file.write(json.dumps({name: rows}) + "\n")
            self.file.flush()

    def __exit__(self, kind: object, *_: object) -> None:
        if self.file and self.path:
            self.file.close()
            if kind is None:
                self.path.unlink()


def _strangers(files: Folder, shards: list[dict[str, Any]]) -> list[Damage]:
    listed = {name for shard in shards for name in (shard["name"], index_name(shard))}
    names = sorted(f"shards/{path.name}" for path in (files.root / "shards").glob("*"))
    return [
        Damage(shard=name, member="", offset=-1, reason="is not in the manifest")
        for name in names
        if name not in listed
    ]


def _check_all(
    files: Folder | Url, shards: list[dict[str, Any]], workers: int, decode: bool
) -> Iterator[tuple[str, list[Damage]]]:
    if workers == 1 or len(shards) <= 1:
        for shard in shards:
            yield shard["name"], check_shard(files, shard, decode=decode)
        return
    with pool(min(workers, len(shards))) as processes:
        waiting = {processes.submit(check_shard, files, shard, decode=decode): shard for shard in shards}
        try:
            for done in as_completed(waiting):
                yield waiting[done]["name"], done.result()
        finally:
            processes.shutdown(wait=False, cancel_futures=True)


def check_shard(files: Folder | Url, shard: dict[str, Any], *, decode: bool = False) -> list[Damage]:
    """What is wrong with one shard, given its line of the manifest."""
    damage: list[Damage] = []

    def report(reason: str, member: str = "", offset: int = -1) -> None:
        damage.append(Damage(shard=shard["name"], member=member, offset=offset, reason=reason))

    try:
        with files.whole(shard["name"]) as tar:
            _check_tar(tar, files, shard, decode, report)
    except FileNotFoundError:
        report("is missing")
    return damage


def _check_tar(
    tar: Path, files: Folder | Url, shard: dict[str, Any], decode: bool, report: Callable[..., None]
) -> None:
    size = os.path.getsize(tar)
    if size != shard.get("bytes"):
        report(f"has {size} bytes, {shard.get('bytes')} were written")
    if sha256(tar) != shard["sha256"]:
        report("fails its sha256")
    index = _read_index(files, shard, report)
    if index is not None:
        counted = len(index[0]), int(index[0]["frames"].sum())
        if counted != (shard["chunks"], shard["frames"]):
            report(
                f"has {counted[0]} chunks of {counted[1]} frames, its line of the manifest tells of others"
            )
    headers: dict[str, tuple[int, int]] = {}
    with tar.open("rb") as file:
        for found in scan(file.fileno()):
            if isinstance(found, Member) and found.name not in headers:
                headers[found.name] = (found.offset, found.size)
            elif isinstance(found, Fault):
                report(f"{found.reason} at byte {found.offset}")
            else:
                report("stands twice in the tar", found.name, found.offset)
        if index is None or not size:
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            expected = set()
            for name, offset, length, crc in _index_members(*index, data, report):
                expected.add(name)
                if offset + length > size:
                    report(f"the shard ends before its {length} bytes do", name, offset)
                elif zlib.crc32(data[offset : offset + length]) != crc:
                    report("fails its crc32", name, offset)
                elif decode:
                    _decode(name, data[offset : offset + length], offset, report)
                if headers.get(name) != (offset, length):
                    report("stands elsewhere in the tar than the index says", name, offset)
    for name in sorted(headers.keys() - expected):
        report("is not in the index", name, headers[name][0])


def _decode(name: str, data: bytes, offset: int, report: Callable[..., None]) -> None:
    """Decode a member that is a picture."""
    try:
        if name.endswith(".jpg"):
            from shards.decode import Decoder

            Decoder().decode(data)
        elif name.endswith(".png"):
            decode_png(data, np.uint16 if name.endswith(".depth.png") else np.uint8)
    except ValueError as error:
        report(f"does not decode ({error})", name, offset)


def _read_index(
    files: Folder | Url, shard: dict[str, Any], report: Callable[..., None]
) -> tuple[np.ndarray, np.ndarray] | None:
    """The index's two tables, or None where it is too damaged to go by."""
    name = Path(index_name(shard)).name
    try:
        data = files.read(index_name(shard))
    except FileNotFoundError:
        report(f"its index {name} is missing")
        return None
    if hashlib.sha256(data).hexdigest() != shard.get("index_sha256"):
        report(f"its index {name} fails its sha256")
    try:
        return parse_index(data, name)
    except fmt.NotADataset as error:
        report(f"its index {error}")
        return None


def parse_index(data: bytes, name: str, *, strict: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """The chunk and member tables of an index file; NotADataset where it is damaged, or, unless `strict`, where
    more than single members' rows are."""
    header = read_index_header(data, name)
    split = fmt.INDEX_HEADER.itemsize + int(header["chunks"]) * fmt.INDEX_CHUNK.itemsize
    if len(data) != split + int(header["members"]) * fmt.INDEX_MEMBER.itemsize:
        raise fmt.NotADataset(f"{name} has {len(data)} bytes, its header tells of others")
    tables = data[fmt.INDEX_HEADER.itemsize : split], data[split:]
    crcs = zlib.crc32(tables[0]), zlib.crc32(tables[1]) if strict else header["members_crc"]
    if crcs != (header["chunks_crc"], header["members_crc"]):
        raise fmt.NotADataset(f"{name} fails its crc32")
    return np.frombuffer(tables[0], fmt.INDEX_CHUNK), np.frombuffer(tables[1], fmt.INDEX_MEMBER)


def _index_members(
    chunks: np.ndarray, members: np.ndarray, data: mmap.mmap, report: Callable[..., None]
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


def _check_meta(data: bytes, chunk: np.void, number: int, offset: int, report: Callable[..., None]) -> str:
    try:
        meta = parse_meta(data, int(chunk["frames"]))
    except fmt.ShardsError as error:
        report(f"is no chunk's meta ({error})", f"meta of chunk {number}", offset)
        return f"chunk {number}"
    if fmt.SPLITS.index(meta["split"]) != chunk["split"]:
        report("its split is not that of the index", f"{meta['key']}.meta.json", offset)
    return str(meta["key"])


def _check_overlap(data: bytes, count: int, name: str, offset: int, report: Callable[..., None]) -> None:
    try:
        matrix = parse_overlap(data, count)
    except fmt.ShardsError as error:
        report(f"is no overlap ({error})", name, offset)
        return
    if (matrix != matrix.T).any():
        report("is not symmetric", name, offset)


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
