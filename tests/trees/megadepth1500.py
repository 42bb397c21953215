"""MegaDepth-1500: two scenes of MegaDepth and LoFTR's five lists of their pairs, pickles that are named .npz."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np

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
