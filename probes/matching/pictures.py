"""Pictures of matches as SVG: two views side by side and a line from each query to where an encoder says it lies.

The photographs are embedded small, the lines stay sharp at any size. Right and wrong differ by dashes and weight,
not by colour alone.
"""

import html
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from probes.data.pairs import Pair
from probes.data.square import SquareFrames
from probes.exhibits import Exhibit, Panel, choose, data_uri, mean_errors
from probes.metrics.correspondence import end_point_errors, patch_step
from probes.probe import Unit

GOOD, BAD = "#0b62a4", "#d0561c"
MOST_LINES = 18
CAPTION = (
    "Lines run from points of the left view to where they are said to lie in the right one: solid within one patch "
    "of the truth, dashed beyond."
)
_GAP = 0.06
_PHOTOGRAPH = 320  # px of an embedded photograph


def shown_points(count: int) -> NDArray[np.int64]:
    """Up to `MOST_LINES` numbers spread over ``range(count)``, the same for every encoder."""
    return np.unique(np.linspace(0, count - 1, min(count, MOST_LINES)).round().astype(np.int64))


def empty_shown(pairs: int) -> NDArray[np.float32]:
    """(pairs, MOST_LINES, 2) of nan: a unit's array ``shown``, its predictions of the shown points of every pair."""
    return np.full((pairs, MOST_LINES, 2), np.nan, np.float32)


def match_exhibits(
    frames: SquareFrames,
    pairs: Sequence[Pair],
    units: Mapping[str, Unit],
    errors: Mapping[str, Mapping[str, float]],
    *,
    unit: str,
) -> list[Exhibit]:
    """The best, median and worst pair: the truth, then every encoder's matches.

    Args:
        frames: what the pairs show.
        pairs: all that were scored, in the order of the units' arrays.
        units: by encoder; their arrays hold ``shown`` (see `empty_shown`) and ``grid`` (2,).
        errors: of every pair, by encoder and name.
        unit: of the errors.
    """
    numbers = {pair.name: number for number, pair in enumerate(pairs)}
    exhibits = []
    for title, item in choose(mean_errors(list(errors.values()))):
        number = numbers[item]
        pair = pairs[number]
        chosen = shown_points(len(pair.queries))
        images = [frames.load(index) for index in (pair.a, pair.b)]
        queries, targets = pair.queries[chosen], pair.targets[chosen]
        drawn = {"truth": (targets, "where the points truly lie", 1.0)}
        for label, found in units.items():
            points = found.arrays["shown"][number, : len(chosen)].astype(np.float64)
            patch = patch_step(tuple(found.arrays["grid"].tolist()), frames.size)
            drawn[label] = points, f"mean error {errors[label][item]:.3g} {unit}", patch
        panels = [
            Panel(
                label=label,
                caption=caption,
                content=match_picture(
                    images,
                    queries,
                    points,
                    end_point_errors(points, targets),
                    patch=patch,
                    title=f"{title} pair, {label}: {caption}",
                ),
            )
            for label, (points, caption, patch) in drawn.items()
        ]
        exhibits.append(pair_exhibit(title, pair, panels, CAPTION))
    return exhibits


def pair_exhibit(title: str, pair: Pair, panels: Sequence[Panel], caption: str) -> Exhibit:
    """A pair under every encoder, with how far its views are apart; title as of `probes.exhibits.choose`."""
    apart = "" if pair.angle is None else f"{pair.angle:.0f}° apart, "
    return Exhibit(
        title=f"{title} pair", detail=f"{apart}{pair.scene}", panels=tuple(panels), caption=caption
    )


def match_picture(
    images: Sequence[NDArray[np.uint8]],
    queries: NDArray,
    predicted: NDArray,
    errors: NDArray,
    *,
    patch: float,
    title: str,
) -> str:
    """An ``<svg>`` of two views (3, size, size) and matches from ``queries`` to ``predicted``, (n, 2) px each.

    Args:
        images: both views.
        queries: points of the first.
        predicted: points of the second.
        errors: how far off they are, (n,) px.
        patch: error in px up to which a match is drawn as right.
        title: read out to those who do not see it.
    """
    size = images[0].shape[-1]
    gap = size * _GAP
    parts = [
        f'<svg class="match" viewBox="0 0 {2 * size + gap:.2f} {size}" role="img" '
        f'aria-label="{html.escape(title, quote=True)}"><title>{html.escape(title)}</title>'
    ]
    parts += [
        f'<image x="{place * (size + gap):.2f}" width="{size}" height="{size}" href="{_photograph(image)}"/>'
        for place, image in enumerate(images)
    ]
    unit = size / 200
    # Right answers are drawn last, on top.
    for i in sorted(range(len(queries)), key=lambda i: errors[i] < patch):
        good = errors[i] < patch
        (x1, y1), (x2, y2) = queries[i], predicted[i] + [size + gap, 0]
        ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
        paint, width = (GOOD, 1.7) if good else (BAD, 1.1)
        dash = "" if good else f' stroke-dasharray="{3.5 * unit:.2f} {3 * unit:.2f}"'
        if good:
            parts.append(f'<line {ends} stroke="#fff" stroke-opacity="0.8" stroke-width="{3.2 * unit:.2f}"/>')
        parts.append(f'<line {ends} stroke="{paint}" stroke-width="{width * unit:.2f}"{dash}/>')
        parts += [
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{2.4 * unit:.2f}" fill="{paint}" stroke="#fff" '
            f'stroke-width="{0.6 * unit:.2f}"/>'
            for x, y in ((x1, y1), (x2, y2))
        ]
    return "".join(parts) + "</svg>"


def _photograph(image: NDArray[np.uint8]) -> str:
    picture = np.ascontiguousarray(image.transpose(1, 2, 0))
    if picture.shape[0] > _PHOTOGRAPH:
        small = Image.fromarray(picture).resize((_PHOTOGRAPH, _PHOTOGRAPH), Image.Resampling.LANCZOS)
        picture = np.asarray(small)
    return data_uri(picture, lossless=picture.shape[0] <= 128)
