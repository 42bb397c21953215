"""How far a converted dataset is from the rendered truth: by depth, by poses, and by pixels; each in one number.

The same of what a benchmark's reader says, at the end.

Every function takes `views`: frame name as stored (`scene/name` where scenes share names) -> the rendered view it
must be. Figures are in stored pixels.
"""

from collections.abc import Iterable, Mapping
from itertools import permutations

import numpy as np

from probes.data.correspondences import Correspondent
from probes.data.frames import Frame, FrameList
from probes.data.square import Fit, SquareFrames
from shards.reader import Dataset
from tests.trees.world import View, pixel_grid, project, unproject


def stored_frames(dataset: Dataset, views: Mapping[str, View] | None = None) -> dict[str, tuple[int, int]]:
    """Frame's key in `views` -> (chunk, frame); one that occurs twice is an error of the test."""
    places = {}
    for chunk in range(dataset.num_chunks):
        described = dataset.chunk(chunk)
        for frame in range(described.num_frames):
            name = _key(described, frame, views or {})
            assert name not in places, f"{name} is stored twice"
            places[name] = chunk, frame
    return places


def pixel_error(dataset: Dataset, views: Mapping[str, View]) -> float:
    """Largest mean absolute difference of a stored picture and its view, in grey levels (where none was resized)."""
    worst = 0.0
    for name, (chunk, frame) in stored_frames(dataset, views).items():
        stored, true = dataset.read_image(chunk, frame), views[name].image
        assert stored.shape == true.shape, f"{name} is {stored.shape}, the view {true.shape}"
        worst = max(worst, float(np.abs(stored.astype(int) - true).mean()))
    return worst


def point_error(dataset: Dataset, views: Mapping[str, View], points: np.ndarray) -> float:
    """Largest distance between where stored cameras put the world's true points and where its views see them.

    `points` (P, 3) are the world's, in the world frame that the source keeps.
    """
    worst = 0.0
    for name, (chunk, frame) in stored_frames(dataset, views).items():
        described, view = dataset.chunk(chunk), views[name]
        assert described.intrinsics is not None and described.world_to_camera is not None, (
            f"{name} lacks a camera"
        )
        xy, _ = project(points[view.points], described.intrinsics[frame], described.world_to_camera[frame])
        worst = max(worst, float(np.linalg.norm(xy - _to_stored(described, frame, view.xy), axis=1).max()))
    return worst


def warp_error(dataset: Dataset, views: Mapping[str, View]) -> float:
    """Largest distance between a pixel warped by stored depth and cameras into another view, and the true warp.

    All ordered pairs of views in a chunk, all pixels with stored depth that the truth puts inside the other picture.
    World frames and scales need not agree.
    """
    worst, compared = 0.0, 0
    for chunk in range(dataset.num_chunks):
        described = dataset.chunk(chunk)
        assert described.intrinsics is not None and described.world_to_camera is not None, (
            "cameras are missing"
        )
        for a, b in permutations(range(described.num_frames), 2):
            depth = dataset.read_depth(chunk, a)
            assert depth is not None, f"{described.frame_names[a]} has no depth"
            known = depth.ravel() > 0
            grid = pixel_grid(*depth.shape)
            one, two = views[_key(described, a, views)], views[_key(described, b, views)]
            true_grid = _to_file(described, a, grid)
            column, row = true_grid.astype(int).T
            true_points = unproject(true_grid, one.depth[row, column], one.intrinsics, one.world_to_camera)
            true_xy, z = project(true_points, two.intrinsics, two.world_to_camera)
            height, width = two.depth.shape
            use = (
                known & (z > 0.05) & (true_xy > 0).all(1) & (true_xy[:, 0] < width) & (true_xy[:, 1] < height)
            )
            points = unproject(
                grid[use],
                depth.ravel()[use].astype(float),
                described.intrinsics[a],
                described.world_to_camera[a],
            )
            xy, _ = project(points, described.intrinsics[b], described.world_to_camera[b])
            if use.any():
                gap = np.linalg.norm(xy - _to_stored(described, b, true_xy[use]), axis=1)
                worst, compared = max(worst, float(gap.max())), compared + len(gap)
    assert compared, "no pixel was compared"
    return worst


def _key(described, frame: int, views: Mapping[str, View]) -> str:
    name = described.frame_names[frame]
    full = f"{described.meta['scene']}/{name}"
    return full if full in views else name


def _to_stored(described, frame: int, xy: np.ndarray) -> np.ndarray:
    transform = np.array(described.meta["transforms"][frame])
    return xy @ transform[:, :2].T + transform[:, 2]


def _to_file(described, frame: int, xy: np.ndarray) -> np.ndarray:
    transform = np.vstack([described.meta["transforms"][frame], [0, 0, 1]])
    inverse = np.linalg.inv(transform)[:2]
    return xy @ inverse[:, :2].T + inverse[:, 2]


def benchmark_pixel_error(split: FrameList, views: Mapping[str, View]) -> float:
    """Largest mean absolute difference of a frame's picture and its view, in grey levels, by frame's name."""
    return max(
        float(np.abs(frame.image().astype(int) - views[frame.name].image).mean()) for frame in split.frames
    )


def benchmark_warp_error(
    split: FrameList, views: Mapping[str, View], *, size: int = 64, fit: Fit = "squash"
) -> float:
    """Largest distance in px of the original between where a reader's depth and cameras put the queries of one
    frame in another, as probes find them, and where the rendered truth does.

    `views` by frame's name; all ordered pairs of frames of a scene. World frames and units need not agree.
    """
    worst, compared = 0.0, 0
    squares = SquareFrames(split.frames, size, fit)
    correspondent = Correspondent(squares)
    for a, b in permutations(range(len(split.frames)), 2):
        if split.frames[a].scene != split.frames[b].scene:
            continue
        found = correspondent.between(a, b)
        assert found is not None, f"{split.frames[a].name} or {split.frames[b].name} lacks depth or a camera"
        one, two = views[split.frames[a].name], views[split.frames[b].name]
        xy, said = squares.square(a).outward(found.queries), squares.square(b).outward(found.targets)
        column, row = xy.astype(int).T
        points = unproject(xy, one.depth[row, column].astype(float), one.intrinsics, one.world_to_camera)
        true_xy, _ = project(points, two.intrinsics, two.world_to_camera)
        if len(xy):
            worst, compared = (
                max(worst, float(np.linalg.norm(true_xy - said, axis=1).max())),
                compared + len(xy),
            )
    assert compared, "no point was compared"
    return worst


def benchmark_point_error(frames: Iterable[Frame], views: Mapping[str, View], points: np.ndarray) -> float:
    """Largest distance in px between where a reader's cameras put the world's points and where views see them.

    `points` (P, 3) are the world's, in the world frame that the benchmark keeps.
    """
    worst = 0.0
    for frame in frames:
        assert frame.intrinsics is not None and frame.world_to_camera is not None, (
            f"{frame.name} has no camera"
        )
        view = views[frame.name]
        xy, _ = project(points[view.points], frame.intrinsics, frame.world_to_camera)
        worst = max(worst, float(np.linalg.norm(xy - view.xy, axis=1).max()))
    return worst
