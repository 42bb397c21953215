"""NAVI: objects with wild and multi-view sets, quaternions, disparity as depth, and pictures that EXIF turns.

Its cameras have one focal length and the principal point at the middle: the world must be rendered `centred`.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.trees.world import View, World

WILD, MULTIVIEW, VIDEO = "wild_set", "multiview_00_pixel_5", "video-00-pixel_5-MVI_1"
OBJECTS = ("3d_dollhouse_sink", "duck_bath_yellow_s")
MILLIMETRES = 100.0
"""Of a unit of the world: its rooms become as large as the scanned objects."""
TURNED = "001.jpg"
"""The picture of each set that is stored lying on its side."""


def write(root: Path, world: World, trained: World) -> dict[str, View]:
    """Write two objects of a wild set of one world and a multi-view set of another; returns the views by picture's
    path.

    Both objects show the same. Depth is unknown in the left tenth, where the object is not. The first object
    has a video set too, which is none of the sets that are used; a folder holds no object at all.
    """
    shown: dict[str, View] = {}
    for name in OBJECTS:
        for kind, of in ((WILD, world), (MULTIVIEW, trained)):
            rows = []
            for i, view in enumerate(of.views):
                rows.append(_write_view(root / name / kind, f"{i:03d}.jpg", view, name, kind))
                shown[f"{name}/{kind}/images/{i:03d}.jpg"] = view
            (root / name / kind / "annotations.json").write_text(json.dumps(rows[::-1]))
    video = root / OBJECTS[0] / VIDEO
    row = _write_view(video, "000.jpg", world.views[0], OBJECTS[0], "video-00")
    (video / "annotations.json").write_text(json.dumps([row]))
    (root / "custom_splits" / "single_image_3d").mkdir(parents=True)
    return shown


def _write_view(folder: Path, name: str, view: View, object_id: str, scene: str) -> dict[str, Any]:
    for kind in ("images", "depth", "masks"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    tags, pixels = Image.Exif(), view.image
    if name == TURNED:
        tags[0x0112] = 6  # a quarter clockwise brings it upright
        pixels = np.rot90(pixels)
    Image.fromarray(np.ascontiguousarray(pixels)).save(folder / "images" / name, quality=97, exif=tags)
    height, width = view.depth.shape
    disparity = 65535 * 10 / (MILLIMETRES * view.depth.astype(float))
    disparity[:, : width // 10] = 0
    stem = Path(name).stem
    Image.fromarray(disparity.round().astype(np.uint16)).save(folder / "depth" / f"{stem}.png")
    Image.fromarray((disparity > 0).astype(np.uint8) * 255).save(folder / "masks" / f"{stem}.png")
    return {
        "object_id": object_id,
        "camera": {
            "q": _quaternion(view.world_to_camera[:, :3]).tolist(),
            "t": (MILLIMETRES * view.world_to_camera[:, 3]).tolist(),
            "focal_length": view.intrinsics[0, 0],
            "camera_model": "pixel_5",
        },
        "filename": name,
        "filename_original": f"PXL_20230304_{stem}",
        "image_size": [height, width],
        "scene_name": scene,
        "split": "train" if int(stem) % 5 else "val",
        "occluded": False,
    }


def _quaternion(rotation: np.ndarray) -> np.ndarray:
    """w, x, y, z: the eigenvector that the rotation's symmetric form leaves (Bar-Itzhack)."""
    (a, b, c), (d, e, f), (g, h, i) = rotation
    matrix = np.array(
        [
            [a + e + i, h - f, c - g, d - b],
            [h - f, a - e - i, b + d, c + g],
            [c - g, b + d, e - a - i, f + h],
            [d - b, c + g, f + h, i - a - e],
        ]
    )
    return np.linalg.eigh(matrix / 3)[1][:, -1]
