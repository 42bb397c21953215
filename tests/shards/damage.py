"""Damage done to datasets at random, and the proof that it is met: nothing crashes, nothing is shown that is
damaged, every damaged frame is counted once.

`survive` harms a copy of a small dataset in one way, reads an epoch through the loader, verifies it, repairs it
and reads it again. `tests/shards/test_damage.py` runs a hundred, `benchmarks/damage.py` a thousand.
"""

import dataclasses
import io
import json
import os
import shutil
import tarfile
import zlib
from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import Image

from shards import format as fmt
from shards.format import ShardsError
from shards.loader import Loader
from shards.plan import DataConfig, Plan
from shards.quarantine import Quarantine
from shards.reader import Dataset
from shards.repair import repair
from shards.verify import verify
from shards.writer import DatasetWriter
from tests.shards.conftest import encoded_chunk

CONFIG = DataConfig(size=16, images_per_lane=8, views=(2, 4), lanes=1)
FRAMES = 5


def write(root: Path) -> None:
    """Three shards of two chunks of five frames with depth."""
    with DatasetWriter(root, source="ramps", shard_bytes=26_000) as writer:
        for number in range(6):
            chunk = encoded_chunk(number, FRAMES, size=(40, 56), known=True, split="train")
            meta = json.loads(chunk.meta) | {"depth_scales": [0.001] * FRAMES}
            depths = []
            for frame in range(FRAMES):
                file = io.BytesIO()
                Image.fromarray(np.full((40, 56), 100 * number + frame, np.uint16)).save(file, "PNG")
                depths.append(file.getvalue())
            writer.add(
                dataclasses.replace(
                    chunk, meta=fmt.dump_meta(meta), depths=depths, kinds=chunk.kinds | fmt.HAS_DEPTH
                )
            )
        writer.finish({"splits": {}, "licences": {"none": 6 * FRAMES}})


Harm = Callable[[Path, Path, np.random.Generator], None]
"""Changes a tar and its index."""


def _edit(path: Path, change: Callable[[bytearray], object]) -> None:
    data = bytearray(path.read_bytes())
    change(data)
    path.write_bytes(data)


def _flip(path: Path, rng: np.random.Generator) -> None:
    def change(data: bytearray) -> None:
        for at in rng.integers(0, len(data), int(rng.integers(1, 9))):
            data[at] ^= 1 << int(rng.integers(8))

    _edit(path, change)


def _headers(tar: Path) -> list[int]:
    with tarfile.open(tar) as opened:
        return [member.offset for member in opened]


def _header(tar: Path, rng: np.random.Generator, change: Callable[[tarfile.TarInfo], None]) -> None:
    """Change a header and give it a right checksum."""
    at = int(rng.choice(_headers(tar)))

    def put(data: bytearray) -> None:
        info = tarfile.TarInfo.frombuf(bytes(data[at : at + 512]), "ascii", "strict")
        change(info)
        data[at : at + 512] = info.tobuf(tarfile.GNU_FORMAT)[-512:]

    _edit(tar, put)


def _name(tar: Path, _: Path, rng: np.random.Generator) -> None:
    names = ["../../escaped.jpg", "/escaped.jpg", "..", "a/../../b.0000.jpg", "\x01\x1b[2J.jpg", "x" * 99]
    _header(tar, rng, lambda info: setattr(info, "name", str(rng.choice(names))))


def _link(tar: Path, _: Path, rng: np.random.Generator) -> None:
    def change(info: tarfile.TarInfo) -> None:
        info.type = rng.choice([tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE])
        info.linkname, info.size = "../../../../etc/passwd", 0

    _header(tar, rng, change)


def _long_name(tar: Path, _: Path, rng: np.random.Generator) -> None:
    kinds = [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XGLTYPE, tarfile.GNUTYPE_SPARSE]
    _header(tar, rng, lambda info: setattr(info, "type", rng.choice(kinds)))


def _size(tar: Path, _: Path, rng: np.random.Generator) -> None:
    sizes = [0, 1, 8**11 - 1, 1 << 60, 10**6]
    _header(tar, rng, lambda info: setattr(info, "size", int(rng.choice(sizes))))


def _rows(index: Path) -> tuple[bytearray, int]:
    """An index's bytes, and where its member table begins."""
    data = bytearray(index.read_bytes())
    header = np.frombuffer(bytes(data[: fmt.INDEX_HEADER.itemsize]), fmt.INDEX_HEADER)[0]
    return data, fmt.INDEX_HEADER.itemsize + int(header["chunks"]) * fmt.INDEX_CHUNK.itemsize


