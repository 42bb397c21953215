"""MegaDepth as it lies on disk after D2-Net's undistortion, with the depth maps of its first release.

The scene's last photograph has an ordinal mask for a depth map, the one before has none. The first has no point of
the model, so its second line in images.txt is empty.
"""

from pathlib import Path

import h5py
import numpy as np
from PIL import Image

from tests.trees.colmap_model import write_text
from tests.trees.figures import Figures, measure
from tests.trees.world import View, World, render_world

SIZE = (144, 192)
"""Least size (H, W) at which a depth map is more than 100 kB."""


def write(root: Path, world: World, scene: str = "0001") -> dict[str, View]:
    """Write one scene; returns the photographs that have a place in a dataset: those with dense depth."""
    folder = root / "Undistorted_SfM" / scene
    depths = root / "phoenix" / "S6" / "zl548" / "MegaDepth_v1" / scene / "dense0" / "depths"
    (folder / "images").mkdir(parents=True)
    depths.mkdir(parents=True)
    names = [f"{224832 + 7 * i}_{scene}_o.jpg" for i in range(len(world.views))]
    views = dict(zip(names, world.views, strict=True))
    small, absent = names[-1], names[-2]
    for name, view in views.items():
        Image.fromarray(view.image).save(folder / "images" / name, quality=97)
        if name == absent:
            continue
        with h5py.File(depths / name.replace(".jpg", ".h5"), "w") as file:
            if name == small:
                file.create_dataset("depth", data=np.sign(view.depth), compression="gzip")
            else:
                file.create_dataset("depth", data=view.depth)
    write_text(folder / "sparse-txt", views, world.points, pointless=names[:1])
    return {name: view for name, view in views.items() if name not in {small, absent}}


def without_points(views: dict[str, View]) -> str:
    """The photograph that observes no point of the model."""
    return next(iter(views))


def figures(root: Path) -> Figures:
    """The source's row, from a tree written below `root`."""
    views = write(root / "tree", render_world(6, size=SIZE, seed=2))
    return measure("megadepth", [root / "tree"], root / "out", views, by="depth")
