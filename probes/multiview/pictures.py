"""Pictures of several views for the report: cameras seen from above, and point clouds seen from a side.

Predictions are shown after the alignment that they are scored with. Everything is drawn from what a unit keeps.
"""

import html
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from probes.data.frames import FrameSequence
from probes.data.sequences import SequenceSet
from probes.exhibits import Exhibit, Panel, choose, image_tag, mean_errors
from probes.metrics.pose import camera_centres
from probes.probe import Unit

_SIDE = 200
"""Of a picture of points, px."""
_SHEET_SIDE = 96
"""Of a frame in a contact sheet, px at most."""
_CAMERAS = (
    "Cameras from above, each with the way it looks. Hollow: the truth. Filled: predicted, laid upon the true first "
    "camera and stretched to the best length. A dotted line joins the two; all pictures of a sequence have one scale."
)
_CLOUDS = (
    "Points of all frames in the colours of their pixels, seen from above and beside the first camera, aligned with "
    "the truth as they are scored."
)


class Clouds(Protocol):
    """What is asked of a task whose clouds are shown."""

    scored: SequenceSet
    facts: dict[str, Any]

    def true_points(self, sequence: FrameSequence) -> NDArray:
        """(m, 3)."""
        ...

    def kept_points(self, sequence: FrameSequence, unit: Unit) -> NDArray:
        """(m, 3), aligned; (0, 3) where there are none."""
        ...

    def colours(self, sequence: FrameSequence) -> NDArray[np.uint8]:
        """(m, 3)."""
        ...


def camera_exhibits(scored: SequenceSet, units: Mapping[str, Unit]) -> list[Exhibit]:
    """The best, median and worst sequence by the mean error of its pairs at the last layer, over all encoders."""

    def panel(sequence: FrameSequence, label: str, unit: Unit) -> str:
        true = np.stack([scored.frames.pose(index) for index in sequence.frames])
        if not np.isfinite(unit.arrays[f"{sequence.name}:poses"]).all():
            return "no finite pose"
        return camera_plot(unit.arrays[f"{sequence.name}:poses"].astype(np.float64), true, label)

    return _exhibits(scored, units, "pose_error", "mean pair error {:.1f}°", panel, _CAMERAS)


def _exhibits(
    scored: SequenceSet,
    units: Mapping[str, Unit],
    column: str,
    words: str,
    panel: Callable[[FrameSequence, str, Unit], str],
    caption: str,
    truth: Callable[[FrameSequence], str] | None = None,
) -> list[Exhibit]:
    """Exhibits of the sequences that `choose` names: the frames, the truth, then a panel an encoder."""
    errors = {label: _sequence_errors(unit, column) for label, unit in units.items()}
    by_name = {sequence.name: sequence for sequence in scored.sequences}
    found = []
    for title, name in choose(mean_errors(list(errors.values()))):
        sequence = by_name[name]
        panels = [Panel(label="frames", caption="", content=image_tag(contact_sheet(scored, sequence), name))]
        if truth is not None:
            panels.append(Panel(label="truth", caption="", content=truth(sequence)))
        panels += [
            Panel(
                label=label, caption=words.format(errors[label][name]), content=panel(sequence, label, unit)
            )
            for label, unit in units.items()
        ]
        detail = f"{len(sequence.frames)} frames of {sequence.scene}"
        found.append(Exhibit(title=f"{title} sequence", detail=detail, panels=tuple(panels), caption=caption))
    return found


def _sequence_errors(unit: Unit, column: str) -> dict[str, float]:
    """Mean of a column over the rows of every sequence, at the layer and seed whose arrays are kept."""
    last = max((row["layer"] for row in unit.rows), default=None)
    found: dict[str, list[float]] = {}
    for row in unit.rows:
        if row["layer"] == last and row["seed"] == unit.rows[0]["seed"]:
            found.setdefault(row["sequence"], []).append(row[column])
    return {name: float(np.mean(values)) for name, values in found.items()}


