"""Videos as cameras write them, from rendered worlds: a window that moves over a picture of each, one after another.

The truth of a frame is the window itself, so order, shots and pixels can be checked one by one.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from tests.trees.figures import Figures, measure
from tests.trees.world import World, render_world

CLOCK = Fraction(1, 1000)
UNEVEN = [0, 30, 100, 140, 150, 300, 340, 380, 390, 400, 600, 640, *range(700, 1060, 30)]
"""Times of 24 frames at a variable rate, milliseconds."""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A frame that was written, upright."""

    image: np.ndarray
    """(H, W, 3) uint8, as it was before a blur."""
    time: float
    """Seconds."""
    shot: int
    is_blurred: bool


def write(
    path: Path,
    worlds: Sequence[World],
    *,
    frames: int = 12,
    size: tuple[int, int] = (96, 128),
    step: int = 2,
    times: Sequence[int] | None = None,
    rotation: int = 0,
    blurred: Collection[int] = (),
    codec: str = "libx264",
    pixels: str = "yuv420p",
    options: dict[str, str] | None = None,
) -> list[Shown]:
    """Write a shot of `frames` frames for each world and return them, upright.

    The window of (H, W) = `size` moves `step` pixels to the right from a frame to the next. `times` are milliseconds
    (default: 40 apart), `rotation` is what the display matrix turns counter-clockwise, frames in `blurred` are.
    """
    import av

    times = range(0, 40 * frames * len(worlds), 40) if times is None else times
    shown = []
    for number, time in enumerate(times):
        shot, place = divmod(number, frames)
        picture = worlds[shot].views[0].image
        image = picture[: size[0], place * step : place * step + size[1]]
        assert image.shape[:2] == size, "the world's picture is too small for the window's way"
        shown.append(Shown(image=image, time=time / 1000, shot=shot, is_blurred=number in blurred))
    quality = {"crf": "4", "preset": "veryfast", "g": "10"} if codec.startswith("libx26") else {"q:v": "1"}
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=quality | (options or {}))
        turned = np.rot90(shown[0].image, -rotation // 90)
        stream.height, stream.width, stream.pix_fmt = *turned.shape[:2], pixels
        stream.time_base = stream.codec_context.time_base = CLOCK
        if rotation:
            stream.set_display_rotation(rotation)
        for frame in shown:
            image = Image.fromarray(np.ascontiguousarray(np.rot90(frame.image, -rotation // 90)))
            image = image.filter(ImageFilter.GaussianBlur(3)) if frame.is_blurred else image
            encoded = av.VideoFrame.from_ndarray(np.asarray(image), format="rgb24").reformat(format=pixels)
            encoded.pts, encoded.time_base = round(frame.time * 1000), CLOCK
            container.mux(stream.encode(encoded))
        container.mux(stream.encode(None))
    return shown


def figures(root: Path) -> Figures:
    """The source's row, from a video with a cut, a display matrix, uneven times and a blurred frame."""
    from shards.sources.video import Options

    root.mkdir(parents=True, exist_ok=True)
    worlds = [render_world(2, size=(96, 160), seed=seed, points=40) for seed in (3, 8)]
    shown = write(root / "walk.mp4", worlds, times=UNEVEN, blurred=[5], rotation=90)
    view = worlds[0].views[0]
    views = {f"frame_{n:06d}": replace(view, image=s.image) for n, s in enumerate(shown) if not s.is_blurred}
    return measure(
        "video", [root / "walk.mp4"], root / "out", views, by="pixels", options=Options(every=0.01)
    )


def write_audio(path: Path) -> None:
    """Write a tenth of a second of silence."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        for number in range(4):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16000, 1024 * number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
