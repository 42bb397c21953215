"""Videos: each is decoded once from its beginning to its end, split at its cuts, and thinned to useful frames.

A shot becomes a scene of frames in time order, turned upright, 8-bit sRGB, with their times. Frames are taken by time
or by how far the picture has moved since the last one taken; one that is blurred beside its neighbours gives its place
to the next. Nothing is sought: times are the decoder's own, so variable frame rates and frames out of order do no
harm. Memory is bounded: a handful of decoded frames, one shot's pictures as JPEG, and no more frames of a video than
`most`. Needs PyAV. Dissolves are no cuts, and mirrored display matrices are not undone.
"""

import os
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import simplejpeg
from PIL import Image

from shards.encode import fit_short_side
from shards.format import Frame, Scene, ShardsError
from shards.sources.folders import distinct_names, natural_key
from shards.sources.video_colour import to_rgb, turn
from shards.sources.video_measures import colour_distance, colour_histogram, grey, motion, sharpness

SUFFIXES = frozenset(
    {".mp4", ".mov", ".mkv", ".m4v", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".3gp"}
)
"""File names that end so are taken for videos (in lower case)."""

_FINE, _COARSE = 256, 4
"""Sharpness is measured on frames of this short side, colour and motion on those reduced by this factor: to 64."""
_HELD_QUALITY = 95
_MOST_PARALLAX = 12 / 64
"""What `motion` can tell on frames of short side 64."""
_TRUNCATED = 0.9
"""A video that ends before this share of the time it announces is truncated."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of `build video`."""

    spacing: Literal["time", "parallax"] = "time"
    """Take frames by time, or by how far the picture has moved."""
    every: float = 0.5
    """Seconds from a frame to the next; spaced by parallax, none comes before a quarter of it has passed."""
    parallax: float = 0.06
    """Displacement of the picture from a frame to the next, as a share of its short side (spacing by parallax)."""
    cut: float = 0.35
    """A shot ends where this share of the pixels changes its colour from one frame to the next, and most of the
    picture is not found again; 0: a scene a video."""
    blur: float = 0.5
    """Leave out frames whose sharpness is below this share of their neighbours' median; 0 leaves none out."""
    window: int = 9
    """Frames in a row, the middle one among them, that are neighbours in sharpness."""
    keyframes: bool = False
    """Decode key frames alone: many times faster, a frame every few seconds."""
    most_a_scene: int = 480
    """Frames of a scene beyond which every other one is given up, again and again."""
    most: int = 6000
    """Frames of a video; frames of longer ones lie further apart."""
    held_side: int = 768
    """Frames are held as JPEG of at most this short side until they are stored, px."""
    licence: str = "unknown"
    """Licence tag of the videos, kept with every chunk."""

    def __post_init__(self) -> None:
        if not 0 < self.every <= 3600:
            raise ShardsError(f"--every must lie in 0..3600 seconds, above 0, not {self.every}")
        if not 0 < self.parallax <= _MOST_PARALLAX:
            raise ShardsError(f"--parallax must lie in 0..{_MOST_PARALLAX}, above 0, not {self.parallax}")
        for name in ("cut", "blur"):
            if not 0 <= getattr(self, name) <= 1:
                raise ShardsError(f"--{name} must lie in 0..1, not {getattr(self, name)}")
        for name, least in (("window", 1), ("most_a_scene", 2), ("most", 2), ("held_side", 16)):
            if getattr(self, name) < least:
                option = name.replace("_", "-")
                raise ShardsError(f"--{option} must be at least {least}, not {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class VideoTask:
    """One video to be read."""

    name: str
    video: Path
    options: Options


def find(paths: Sequence[Path], options: Options) -> Iterator[VideoTask]:
    """A task for every video at or below `paths`, none of them opened."""
    if not paths:
        raise ShardsError("name at least one video, or a folder of videos")
    found: dict[Path, None] = {}
    for path in paths:
        if not path.exists():
            raise ShardsError(f"{path} does not exist")
        videos = _videos_below(path) if path.is_dir() else [path]
        if not videos:
            raise ShardsError(f"{path} and its subfolders hold no videos ({', '.join(sorted(SUFFIXES))})")
        found.update(dict.fromkeys(videos))
    names = distinct_names([video.with_suffix("") for video in found])
    if len(set(names)) < len(names):  # such as a.mp4 beside a.mov
        names = distinct_names(list(found))
    for video, name in zip(found, names, strict=True):
        yield VideoTask(name=name, video=video, options=options)


def read(task: VideoTask) -> Iterator[Scene]:
    """The shots of a video, each once it has ended. ShardsError for a file that is no whole video."""
    options = task.options
    shot = _Shot(options)
    with _open(task.video) as container:
        announced = _duration(container)
        gap = options.every if options.spacing == "time" else options.every / 4
        gap = max(gap, (announced or 0) / options.most)
        taken = number = 0
        for look in _with_neighbours(_looks(container, task.video, options), options):
            if look.shot != number:
                yield shot.scene(task, number)
                shot, number = _Shot(options), look.shot
            # Where a file announces no duration, its gap doubles each time it has given its share.
            if shot.consider(look, gap * 2 ** (taken // options.most)):
                taken += 1
        yield shot.scene(task, number)


@dataclass(kw_only=True)
class _Look:
    """A decoded frame and what was measured on it."""

    frame: Any
    number: int
    """In the order of decoding."""
    time: float
    """Seconds from the video's first frame."""
    shot: int
    grey: np.ndarray
    """(h, w) float32, short side 64."""
    sharpness: float
    is_blurred: bool = False

    @property
    def name(self) -> str:
        return f"frame_{self.number:06d}"


@dataclass
class _Shot:
    """The frames taken of one shot so far."""

    options: Options
    frames: list[Frame] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    last: _Look | None = None
    """The last frame that was due and sharp, whether it was held or not."""
    due: int = 0
    stride: int = 1

    def consider(self, look: _Look, gap: float) -> bool:
        """Take a frame if it is due; whether it was."""
        if not self._is_due(look, gap):
            return False
        if look.frame.is_corrupt or look.is_blurred:
            self.left_out.append((look.name, "is damaged" if look.frame.is_corrupt else "is blurred"))
            return False
        if self.due % self.stride == 0:
            self.frames.append(
                Frame(name=look.name, image=_held(look.frame, self.options), timestamp=look.time)
            )
        self.due += 1
        self.last = look
        if len(self.frames) > self.options.most_a_scene:
            self.frames = self.frames[::2]
            self.stride *= 2
        return True

    def _is_due(self, look: _Look, gap: float) -> bool:
        if self.last is None:
            return True
        if look.time < self.last.time + gap - 1e-6:
            return False
        return self.options.spacing == "time" or motion(self.last.grey, look.grey) >= self.options.parallax

    def scene(self, task: VideoTask, number: int) -> Scene:
        return Scene(
            name=f"{task.name}/{number:04d}" if self.options.cut else task.name,
            frames=self.frames,
            licence=self.options.licence,
            left_out=self.left_out,
            ordered=True,
        )


def _looks(container: Any, path: Path, options: Options) -> Iterator[_Look]:
    """Every frame in the order of its time, with its shot. ShardsError where the video breaks off."""
    stream = container.streams.video[0]
    if options.keyframes:
        stream.codec_context.skip_frame = "NONKEY"
    start = last = None
    shot = 0
    before: tuple[np.ndarray, np.ndarray] | None = None
    for number, frame in enumerate(_decode(container, stream, path)):
        time = frame.time if frame.time is not None else number / float(stream.guessed_rate or 25)
        start = time if start is None else start
        if last is not None and time <= last:
            continue  # a frame shown at no time of its own
        last = time
        small = to_rgb(frame, _fine_size(frame))
        coarse = np.asarray(Image.fromarray(small).reduce(_COARSE))
        now = colour_histogram(coarse), grey(coarse)
        if before is not None and options.cut and _is_cut(before, now, options.cut):
            shot += 1
        before = now
        yield _Look(
            frame=frame,
            number=number,
            time=time - start,
            shot=shot,
            grey=now[1],
            sharpness=sharpness(grey(small)),
        )
    announced = _duration(container)
    if last is None or start is None:
        raise ShardsError(f"{path} holds no frame that can be decoded; leave it out")
    if announced and not options.keyframes and last - start < _TRUNCATED * announced - 1:
        raise ShardsError(
            f"{path} is truncated: it ends after {last - start:.1f} of {announced:.1f} s; copy it again or leave it out"
        )


def _is_cut(before: tuple[np.ndarray, np.ndarray], now: tuple[np.ndarray, np.ndarray], least: float) -> bool:
    """Whether colours and structure both break: a flash changes the ones, a fast pan the others."""
    return colour_distance(before[0], now[0]) > least and not np.isfinite(motion(before[1], now[1]))


def _with_neighbours(looks: Iterator[_Look], options: Options) -> Iterator[_Look]:
    """The same frames, marked as blurred beside their neighbours of the same shot, half a window later."""
    half = options.window // 2
    near: deque[tuple[int, float]] = deque(maxlen=2 * half + 1)
    waiting: deque[_Look] = deque()

    def judged() -> _Look:
        look = waiting.popleft()
        own = float(np.median([value for shot, value in near if shot == look.shot] or [0.0]))
        look.is_blurred = look.sharpness < options.blur * own
        return look

    for look in looks:
        near.append((look.shot, look.sharpness))
        waiting.append(look)
        if len(waiting) > half:
            yield judged()
    while waiting:
        yield judged()


def _open(path: Path) -> Any:
    try:
        import av
    except ImportError:
        raise ShardsError("videos need PyAV: pip install 'mumkit[datasets]'") from None
    try:
        container = av.open(str(path))
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise ShardsError(
            f"{path} is no video that can be read ({_words(error)}); copy it again or leave it out"
        ) from None
    pictures = [s for s in container.streams.video if "attached_pic" not in str(s.disposition).lower()]
    if not pictures:
        kinds = _kinds(container)
        container.close()
        raise ShardsError(f"{path} holds no video stream, only {kinds}; leave it out")
    return container


def _decode(container: Any, stream: Any, path: Path) -> Iterator[Any]:
    import av

    try:
        yield from container.decode(stream)
    except (av.error.FFmpegError, OSError) as error:
        raise ShardsError(f"{path} is damaged ({_words(error)}); copy it again or leave it out") from None


def _duration(container: Any) -> float | None:
    """Seconds that the file announces."""
    stream = container.streams.video[0]
    if stream.duration:
        return float(stream.duration * stream.time_base)
    return container.duration / 1e6 if container.duration else None


def _held(frame: Any, options: Options) -> bytes:
    """A frame as upright JPEG, square pixels, reduced if it must be."""
    upright = turn(to_rgb(frame, fit_short_side(_square(frame), options.held_side)), frame.rotation)
    return simplejpeg.encode_jpeg(upright, quality=_HELD_QUALITY, colorspace="RGB", colorsubsampling="444")


def _square(frame: Any) -> tuple[int, int]:
    """(H, W) with square pixels, nothing enlarged."""
    aspect = float(getattr(frame, "sample_aspect_ratio", None) or 1)
    return round(frame.height / max(aspect, 1)), round(frame.width * min(aspect, 1))


def _fine_size(frame: Any) -> tuple[int, int]:
    """(H, W) whose short side is 256, both multiples of 4."""
    short = min(frame.height, frame.width)
    return tuple(_COARSE * round(side * _FINE / short / _COARSE) for side in (frame.height, frame.width))  # type: ignore[return-value]


def _videos_below(folder: Path) -> list[Path]:
    found = []
    for root, folders, names in os.walk(folder):
        folders[:] = sorted((name for name in folders if not name.startswith(".")), key=natural_key)
        files = [name for name in names if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES]
        found += [Path(root, name) for name in sorted(files, key=natural_key)]
    return found


def _kinds(container: Any) -> str:
    return " and ".join(sorted({str(stream.type) for stream in container.streams})) or "nothing"


def _words(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).strip()
