"""3D Street View: a region's pictures by target, in names of four numbers, each with its line of metadata."""

from pathlib import Path

from PIL import Image

from tests.trees.figures import Figures, measure
from tests.trees.world import View, World, render_world

REGION = "0002"


def write(root: Path, world: World) -> dict[str, View]:
    """Write a region with targets 9 and 10 whose pictures alternate in the listing, half of the views each.

    Two more pictures of target 9: one says in its text that it shows target 10, one is named otherwise.
    """
    folder = root / "dataset_aligned" / REGION
    folder.mkdir(parents=True)
    shown = {}
    for i, view in enumerate(world.views):
        target = (9, 10)[i % 2]
        name = f"{REGION}_{i + 8:07d}_{i + 98}_{target:07d}"
        _write(folder / name, view, i + 8, target)
        shown[f"{REGION}/{target}/{name}.jpg"] = view
    _write(folder / f"{REGION}_0000500_1_0000009", world.views[0], 500, 10)
    Image.fromarray(world.views[0].image).save(folder / "overview.jpg")
    return shown


def figures(root: Path) -> Figures:
    """The source's row, from a tree written below `root`."""
    views = write(root / "tree", render_world(6))
    return measure("streetview", [root / "tree"], root / "out", views, by="pixels")


def _write(stem: Path, view: View, image: int, target: int) -> None:
    Image.fromarray(view.image).save(stem.with_suffix(".jpg"), quality=97)
    point, normal, camera = "40.7 -74.0 12.5", "0.6 0.8 0.0", "40.7001 -74.0002 3.0"
    lines = [f"d {int(REGION)} {target} {image} 4711 {point} {normal} {camera} 23.4 131.2 7.5 0"]
    lines.append("a " + " ".join(["320.0"] * 40))
    stem.with_suffix(".txt").write_text("\n".join(lines) + "\n")