def _seal(index: Path, data: bytearray) -> None:
    """Write an index with the crcs that its tables now have."""
    _, start = _rows(index)
    header = np.frombuffer(bytes(data[: fmt.INDEX_HEADER.itemsize]), fmt.INDEX_HEADER).copy()
    header["chunks_crc"] = zlib.crc32(data[fmt.INDEX_HEADER.itemsize : start])
    header["members_crc"] = zlib.crc32(data[start:])
    index.write_bytes(header.tobytes() + data[fmt.INDEX_HEADER.itemsize :])


def _absurd_row(_: Path, index: Path, rng: np.random.Generator) -> None:
    """A member of four gigabytes, or one beyond the end of everything; its index is otherwise sound."""
    data, start = _rows(index)
    rows = np.frombuffer(bytes(data[start:]), fmt.INDEX_MEMBER).copy()
    row = rng.integers(len(rows))
    if rng.random() < 0.5:
        rows["size"][row] = rng.choice([0, 1, 2**32 - 1, 2**31])
    else:
        rows["offset"][row] = rng.choice(np.array([0, 2**63 - 1, 2**64 - 1, 2**40], np.uint64))
    data[start:] = rows.tobytes()
    _seal(index, data)


def _absurd_chunk(_: Path, index: Path, rng: np.random.Generator) -> None:
    """A field of the chunk table that says the impossible, under a right crc."""
    data, start = _rows(index)
    table = np.frombuffer(bytes(data[fmt.INDEX_HEADER.itemsize : start]), fmt.INDEX_CHUNK).copy()
    name = str(
        rng.choice(["meta_offset", "meta_size", "covis_offset", "covis_size", "meta_crc", "covis_crc"])
    )
    table[name][rng.integers(len(table))] = np.iinfo(table[name].dtype).max
    data[fmt.INDEX_HEADER.itemsize : start] = table.tobytes()
    _seal(index, data)


def _swap(tar: Path, _: Path, rng: np.random.Generator) -> None:
    """Two members change places, and everything between them moves."""
    starts = [*_headers(tar), tar.stat().st_size]
    first, second = sorted(rng.choice(len(starts) - 1, 2, replace=False))

    def change(data: bytearray) -> None:
        a, b, c, d = starts[first], starts[first + 1], starts[second], starts[second + 1]
        data[a:d] = data[c:d] + data[b:c] + data[a:b]

    _edit(tar, change)


def _replace(tar: Path, index: Path, rng: np.random.Generator, fresh: bytes, kind: str) -> None:
    """Put `fresh` in a member's place and its crc into the index, as if it had been written so."""
    data, start = _rows(index)
    rows = np.frombuffer(bytes(data[start:]), fmt.INDEX_MEMBER).copy()
    half = len(rows) // 2  # a chunk's pictures, then its depths, twice
    choices = [r for r in range(len(rows)) if (r % half < FRAMES) == (kind == "jpg")]
    row = int(rng.choice(choices))
    offset, size = int(rows["offset"][row]), int(rows["size"][row])
    fresh = fresh[:size].ljust(size, b"\0")

    def change(tar_data: bytearray) -> None:
        tar_data[offset : offset + size] = fresh

    _edit(tar, change)
    rows["crc"][row] = zlib.crc32(fresh)
    data[start:] = rows.tobytes()
    _seal(index, data)


def _bomb(tar: Path, index: Path, rng: np.random.Generator) -> None:
    """A JPEG whose header promises four gigapixels, with a right crc."""
    jpeg = bytearray(simplejpeg.encode_jpeg(np.zeros((16, 16, 3), np.uint8)))
    at = jpeg.index(b"\xff\xc0") + 5
    jpeg[at : at + 4] = b"\xff\xdc\xff\xdc"
    _replace(tar, index, rng, bytes(jpeg), "jpg")


def _no_picture(tar: Path, index: Path, rng: np.random.Generator) -> None:
    """Bytes with a right crc that are no picture."""
    _replace(tar, index, rng, rng.bytes(3000), "jpg")


def _png_bomb(tar: Path, index: Path, rng: np.random.Generator) -> None:
    """A PNG of four gigapixels in the place of a depth, with a right crc."""
    head = b"IHDR" + (65500).to_bytes(4, "big") * 2 + bytes([16, 0, 0, 0, 0])
    png = b"\x89PNG\r\n\x1a\n" + (13).to_bytes(4, "big") + head + zlib.crc32(head).to_bytes(4, "big")
    _replace(tar, index, rng, png, "png")


def _manifest(tar: Path, _: Path, rng: np.random.Generator) -> None:
    manifest = tar.parent.parent / "manifest.jsonl"
    if rng.random() < 0.6:
        _flip(manifest, rng)
        return
    lines = manifest.read_text().splitlines()
    line = json.loads(lines[1])
    name, value = [
        ("name", "shards/../../etc/passwd"),
        ("name", "/etc/passwd"),
        ("chunks", -1),
        ("frames", 10**30),
        ("sha256", None),
        ("name", "shards/a\0b.tar"),
    ][rng.integers(6)]
    lines[1] = json.dumps(line | {name: value})
    manifest.write_text("\n".join(lines) + "\n")


