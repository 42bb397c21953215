"""Pictures of matches as SVG: two views side by side and a line from each query to where an encoder says it lies.

The photographs are embedded once and drawn under the lines of every encoder, so the lines stay sharp at any size.
"""

import base64
import html
import io
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from probes.pairs import Pair, PairSet

GOOD, BAD = "#0b62a4", "#d0561c"
MOST_LINES = 18
_GAP = 0.06


def choose_pairs(found: PairSet, errors: Mapping[str, float]) -> list[tuple[str, Pair]]:
    """An easy, a typical and a hard pair by mean error: the 10th, 50th and 90th percentile, each named."""
    pairs = sorted(found.pairs, key=lambda pair: (errors[pair.name], pair.name))
    places = dict.fromkeys(
        (round(q * (len(pairs) - 1)), name) for q, name in ((0.1, "easy"), (0.5, "typical"), (0.9, "hard"))
    )
    chosen: dict[str, tuple[str, Pair]] = {}
    for place, name in places:
        chosen.setdefault(pairs[place].name, (name, pairs[place]))
    return list(chosen.values())


def data_uri(image: NDArray[np.uint8], *, lossless: bool) -> str:
    """A picture (H, W, 3) as a ``data:`` address: PNG, or JPEG at quality 88."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG" if lossless else "JPEG", quality=88)
    kind = "png" if lossless else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


class MatchPictures:
    """Match pictures of one data set; `definitions` holds the photographs that `draw` refers to."""

    def __init__(self, found: PairSet, prefix: str) -> None:
        self._found, self._prefix = found, prefix
        self._used: dict[int, str] = {}

    def draw(self, pair: Pair, predicted: NDArray, patch: float, title: str) -> str:
        """An ``<svg>`` of a pair and predicted points (n, 2): solid if within ``patch`` px, dashed if not."""
        size = self._found.config.size
        gap = size * _GAP
        for index in (pair.a, pair.b):
            self._used.setdefault(index, f"{self._prefix}-{index}")
        errors = np.linalg.norm(predicted - pair.targets, axis=1)
        parts = [
            f'<svg class="match" viewBox="0 0 {2 * size + gap:.2f} {size}" role="img" '
            f'aria-label="{html.escape(title, quote=True)}"><title>{html.escape(title)}</title>'
            f'<use href="#{self._used[pair.a]}"/><use href="#{self._used[pair.b]}" x="{size + gap:.2f}"/>'
        ]
        unit = size / 200
        # Right answers are drawn last, on top.
        for i in sorted(_spread(len(pair.queries)), key=lambda i: errors[i] < patch):
            good = errors[i] < patch
            (x1, y1), (x2, y2) = pair.queries[i], predicted[i] + [size + gap, 0]
            ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
            paint, width = (GOOD, 1.7) if good else (BAD, 1.1)
            dash = "" if good else f' stroke-dasharray="{3.5 * unit:.2f} {3 * unit:.2f}"'
            if good:
                parts.append(
                    f'<line {ends} stroke="#fff" stroke-opacity="0.8" stroke-width="{3.2 * unit:.2f}"/>'
                )
            parts.append(f'<line {ends} stroke="{paint}" stroke-width="{width * unit:.2f}"{dash}/>')
            parts += [
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{2.4 * unit:.2f}" fill="{paint}" stroke="#fff" '
                f'stroke-width="{0.6 * unit:.2f}"/>'
                for x, y in ((x1, y1), (x2, y2))
            ]
        return "".join(parts) + "</svg>"

    def definitions(self) -> str:
        """The photographs, to be put into the page once."""
        size = self._found.config.size
        images = "".join(
            f'<image id="{name}" width="{size}" height="{size}" '
            f'href="{data_uri(self._found.images.load(index).transpose(1, 2, 0), lossless=size <= 128)}"/>'
            for index, name in self._used.items()
        )
        return f'<svg width="0" height="0" class="hidden" aria-hidden="true"><defs>{images}</defs></svg>'


def _spread(count: int) -> Sequence[int]:
    """Up to `MOST_LINES` numbers spread over the range, the same for every encoder."""
    return np.unique(np.linspace(0, count - 1, min(count, MOST_LINES)).round().astype(int)).tolist()
