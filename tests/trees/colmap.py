"""A COLMAP project: photographs in a subfolder beside a binary model."""

from pathlib import Path

from PIL import Image

from tests.trees.colmap_model import write_binary
from tests.trees.figures import Figures, measure
from tests.trees.world import View, World, render_world


def write(root: Path, world: World) -> dict[str, View]:
    """Write the photographs of one scene and its model; returns what it registers."""
    (root / "images" / "left").mkdir(parents=True)
    views = {f"left/{i}.jpg": view for i, view in enumerate(world.views)}
    for name, view in views.items():
        Image.fromarray(view.image).save(root / "images" / name, quality=97)
    write_binary(root / "sparse" / "0", views, world.points)
    return views


def figures(root: Path) -> Figures:
    """The source's row, from a tree written below `root`."""
    world = render_world(6)
    views = write(root / "tree", world)
    return measure("colmap", [root / "tree"], root / "out", views, by="poses", points=world.points)
