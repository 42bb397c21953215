"""Pictures of the pose probe: the matches that a pose was solved from, those that agree with it drawn apart."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from probes.data.pairs import Pair
from probes.data.square import SquareFrames
from probes.exhibits import Exhibit, Panel, choose, mean_errors
from probes.matching.pictures import MOST_LINES, match_picture, pair_exhibit, shown_points
from probes.pose.matches import Matches
from probes.probe import Row, Unit

CAPTION = (
    "Lines are matches of features between both views: solid where they agree with the pose that was found, dashed "
    "where the solver left them out."
)


def shown_matches(matches: Matches, inliers: NDArray) -> NDArray[np.float32]:
    """Up to `MOST_LINES` matches, spread over all: x and y in A, x and y in B, 1 for an inlier; (k, 5)."""
    if not len(inliers):
        return np.empty((0, 5), np.float32)
    chosen = shown_points(len(inliers))
    parts = matches.points_a[chosen], matches.points_b[chosen], inliers[chosen, None]
    return np.concatenate(parts, axis=1).astype(np.float32)


def empty_shown(pairs: int) -> NDArray[np.float32]:
    """(pairs, MOST_LINES, 5) of nan: a unit's array ``shown``, see `shown_matches`."""
    return np.full((pairs, MOST_LINES, 5), np.nan, np.float32)


def pose_exhibits(
    frames: SquareFrames,
    pairs: Sequence[Pair],
    units: Mapping[str, Unit],
    rows: Mapping[str, Mapping[str, Row]],
) -> list[Exhibit]:
    """The best, median and worst pair by error: the truth where points tell it, then every encoder's matches.

    Args:
        frames: what the pairs show.
        pairs: all that were scored, in the order of the units' arrays.
        units: by encoder; without ``shown`` (nothing was solved) there are no pictures.
        rows: of every pair, by encoder and name.
    """
    drawn = {label: unit for label, unit in units.items() if "shown" in unit.arrays}
    numbers = {pair.name: number for number, pair in enumerate(pairs)}
    # A failed pair is worse than any other, and sorts by its name among its like.
    errors = [{item: min(row["pose_error"], 360.0) for item, row in rows[label].items()} for label in drawn]
    exhibits = []
    for title, item in choose(mean_errors(errors)) if drawn else ():
        number = numbers[item]
        pair = pairs[number]
        images = [frames.load(index) for index in (pair.a, pair.b)]
        panels = []
        if len(pair.queries):
            chosen = shown_points(len(pair.queries))
            true = np.column_stack([pair.queries[chosen], pair.targets[chosen], np.ones(len(chosen))])
            panels.append(_panel("truth", "where the same points truly lie", images, true, title))
        for label, unit in drawn.items():
            found = unit.arrays["shown"][number].astype(np.float64)
            caption = describe(rows[label][item])
            panels.append(_panel(label, caption, images, found[np.isfinite(found[:, 0])], title))
        exhibits.append(pair_exhibit(title, pair, panels, CAPTION))
    return exhibits


def describe(row: Row) -> str:
    """A row in words: how far rotation and direction are off, and how many matches agree."""
    if row["failed"]:
        return f"no pose from {row['matches'] or 0} matches"
    moved = row["translation_error"]
    words = f"turn {row['rotation_error']:.1f}° off"
    words += f", direction {moved:.1f}° off" if moved is not None else ""
    return words + (f"; {row['inliers']:.0%} of {row['matches']} matches agree" if row["matches"] else "")


def _panel(label: str, caption: str, images: Sequence[NDArray], matches: NDArray, title: str) -> Panel:
    picture = match_picture(
        images,
        matches[:, :2],
        matches[:, 2:4],
        1 - matches[:, 4],
        patch=0.5,
        title=f"{title} pair, {label}: {caption}",
    )
    return Panel(label=label, caption=caption, content=picture)
