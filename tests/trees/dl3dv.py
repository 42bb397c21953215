"""A scene of DL3DV-10K: video frames at a fourth and an eighth of their size, cameras for the full size."""

import json
from pathlib import Path

from PIL import Image

from tests.trees.figures import Figures, measure
from tests.trees.nerfstudio import describe_world, points_there
from tests.trees.world import View, World, render_world

SCENE = "1K/" + "0f2e" * 16


def write(root: Path, world: World, scene: str = SCENE) -> dict[str, View]:
    """Write one scene, the views at a fourth of the size; the last frame on disk has no camera."""
    folder = root / scene
    names = [f"frame_{i + 8:05d}.png" for i in range(len(world.views))]
    for images, scale in (("images_4", 1), ("images_8", 2)):
        (folder / images).mkdir(parents=True)
        for name, view in zip(names, world.views, strict=True):
            picture = Image.fromarray(view.image)
            picture.resize((picture.width // scale, picture.height // scale)).save(folder / images / name)
    views = dict(zip(names[:-1], world.views[:-1], strict=True))
    listed = {f"images/{name}": views[name] for name in reversed(views)}
    transforms = describe_world(listed, scale=4) | {
        "applied_transform": [[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, -1, 0]]
    }
    (folder / "transforms.json").write_text(json.dumps(transforms))
    return views


def figures(root: Path) -> Figures:
    """The source's row, from a tree written below `root`."""
    world = render_world(5, seed=2)
    views = write(root / "tree", world)
    points = points_there(world.points)
    return measure("dl3dv", [root / "tree"], root / "out", views, by="poses", points=points)
