"""A contact sheet of the sequences that training would draw: every view whole, its crop outlined, with overlaps.

The sequences come from the very plan that training follows, with one scene a step. Under each view stands its
largest overlap with a view drawn before it: what the drawing looks at.
"""

import io
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from shards.augment import crop_box
from shards.format import UNKNOWN, ShardsError
from shards.plan import DataConfig, LaneStep, Plan
from shards.reader import Chunk, Dataset

_TITLE, _CAPTION, _GAP = 22, 16, 6
_INK, _PALE, _PAPER, _OUTLINE = (20, 20, 20), (110, 110, 110), (255, 255, 255), (255, 170, 0)


def draw_sequences(
    dataset: Dataset, *, split: str = "train", sequences: int = 8, views: int = 6, seed: int = 0
) -> list[LaneStep]:
    """The first `sequences` draws of `views` views each, as training with one scene a step would see them.

    `views` is reduced to the frames of the largest scene. ShardsError for figures that make no sequence.
    """
    for name, value, most in (("sequences", sequences, 200), ("views", views, 96)):
        if not 1 <= value <= most:
            raise ShardsError(f"--{name} must lie in 1..{most}, not {value}")
    chunks = dataset.select(split)  # type: ignore[arg-type]
    if not len(chunks):
        raise ShardsError(f"{dataset.root} has no scene in its {split} split")
    views = min(views, int(dataset.frames_per_chunk[chunks].max()))
    config = DataConfig(images_per_lane=views, views=(views, views), lanes=1, seed=seed)
    plan = Plan(dataset, config, split=split)
    return [plan.lane_step(number, 0) for number in range(sequences)]


def in_words(drawn: Sequence[LaneStep]) -> str:
    """What was drawn, in a sentence without its end."""
    known = [step.overlap for step in drawn if np.isfinite(step.overlap)]
    mean = f"mean overlap of views drawn together {np.mean(known):.3f}" if known else "overlap unknown"
    sequences, views = len(drawn), len(drawn[0].frames)
    return f"{sequences} sequence{'s' * (sequences != 1)} of {views} view{'s' * (views != 1)}, {mean}"


def largest_overlap(chunk: Chunk, frames: np.ndarray, place: int) -> float:
    """The largest overlap, 0 to 1, of a view with those drawn before it; nan for the first and where unknown."""
    before = chunk.covisibility[int(frames[place]), frames[:place]]
    known = before[before != UNKNOWN]
    return float(known.max()) / 254 if len(known) else float("nan")


def check_out(out: Path, size: int) -> None:
    """ShardsError unless a file may be written at `out` with views `size` pixels high."""
    if not 1 <= size <= 1024:
        raise ShardsError(f"--size must lie in 1..1024, not {size}")
    if not out.parent.is_dir():
        raise ShardsError(f"the folder {out.parent} does not exist")


def write_whole(out: Path, data: bytes) -> None:
    """Write a file or nothing. ShardsError where it cannot be written."""
    temporary = out.with_name(f".{out.name}.part")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, out)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise ShardsError(f"{out} cannot be written: {error.strerror or error}") from error


def write_contact_sheet(
    dataset: Dataset,
    out: Path,
    *,
    split: str = "train",
    sequences: int = 8,
    views: int = 6,
    size: int = 128,
    seed: int = 0,
) -> str:
    """Write the first `sequences` draws of `views` views each as a PNG; returns a sentence on what it shows.

    `size` is the height of a view in pixels. Scenes with fewer frames show what they have: `views` is
    reduced to the frames of the largest. ShardsError for figures that make no sheet.
    """
    check_out(out, size)
    drawn = draw_sequences(dataset, split=split, sequences=sequences, views=views, seed=seed)
    views = len(drawn[0].frames)
    cell = (_aspect(dataset, dataset.select(split), size), size)  # type: ignore[arg-type]
    row_height = _TITLE + cell[1] + _CAPTION + _GAP
    sheet = Image.new("RGB", (views * (cell[0] + _GAP) + _GAP, sequences * row_height + _GAP), _PAPER)
    for number, step in enumerate(drawn):
        _draw_row(sheet, dataset, step, _GAP + number * row_height, cell)
    file = io.BytesIO()
    sheet.save(file, "PNG")
    write_whole(out, file.getvalue())
    return in_words(drawn)


def _aspect(dataset: Dataset, chunks: np.ndarray, height: int) -> int:
    """Width of a cell: the median aspect of some pictures, so that most fill it."""
    some = chunks[:: max(1, len(chunks) // 16)]
    sizes = np.concatenate([dataset.meta(int(chunk))["sizes"] for chunk in some])
    return round(height * float(np.clip(np.median(sizes[:, 1] / sizes[:, 0]), 0.5, 2)))


def _draw_row(sheet: Image.Image, dataset: Dataset, drawn: LaneStep, top: int, cell: tuple[int, int]) -> None:
    pen = ImageDraw.Draw(sheet)
    chunk_number = int(drawn.chunks[0])
    chunk = dataset.chunk(chunk_number)
    overlap = f"mean overlap {drawn.overlap:.2f}" if np.isfinite(drawn.overlap) else "overlap unknown"
    title = f"{chunk.scene}  ({chunk.source}, {chunk.num_frames} frames in the chunk)   {overlap}"
    pen.text((_GAP, top), title, _INK, font=_font(14))
    for place, frame in enumerate(drawn.frames.tolist()):
        left, under = _GAP + place * (cell[0] + _GAP), top + _TITLE
        picture = dataset.read_image(chunk_number, frame)
        height, width = picture.shape[:2]
        scale = min(cell[0] / width, cell[1] / height)
        fitted = (max(1, round(width * scale)), max(1, round(height * scale)))
        shown = Image.fromarray(picture).resize(fitted, Image.Resampling.BICUBIC)
        corner = (left + (cell[0] - fitted[0]) // 2, under + (cell[1] - fitted[1]) // 2)
        sheet.paste(shown, corner)
        box = np.array(crop_box(drawn.crops[place], height, width)) * scale
        start = (corner[0] + box[1], corner[1] + box[0])
        pen.rectangle((*start, start[0] + box[3] - 1, start[1] + box[2] - 1), outline=_OUTLINE, width=2)
        pen.text((left, under + cell[1] + 1), _caption(chunk, drawn.frames, place), _PALE, font=_font(11))


def _caption(chunk: Chunk, frames: np.ndarray, place: int) -> str:
    name = chunk.frame_names[int(frames[place])]
    name = name if len(name) <= 14 else f"...{name[-13:]}"
    overlap = largest_overlap(chunk, frames, place)
    return f"{name}  {overlap:.2f}" if np.isfinite(overlap) else name


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
