"""How far a reader's cameras and depth are from the rendered truth: points warped by both, in one number."""

from collections.abc import Mapping, Sequence
from itertools import permutations

import numpy as np

from probes.correspondences import Correspondent
from probes.frames import Frame
from probes.square import Fit, SquareFrames
from tests.trees.world import View, project, unproject


def warp_error(
    frames: Sequence[Frame], views: Mapping[str, View], *, size: int = 96, fit: Fit = "squash"
) -> float:
    """Largest distance in px of the frames' own pictures between warps by what a reader says and the true ones.

    `views`: the view that each frame must show, by the frame's name. All ordered pairs of frames of one scene are
    compared at all visible points of the query grid; world frames and scales need not agree. A view may have been
    rendered at another size than its frame.
    """
    assert {frame.name for frame in frames} <= views.keys()
    square = SquareFrames(frames, size, fit)
    correspondent = Correspondent(square)
    worst, compared = 0.0, 0
    for a, b in permutations(range(len(frames)), 2):
        if frames[a].scene != frames[b].scene:
            continue
        found = correspondent.between(a, b)
        assert found is not None, f"{frames[a].name} has no depth or camera"
        one, two = views[frames[a].name], views[frames[b].name]
        points = square.square(a).outward(found.queries) * _scale(frames[a], one)
        column, row = points.astype(int).T
        world = unproject(points, one.depth[row, column].astype(float), one.intrinsics, one.world_to_camera)
        true, _ = project(world, two.intrinsics, two.world_to_camera)
        gap = np.linalg.norm(square.square(b).outward(found.targets) - true / _scale(frames[b], two), axis=1)
        worst, compared = max([worst, *gap.tolist()]), compared + len(gap)
    assert compared > 100, f"only {compared} points were compared"
    return worst


def pixel_error(frames: Sequence[Frame], views: Mapping[str, View]) -> float:
    """Largest mean absolute difference of a frame's picture and its view of the same size, in grey levels."""
    return max(float(np.abs(f.image().astype(int) - views[f.name].image).mean()) for f in frames)


def _scale(frame: Frame, view: View) -> np.ndarray:
    """Pixels of the view in a pixel of the frame, along x and y."""
    height, width = view.depth.shape
    return np.array([width / frame.width, height / frame.height])
