"""One frame of a source -> the bytes and numbers a shard holds of it.

The picture is read upright, reduced (never enlarged) until its short side fits, and stored as baseline JPEG
4:2:0; a file that is just that already keeps its own data. Cameras, depth and labels are turned and scaled
with the pixels. This file knows nothing of scenes, chunks and tars.
"""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from shards.cut import restart_interval, write_lengths
from shards.format import BadPhotograph, Frame
from shards.jpeg import keep_data
from shards.photographs import read_photograph, turn_upright, upright_transform

_DEPTH_STEPS = 65535
_PNG_LEVEL = 4


@dataclass(frozen=True, kw_only=True)
class EncodedFrame:
    """A frame as it is stored; cameras and depth in stored pixels."""

    name: str
    jpeg: bytes
    size: tuple[int, int]
    """(H, W) as stored."""
    original_size: tuple[int, int]
    """(H, W) upright, before it was reduced."""
    transform: np.ndarray
    """(2, 3): pixel of the source's file -> stored pixel."""
    encoding: str
    """`kept`: the source's own JPEG data; `jpeg90`: encoded at that quality."""
    intrinsics: np.ndarray | None = None
    world_to_camera: np.ndarray | None = None
    distortion: dict | None = None
    depth: np.ndarray | None = None
    """(H, W) float32, as a reader will see it."""
    depth_png: bytes = b""
    depth_scale: float | None = None
    label_png: bytes = b""
    points: np.ndarray | None = None
    timestamp: float | None = None


def encode_frame(frame: Frame, *, short_side: int = 384, quality: int = 90) -> EncodedFrame:
    """Encode one frame. BadPhotograph names a picture, depth or label map that cannot be stored."""
    if isinstance(frame.image, np.ndarray):
        pixels, orientation, own_jpeg = _check_pixels(frame), 1, None
        file_size = original = pixels.shape[:2]
    else:
        name = str(frame.image) if isinstance(frame.image, Path) else frame.name
        photograph = read_photograph(frame.image, name, short_side=short_side, orientation=frame.orientation)
        pixels, orientation = photograph.pixels, photograph.orientation
        file_size, original = photograph.file_size, photograph.size
        own_jpeg = photograph.data if photograph.is_plain_jpeg else None

    size = fit_short_side(original, short_side)
    jpeg = keep_data(own_jpeg, quality) if own_jpeg is not None and size == original else None
    encoding = "kept" if jpeg is not None else f"jpeg{quality}"
    if jpeg is None:
        pixels = _resize(pixels, size)
        jpeg = _encode_jpeg(pixels, quality)

    scale = np.diag([size[1] / original[1], size[0] / original[0], 1.0])
    turn = upright_transform(orientation, *file_size)
    intrinsics, pose = frame.intrinsics, frame.world_to_camera
    depth, labels = frame.depth() if callable(frame.depth) else frame.depth, frame.labels
    if frame.camera_pixels == "stored" and orientation != 1:
        intrinsics, pose = _turn_camera(frame, turn)
        depth = None if depth is None else turn_upright(depth, orientation)
        labels = None if labels is None else turn_upright(labels, orientation)
    depth_png, depth_scale, depth = _encode_depth(depth, size)
    return EncodedFrame(
        name=frame.name,
        jpeg=jpeg,
        size=size,
        original_size=(int(original[0]), int(original[1])),
        transform=(scale @ turn)[:2],
        encoding=encoding,
        intrinsics=None if intrinsics is None else scale @ intrinsics,
        world_to_camera=pose,
        distortion=frame.distortion,
        depth=depth,
        depth_png=depth_png,
        depth_scale=depth_scale,
        label_png=b"" if labels is None else _encode_labels(labels, size, frame.name),
        points=frame.points,
        timestamp=frame.timestamp,
    )


def fit_short_side(size: tuple[int, int], short_side: int) -> tuple[int, int]:
    """(H, W) reduced so that the smaller is `short_side`, the aspect kept to a pixel; unchanged if it fits."""
    height, width = int(size[0]), int(size[1])
    short = min(height, width)
    if short <= short_side:
        return height, width
    return round(height * short_side / short), round(width * short_side / short)


def nearest(array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resample (h, w) to `size` by the nearest pixel centre: no depth or class that was not measured."""
    rows = ((np.arange(size[0]) + 0.5) * array.shape[0] / size[0]).astype(np.int64)
    columns = ((np.arange(size[1]) + 0.5) * array.shape[1] / size[1]).astype(np.int64)
    return array[rows[:, None], columns]


def _check_pixels(frame: Frame) -> np.ndarray:
    pixels = frame.image
    assert isinstance(pixels, np.ndarray)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise BadPhotograph(frame.name, f"must be uint8 (H, W, 3), not {pixels.dtype} {pixels.shape}")
    return pixels


def _resize(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    if pixels.shape[:2] == size:
        return np.ascontiguousarray(pixels)
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return np.asarray(image.resize(size[::-1], Image.Resampling.LANCZOS))


def _encode_jpeg(pixels: np.ndarray, quality: int) -> bytes:
    """Baseline, 4:2:0, with restart markers, so that a crop can be decoded without the rest."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(
        file,
        "JPEG",
        quality=quality,
        subsampling="4:2:0",
        restart_marker_blocks=restart_interval(pixels.shape[1]),
    )
    return write_lengths(file.getvalue())


def _turn_camera(frame: Frame, turn: np.ndarray) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Intrinsics and pose of the turned picture: its pixels are `turn` @ old ones, its axes turned alike."""
    axes = np.eye(3)
    axes[:2, :2] = turn[:2, :2]
    if np.linalg.det(axes) < 0:
        raise BadPhotograph(frame.name, "its EXIF orientation is mirrored, which no camera can follow")
    intrinsics = None if frame.intrinsics is None else turn @ frame.intrinsics @ axes.T
    pose = None if frame.world_to_camera is None else axes @ frame.world_to_camera
    return intrinsics, pose


def _encode_depth(
    depth: np.ndarray | None, size: tuple[int, int]
) -> tuple[bytes, float | None, np.ndarray | None]:
    """16-bit PNG, its scale, and the depth that it gives back; nothing where nothing is known."""
    if depth is None:
        return b"", None, None
    known = nearest(np.asarray(depth, np.float32), size)
    known = np.where(np.isfinite(known) & (known > 0), known, 0)
    farthest = float(known.max())
    if farthest == 0:
        return b"", None, None
    scale = farthest / _DEPTH_STEPS
    stored = np.where(known > 0, np.clip(np.rint(known / scale), 1, _DEPTH_STEPS), 0).astype(np.uint16)
    return _png(stored), scale, stored.astype(np.float32) * np.float32(scale)


def _encode_labels(labels: np.ndarray, size: tuple[int, int], name: str) -> bytes:
    if labels.dtype != np.uint8 or labels.ndim != 2:
        raise BadPhotograph(name, f"labels must be uint8 (H, W), not {labels.dtype} {labels.shape}")
    return _png(nearest(labels, size))


def _png(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG", compress_level=_PNG_LEVEL)
    return file.getvalue()
