"""One scene -> its encoded chunks: the heavy half of a build, a pure function that any process may run.

Frames are encoded, bad ones refused, overlap is measured, and the scene is cut into chunks of co-visible
frames. Equal input gives equal bytes. This file knows nothing of the other scenes and of where the chunks
go.
"""

import io
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from shards import covisibility
from shards import format as fmt
from shards.cutting import cut
from shards.encode import EncodedFrame, encode_frame
from shards.format import BadPhotograph, Frame, Scene, ShardsError
from shards.writer import EncodedChunk


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """How scenes become chunks: the options of a build that change its bytes."""

    short_side: int = 384
    """Reduce pictures to this short side in pixels; smaller ones stay as they are."""
    jpeg_quality: int = 90
    """Quality of the stored JPEGs, 1 to 95."""
    min_views: int = 2
    """Drop scenes with fewer frames, by name."""
    allow_single_views: bool = False
    """Keep scenes with a single frame, for single-view pretraining."""
    skip_bad: bool = False
    """Leave unreadable pictures out and count them, instead of stopping at the first."""

    def __post_init__(self) -> None:
        if not 16 <= self.short_side <= 8192:
            raise ShardsError(f"--short-side must lie in 16..8192 pixels, not {self.short_side}")
        if not 1 <= self.jpeg_quality <= 95:
            raise ShardsError(f"--jpeg-quality must lie in 1..95, not {self.jpeg_quality}")
        if self.min_views < 1:
            raise ShardsError(f"--min-views must be at least 1, not {self.min_views}")

    @property
    def fewest(self) -> int:
        """Frames a scene needs to be kept."""
        return 1 if self.allow_single_views else self.min_views


@dataclass(frozen=True, kw_only=True)
class ConvertedScene:
    """A scene's chunks (none if it was dropped, for `reason`) and its part of the build's report."""

    name: str
    split: str
    licence: str
    frames_in: int
    chunks: list[EncodedChunk] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)
    """(picture, reason)."""
    reason: str = ""
    denied: bool = False
    """It was dropped because it is for evaluation."""
    overlap_from: str = ""
    bytes_in: int = 0
    """Size of the pictures' files; pixels that a source has rendered or decoded have none."""


def convert_scene(scene: Scene, *, source: str, split: str, conversion: Conversion) -> ConvertedScene:
    """Encode a scene. `split` holds unless the scene brings its own. BadPhotograph unless `skip_bad`."""
    split = scene.split or split
    encoded: list[EncodedFrame] = []
    kept: list[int] = []
    refused: list[tuple[str, str]] = list(scene.left_out)
    for number, frame in enumerate(() if scene.dropped else scene.frames):
        try:
            encoded.append(
                encode_frame(frame, short_side=conversion.short_side, quality=conversion.jpeg_quality)
            )
            kept.append(number)
        except BadPhotograph as error:
            if not conversion.skip_bad:
                raise
            refused.append((error.name, error.reason))
    result = {
        "name": scene.name,
        "split": split,
        "licence": scene.licence,
        "frames_in": len(scene.frames) + len(scene.left_out),
        "refused": refused,
        "bytes_in": sum(_file_bytes(frame) for frame in scene.frames),
    }
    if scene.dropped:
        return ConvertedScene(**result, reason=scene.dropped)
    if len(encoded) < conversion.fewest:
        frames = f"{len(encoded)} frame{'s' * (len(encoded) != 1)}"
        return ConvertedScene(**result, reason=f"{frames}, at least {conversion.fewest} are needed")
    overlap, overlap_from = measure_overlap(scene, encoded, kept)
    overlap = None if overlap is None else covisibility.symmetric(overlap)
    cuts = cut(overlap, len(encoded))
    chunks = [
        _chunk(
            scene,
            [encoded[i] for i in part],
            None if overlap is None else overlap[np.ix_(part, part)],
            key=fmt.chunk_key(source, scene.name, number),
            source=source,
            split=split,
            overlap_from=overlap_from,
        )
        for number, part in enumerate(cuts)
    ]
    return ConvertedScene(**result, chunks=chunks, overlap_from=overlap_from)


