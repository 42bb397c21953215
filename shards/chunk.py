"""What is known of a chunk beside its pixels: its meta, its overlap, its cameras. Knows nothing of files."""

import io
import json
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from shards import format as fmt
from shards.format import ShardsError


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


def parse_meta(data: bytes, frames: int) -> dict[str, Any]:
    """A chunk's `meta.json`; ShardsError where it is not one of so many frames."""
    try:
        meta = fmt.check_meta(json.loads(data))
    except ShardsError:
        raise
    except (ValueError, RecursionError) as error:
        raise ShardsError(f"meta is no JSON: {error}") from None
    if len(meta["frames"]) != frames:
        raise ShardsError(f"meta has {len(meta['frames'])} frames, the index {frames}")
    return meta


@lru_cache(maxsize=256)
def _overlap_header(frames: int) -> bytes:
    """What stands before the numbers in a file that NumPy wrote."""
    stream = io.BytesIO()
    header = {"descr": "|u1", "fortran_order": False, "shape": (frames, frames)}
    np.lib.format.write_array_header_1_0(stream, header)
    return stream.getvalue()


def parse_overlap(data: bytes, frames: int) -> np.ndarray:
    """A chunk's `covis.npy` as (N, N) uint8; ShardsError where it is none. Nothing is allocated on its word."""
    usual = _overlap_header(frames)
    # Parsing a header takes longer than reading the matrix, and all but other people's are this one.
    if data.startswith(usual) and len(data) == len(usual) + frames * frames:
        return np.frombuffer(data, np.uint8, offset=len(usual)).reshape(frames, frames)
    try:
        stream = io.BytesIO(data)
        np.lib.format.read_magic(stream)
        shape, fortran, kind = np.lib.format.read_array_header_1_0(stream)
    except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
        raise ShardsError(f"overlap is no array: {' '.join(str(error).split())}") from None
    if kind != np.uint8 or shape != (frames, frames) or len(data) - stream.tell() != frames * frames:
        raise ShardsError(f"overlap is {kind} {shape} for {frames} frames")
    matrix = np.frombuffer(data, np.uint8, offset=stream.tell()).reshape(frames, frames)
    return matrix.T if fortran else matrix
