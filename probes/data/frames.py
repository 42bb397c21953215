"""What is scored, before any encoder: frames with all that is known about them, and lists of pairs and sequences.

Every benchmark reader turns its files into these, so a probe never sees a file format. Conventions are the toolkit's:
OpenCV axes, world-to-camera, pixel centres at +0.5, intrinsics in pixels of the image that `Frame.image` gives;
depth along the camera's axis, 0 where unknown. Nothing here reads a file by itself.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

IGNORED = 255
"""Class id of pixels without a label."""


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One image and what is known about it; pixels are read when asked for."""

    name: str
    """Unique within its benchmark and stable: the same on every machine."""
    scene: str
    """What is resampled as a whole by the statistics."""
    height: int
    width: int
    image: Callable[[], NDArray[np.uint8]] = field(repr=False)
    """(H, W, 3) RGB, in the pixels that everything below speaks of."""
    digest: Callable[[], str] = field(repr=False)
    """SHA-256 (hex) of the image's encoded bytes."""
    group: str = ""
    """Pairs are formed within a group only (a chunk of a shard folder); empty: within the scene."""
    intrinsics: NDArray | None = field(default=None, repr=False)
    """(3, 3) float64 px."""
    world_to_camera: NDArray | None = field(default=None, repr=False)
    """(3, 4) float64."""
    depth: Callable[[], NDArray[np.float32]] | None = field(default=None, repr=False)
    """(H, W), in the benchmark's unit, 0 = unknown."""
    normals: Callable[[], NDArray[np.float32]] | None = field(default=None, repr=False)
    """(H, W, 3) unit vectors in the camera's frame, towards the camera, (0, 0, 0) = unknown."""
    labels: Callable[[], NDArray[np.uint8]] | None = field(default=None, repr=False)
    """(H, W) class ids, `IGNORED` where there is none."""
    mask: Callable[[], NDArray[np.bool_]] | None = field(default=None, repr=False)
    """(H, W) of the pixels that count; None: all."""
    tracks: tuple[NDArray, NDArray] | None = field(default=None, repr=False)
    """Ids (n,) int64, ascending, of the 3-D points it observes, and where, (n, 2) px."""
    stamp: str = ""
    """Whatever else its truth depends on, such as names and sizes of its depth and label files."""

    @property
    def posed(self) -> bool:
        """Whether its camera is known."""
        return self.intrinsics is not None and self.world_to_camera is not None


@dataclass(frozen=True, kw_only=True)
class FramePair:
    """A pair that the benchmark's own list names."""

    name: str
    scene: str
    a: int
    """Index into the frames of its `FrameList`."""
    b: int
    overlap: float | None = None
    """As the list states it, 0 to 1."""
    relative_pose: NDArray | None = field(default=None, repr=False)
    """(3, 4): x_b = R x_a + t, where the list has its own; None: from the frames' poses."""
    homography: NDArray | None = field(default=None, repr=False)
    """(3, 3): pixels of a to pixels of b, for flat scenes."""


@dataclass(frozen=True, kw_only=True)
class FrameSequence:
    """Frames of one scene that are read together, as the benchmark's own list names them."""

    name: str
    scene: str
    frames: tuple[int, ...]
    group: str = ""
    """What scores are first averaged over (a CO3D category); empty: the scene."""


@dataclass(frozen=True, kw_only=True)
class FrameList:
    """One split of a benchmark."""

    frames: tuple[Frame, ...] = field(repr=False)
    pairs: tuple[FramePair, ...] | None = field(default=None, repr=False)
    """The benchmark's frozen list; None: probes choose by a hash of names."""
    sequences: tuple[FrameSequence, ...] | None = field(default=None, repr=False)
    """The same of sequences."""

    @cached_property
    def hash(self) -> str:
        """SHA-256 over everything that scores can depend on: names, image bytes, cameras, truth, lists."""
        digest = hashlib.sha256()

        def add(*parts: object) -> None:
            for part in parts:
                if isinstance(part, np.ndarray):
                    digest.update(np.ascontiguousarray(part, "<f8").tobytes())
                else:
                    digest.update(json.dumps(part).encode())
                digest.update(b"\n")

        for frame in self.frames:
            add(frame.name, frame.scene, frame.group, frame.height, frame.width, frame.digest(), frame.stamp)
            add(frame.intrinsics, frame.world_to_camera)
            for known in (frame.depth, frame.normals, frame.labels, frame.mask):
                add(known is not None)
            add(*(frame.tracks or (None,)))
        for pair in self.pairs or ():
            add(pair.name, pair.scene, pair.a, pair.b, pair.overlap, pair.relative_pose, pair.homography)
        for sequence in self.sequences or ():
            add(sequence.name, sequence.scene, sequence.group, list(sequence.frames))
        return digest.hexdigest()


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """A data set, opened: what is scored on it and what heads may be trained on."""

    name: str
    """Of its reader, such as ``megadepth1500``."""
    spec: str
    """As the user named it."""
    test: FrameList | None
    """None where it only has training data."""
    train: FrameList | None = None
    """None where it has none: name other data with --train-data."""
    split: str = "test"
    """What the benchmark calls its scored part."""
    truth: Literal["depth", "tracks", "homography", "poses", "labels"] = "depth"
    """What the scored part knows best."""
    fit: Literal["crop", "squash"] = "squash"
    """How images become square: the central square, or the whole image squashed."""
    unit: Literal["m", "mm", ""] = ""
    """Of depths and translations; empty: no known scale."""
    auc: Literal["exact", "trapezoid", "histogram"] = "trapezoid"
    """The integration that its published pose figures use."""
    depth_range: tuple[float, float] | None = None
    """Depths that count, in its unit."""
    classes: tuple[str, ...] = ()
    """Names of the label ids."""
    missing: tuple[str, ...] = ()
    """Files that the lists name and the disk lacks, relative to the root: what they belong to is left out."""
    notes: tuple[str, ...] = ()
    """What a reader of the scores must know."""


def join_lists(parts: Sequence[tuple[str, FrameList]]) -> FrameList:
    """One list of several data sets' frames, each with its name in front so that scenes stay apart.

    Frozen lists are kept where every part has one; else items are chosen by a hash of names.
    """
    frames: list[Frame] = []
    pairs: list[FramePair] = []
    sequences: list[FrameSequence] = []
    for name, part in parts:
        first = len(frames)
        frames += [replace(f, name=f"{name}:{f.name}", scene=f"{name}:{f.scene}") for f in part.frames]
        pairs += [
            replace(p, name=f"{name}:{p.name}", scene=f"{name}:{p.scene}", a=p.a + first, b=p.b + first)
            for p in part.pairs or ()
        ]
        sequences += [
            replace(
                s,
                name=f"{name}:{s.name}",
                scene=f"{name}:{s.scene}",
                frames=tuple(index + first for index in s.frames),
            )
            for s in part.sequences or ()
        ]
    return FrameList(
        frames=tuple(frames),
        pairs=tuple(pairs) if all(part.pairs is not None for _, part in parts) else None,
        sequences=tuple(sequences) if all(part.sequences is not None for _, part in parts) else None,
    )
