"""MegaDepth-1500 in two forms: two scenes of MegaDepth with LoFTR's five lists, pickles that are named .npz; and
glue-factory's archive with lists as text."""

import pickle
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from PIL import Image

from tests.trees import megadepth
from tests.trees.world import View, render_world

SIZE = (96, 128)
LISTS = {"0015": ("0015_0.1_0.3", "0015_0.3_0.5"), "0022": ("0022_0.1_0.3", "0022_0.3_0.5", "0022_0.5_0.7")}
PAIRS = 3
"""Pairs a list holds: the first view of its scene with others."""


def write(root: Path, folder: str = "megadepth_test_1500_scene_info") -> dict[str, View]:
    """Write both scenes and the lists; returns the views of the listed photographs by their paths."""
    listed: dict[str, View] = {}
    (root / folder).mkdir(parents=True, exist_ok=True)
    for number, (scene, names) in enumerate(LISTS.items()):
        views = megadepth.write(root, render_world(6, size=SIZE, seed=2 + number), scene)
        paths = {f"Undistorted_SfM/{scene}/images/{name}": view for name, view in views.items()}
        listed |= paths
        for at, name in enumerate(names):
            others = [(k + at) % (len(paths) - 1) + 1 for k in range(PAIRS)]
            (root / folder / f"{name}.npz").write_bytes(
                pickle.dumps(describe(paths, [(0, k) for k in others]))
            )
    return listed


def write_views(root: Path) -> dict[str, View]:
    """Write glue-factory's form, with a view that no pair names; returns the views of the others by their names."""
    (root / "images" / "0015").mkdir(parents=True)
    (root / "depths" / "0015").mkdir(parents=True)
    views = {f"0015/{i}_o.jpg": view for i, view in enumerate(render_world(5, size=SIZE, seed=2).views)}
    lines = []
    for name, view in views.items():
        Image.fromarray(view.image).save(root / "images" / name, quality=97)
        with h5py.File(root / "depths" / name.replace(".jpg", ".h5"), "w") as file:
            file.create_dataset("depth", data=view.depth)
        k, pose = view.intrinsics, view.world_to_camera
        numbers = map(repr, [*pose[:, :3].ravel().tolist(), *pose[:, 3].tolist()])
        camera = f"PINHOLE {SIZE[1]} {SIZE[0]} {k[0, 0]} {k[1, 1]} {k[0, 2]} {k[1, 2]}"
        lines.append(f"{name} {' '.join(numbers)} {camera}\n")
    (root / "views.txt").write_text("".join(lines))
    names = list(views)
    (root / "pairs.txt").write_text("".join(f"{names[a]} {names[b]}\n" for a, b in ((0, 1), (2, 0), (1, 3))))
    return {name: views[name] for name in names[:4]}


def describe(views: dict[str, View], pairs: list[tuple[int, int]]) -> dict[str, Any]:
    """A list's content: every second row is a photograph that takes no part, as most are in the published ones."""
    rows = 2 * len(views)
    columns = {
        key: np.full(rows, None, object) for key in ("image_paths", "depth_paths", "intrinsics", "poses")
    }
    for number, (path, view) in enumerate(views.items()):
        scene, stem = Path(path).parts[1], Path(path).stem
        columns["image_paths"][2 * number] = path
        columns["depth_paths"][2 * number] = f"phoenix/S6/zl548/MegaDepth_v1/{scene}/dense0/depths/{stem}.h5"
        columns["intrinsics"][2 * number] = view.intrinsics
        columns["poses"][2 * number] = np.vstack([view.world_to_camera, [0, 0, 0, 1]])
    infos = [(np.array([2 * a, 2 * b]), np.float64(0.1 + 0.05 * b), np.zeros(4)) for a, b in pairs]
    return columns | {"pair_infos": infos}
