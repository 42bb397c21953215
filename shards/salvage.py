"""What is left of a damaged shard: its chunks with their sound members, as they can be written again.

An index says where everything is and what its crc is, whatever the tar's headers say; without one the headers
do, of a tar that is known to be sound. A frame stays if its picture is sound; depth and labels that are not are left
out beside it. A chunk without its meta is lost with all its frames, since nobody knows what they are; one
without its overlap is drawn as if nothing were known. This file reads; it writes nothing.
"""

import io
import json
import os
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from shards import format as fmt
from shards.chunk import parse_meta, parse_overlap
from shards.covisibility import mean_overlap
from shards.decode import Decoder
from shards.png import decode_png
from shards.tarscan import Member, scan
from shards.writer import EncodedChunk

_SUFFIXES = ("jpg", "depth.png", "label.png")
_KEY = re.compile(r"[A-Za-z0-9_-]{1,90}")
_MOST_BYTES = 1 << 28


@dataclass
class Salvage:
    """The chunks that can be written again, and what cannot."""

    chunks: list[EncodedChunk] = field(default_factory=list)
    lost: list[dict[str, Any]] = field(default_factory=list)
    """Members that are left out: key, offset, reason, and `frame`, its name in the source, where its picture
    is lost; ready for JSON."""


@dataclass(frozen=True)
class _Row:
    """Where a member is, and its crc32 if an index knows it."""

    name: str
    offset: int
    size: int
    crc: int | None


@dataclass
class _Found:
    """A chunk's members by their places in it."""

    meta: _Row
    covisibility: _Row | None
    frames: dict[tuple[int, str], _Row]
    count: int | None
    overlap: float | None


def salvage(
    descriptor: int,
    index: tuple[np.ndarray, np.ndarray] | None,
    *,
    bad: Mapping[int, str] | None = None,
    decode: bool = False,
) -> Salvage:
    """What an open tar still holds.

    `index` is its chunk and member tables, or None for a tar whose own headers can be trusted. `bad` are
    offsets of members to be left out whatever their crc says, with the reason; `decode` leaves out what does
    not decode.
    """
    found = _by_index(descriptor, *index) if index is not None else _by_headers(descriptor)
    result, reader = Salvage(), _Reader(descriptor, dict(bad or {}), decode)
    for chunk in found:
        _take(chunk, reader, result)
    return result


class _Reader:
    """Reads members, and knows which are sound."""

    def __init__(self, descriptor: int, bad: dict[int, str], decode: bool) -> None:
        self.descriptor, self.bad, self.decode = descriptor, bad, decode
        self.end = os.fstat(descriptor).st_size
        self._decoder = Decoder()

    def read(self, row: _Row) -> bytes | str:
        """A member's bytes, or why they cannot be used."""
        if row.offset in self.bad:
            return self.bad[row.offset]
        if row.size > _MOST_BYTES or row.offset + row.size > self.end:
            return f"its {row.size} bytes lie beyond the end of the shard"
        data = os.pread(self.descriptor, row.size, row.offset)
        if row.crc is not None and zlib.crc32(data) != row.crc:
            return "its bytes fail their crc32"
        try:
            if self.decode and row.name.endswith(".jpg"):
                self._decoder.decode(data)
            elif self.decode and row.name.endswith(".png"):
                decode_png(data, np.uint16 if row.name.endswith(".depth.png") else np.uint8)
        except ValueError as error:
            return f"it does not decode ({error})"
        return data


