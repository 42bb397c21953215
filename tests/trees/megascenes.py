"""MegaScenes as its bucket lays it: two models of one scene, and photographs that neither registered."""

import json
from pathlib import Path

from PIL import Image

from tests.trees.colmap_model import write_binary
from tests.trees.world import View, World

PICTURES = "commons/Church_of_St_John/0/pictures"


def write(root: Path, worlds: tuple[World, World], scene: str = "000/123") -> list[dict[str, View]]:
    """Write a scene of two models, a world each, in one folder of photographs; returns the photographs of each."""
    pictures = root / "images" / scene / PICTURES
    pictures.mkdir(parents=True)
    listed = []
    for model, world in enumerate(worlds):
        views = {f"{PICTURES}/Église {model}-{i}.jpg": view for i, view in enumerate(world.views)}
        for i, (name, view) in enumerate(views.items()):
            Image.fromarray(view.image).save(root / "images" / scene / name, quality=97, progressive=i == 1)
        write_binary(
            root / "reconstruct" / scene / "colmap" / str(model),
            views,
            world.points,
            model="OPENCV",
            lens=(0.0, 0.0, 0.0, 0.0),
        )
        listed.append(views)
    Image.fromarray(worlds[0].views[0].image[::-1]).save(pictures / "Unregistered.jpg")
    licences = {Path(name).name: {"license": "CC BY-SA 4.0"} for views in listed for name in views}
    (pictures.parent.parent / "raw_metadata.json").write_text(json.dumps(licences))
    return listed
