"""The embedded default source: rendered scenes, textured rooms with objects, seen from several sides.

Needs no files and no network: every scene is a pure function of (seed, split, number), the same whatever
the number of scenes, the worker that draws it or the order. Frames carry exact z-depth in metres,
intrinsics, world-to-camera poses (OpenCV axes, pixel centres at +0.5) and class labels. Held-out (`val`)
scenes draw from other seeds, and also from texture families, hues and ranges of light and exposure that
training never sees.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from shards.format import SPLITS, Frame, Scene, ShardsError
from shards.sources.scenes_layout import CLASSES, lay_out
from shards.sources.scenes_render import render
from shards.sources.scenes_views import develop, draw_cameras, draw_moment

LICENCE = "CC0-1.0 (rendered)"
_STREAMS = {"layout": 0, "textures": 1, "cameras": 2, "moment": 3}


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of `build scenes`."""

    scenes: int = 64
    """Training scenes to render."""
    val_scenes: int | None = None
    """Held-out scenes beside them; by default a tenth of the training scenes, at least 4."""
    frames: int = 8
    """Views of every scene."""
    size: int = 96
    """Width and height of a view, pixels."""
    seed: int = 0
    """Scenes of another seed are other scenes."""

    def __post_init__(self) -> None:
        limits = {"scenes": (0, 2**31), "frames": (1, 96), "size": (16, 1024), "seed": (0, 2**63)}
        if self.val_scenes is not None:
            limits["val_scenes"] = (0, 2**31)
        for name, (lowest, limit) in limits.items():
            if not lowest <= getattr(self, name) <= limit:
                option = name.replace("_", "-")
                raise ShardsError(f"--{option} must lie in {lowest}..{limit}, not {getattr(self, name)}")
        if not self.scenes and not self.val_scenes:
            raise ShardsError("--scenes 0 leaves nothing to render; ask for at least one scene")


@dataclass(frozen=True, kw_only=True)
class SceneTask:
    """One scene to be rendered."""

    name: str
    seed: int
    split: Literal["train", "val"]
    number: int
    views: int
    size: int


def find(paths: Sequence[Path], options: Options) -> Iterator[SceneTask]:
    """The training scenes, then the held-out ones; `paths` must be empty, for nothing is read."""
    if paths:
        raise ShardsError(
            f"the source scenes renders its own pictures and reads no folder: leave out {paths[0]}"
        )
    held_out = max(4, options.scenes // 10) if options.val_scenes is None else options.val_scenes
    for split, count in zip(SPLITS, (options.scenes, held_out), strict=True):
        for number in range(count):
            yield SceneTask(
                name=f"{split}-seed{options.seed}-{number:06d}",
                seed=options.seed,
                split=split,
                number=number,
                views=options.frames,
                size=options.size,
            )


def _generator(task: SceneTask, stream: str, view: int = 0) -> np.random.Generator:
    """A counter-based generator of its own for every (seed, split, scene, stream, view)."""
    place = SPLITS.index(task.split) << 62 | task.number << 24 | _STREAMS[stream] << 16 | view
    return np.random.Generator(np.random.Philox(key=np.array([task.seed, place], np.uint64)))


def read(task: SceneTask) -> Scene:
    """Render one scene: `task.views` frames of uint8 (size, size, 3) with depth, labels and cameras."""
    held_out = task.split == "val"
    layout = lay_out(_generator(task, "layout"), _generator(task, "textures"), held_out=held_out)
    cameras = draw_cameras(_generator(task, "cameras"), layout, task.views, task.size)
    generators = [_generator(task, "moment", view) for view in range(len(cameras))]
    moments = [draw_moment(rng, layout.light, held_out=held_out) for rng in generators]
    pictures = [
        render(layout.world, camera, light) for camera, (light, _) in zip(cameras, moments, strict=True)
    ]
    # One exposure for the scene, as a photographer would set it; each view's gain departs from it.
    level = np.exp(np.mean([np.log(picture.colour + 1e-3).mean() for picture in pictures])) / 0.3
    frames = [
        Frame(
            name=f"{view:03d}",
            image=develop(picture.colour, moments[view][1], float(level), generators[view]),
            intrinsics=camera.intrinsics,
            world_to_camera=camera.world_to_camera,
            depth=picture.depth,
            labels=picture.labels,
        )
        for view, (camera, picture) in enumerate(zip(cameras, pictures, strict=True))
    ]
    return Scene(name=task.name, frames=frames, split=task.split, licence=LICENCE, classes=CLASSES)
