"""Pictures of dense predictions for the report: the image, its truth, and what a head reads off every encoder."""

import html
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from probes.data.square import SquareFrames
from probes.dense.training import Target, nearest_pixels
from probes.exhibits import Exhibit, Panel, choose, image_tag, mean_errors
from probes.probe import Unit

LEGEND = 12
"""Classes that a legend names, the largest."""
_DARK_TO_BRIGHT = np.array(
    [
        (20, 11, 52),
        (58, 28, 98),
        (104, 40, 108),
        (158, 56, 92),
        (208, 86, 62),
        (240, 142, 44),
        (250, 226, 150),
    ],
    np.float64,
)
"""Ever brighter, so that a print in black and white can be read."""


def shades(values: NDArray, known: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """A picture (H, W, 3) of values (H, W) from 0, dark, to 1, bright; grey where unknown."""
    place = np.clip(values, 0, 1) * (len(_DARK_TO_BRIGHT) - 1)
    stops = np.arange(len(_DARK_TO_BRIGHT))
    colours = np.stack([np.interp(place, stops, channel) for channel in _DARK_TO_BRIGHT.T], axis=-1)
    return np.where(known[..., None], colours, 128).astype(np.uint8)


def class_colours(labels: NDArray) -> NDArray[np.uint8]:
    """A picture (H, W, 3) of class ids (H, W) up to 254; white for 255."""
    return _palette()[labels]


def class_legend(classes: Sequence[tuple[int, str]]) -> str:
    """An ``<svg>`` of (id, name) beside their colours, the first `LEGEND` of them."""
    parts = [
        f'<rect x="4" y="{16 * at + 4}" width="12" height="12" fill="rgb({",".join(map(str, _palette()[number]))})"/>'
        f'<text x="22" y="{16 * at + 14}" font-size="11" fill="currentColor">{html.escape(name)}</text>'
        for at, (number, name) in enumerate(classes[:LEGEND])
    ]
    if len(classes) > LEGEND:
        rest = f"and {len(classes) - LEGEND} more"
        parts.append(f'<text x="22" y="{16 * LEGEND + 14}" font-size="11" fill="currentColor">{rest}</text>')
    height = max(200, 16 * (LEGEND + 1))
    return f'<svg viewBox="0 0 200 {height}" role="img" aria-label="classes">{"".join(parts)}</svg>'


def dense_exhibits(
    frames: SquareFrames,
    target: Target,
    units: Mapping[str, Unit],
    readings: Sequence[str],
    shown: int,
    caption: str,
) -> list[Exhibit]:
    """The best, the median and the worst frame by the first reading's error at its last layer, over all encoders.

    Args:
        frames: of the task; the first ``shown`` scored ones have kept predictions.
        target: what is predicted.
        units: by encoder; their arrays hold predictions (n, p, p) or (n, p, p, 3) by reading.
        readings: of the task, in order; each is a panel.
        shown: see above.
        caption: how the pictures are read.
    """
    names = {name: index for index, name in enumerate(frames.names[:shown])}
    errors = {label: _errors(unit, target, readings, names) for label, unit in units.items()}
    leading = readings[0]
    exhibits = []
    for title, item in choose(mean_errors([found[leading] for found in errors.values()])):
        index = names[item]
        image = frames.load(index).transpose(1, 2, 0)
        truth = target.read(frames, index)
        panels = [
            Panel(label="image", caption="", content=image_tag(image, f"image {item}")),
            Panel(
                label="truth", caption="", content=image_tag(target.colours(truth, truth), f"truth of {item}")
            ),
        ]
        if legend := target.legend(truth):
            panels.append(Panel(label="classes", caption="", content=legend))
        for label, unit in units.items():
            for reading in readings:
                small = unit.arrays[reading][index]
                picture = target.colours(small, nearest_pixels(truth, len(small)))
                panels.append(
                    Panel(
                        label=label,
                        caption=f"{reading}: {target.say(errors[label][reading][item])}",
                        content=image_tag(picture, f"{reading} of {label} on {item}"),
                    )
                )
        exhibits.append(
            Exhibit(
                title=f"{title} image",
                detail=frames.frames[index].scene,
                panels=tuple(panels),
                caption=caption,
            )
        )
    return exhibits


def _errors(
    unit: Unit, target: Target, readings: Sequence[str], names: Mapping[str, int]
) -> dict[str, dict[str, float]]:
    """Error of every shown item by reading, of the first seed and the last layer."""
    found: dict[str, dict[str, float]] = {reading: {} for reading in readings}
    last = max((row["layer"] for row in unit.rows if row["layer"]), default=None)
    for row in unit.rows:
        if row["item"] in names and row["layer"] in (None, last):
            found[row["reading"]].setdefault(row["item"], target.error(row))
    return found


def _palette() -> NDArray[np.uint8]:
    """256 colours (256, 3): neighbours differ in hue and in brightness; the last is white."""
    number = np.arange(256)
    # Steps of the golden ratio never come back near where they were.
    hue = 2 * np.pi * (number * 0.61803398875 % 1)
    light = 0.35 + 0.45 * (number * 0.75487766625 % 1)
    waves = np.cos(hue[:, None] - np.array([0, 2, 4]) * np.pi / 3)
    colours = light[:, None] * 255 + 70 * waves
    colours[255] = 255
    return colours.clip(0, 255).astype(np.uint8)