def _by_index(descriptor: int, chunks: np.ndarray, members: np.ndarray) -> list[_Found]:
    found = []
    for number, chunk in enumerate(chunks):
        row = {name: int(chunk[name]) for name in chunk.dtype.names if name not in ("overlap",)}
        key = _key(descriptor, row, number)
        count, kinds = row["frames"], row["kinds"]
        suffixes = [
            s
            for s, bit in zip(_SUFFIXES, (0, fmt.HAS_DEPTH, fmt.HAS_LABELS), strict=True)
            if kinds & bit == bit
        ]
        frames = {}
        for place, (offset, size, crc) in enumerate(
            members[row["first"] : row["first"] + count * len(suffixes)].tolist()
        ):
            frame, suffix = place % count, suffixes[place // count]
            if size:
                name = f"{key}.{fmt.frame_suffix(frame, suffix)}"  # type: ignore[arg-type]
                frames[frame, suffix] = _Row(name, offset, size, crc)
        meta = _Row(f"{key}.meta.json", row["meta_offset"], row["meta_size"], row["meta_crc"])
        covis = _Row(f"{key}.covis.npy", row["covis_offset"], row["covis_size"], row["covis_crc"])
        found.append(_Found(meta, covis, frames, count, float(chunk["overlap"])))
    return found


def _key(descriptor: int, row: dict[str, int], number: int) -> str:
    """A chunk's key from its meta, or its number."""
    data = os.pread(descriptor, min(row["meta_size"], _MOST_BYTES), min(row["meta_offset"], 1 << 50))
    try:
        key = str(parse_meta(data, row["frames"])["key"])
    except fmt.ShardsError:
        key = ""
    return key if _KEY.fullmatch(key) else f"chunk-{number}"


def _by_headers(descriptor: int) -> list[_Found]:
    found: dict[str, _Found] = {}
    strays: dict[str, dict[tuple[int, str], _Row]] = {}
    for member in scan(descriptor):
        if not isinstance(member, Member):
            continue
        key, _, suffix = member.name.partition(".")
        row = _Row(member.name, member.offset, member.size, None)
        if suffix == "meta.json":
            found.setdefault(key, _Found(row, None, strays.setdefault(key, {}), None, None))
        elif suffix == "covis.npy":
            if key in found and found[key].covisibility is None:
                found[key].covisibility = row
        else:
            number, _, kind = suffix.partition(".")
            strays.setdefault(key, {}).setdefault((int(number), kind), row)
    for key in strays.keys() - found.keys():
        found[key] = _Found(_Row(f"{key}.meta.json", 0, 1 << 40, None), None, strays[key], None, None)
    return list(found.values())


def _take(found: _Found, reader: _Reader, result: Salvage) -> None:
    """Add what can be used of a chunk to the result."""
    meta, raw = _meta(found, reader)
    pictures = {frame: row for (frame, suffix), row in sorted(found.frames.items()) if suffix == "jpg"}
    if isinstance(meta, str):
        result.lost.append(_lost(found.meta, meta))
        result.lost += [_lost(row, "its chunk's meta is lost", str(frame)) for frame, row in pictures.items()]
        return
    count, key = len(meta["frames"]), meta["key"]
    overlap, known = _overlap(found, reader, count, result)
    data: dict[tuple[int, str], bytes] = {}
    for place, row in sorted(found.frames.items()):
        read = reader.read(row) if place[0] < count else "no frame of its chunk has this number"
        if isinstance(read, bytes):
            data[place] = read
        else:
            name = meta["frames"][place[0]] if place[1] == "jpg" and place[0] < count else None
            result.lost.append(_lost(row, read, name))
    for frame in range(count):
        if frame not in pictures:
            row = _Row(f"{key}.{fmt.frame_suffix(frame, 'jpg')}", -1, 0, None)
            result.lost.append(_lost(row, "it is not in the tar", meta["frames"][frame]))
    keep = [frame for frame in range(count) if (frame, "jpg") in data]
    if not keep:
        return
    result.chunks.append(_chunk(meta, raw, overlap, known, keep, data, found))


def _meta(found: _Found, reader: _Reader) -> tuple[dict[str, Any] | str, bytes]:
    raw = reader.read(found.meta)
    if isinstance(raw, str):
        return raw, b""
    try:
        count = found.count if found.count is not None else len(json.loads(raw)["frames"])
        meta = parse_meta(raw, count)
        if not _KEY.fullmatch(meta["key"]):
            return f"{meta['key'][:60]!r} is no chunk's key", b""
        return meta, raw
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        return str(error), b""


def _overlap(
    found: _Found, reader: _Reader, count: int, result: Salvage
) -> tuple[tuple[np.ndarray, bytes], bool]:
    """A chunk's overlap and its bytes, and whether they are the ones that were written."""
    row = found.covisibility
    raw: bytes | str = reader.read(row) if row is not None else "it is not in the tar"
    if isinstance(raw, bytes):
        try:
            return (parse_overlap(raw, count), raw), True
        except fmt.ShardsError as error:
            raw = str(error)
    result.lost.append(
        _lost(row or _Row(found.meta.name.replace("meta.json", "covis.npy"), -1, 0, None), raw)
    )
    unknown = np.full((count, count), fmt.UNKNOWN, np.uint8)
    return (unknown, _npy(unknown)), False


def _chunk(
    meta: dict[str, Any],
    raw: bytes,
    overlap: tuple[np.ndarray, bytes],
    known: bool,
    keep: list[int],
    data: dict[tuple[int, str], bytes],
    found: _Found,
) -> EncodedChunk:
    """The chunk of the frames that are kept; of all of them, with the very bytes that it had."""
    count = len(meta["frames"])
    depths = [data.get((frame, "depth.png"), b"") for frame in keep]
    labels = [data.get((frame, "label.png"), b"") for frame in keep]
    scales = meta["depth_scales"]
    whole = len(keep) == count and not (
        scales and any(scale is not None and not depth for scale, depth in zip(scales, depths, strict=True))
    )
    matrix, stored = overlap
    if not whole:
        meta = {
            name: [value[frame] for frame in keep] if name in fmt.PER_FRAME and value is not None else value
            for name, value in meta.items()
        }
        if meta["depth_scales"] is not None:
            kept = zip(meta["depth_scales"], depths, strict=True)
            meta["depth_scales"] = [scale if depth else None for scale, depth in kept]
        raw, matrix = fmt.dump_meta(meta), np.ascontiguousarray(matrix[np.ix_(keep, keep)])
        stored = _npy(matrix)
    mean = found.overlap if whole and known and found.overlap is not None else mean_overlap(matrix)
    kinds = (fmt.HAS_DEPTH if any(depths) else 0) | (fmt.HAS_LABELS if any(labels) else 0)
    for bit, name in ((fmt.HAS_INTRINSICS, "intrinsics"), (fmt.HAS_POSES, "world_to_camera")):
        kinds |= bit if meta[name] is not None and all(row is not None for row in meta[name]) else 0
    return EncodedChunk(
        key=meta["key"],
        scene=fmt.scene_hash(meta["source"], meta["scene"]),
        split=meta["split"],
        kinds=kinds,
        overlap=mean,
        meta=raw,
        covisibility=stored,
        jpegs=[data[frame, "jpg"] for frame in keep],
        depths=depths if any(depths) else [],
        labels=labels if any(labels) else [],
    )


def _lost(row: _Row, reason: str, frame: str | None = None) -> dict[str, Any]:
    return {"key": row.name, "offset": row.offset, "reason": reason, "frame": frame}


def _npy(matrix: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, matrix)
    return file.getvalue()
