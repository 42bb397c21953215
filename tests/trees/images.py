"""Folders of photographs and nothing else: two scenes, a text file among them."""

from pathlib import Path

from PIL import Image

from tests.trees.figures import Figures, measure
from tests.trees.world import View, World, render_world


def write(root: Path, world: World) -> dict[str, View]:
    """Write half of the views to each of two folders, as PNG and as JPEG."""
    shown = {}
    for i, view in enumerate(world.views):
        scene, suffix = ("garden", "png") if i % 2 else ("kitchen", "jpg")
        (root / scene).mkdir(parents=True, exist_ok=True)
        Image.fromarray(view.image).save(root / scene / f"view{i}.{suffix}", quality=97)
        shown[f"{scene}/view{i}.{suffix}"] = view
    (root / "garden" / "readme.txt").write_text("not a photograph")
    return shown


def figures(root: Path) -> Figures:
    """The source's row, from a tree written below `root`."""
    views = write(root / "tree", render_world(6))
    return measure("images", [root / "tree"], root / "out", views, by="pixels")
