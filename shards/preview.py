"""A contact sheet of the sequences that training would draw: every view whole, its crop outlined, with overlaps.

The sequences come from the very plan that training follows, with one scene a step. Under each view stands its
largest overlap with a view drawn before it: what the drawing looks at.
"""

import os
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from shards.augment import crop_box
from shards.format import UNKNOWN, ShardsError
from shards.plan import DataConfig, LaneStep, Plan
from shards.reader import Chunk, Dataset

_TITLE, _CAPTION, _GAP = 22, 16, 6
_INK, _PALE, _PAPER, _OUTLINE = (20, 20, 20), (110, 110, 110), (255, 255, 255), (255, 170, 0)


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
    for name, value, most in (("sequences", sequences, 200), ("views", views, 96), ("size", size, 1024)):
        if not 1 <= value <= most:
            raise ShardsError(f"--{name} must lie in 1..{most}, not {value}")
    if not out.parent.is_dir():
        raise ShardsError(f"the folder {out.parent} does not exist")
    chunks = dataset.select(split)  # type: ignore[arg-type]
    if not len(chunks):
        raise ShardsError(f"{dataset.root} has no scene in its {split} split")
    views = min(views, int(dataset.frames_per_chunk[chunks].max()))
    config = DataConfig(images_per_lane=views, views=(views, views), lanes=1, seed=seed)
    plan = Plan(dataset, config, split=split)

    cell = (_aspect(dataset, chunks, size), size)
    row_height = _TITLE + cell[1] + _CAPTION + _GAP
    sheet = Image.new("RGB", (views * (cell[0] + _GAP) + _GAP, sequences * row_height + _GAP), _PAPER)
    overlaps = []
    for number in range(sequences):
        drawn = plan.lane_step(number, 0)
        _draw_row(sheet, dataset, drawn, _GAP + number * row_height, cell)
        overlaps.append(drawn.overlap)
    temporary = out.with_name(f".{out.name}.part")
    try:
        sheet.save(temporary, "PNG")
        os.replace(temporary, out)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise ShardsError(f"{out} cannot be written: {error.strerror or error}") from error
    known = [overlap for overlap in overlaps if np.isfinite(overlap)]
    mean = f"mean overlap of views drawn together {np.mean(known):.3f}" if known else "overlap unknown"
    return f"{sequences} sequences of {views} views, {mean}"


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
    if place == 0:
        return name
    before = chunk.covisibility[int(frames[place]), frames[:place]]
    known = before[before != UNKNOWN]
    return f"{name}  {known.max() / 254:.2f}" if len(known) else name


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
