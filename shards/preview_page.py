"""The sequences that training would draw, as one web page that asks for nothing outside itself.

For each sequence: its views whole with their crops outlined, the overlap of all frames of its chunk with the drawn ones
marked, and the chunk's cameras from above. The page follows the reader's light or dark setting.
"""

import base64
import io
import itertools
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from shards.augment import crop_box
from shards.format import UNKNOWN
from shards.plan import LaneStep
from shards.preview import check_out, draw_sequences, in_words, largest_overlap, write_whole
from shards.preview_cameras import top_view
from shards.reader import Chunk, Dataset

_QUALITY = 82
_PAGE, _GAP = 1090, 10
"""Room for the views of a sequence, and between them, px."""
_MATRIX = 280
"""Side of the overlap matrix on the page, px."""
_OUTLINED = 32
"""Most views whose pairs are outlined in the matrix."""
_INK, _UNKNOWN_INK = (52, 120, 229), (128, 128, 128, 60)


def write_page(
    dataset: Dataset,
    out: Path,
    *,
    summary: Mapping[str, str],
    split: str = "train",
    sequences: int = 8,
    views: int = 6,
    size: int = 128,
    seed: int = 0,
) -> str:
    """Write the page of the first `sequences` draws; returns a sentence on what it shows.

    `summary` is the table at its head, `size` the height of a view in pixels; the rest as in `draw_sequences`.
    """
    check_out(out, size)
    drawn = draw_sequences(dataset, split=split, sequences=sequences, views=views, seed=seed)
    said = in_words(drawn)
    title = escape(dataset.root.resolve().name or str(dataset.root))
    rows = "".join(
        f"<tr><th>{escape(key)}</th><td>{escape(value)}</td></tr>" for key, value in summary.items()
    )
    body = "".join(_sequence(dataset, step, number, size) for number, step in enumerate(drawn, 1))
    page = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>{title}: sequences as drawn</title><style>{_STYLE}</style></head><body>
<header><h1>{title}</h1><p>{escape(said)}; split {escape(split)}, seed {seed}.</p>
<table>{rows}</table>
<p class="how">Views stand in the order in which they were drawn, whole, with the crop that training sees outlined; the
number is the largest overlap with a view drawn before. The matrix holds the share that any two frames of the chunk see
of each other, those that were drawn together outlined. Cameras are seen from above, the drawn ones in colour.</p>
</header>
<main>{body}</main></body></html>
"""
    write_whole(out, page.encode())
    return said


def _sequence(dataset: Dataset, drawn: LaneStep, number: int, size: int) -> str:
    chunk_number = int(drawn.chunks[0])
    chunk = dataset.chunk(chunk_number)
    height = _fitting_height(chunk.sizes[drawn.frames], size)
    views = "".join(_view(dataset, chunk, drawn, place, height) for place in range(len(drawn.frames)))
    facts = f"{escape(chunk.source)} · licence {escape(chunk.meta['licence'])} · "
    if chunk.num_frames == 1:
        facts, plots = facts + "a single picture", ""
    else:
        overlap = f"{drawn.overlap:.2f}" if np.isfinite(drawn.overlap) else "unknown"
        measured = chunk.meta["overlap_from"]
        facts += f"{chunk.num_frames} frames in the chunk · mean overlap of the views <b>{overlap}</b>"
        facts += f" (from {escape(measured)})" if measured != "unknown" else ""
        plots = f"""<div class="plots">
<figure><figcaption>Overlap of all frames</figcaption>{_matrix(chunk, drawn.frames)}</figure>
<figure><figcaption>Cameras from above</figcaption>{_cameras(chunk, drawn.frames)}</figure></div>"""
    return f"""<section><h2><span class="number">{number}</span> {escape(chunk.scene)}</h2>