def contact_sheet(scored: SequenceSet, sequence: FrameSequence) -> NDArray[np.uint8]:
    """The frames of a sequence, the reference first, as one picture, four in a row."""
    step = -(-scored.frames.size // _SHEET_SIDE)
    small = [scored.frames.load(index).transpose(1, 2, 0)[::step, ::step] for index in sequence.frames]
    height, width = small[0].shape[:2]
    sheet = np.full((-(-len(small) // 4) * height, min(4, len(small)) * width, 3), 255, np.uint8)
    for place, image in enumerate(small):
        row, column = divmod(place, 4)
        sheet[row * height : (row + 1) * height, column * width : (column + 1) * width] = image
    return sheet


def camera_plot(predicted: NDArray, true: NDArray, label: str) -> str:
    """An SVG of cameras (n, 3, 4), world to camera, from above the true ones' common ground."""
    goal, start = camera_centres(true), true[0, :, :3].T
    steps = (camera_centres(predicted) - camera_centres(predicted[:1])) @ predicted[0, :, :3].T @ start.T
    length = max(0.0, float((steps * (goal - goal[0])).sum()) / max(float((steps**2).sum()), 1e-12))
    moved = goal[0] + length * steps
    looks = predicted[:, 2, :3] @ predicted[0, :, :3].T @ start.T
    # The ground is seen along the mean of the cameras' downward axes.
    down = true[:, 1, :3].mean(axis=0)
    ahead = true[:, 2, :3].mean(axis=0)
    down, ahead = (vector / max(np.linalg.norm(vector), 1e-9) for vector in (down, ahead))
    right = np.cross(down, ahead)
    right /= max(np.linalg.norm(right), 1e-9)
    plane = np.stack([right, np.cross(down, right)])
    middle = goal.mean(axis=0)
    reach = 1.35 * max(np.abs((goal - middle) @ plane.T).max(), 1e-9)

    def place(points: NDArray) -> NDArray:
        flat = np.clip((points - middle) @ plane.T / reach, -1, 1)
        return (flat + 1) * _SIDE / 2

    arrow = 0.2 * reach
    marks = []
    for name, at, toward in (("true", goal, true[:, 2, :3]), ("predicted", moved, looks)):
        fill, width = ("none", 1) if name == "true" else ("currentColor", 2)
        for (x, y), (u, v) in zip(place(at), place(at + arrow * toward), strict=True):
            marks.append(
                f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{u:.1f}" y2="{v:.1f}" stroke="currentColor" '
                f'stroke-width="{width}"/><circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{fill}" stroke="currentColor"/>'
            )
    for (x, y), (u, v) in zip(place(goal), place(moved), strict=True):
        marks.append(
            f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{u:.1f}" y2="{v:.1f}" stroke="currentColor" '
            'stroke-dasharray="2 3" opacity="0.6"/>'
        )
    title = html.escape(f"Cameras of {label} from above")
    return (
        f'<svg viewBox="0 0 {_SIDE} {_SIDE}" width="{_SIDE}" height="{_SIDE}" role="img" aria-label="{title}">'
        f"{''.join(marks)}</svg>"
    )


def cloud_exhibits(task: Clouds, units: Mapping[str, Unit]) -> list[Exhibit]:
    """The best, median and worst sequence by the median distance at the last layer, over all encoders."""
    unit = task.facts["length_unit"] if len(task.facts["length_unit"]) < 3 else "radii"

    def side_view(sequence: FrameSequence, points: NDArray, alt: str) -> str:
        first = task.scored.frames.pose(sequence.frames[0])[:, :3]
        return image_tag(splat(points, task.colours(sequence), task.true_points(sequence), first), alt)

    def panel(sequence: FrameSequence, label: str, unit: Unit) -> str:
        return side_view(sequence, task.kept_points(sequence, unit), f"point cloud of {label}")

    def truth(sequence: FrameSequence) -> str:
        return side_view(sequence, task.true_points(sequence), "true point cloud")

    words = f"overall, median {{:.3f}} {unit}"
    return _exhibits(task.scored, units, "overall_median", words, panel, _CLOUDS, truth)


def splat(
    points: NDArray, colours: NDArray[np.uint8], frame: NDArray, rotation: NDArray
) -> NDArray[np.uint8]:
    """A picture of a cloud from above one camera's shoulder: nearer points hide farther ones.

    Args:
        points: (m, 3).
        colours: (m, 3) of the points.
        frame: (n, 3) points that fix what fits into the picture.
        rotation: (3, 3) world to the camera.
    """
    tilt, turn = np.radians(25), np.radians(35)
    tilted = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    turned = np.array([[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]])
    view = tilted @ turned @ rotation
    middle = np.median(frame, axis=0)
    reach = np.quantile(np.abs((frame - middle) @ view[:2].T), 0.98) * 1.05
    seen = (points - middle) @ view.T
    place = np.floor((seen[:, :2] / max(reach, 1e-9) + 1) * _SIDE / 2).astype(int)
    picture = np.full((_SIDE, _SIDE, 3), 255, np.uint8)
    far_first = np.argsort(-seen[:, 2], kind="stable")
    for dy in (0, 1):
        for dx in (0, 1):
            x, y = place[far_first, 0] + dx, place[far_first, 1] + dy
            inside = (x >= 0) & (x < _SIDE) & (y >= 0) & (y < _SIDE)
            picture[y[inside], x[inside]] = colours[far_first][inside]
    return picture
