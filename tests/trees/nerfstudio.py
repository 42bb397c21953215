"""nerfstudio's list of cameras for a rendered world: OpenGL axes, camera-to-world, and a world of its own."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tests.trees.world import View

WORLD = np.array([[0.0, 1, 0], [1, 0, 0], [0, 0, -1]])
"""World of nerfstudio's files <- world of the COLMAP model they were made from: axes swapped, one negated."""


def points_there(points: np.ndarray) -> np.ndarray:
    """World points (P, 3) in nerfstudio's world."""
    return points @ WORLD.T


def describe(view: View, file: str) -> dict[str, Any]:
    """The entry of one picture."""
    matrix = view.camera_to_world.copy()
    matrix[:3, 1] *= -1  # y up
    matrix[:3, 2] *= -1  # z backward
    matrix[:3] = WORLD @ matrix[:3]
    return {"file_path": file, "transform_matrix": matrix.tolist()}


def describe_camera(view: View, scale: int, model: str) -> dict[str, Any]:
    """The keys of the camera, for pictures `scale` times the size of the view."""
    height, width = view.image.shape[:2]
    k = view.intrinsics * scale
    return {
        "w": width * scale,
        "h": height * scale,
        "fl_x": k[0, 0],
        "fl_y": k[1, 1],
        "cx": k[0, 2],
        "cy": k[1, 2],
        "k1": 0.0,
        "k2": 0.0,
        "p1": 0.0,
        "p2": 0.0,
        "camera_model": model,
    }


def describe_world(views: Mapping[str, View], scale: int = 1, model: str = "OPENCV") -> dict[str, Any]:
    """A whole file: `views` is `file_path` -> view."""
    camera = describe_camera(next(iter(views.values())), scale, model)
    return camera | {"frames": [describe(view, file) for file, view in views.items()]}
