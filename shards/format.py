"""What a dataset on disk holds: frames, scenes, chunks, the names of their members, the index, the version.

A dataset is a folder of plain USTAR shards that any webdataset reader can read, plus sidecars that make it
seekable. One tar sample is one CHUNK: up to 96 co-visible frames of one scene, as `<chunk>.meta.json`,
`<chunk>.covis.npy`, `<chunk>.0000.jpg` and so on, with `.depth.png` and `.label.png` where a source has them.
Beside each tar lies a fixed-width `.idx` (header, chunk table, member table; little endian, memory-mapped),
and `manifest.jsonl` lists the shards, its first line the totals.

Conventions: OpenCV axes, world-to-camera (3, 4), pixel centres at +0.5, intrinsics in pixels of the picture
they stand beside, depth along the camera's axis with 0 = unknown, overlap as uint8 with 255 = unknown.
This file knows nothing of reading or writing files.
"""

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

VERSION = 2
"""Version of the layout on disk, in the manifest, in every index and in every chunk's meta."""

MAX_FRAMES = 96
"""Most frames a chunk holds."""

UNKNOWN = 255
"""Overlap that nobody measured, in the uint8 matrices."""

SPLITS = ("train", "val")
"""The splits, in the order of their numbers in the index."""

HAS_DEPTH, HAS_LABELS, HAS_INTRINSICS, HAS_POSES = 1, 2, 4, 8
"""Bits of the chunk table's `kinds`: what the chunk holds beside its pictures."""


class ShardsError(ValueError):
    """Something a person can mend (wrong path, unreadable picture, damaged dataset), in one sentence."""


class NotADataset(ShardsError):
    """The path holds no dataset, or one whose version this reader does not know."""


class BadPhotograph(ShardsError):
    """A picture that cannot be stored; carries its `name` and the `reason`."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name, self.reason = name, reason

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


class CorruptFrame(ShardsError):
    """Bytes of a shard that are not what was written; carries `shard`, `key`, `offset` and `reason`."""

    def __init__(self, shard: str, key: str, offset: int, reason: str) -> None:
        super().__init__(shard, key, offset, reason)
        self.shard, self.key, self.offset, self.reason = shard, key, offset, reason

    def __str__(self) -> str:
        return f"{self.shard}: {self.key} at byte {self.offset}: {self.reason}"


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One view as a source hands it over, in the size it has there."""

    name: str
    """Stable id within the scene; usually the file's name."""
    image: bytes | Path | np.ndarray
    """An encoded file, its path, or uint8 (H, W, 3) upright RGB."""
    intrinsics: np.ndarray | None = None
    """(3, 3), in pixels of `image`."""
    world_to_camera: np.ndarray | None = None
    """(3, 4) [R | t]."""
    depth: np.ndarray | Callable[[], np.ndarray | None] | None = None
    """(h, w) float32 along the camera's axis; 0, negative or not finite = unknown. Any size. A function reads it
    when the frame is encoded, so that a scene's depth maps are never in memory together."""
    labels: np.ndarray | None = None
    """(h, w) uint8 class ids. Any size."""
    points: np.ndarray | None = None
    """(n,) int64 ids of the 3-D points this view sees; overlap is measured from them."""
    timestamp: float | None = None
    """Seconds on the scene's clock."""
    distortion: dict[str, Any] | None = None
    """What `intrinsics` leave out, as JSON: `{"model": ..., "params": [...]}`. The pixels stay distorted."""
    camera_pixels: Literal["upright", "stored"] = "upright"
    """Which pixels cameras, depth and labels speak of, should the file carry an EXIF orientation: the
    `upright` picture or the `stored` one (COLMAP ignores EXIF). They are turned with the picture."""
    orientation: int | None = None
    """How a file's pixels are turned upright, as an EXIF orientation (1 to 8), where the source knows it and the
    file does not; None = what the file says."""

    def __post_init__(self) -> None:
        for field, shape in (("intrinsics", (3, 3)), ("world_to_camera", (3, 4))):
            value = getattr(self, field)
            if value is not None and (np.shape(value) != shape or not np.isfinite(value).all()):
                raise BadPhotograph(self.name, f"{field} must be finite {shape}, not {np.shape(value)}")


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Views of one place. `split=None` lets the builder cut the validation split by scene."""

    name: str
    frames: Sequence[Frame]
    split: Literal["train", "val"] | None = None
    licence: str = "unknown"
    classes: tuple[str, ...] = ()
    """Names of the class ids in the frames' labels."""
    overlap: np.ndarray | None = None
    """(N, N) directed overlap in 0..1, nan = unknown, where the source itself brings it; otherwise it is
    measured."""
    left_out: Sequence[tuple[str, str]] = ()
    """(name, reason) of the frames that the source leaves out by its own rules (test frames, no depth map); the
    build's report counts and names them."""
    dropped: str = ""
    """Why the source drops the whole scene (its video is gone, its poses are bad): the build's report counts and
    names it. Its frames may be missing."""
    ordered: bool = False
    """The frames follow one another in time: where nothing else tells overlap, nearness in time does."""

    def __post_init__(self) -> None:
        if self.overlap is not None and self.overlap.shape != (len(self.frames),) * 2:
            raise ShardsError(
                f"scene {self.name}: overlap is {self.overlap.shape} for {len(self.frames)} frames"
            )


