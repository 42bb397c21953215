"""WildRGB-D: a category's scenes with PNG pictures, depth in millimetres, and poses a line each, in no order."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from tests.trees.figures import Figures, measure
from tests.trees.world import View, World, render_world

SCENES = ("cup/scene_002", "cup/scene_010")


def write(root: Path, world: World) -> dict[str, View]:
    """Write two scenes, half of the views each; a third of the `val` list repeats the first views.

    In the first scene a pose has no picture and a picture no pose.
    """
    half = len(world.views) // 2
    shown = {}
    for scene, views in zip(SCENES, (world.views[:half], world.views[half:]), strict=True):
        numbers = range(7, 7 + 4 * len(views), 4)
        _write_scene(root, scene, dict(zip(numbers, views, strict=True)))
        shown |= {f"{scene}/{number:05d}.png": view for number, view in zip(numbers, views, strict=True)}
    first = _folder(root, SCENES[0])
    with (first / "cam_poses.txt").open("a") as file:
        file.write("99 1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1\n")
    Image.fromarray(world.views[0].image).save(first / "rgb" / "00098.png")

    _write_scene(root, "cup/scene_200", dict(enumerate(world.views[:2])))
    shown |= {f"cup/scene_200/{i:05d}.png": view for i, view in enumerate(world.views[:2])}
    (root / "cup" / "types.json").write_text(json.dumps({"scene_002": "single"}))
    for name in ("camera_eval_list.json", "nvs_list.json"):
        lists = {"train": ["scene_002", "scene_010"], "val": ["scene_200"]}
        (root / "cup" / name).write_text(json.dumps(lists))
    return shown


def _folder(root: Path, scene: str) -> Path:
    category, name = scene.split("/")
    return root / category / "scenes" / name


def figures(root: Path) -> Figures:
    """The source's row, from a tree written below `root`."""
    views = write(root / "tree", render_world(6))
    return measure("wildrgbd", [root / "tree"], root / "out", views, by="depth")


def _write_scene(root: Path, scene: str, views: dict[int, View]) -> None:
    folder = _folder(root, scene)
    for kind in ("rgb", "depth", "masks"):
        (folder / kind).mkdir(parents=True)
    lines = []
    for number, view in sorted(views.items(), reverse=True):
        name = f"{number:05d}.png"
        Image.fromarray(view.image).save(folder / "rgb" / name)
        Image.fromarray((1000 * view.depth).round().astype(np.uint16)).save(folder / "depth" / name)
        Image.new("L", view.image.shape[1::-1]).save(folder / "masks" / name)
        lines.append(f"{number} " + " ".join(f"{x:.10e}" for x in view.camera_to_world.ravel()))
    (folder / "cam_poses.txt").write_text("\n".join(lines) + "\n")
    height, width = next(iter(views.values())).image.shape[:2]
    k = next(iter(views.values())).intrinsics
    columns = [k[row, column] for column in range(3) for row in range(3)]
    (folder / "metadata").write_text(json.dumps({"w": width, "h": height, "K": columns, "fps": 60}))