HARMS: dict[str, Harm] = {
    "bits of a tar": lambda tar, index, rng: _flip(tar, rng),
    "bits of an index": lambda tar, index, rng: _flip(index, rng),
    "tar cut off": lambda tar, index, rng: os.truncate(tar, int(rng.integers(tar.stat().st_size))),
    "index cut off": lambda tar, index, rng: os.truncate(index, int(rng.integers(index.stat().st_size))),
    "members swapped": _swap,
    "size in a header": _size,
    "row of an index": _absurd_row,
    "chunk of an index": _absurd_chunk,
    "name": _name,
    "link": _link,
    "long name": _long_name,
    "4-gigapixel JPEG": _bomb,
    "no picture": _no_picture,
    "4-gigapixel PNG": _png_bomb,
    "zeros": lambda tar, index, rng: _edit(tar, lambda d: _zero(d, rng)),
    "manifest": _manifest,
}


def _zero(data: bytearray, rng: np.random.Generator) -> None:
    start = int(rng.integers(len(data)))
    length = min(int(rng.integers(1, 8192)), len(data) - start)
    data[start : start + length] = bytes(length)


def decodes(jpeg: bytes) -> bool:
    """Whether it is a picture of the size that is stored."""
    try:
        height, width, *_ = simplejpeg.decode_jpeg_header(jpeg)
        return height * width < 1 << 26 and simplejpeg.decode_jpeg(jpeg).size > 0
    except ValueError:
        return False


def truth(root: Path, pristine: Path) -> set[tuple[int, int]]:
    """(chunk, frame) of all pictures that are not as they were written, or are none."""
    whole, harmed = Dataset(pristine), Dataset(root)
    damaged = set()
    for chunk in range(whole.num_chunks):
        name = whole.shards[whole.shard_of(chunk)]["name"]
        tar = (root / name).read_bytes()
        for frame in range(FRAMES):
            offset, size, crc = harmed._member(chunk, frame, 0)
            data = tar[offset : offset + size] if offset + size <= len(tar) else b""
            if zlib.crc32(data) != crc or len(data) != size or not decodes(data):
                damaged.add((chunk, frame))
    return damaged


def survive(pristine: Path, scratch: Path, seed: int) -> tuple[str, str, int]:
    """Harm a copy in a way that `seed` chooses; (harm, how it was met, damaged frames). AssertionError if it
    was not."""
    rng = np.random.default_rng(seed)
    root = scratch / "data"
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(pristine, root)
    kind = list(HARMS)[seed % len(HARMS)]
    tar = root / "shards" / f"ramps-{rng.integers(3):06d}.tar"
    HARMS[kind](tar, tar.with_suffix(".idx"), rng)
    before = _tree(root)
    met, count = _read(root, pristine)
    assert _tree(root) == before, "reading changed the data"
    try:
        found = verify(root, decode=True)
        changed = _tree(root) != _tree(pristine)
        assert bool(found) == changed or kind == "manifest", (kind, seed, found)
        repair(root, decode=True)
        left = verify(root, decode=True)
        if not left:
            again, more = _read(root, pristine, repaired=True)
            assert (again, more) == ("read", 0), (kind, seed, again, more)
            met += ", mended"
        else:
            met += ", left"
    except ShardsError as error:
        assert "\n" not in str(error)
        met += ", refused by repair"
    assert {path.name for path in scratch.iterdir()} == {"data"}, "something was written outside"
    return kind, met, count


def _read(root: Path, pristine: Path, *, repaired: bool = False) -> tuple[str, int]:
    """Read two epochs; how it was met and how many frames are in quarantine."""
    quarantine = Quarantine()
    try:
        dataset = Dataset(root)
        plan = Plan(dataset, CONFIG)
        loader = Loader(dataset, CONFIG)
        for batch in islice(loader, 2 * plan.steps_per_epoch):
            assert int(batch.views.sum()) == CONFIG.images_per_lane
            quarantine.add(batch.substituted)
        for chunk in range(dataset.num_chunks):
            for frame in range(int(dataset.frames_per_chunk[chunk])):
                try:
                    dataset.read_depth(chunk, frame)
                except ShardsError as error:
                    assert "\n" not in str(error)
    except ShardsError as error:
        assert "\n" not in str(error), error
        return "refused", 0
    frames = [(row["chunk"], row["frame"]) for row in quarantine.rows if row["frame"] is not None]
    assert max(Counter(frames).values(), default=1) == 1
    if not repaired:
        assert set(frames) == truth(root, pristine), (set(frames), truth(root, pristine))
    return ("quarantined" if frames else "read"), len(frames)


def _tree(root: Path) -> dict[str, int]:
    return {str(p.relative_to(root)): zlib.crc32(p.read_bytes()) for p in root.rglob("*") if p.is_file()}