INDEX_HEADER = np.dtype(
    [
        ("magic", "S8"),
        ("version", "<u4"),
        ("chunks_crc", "<u4"),
        ("chunks", "<u8"),
        ("members", "<u8"),
        ("frames", "<u8"),
        ("tar_bytes", "<u8"),
        ("members_crc", "<u4"),
        ("reserved", "V12"),
    ]
)
INDEX_MAGIC = b"mumshard"

INDEX_CHUNK = np.dtype(
    [
        ("first", "<u8"),  # row of the member table: frames' pictures, then their depths, then their labels
        ("frames", "<u4"),
        ("split", "u1"),
        ("kinds", "u1"),
        ("reserved", "<u2"),
        ("scene", "<u8"),
        ("overlap", "<f4"),  # mean over pairs, nan where unknown
        ("reserved2", "<u4"),
        ("meta_offset", "<u8"),
        ("meta_size", "<u4"),
        ("meta_crc", "<u4"),
        ("covis_offset", "<u8"),
        ("covis_size", "<u4"),
        ("covis_crc", "<u4"),
    ]
)
INDEX_MEMBER = np.dtype([("offset", "<u8"), ("size", "<u4"), ("crc", "<u4")])
"""Sixteen bytes a frame; size 0 = this frame has none."""


def scene_hash(source: str, scene: str) -> int:
    """A scene's 64-bit name in the index: equal for all its chunks, and in every dataset built from it."""
    return int.from_bytes(hashlib.sha256(f"{source}\0{scene}".encode()).digest()[:8], "little")


def chunk_key(source: str, scene: str, number: int) -> str:
    """The tar sample's key: readable, ASCII, no dots, unique by the scene's hash, short enough for USTAR."""
    readable = re.sub(r"[^A-Za-z0-9_-]+", "-", scene).strip("-")[-48:] or "scene"
    return f"{readable}-{scene_hash(source, scene):016x}-{number:04d}"


def frame_suffix(frame: int, kind: Literal["jpg", "depth.png", "label.png"]) -> str:
    """What follows the key and a dot in the name of a frame's member."""
    return f"{frame:04d}.{kind}"


META_FIELDS: dict[str, type | tuple[type, ...]] = {
    "schema": int,
    "key": str,
    "source": str,
    "scene": str,
    "split": str,
    "licence": str,
    "classes": list,
    "frames": list,  # names
    "sizes": list,  # (H, W) as stored
    "original_sizes": list,  # (H, W) upright, before resizing
    "transforms": list,  # 2 x 3 rows: pixel of the source's file -> stored pixel
    "encodings": list,  # "kept": the source's own JPEG data, or "jpeg90"
    "intrinsics": (list, type(None)),  # 3 x 3 of stored pixels
    "world_to_camera": (list, type(None)),  # 3 x 4
    "distortions": (list, type(None)),
    "depth_scales": (list, type(None)),  # depth = PNG value x scale; null where a frame has none
    "timestamps": (list, type(None)),  # seconds
    "overlap_from": str,  # "source", "tracks", "depth", "poses", "time" or "unknown"
}
"""Every field of `<chunk>.meta.json` and its JSON type."""

_PER_FRAME = ("sizes", "original_sizes", "transforms", "encodings")
_PER_FRAME_OR_NULL = ("intrinsics", "world_to_camera", "distortions", "depth_scales", "timestamps")
PER_FRAME = ("frames", *_PER_FRAME, *_PER_FRAME_OR_NULL)
"""Fields of a meta that hold an entry a frame, or null."""


def dump_meta(meta: dict[str, Any]) -> bytes:
    """A chunk's meta as the bytes that are stored; checks it first."""
    check_meta(meta)
    return json.dumps(meta, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def check_meta(meta: Any) -> dict[str, Any]:
    """Return `meta` if it is a chunk's meta of this version; ShardsError names the first wrong field."""
    if not isinstance(meta, dict):
        raise ShardsError(f"meta must be a JSON object, not {type(meta).__name__}")
    if meta.get("schema") != VERSION:
        raise ShardsError(f"meta has schema {meta.get('schema')!r}, this reader knows {VERSION}")
    for field, kind in META_FIELDS.items():
        if field not in meta:
            raise ShardsError(f"meta lacks {field!r}")
        if not isinstance(meta[field], kind):
            raise ShardsError(f"meta field {field!r} is a {type(meta[field]).__name__}")
    if meta["split"] not in SPLITS:
        raise ShardsError(f"meta has split {meta['split']!r}, not one of {SPLITS}")
    count = len(meta["frames"])
    if not 1 <= count <= MAX_FRAMES:
        raise ShardsError(f"meta has {count} frames, a chunk holds 1 to {MAX_FRAMES}")
    for field in (*_PER_FRAME, *_PER_FRAME_OR_NULL):
        if meta[field] is not None and len(meta[field]) != count:
            raise ShardsError(f"meta field {field!r} has {len(meta[field])} entries for {count} frames")
    return meta