<p class="facts">{facts}</p><div class="views">{views}</div>{plots}</section>
"""


def _fitting_height(sizes: np.ndarray, height: int) -> int:
    """Height of the views by which a row that is a little too long fits the page; longer ones are broken."""
    room = _PAGE - _GAP * (len(sizes) - 1)
    width = float((height * sizes[:, 1] / sizes[:, 0]).sum())
    return int(height * room / width) if room < width < 1.5 * room else height


def _view(dataset: Dataset, chunk: Chunk, drawn: LaneStep, place: int, size: int) -> str:
    frame = int(drawn.frames[place])
    picture = dataset.read_image(chunk.number, frame)
    height, width = picture.shape[:2]
    top, left, crop_height, crop_width = crop_box(drawn.crops[place], height, width)
    box = (
        f"top:{100 * top / height:.2f}%;left:{100 * left / width:.2f}%;"
        f"height:{100 * crop_height / height:.2f}%;width:{100 * crop_width / width:.2f}%"
    )
    shown = Image.fromarray(picture)
    shown.thumbnail((4 * size, 2 * size), Image.Resampling.BICUBIC)  # twice as fine, for dense screens
    file = io.BytesIO()
    shown.save(file, "JPEG", quality=_QUALITY)
    name = escape(chunk.frame_names[frame])
    overlap = largest_overlap(chunk, drawn.frames, place)
    tag = f" <b>{overlap:.2f}</b>" if np.isfinite(overlap) else ""
    return (
        f'<figure class="view" style="width:{size * width / height:.0f}px"><div class="frame">'
        f'<img src="data:image/jpeg;base64,{_base64(file.getvalue())}" alt="{name}" width="{width}" height="{height}">'
        f'<i style="{box}"></i></div><figcaption title="{name}">{place + 1}.{tag} {name}</figcaption></figure>'
    )


def _matrix(chunk: Chunk, frames: Sequence[int] | np.ndarray) -> str:
    """The chunk's overlap as a picture whose opacity is the overlap, with marks at the frames that were drawn."""
    values = chunk.covisibility
    if (values[~np.eye(len(values), dtype=bool)] == UNKNOWN).all():
        return '<p class="none">Nobody measured the overlap of these frames.</p>'
    pixels = np.zeros((*values.shape, 4), np.uint8)
    pixels[..., :3] = _INK
    pixels[..., 3] = np.round(values.astype(float) / 254 * 255).clip(0, 255)
    pixels[values == UNKNOWN] = _UNKNOWN_INK
    file = io.BytesIO()
    Image.fromarray(pixels, "RGBA").save(file, "PNG")
    cell, edge = _MATRIX / len(values), 12
    marks = []
    for frame in sorted(int(f) for f in frames):
        at, name = edge + frame * cell, escape(chunk.frame_names[frame])
        marks.append(
            f'<g><title>{name}</title><rect x="{at:.2f}" y="0" width="{max(cell, 1.5):.2f}" height="{edge - 3}"/>'
            f'<rect x="0" y="{at:.2f}" width="{edge - 3}" height="{max(cell, 1.5):.2f}"/></g>'
        )
    pairs = []
    for a, b in itertools.product(map(int, frames), repeat=2) if len(frames) <= _OUTLINED else ():
        title = escape(f"{chunk.frame_names[b]} and {chunk.frame_names[a]}: {_share(values[b, a])}")
        place = f'x="{edge + a * cell:.2f}" y="{edge + b * cell:.2f}" width="{cell:.2f}" height="{cell:.2f}"'
        pairs.append(f"<rect {place}><title>{title}</title></rect>")
    side = _MATRIX + edge
    return (
        f'<svg class="matrix" viewBox="0 0 {side} {side + 34}" role="img" aria-label="overlap of {len(values)} frames">'
        f'<rect class="field" x="{edge}" y="{edge}" width="{_MATRIX}" height="{_MATRIX}"/>'
        f'<image x="{edge}" y="{edge}" width="{_MATRIX}" height="{_MATRIX}" preserveAspectRatio="none"'
        f' href="data:image/png;base64,{_base64(file.getvalue())}"/>'
        f'<g class="marks">{"".join(marks)}</g><g class="pairs">{"".join(pairs)}</g>{_legend(edge, side + 10)}</svg>'
    )


