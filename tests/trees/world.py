"""A rendered world with all the truth about it: pictures, exact depth, cameras, and 3-D points with their tracks."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from shards.sources.scenes_layout import lay_out
from shards.sources.scenes_rays import Camera
from shards.sources.scenes_render import render
from shards.sources.scenes_views import develop, draw_cameras, draw_moment


@dataclass(frozen=True, kw_only=True)
class View:
    """One picture and its truth. OpenCV axes, world-to-camera, pixel centres at +0.5."""

    image: np.ndarray
    """(H, W, 3) uint8."""
    intrinsics: np.ndarray
    """(3, 3) px; fx != fy and the principal point off the middle, so that no swap goes unnoticed."""
    world_to_camera: np.ndarray
    """(3, 4), metres."""
    depth: np.ndarray
    """(H, W) float32 metres along the camera's axis, known everywhere."""
    points: np.ndarray
    """(n,) int64 rows of the world's points that it sees, ascending."""
    xy: np.ndarray
    """(n, 2) float64 px: where it sees them."""

    @property
    def camera_to_world(self) -> np.ndarray:
        """(4, 4)."""
        return np.linalg.inv(np.vstack([self.world_to_camera, [0, 0, 0, 1]]))


@dataclass(frozen=True, kw_only=True)
class World:
    """Views of one place, in the order in which a camera walked past them."""

    views: tuple[View, ...]
    points: np.ndarray
    """(P, 3) float64 surface points, each seen by at least two views."""


@lru_cache(maxsize=8)
def render_world(
    views: int = 6,
    *,
    size: tuple[int, int] = (72, 96),
    seed: int = 0,
    points: int = 400,
    centred: bool = False,
) -> World:
    """Render `views` pictures of (H, W) = `size`, wider than high unless asked otherwise.

    With `centred`, for forms that can say no more: one focal length, the principal point at the middle.
    """
    height, width = size
    streams = [np.random.Generator(np.random.Philox(key=[seed, i])) for i in range(5)]
    layout = lay_out(streams[0], streams[1], held_out=False)
    square = draw_cameras(streams[2], layout, views, max(size))
    focal = np.mean([camera.intrinsics[0, 0] for camera in square])
    intrinsics = np.array([[focal, 0, 0.53 * width], [0, 1.03 * focal, 0.46 * height], [0, 0, 1]])
    if centred:
        intrinsics = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
    cameras = [
        Camera(intrinsics=intrinsics, world_to_camera=c.world_to_camera, height=height, width=width)
        for c in square
    ]
    pictures = []
    for camera in cameras:
        light, exposure = draw_moment(streams[3], layout.light, held_out=False)
        pictures.append((render(layout.world, camera, light), exposure))
    level = float(np.exp(np.mean([np.log(p.colour + 1e-3).mean() for p, _ in pictures])) / 0.3)
    images = [develop(p.colour, exposure, level, streams[4]) for p, exposure in pictures]
    depths = [p.depth.astype(np.float32) for p, _ in pictures]
    poses = [np.asarray(c.world_to_camera, np.float64)[:3] for c in cameras]

    rng = np.random.Generator(np.random.Philox(key=[seed, 9]))
    candidates = np.concatenate(
        [
            _surface_points(d, intrinsics, p, rng, 2 * points // views)
            for d, p in zip(depths, poses, strict=True)
        ]
    )
    seen = [observe(candidates, intrinsics, p, d) for p, d in zip(poses, depths, strict=True)]
    shared = np.flatnonzero(sum(visible.astype(int) for visible, _ in seen) >= 2)[:points]
    return World(
        views=tuple(
            View(
                image=image,
                intrinsics=intrinsics,
                world_to_camera=pose,
                depth=depth,
                points=np.flatnonzero(visible[shared]),
                xy=xy[shared][visible[shared]],
            )
            for image, pose, depth, (visible, xy) in zip(images, poses, depths, seen, strict=True)
        ),
        points=candidates[shared],
    )


def project(
    points: np.ndarray, intrinsics: np.ndarray, world_to_camera: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (n, 2) and depths (n,) of world points (n, 3)."""
    camera = points @ world_to_camera[:, :3].T + world_to_camera[:, 3]
    pixels = camera @ intrinsics.T
    return pixels[:, :2] / pixels[:, 2:], camera[:, 2]


def unproject(
    xy: np.ndarray, depth: np.ndarray, intrinsics: np.ndarray, world_to_camera: np.ndarray
) -> np.ndarray:
    """World points (n, 3) of pixels (n, 2) at depths (n,)."""
    rays = np.column_stack([xy, np.ones(len(xy))]) @ np.linalg.inv(intrinsics).T
    return (rays * depth[:, None] - world_to_camera[:, 3]) @ world_to_camera[:, :3]


def pixel_grid(height: int, width: int) -> np.ndarray:
    """(H * W, 2) pixel centres, x first."""
    y, x = np.mgrid[:height, :width]
    return np.column_stack([x.ravel() + 0.5, y.ravel() + 0.5])


def observe(
    points: np.ndarray, intrinsics: np.ndarray, world_to_camera: np.ndarray, depth: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Which points (n, 3) a view sees, (n,) bool, and where, (n, 2) px."""
    xy, z = project(points, intrinsics, world_to_camera)
    height, width = depth.shape
    inside = (z > 0.05) & (xy > 0).all(1) & (xy[:, 0] < width) & (xy[:, 1] < height)
    column, row = np.where(inside[:, None], xy, 0).astype(int).T
    return inside & (np.abs(depth[row, column] - z) < 0.02 * z), xy


def _surface_points(
    depth: np.ndarray, intrinsics: np.ndarray, pose: np.ndarray, rng: np.random.Generator, count: int
) -> np.ndarray:
    chosen = rng.choice(depth.size, count, replace=False)
    return unproject(pixel_grid(*depth.shape)[chosen], depth.ravel()[chosen].astype(float), intrinsics, pose)