def _file_bytes(frame: Frame) -> int:
    if isinstance(frame.image, Path):
        return frame.image.stat().st_size if frame.image.is_file() else 0
    return len(frame.image) if isinstance(frame.image, bytes) else 0


def measure_overlap(
    scene: Scene, frames: list[EncodedFrame], kept: list[int]
) -> tuple[np.ndarray | None, str]:
    """(N, N) directed overlap of the frames that were kept, and what it comes from (`overlap_from` of the meta).

    The source's own where it brings one; from tracks where all frames have points; from depth where all have
    it, and cameras; from cameras alone; from time where the scene is in its order.
    """
    if scene.overlap is not None:
        return scene.overlap[np.ix_(kept, kept)], "source"
    points = [f.points for f in frames if f.points is not None]
    if len(points) == len(frames):
        return covisibility.overlap_from_tracks(points), "tracks"
    intrinsics = [f.intrinsics for f in frames if f.intrinsics is not None]
    poses = [f.world_to_camera for f in frames if f.world_to_camera is not None]
    if len(intrinsics) == len(poses) == len(frames):
        cameras = np.stack(intrinsics), np.stack(poses)
        depths = [f.depth for f in frames if f.depth is not None]
        if len(depths) == len(frames):
            return covisibility.overlap_from_depth(depths, *cameras), "depth"
        return covisibility.overlap_from_poses(*cameras, np.array([f.size for f in frames])), "poses"
    if scene.ordered:
        stamps = [f.timestamp for f in frames if f.timestamp is not None]
        times = stamps if len(stamps) == len(frames) else kept
        return covisibility.overlap_from_time(np.array(times, float)), "time"
    return None, "unknown"


def _chunk(
    scene: Scene,
    frames: list[EncodedFrame],
    overlap: np.ndarray | None,
    *,
    key: str,
    source: str,
    split: str,
    overlap_from: str,
) -> EncodedChunk:
    def rows(field: str) -> list | None:
        values = [getattr(f, field) for f in frames]
        listed = [v.tolist() if isinstance(v, np.ndarray) else v for v in values]
        return None if all(v is None for v in values) else listed

    meta = {
        "schema": fmt.VERSION,
        "key": key,
        "source": source,
        "scene": scene.name,
        "split": split,
        "licence": scene.licence,
        "classes": list(scene.classes),
        "frames": [f.name for f in frames],
        "sizes": rows("size"),
        "original_sizes": rows("original_size"),
        "transforms": rows("transform"),
        "encodings": rows("encoding"),
        "intrinsics": rows("intrinsics"),
        "world_to_camera": rows("world_to_camera"),
        "distortions": rows("distortion"),
        "depth_scales": rows("depth_scale"),
        "timestamps": rows("timestamp"),
        "overlap_from": overlap_from,
    }
    stored = covisibility.to_bytes(overlap, len(frames))
    file = io.BytesIO()
    np.save(file, stored, allow_pickle=False)
    depths, labels = [f.depth_png for f in frames], [f.label_png for f in frames]
    kinds = (
        fmt.HAS_DEPTH * any(depths)
        | fmt.HAS_LABELS * any(labels)
        | fmt.HAS_INTRINSICS * all(f.intrinsics is not None for f in frames)
        | fmt.HAS_POSES * all(f.world_to_camera is not None for f in frames)
    )
    return EncodedChunk(
        key=key,
        scene=fmt.scene_hash(source, scene.name),
        split=split,
        kinds=kinds,
        overlap=covisibility.mean_overlap(stored),
        meta=fmt.dump_meta(meta),
        covisibility=file.getvalue(),
        jpegs=[f.jpeg for f in frames],
        depths=depths if any(depths) else [],
        labels=labels if any(labels) else [],
    )
