"""The reference's annotation files for pictures of rendered worlds, in both forms, as gzip JSON."""

import gzip
import json
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from shards.sources.jgz import Options
from tests.trees.colmap_model import quaternion
from tests.trees.figures import Figures, measure
from tests.trees.world import View, World, render_world


def write(
    root: Path,
    world: World,
    *,
    form: Literal["mum", "vggt", "megadepth"],
    name: str = "apple/110_13051_23361",
) -> tuple[Path, dict[str, View]]:
    """Write pictures below `root` and a list of them beside it; returns that file and the frames it lists."""
    views = {f"{name}/images/{form}_{i + 8}.jpg": view for i, view in enumerate(world.views)}
    for file, view in views.items():
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(view.image).save(root / file, quality=97)
    describe = _mum if form == "mum" else _vggt
    entries = [describe(i, file, view) for i, (file, view) in enumerate(views.items())]
    listed: list[Any] = entries
    if form == "megadepth":  # lists around two anchors, which share most of their pictures
        listed = [entries[::-1][:-1], entries[:-1]]
    path = root.parent / f"{form}_train.jgz"
    path.write_bytes(gzip.compress(json.dumps({name: listed}).encode()))
    return path, views


def figures(root: Path) -> Figures:
    """The source's row, from a tree written below `root`."""
    world, root_of_pictures = render_world(4, seed=2), root / "pictures"
    views: dict[str, View] = {}
    paths = []
    for form, name in (("vggt", "apple/110_13051_23361"), ("megadepth", "0001")):
        path, listed = write(root_of_pictures, world, form=form, name=name)
        paths.append(path)
        views |= listed
    options = Options(root=root_of_pictures)
    return measure("jgz", paths, root / "out", views, by="poses", points=world.points, options=options)


def _mum(number: int, file: str, view: View) -> dict[str, Any]:
    pose = view.world_to_camera
    return {
        "filepath": file,
        "id": number,
        "qvec": (-quaternion(pose[:, :3])).tolist(),
        "tvec": pose[:, 3].tolist(),
    }


def _vggt(number: int, file: str, view: View) -> dict[str, Any]:
    return {"filepath": file, "extri": view.world_to_camera.tolist(), "intri": view.intrinsics.tolist()}
