"""DTU in MVSNet's form: cameras as text, depth in millimetres as arrays with holes, masks of the object."""

from pathlib import Path

import numpy as np
from PIL import Image

from tests.trees.world import View, render_world

SCANS = (1, 110)
VIEWS = 6
SIZE = (96, 128)
MILLIMETRES = 1000.0
HOLE = np.s_[40:50, 60:70]
"""Where the depth maps know nothing."""


def write(root: Path) -> dict[str, View]:
    """Write two scans; returns their views by `scan/view`, in metres."""
    truth = {}
    for number, scan in enumerate(SCANS):
        folder = root / f"scan{scan}"
        for kind in ("images", "cams", "depths", "binary_masks"):
            (folder / kind).mkdir(parents=True)
        for index, view in enumerate(render_world(VIEWS, size=SIZE, seed=6 + number).views):
            name = f"{index:08d}"
            Image.fromarray(view.image).save(folder / "images" / f"{name}.jpg", quality=97)
            (folder / "cams" / f"{name}_cam.txt").write_text(camera_text(view, limits=index % 3))
            depth = (view.depth * MILLIMETRES).astype(np.float32)
            depth[HOLE] = np.nan
            np.save(folder / "depths" / f"{name}.npy", depth)
            Image.fromarray(mask(index)).save(folder / "binary_masks" / f"{name}.png")
            truth[f"scan{scan}/{name}"] = view
    return truth


def mask(index: int) -> np.ndarray:
    """(H, W) uint8, 255 on the object: all but a border and a stripe."""
    inside = np.full(SIZE, 255, np.uint8)
    inside[:, : 4 + index] = 0
    inside[-6:] = 0
    inside[20:22, 80:] = 0
    return inside


def camera_text(view: View, *, limits: int) -> str:
    """A camera file with 29, 30 or 31 words."""
    pose = np.vstack([view.world_to_camera, [0, 0, 0, 1]])
    pose[:3, 3] *= MILLIMETRES
    rows = ["extrinsic", *(" ".join(map(repr, row)) for row in pose.tolist()), ""]
    rows += ["intrinsic", *(" ".join(map(repr, row)) for row in view.intrinsics.tolist()), ""]
    return "\n".join([*rows, " ".join(["425.0", "2.5", "192", "935.0"][: 2 + limits]), ""])
