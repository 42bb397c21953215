"""A chunk's cameras from above, as an inline SVG: each a wedge of what it sees, those of a sequence in colour.

What is up is where the cameras' own up points on average, so that any world frame will do. This file knows nothing of
datasets and pages; the page's style names the colours (`.camera`, `.camera.drawn`).
"""

from collections.abc import Sequence
from html import escape

import numpy as np

_WIDTH, _HEIGHT, _MARGIN = 420, 300, 26
_ASSUMED = 0.9
"""Focal length by the picture's width where there are no intrinsics."""


def top_view(
    world_to_camera: np.ndarray,
    intrinsics: np.ndarray | None,
    sizes: np.ndarray,
    names: Sequence[str],
    drawn: Sequence[int],
) -> str:
    """An SVG of N cameras: poses (N, 3, 4), intrinsics (N, 3, 3) or None, sizes (N, 2), numbered as they were drawn."""
    rotation, translation = world_to_camera[:, :, :3], world_to_camera[:, :, 3]
    centres = -np.einsum("nji,nj->ni", rotation, translation)
    axes = _axes(rotation, centres)
    left, right = _edges(rotation, intrinsics, sizes)
    places = centres @ axes.T
    places = places - np.median(places, 0)
    reach = max(float(np.abs(places).max()), 1e-9)
    length = 0.22 * reach if len(places) > 1 else 1.0
    ends = [places + length * _flat(edge @ axes.T) for edge in (left, right)]

    everything = np.concatenate([places, *ends])
    low, high = everything.min(0), everything.max(0)
    scale = min(
        (_WIDTH - 2 * _MARGIN) / max(high[0] - low[0], 1e-9),
        (_HEIGHT - 2 * _MARGIN) / max(high[1] - low[1], 1e-9),
    )
    offset = np.array([_WIDTH, _HEIGHT]) / 2 - scale * (low + high) / 2

    def on_page(points: np.ndarray) -> np.ndarray:
        page = points * scale + offset
        page[..., 1] = _HEIGHT - page[..., 1]
        return page

    apex, one, other = on_page(places), on_page(ends[0]), on_page(ends[1])
    order = {int(frame): place for place, frame in enumerate(drawn, 1)}
    shapes = []
    for frame in sorted(range(len(places)), key=lambda f: (f in order, -order.get(f, 0))):
        corners = " ".join(f"{x:.1f},{y:.1f}" for x, y in (apex[frame], one[frame], other[frame]))
        kind = "camera drawn" if frame in order else "camera"
        title = f"<title>{escape(names[frame])}</title>"
        shapes.append(f'<g class="{kind}">{title}<polygon points="{corners}"/>')
        shapes.append(f'<circle cx="{apex[frame][0]:.1f}" cy="{apex[frame][1]:.1f}" r="2.5"/>')
        if frame in order:
            x, y = (one[frame] + other[frame]) / 2
            shapes.append(f'<text x="{x:.1f}" y="{y + 4:.1f}">{order[frame]}</text>')
        shapes.append("</g>")
    label = f"{len(order)} of {len(places)} cameras from above"
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">{"".join(shapes)}'
        f"{_scale_bar(scale)}</svg>"
    )


def _axes(rotation: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """(2, 3): right and away on the page, at right angles to the cameras' mean up."""
    up = -rotation[:, 1].mean(0)
    up = up / np.linalg.norm(up) if np.linalg.norm(up) > 1e-3 else np.array([0.0, -1.0, 0.0])
    flat = np.eye(3) - np.outer(up, up)
    spread = (centres - centres.mean(0)) @ flat
    right = np.linalg.svd(spread)[2][0] if np.abs(spread).max() > 1e-9 else flat @ rotation[0, 0]
    right = flat @ right
    right = right / np.linalg.norm(right)
    away = np.cross(up, right)
    looking = rotation[:, 2].mean(0)
    if looking @ away < 0:  # most cameras look up the page
        right, away = -right, -away
    return np.stack([right, away])


def _edges(
    rotation: np.ndarray, intrinsics: np.ndarray | None, sizes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """World directions (N, 3) of the left and the right end of each picture's middle row."""
    width = sizes[:, 1].astype(float)
    focal = _ASSUMED * width if intrinsics is None else intrinsics[:, 0, 0]
    centre = width / 2 if intrinsics is None else intrinsics[:, 0, 2]
    ends = []
    for x in (np.zeros_like(width), width):
        ray = np.stack([(x - centre) / focal, np.zeros_like(width), np.ones_like(width)], 1)
        ends.append(np.einsum("nji,nj->ni", rotation, ray))
    return ends[0], ends[1]


def _flat(directions: np.ndarray) -> np.ndarray:
    """Unit length on the page; a camera that looks straight down keeps a short wedge."""
    return directions / np.maximum(np.linalg.norm(directions, axis=1, keepdims=True), 1.0)


def _scale_bar(scale: float) -> str:
    """A bar of a round length in the dataset's units."""
    units = 0.25 * _WIDTH / scale
    unit = 10.0 ** np.floor(np.log10(units))
    unit *= max(factor for factor in (1, 2, 5) if factor * unit <= units)
    x, y = 10.0, _HEIGHT - 10
    return (
        f'<g class="scale"><path d="M{x},{y - 4} v4 h{unit * scale:.1f} v-4"/>'
        f'<text x="{x + unit * scale + 6:.1f}" y="{y:.1f}">{unit:g}</text></g>'
    )
