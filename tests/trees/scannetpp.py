"""ScanNet++'s DSLR pictures of one room: undistorted and fisheye, their cameras, and which are held out.

Of a world's views the last is a test frame, the one before is marked as bad, the one before that is in no list.
"""

import json
from pathlib import Path

from PIL import Image

from tests.trees.colmap_model import write_text
from tests.trees.figures import Figures, measure
from tests.trees.nerfstudio import describe, describe_world, points_there
from tests.trees.world import View, World, render_world


def write(root: Path, world: World, scene: str = "0a5c013435", *, colmap: bool = True) -> dict[str, View]:
    """Write one scene; returns its training frames. Without `colmap` the undistorted pictures have poses alone."""
    dslr = root / "data" / scene / "dslr"
    views = {f"DSC{9 + i:05d}.JPG": view for i, view in enumerate(world.views)}
    names = list(views)
    test, bad, unlisted = names[-1], names[-2], names[-3]
    for folder in ("resized_undistorted_images", "resized_images"):
        (dslr / folder).mkdir(parents=True)
        for name, view in views.items():
            Image.fromarray(view.image).save(dslr / folder / name, "JPEG", quality=97)
    (dslr / "nerfstudio").mkdir()
    transforms = describe_world({n: v for n, v in views.items() if n != test}, model="PINHOLE")
    for entry in transforms["frames"]:
        entry["is_bad"] = entry["file_path"] == bad
        entry["mask_path"] = entry["file_path"].replace(".JPG", ".png")
    transforms["test_frames"] = [describe(views[test], test) | {"is_bad": False}]
    (dslr / "nerfstudio" / "transforms_undistorted.json").write_text(json.dumps(transforms, indent=4))
    lists = {"train": [n for n in names if n not in {test, unlisted}], "test": [test], "has_masks": True}
    (dslr / "train_test_lists.json").write_text(json.dumps(lists))
    if colmap:
        lens = (0.05, -0.01, 0.002, -0.001)
        write_text(dslr / "colmap", views, world.points, model="OPENCV_FISHEYE", lens=lens, header=3)
    return {name: view for name, view in views.items() if name not in {test, bad, unlisted}}


def figures(root: Path) -> Figures:
    """The source's row, from a tree written below `root`."""
    world = render_world(7, seed=2)
    views = write(root / "tree", world)
    points = points_there(world.points)
    return measure("scannetpp", [root / "tree"], root / "out", views, by="poses", points=points)
