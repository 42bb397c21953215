"""ADE20K's scene parsing benchmark as its archive unpacks: pictures, class numbers from 1, and two tables."""

from pathlib import Path

import numpy as np
from PIL import Image

from tests.trees.world import World

NAMES = tuple(f"thing {i}" for i in range(1, 151))


def write(root: Path, world: World) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Write the first half of the views for training and the others for validation.

    Returns picture (H, W, 3) and stored class numbers (H, W) by name: stripes by depth, 0 in the first columns, the
    last class in the last ones.
    """
    shown: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    lines = []
    half = len(world.views) // 2
    for i, view in enumerate(world.views):
        part, name = (
            ("training", f"ADE_train_{i + 1:08d}")
            if i < half
            else ("validation", f"ADE_val_{i - half + 1:08d}")
        )
        stored = (1 + (20 * view.depth).astype(int) % 149).astype(np.uint8)
        stored[:, :5], stored[:, -5:] = 0, 150
        for kind in ("images", "annotations"):
            (root / kind / part).mkdir(parents=True, exist_ok=True)
        Image.fromarray(view.image).save(root / "images" / part / f"{name}.jpg", quality=97)
        Image.fromarray(stored).save(root / "annotations" / part / f"{name}.png")
        lines.append(f"{name} kitchen")
        shown[name] = view.image, stored
    (root / "sceneCategories.txt").write_text("\n".join(lines) + "\n")
    table = ["Idx\tRatio\tTrain\tVal\tStuff\tName"]
    table += [f"{i}\t0.01\t10\t1\t0\t{name}, object" for i, name in enumerate(NAMES, 1)]
    (root / "objectInfo150.txt").write_text("\n".join(table) + "\n")
    return shown
