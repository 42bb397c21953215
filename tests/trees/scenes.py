"""The rendered scenes themselves: nothing is written, the truth is what the renderer hands over."""

from pathlib import Path

import numpy as np

from shards.sources import scenes
from tests.trees.figures import Figures, measure
from tests.trees.world import View

OPTIONS = scenes.Options(scenes=1, val_scenes=1, frames=4)


def figures(root: Path) -> Figures:
    """The source's row: a training and a held-out scene of four views."""
    views = {}
    for task in scenes.find([], OPTIONS):
        for frame in scenes.read(task).frames:
            views[f"{task.name}/{frame.name}"] = View(
                image=frame.image,
                intrinsics=frame.intrinsics,
                world_to_camera=frame.world_to_camera,
                depth=frame.depth,
                points=np.empty(0, np.int64),
                xy=np.empty((0, 2)),
            )
    return measure("scenes", [], root / "out", views, by="depth", options=OPTIONS)
