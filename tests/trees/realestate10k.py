"""RealEstate10K: a text file a clip, normalised intrinsics, and frames that were extracted from most of the videos."""

from pathlib import Path

import numpy as np
from PIL import Image

from tests.trees.figures import Figures, measure
from tests.trees.world import View, World, render_world

CLIP, GONE, TEST = "000c3ab189999a83", "0017ac0a1bc5d2f1", "00a5a09c68f64b2e"
SHORT, ELSEWHERE = "0a0f3bd5f3ae9b4b", "2f0c4a1f7a1a8a6b"
BURST = 3
"""Frames of each moment; only the first shows a view."""


def write(root: Path, world: World) -> dict[str, View]:
    """Write three clips, half of the views each in the first and the last; the second's video is gone.

    Every view is followed by near duplicates. The first clip's last frame was not extracted.
    """
    half = len(world.views) // 2
    _write_clip(root, f"train/{GONE}", world.views[:2], extracted=False)
    shown = _write_clip(root, f"train/{CLIP}", world.views[:half], extracted=True)
    shown |= _write_clip(root, f"test/{TEST}", world.views[half:], extracted=True)
    with (root / "train" / f"{CLIP}.txt").open("a") as file:
        file.write("99999000 0.5 0.9 0.5 0.5 0 0 1 0 0 0 0 1 0 0 0 0 1 0\n")
    return shown


def write_test_set(root: Path, world: World, trained: World) -> dict[str, View]:
    """Write two clips of all views to be scored, one of another world to train on, one of nine frames and one whose
    video is gone; returns what the first three show.

    The second scored clip's frames lie in `frames/test`.
    """
    _write_clip(root, f"test/{GONE}", world.views, extracted=False)
    _write_clip(root, f"test/{SHORT}", world.views[:3], extracted=True)
    shown: dict[str, View] = {}
    for clip, of in ((f"test/{TEST}", world), (f"test/{ELSEWHERE}", world), (f"train/{CLIP}", trained)):
        shown |= _write_clip(root, clip, of.views, extracted=True, burst=1)
    (root / "frames" / "test").mkdir(parents=True)
    (root / "test" / ELSEWHERE).rename(root / "frames" / "test" / ELSEWHERE)
    return shown


def figures(root: Path) -> Figures:
    """The source's row, from a tree written below `root`."""
    from shards.sources.realestate10k import Options

    world = render_world(6)
    views = write(root / "tree", world)
    return measure(
        "realestate10k",
        [root / "tree"],
        root / "out",
        views,
        by="poses",
        points=world.points,
        options=Options(stride=BURST),
    )


def _write_clip(
    root: Path, clip: str, views: tuple[View, ...], *, extracted: bool, burst: int = BURST
) -> dict[str, View]:
    (root / clip).parent.mkdir(parents=True, exist_ok=True)
    lines, shown = [], {}
    for moment, view in enumerate(views):
        height, width = view.depth.shape
        (fx, _, cx), (_, fy, cy), _ = view.intrinsics
        for late in range(burst):
            microseconds = 9_800_000 + 200_000 * moment + 33_000 * late  # seven digits, then eight
            numbers = [fx / width, fy / height, cx / width, cy / height, 0.0, 0.0]
            numbers += view.world_to_camera.ravel().tolist()
            lines.append(f"{microseconds} " + " ".join(f"{x:.9f}" for x in numbers))
            if extracted:
                (root / clip).mkdir(exist_ok=True)
                picture = view.image if late == 0 else np.zeros_like(view.image)
                Image.fromarray(picture).save(root / clip / f"{microseconds}.png")
        shown[f"{clip}/{9_800_000 + 200_000 * moment}.png"] = view
    url = "https://www.youtube.com/watch?v=xxxxxxxxxxx"
    (root / f"{clip}.txt").write_text("\n".join([url, *lines]) + "\n")
    return shown
