"""What one row of the table of sources says: a tree is built, and the dataset held against what the tree shows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from shards.build import build
from shards.reader import Dataset
from tests.trees import proof
from tests.trees.world import View

Kind = Literal["depth", "poses", "pixels"]


@dataclass(frozen=True, kw_only=True)
class Figures:
    """A source's row."""

    source: str
    scenes: int
    frames: int
    """Frames in the dataset."""
    proof: Kind
    """By what the geometry is proved: warping by stored depth, projection by stored cameras, or nothing but pixels."""
    error: float | None
    """Largest error of that proof in stored pixels; None where pixels are all there is."""
    pixels: float
    """Largest mean difference of a stored picture, in grey levels."""
    refused: tuple[tuple[str, str], ...]
    """(name, reason) of frames and scenes that the source or the build left out."""


def measure(
    source: str,
    paths: Sequence[Path],
    out: Path,
    views: Mapping[str, View],
    *,
    by: Kind,
    points: np.ndarray | None = None,
    options: Any = None,
    upright: Mapping[str, View] | None = None,
) -> Figures:
    """Build `paths` into `out`; every one of `views` must be there and nothing else. `points` (P, 3) for `poses`.

    `upright` are the pictures where the source turns those in its files.
    """
    report = build(source, paths, out, source_options=options, workers=1)
    dataset = Dataset(out)
    stored = set(proof.stored_frames(dataset, views))
    assert stored == set(views), f"{source}: {sorted(stored ^ set(views))[:3]} on one side only"
    error = None
    if by == "depth":
        error = proof.warp_error(dataset, views)
    elif by == "poses":
        assert points is not None
        error = proof.point_error(dataset, views, points)
    return Figures(
        source=source,
        scenes=report.scenes_out,
        frames=report.frames_out,
        proof=by,
        error=error,
        pixels=proof.pixel_error(dataset, upright or views),
        refused=tuple((str(name), str(why)) for name, why in [*report.refused, *report.dropped]),
    )
