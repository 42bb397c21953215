"""MegaScenes as its bucket lays it: two models of one place, and a photograph that neither registered."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from tests.trees.colmap_model import write_binary
from tests.trees.figures import Figures, measure
from tests.trees.world import View, World, render_world

PICTURES = "commons/Church_of_St_John/0/pictures"


def write(root: Path, world: World, scene: str = "000/123") -> dict[str, View]:
    """Write a scene of two models, one of every second view and one of the others; returns what they register.

    The second photograph is a progressive JPEG.
    """
    pictures = root / "images" / scene / PICTURES
    pictures.mkdir(parents=True)
    views = {f"{PICTURES}/Église {i}.jpg": view for i, view in enumerate(world.views)}
    for i, (name, view) in enumerate(views.items()):
        Image.fromarray(view.image).save(root / "images" / scene / name, quality=97, progressive=i == 1)
    for model in (0, 1):
        write_binary(
            root / "reconstruct" / scene / "colmap" / str(model),
            dict(list(views.items())[model::2]),
            world.points,
            model="OPENCV",
            lens=(0.0, 0.0, 0.0, 0.0),
        )
    Image.fromarray(np.ascontiguousarray(world.views[0].image[::-1])).save(pictures / "Unregistered.jpg")
    licences = {Path(name).name: {"license": "CC BY-SA 4.0"} for name in views}
    (pictures.parent.parent / "raw_metadata.json").write_text(json.dumps(licences))
    return views


def figures(root: Path) -> Figures:
    """The source's row, from a tree written below `root`."""
    world = render_world(6, seed=2)
    views = write(root / "tree", world)
    return measure("megascenes", [root / "tree"], root / "out", views, by="poses", points=world.points)