def _legend(x: int, y: int) -> str:
    ink = "rgb({},{},{})".format(*_INK)
    grey = "rgba({},{},{},{:.2f})".format(*_UNKNOWN_INK[:3], _UNKNOWN_INK[3] / 255)
    steps = "".join(
        f'<rect x="{x + 12 + 11 * i}" y="{y}" width="11" height="10" fill="{ink}" fill-opacity="{i / 9:.2f}"/>'
        for i in range(10)
    )
    return (
        f'<g class="legend"><text x="{x}" y="{y + 9}">0</text>{steps}<text x="{x + 127}" y="{y + 9}">1</text>'
        f'<rect x="{x + 152}" y="{y}" width="11" height="10" fill="{grey}"/>'
        f'<text x="{x + 168}" y="{y + 9}">unknown</text></g>'
    )


def _cameras(chunk: Chunk, frames: np.ndarray) -> str:
    if chunk.world_to_camera is None:
        return '<p class="none">This chunk has no cameras.</p>'
    svg = top_view(chunk.world_to_camera, chunk.intrinsics, chunk.sizes, chunk.frame_names, frames.tolist())
    if chunk.intrinsics is None:
        svg += '<p class="none">No intrinsics: the angles of view are a guess.</p>'
    return svg


def _share(value: Any) -> str:
    return "unknown" if value == UNKNOWN else f"{int(value) / 254:.2f}"


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


_STYLE = """
:root{color-scheme:light dark;--paper:#fbfbfa;--card:#fff;--ink:#1c1d20;--pale:#63666d;--line:#dedfe3;--mark:#d96c00}
@media (prefers-color-scheme:dark){:root{--paper:#15161a;--card:#1e2025;--ink:#e9eaee;--pale:#9da1aa;--line:#363941;
--mark:#ff9d3b}}
*{box-sizing:border-box}
body{margin:0 auto;padding:24px;max-width:1180px;background:var(--paper);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
h1{font-size:26px;margin:0 0 4px}h2{font-size:17px;margin:0;overflow-wrap:anywhere}p{margin:4px 0 12px}
.number{color:var(--pale);font-weight:400;margin-right:4px}
.how,.facts,figcaption,.none{color:var(--pale)}.how{max-width:75ch;margin-top:14px}.facts{font-size:14px}
b{color:var(--ink);font-weight:600}
table{border-collapse:collapse;font-size:14px}
th{text-align:left;font-weight:500;color:var(--pale);padding:2px 18px 2px 0;vertical-align:top}td{padding:2px 0}
section{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:16px 18px;margin:18px 0}
figure{margin:0}figcaption{font-size:12.5px;margin:4px 0}
.views{display:flex;flex-wrap:wrap;gap:10px}
.view{max-width:100%}.view figcaption{white-space:nowrap;overflow:hidden;text-overflow:ellipsis}
.frame{position:relative;line-height:0}.frame img{width:100%;height:auto;border-radius:3px}
.frame i{position:absolute;border:2px solid var(--mark);border-radius:2px;box-shadow:0 0 0 1px #0007}
.plots{display:flex;flex-wrap:wrap;gap:28px;margin-top:16px;align-items:flex-start}
.plots figure{flex:1 1 320px;max-width:520px}.plots svg{display:block;width:100%;height:auto;max-height:340px}
.plots .matrix{max-width:330px;max-height:none}.matrix image{image-rendering:pixelated}
.field{fill:none;stroke:var(--line)}.marks rect{fill:var(--mark)}
.pairs rect{fill:none;stroke:var(--mark);stroke-width:1;pointer-events:all}
svg text{font:11px system-ui,sans-serif;fill:var(--pale)}
.camera polygon{fill:var(--pale);fill-opacity:.12;stroke:var(--pale);stroke-opacity:.5}
.camera circle{fill:var(--pale)}
.camera.drawn polygon{fill:var(--mark);fill-opacity:.22;stroke:var(--mark);stroke-opacity:1;stroke-width:1.4}
.camera.drawn circle{fill:var(--mark)}
.camera.drawn text{fill:var(--ink);font-weight:600;text-anchor:middle;paint-order:stroke;stroke:var(--card);
stroke-width:3px}
.scale path{fill:none;stroke:var(--pale)}
"""
