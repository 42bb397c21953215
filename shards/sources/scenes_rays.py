"""Ray casting of a small world in numpy: what every ray meets first, and at which exact z.

A world is the six faces of a room (an axis-aligned box seen from inside) and convex solids: boxes, spheres
and frusta (cylinders and cones are frusta). A ray's direction has camera z = 1, so that its parameter IS the
z-depth in metres. Each solid is tested only in the rectangle of pixels that its bounding box projects to.
World axes: x, y along the floor, z up, metres; cameras are OpenCV's. This file knows nothing of light, and
of textures only that a world carries them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from shards.sources.scenes_textures import Atlas

NEAR = 0.05
CENTRE = np.array([(0.5, 0.5)], np.float32)
_CORNERS = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float64)


@dataclass(frozen=True, kw_only=True)
class Material:
    """How a surface looks: row of the atlas, metres per texture period, place of the texture, gloss in [0, 1]."""

    texture: int
    period: float
    offset: tuple[float, float] = (0.0, 0.0)
    gloss: float = 0.0
    glow: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Solid:
    """A convex body: centre (3,), half sizes (3,) in metres, rotation (3, 3) from its own axes to the world's.

    A frustum's axis is its own z; its radius goes from the half sizes at the bottom to `taper` (0..1) times
    them on top.
    """

    shape: Literal["box", "sphere", "frustum"]
    centre: np.ndarray
    half: np.ndarray
    rotation: np.ndarray
    label: int
    material: Material
    taper: float = 1.0

    @property
    def to_local(self) -> np.ndarray:
        """(3, 3): world offsets from the centre to unit coordinates, in which the body fills [-1, 1]^3."""
        return self.rotation.T / self.half[:, None]


@dataclass(frozen=True, kw_only=True)
class Room:
    """The inside of [0, size] (3,) metres; faces in the order x=0, x=max, y=0, y=max, floor, ceiling."""

    size: np.ndarray
    labels: tuple[int, ...]
    materials: tuple[Material, ...]


@dataclass(frozen=True, kw_only=True)
class World:
    """A room, its solids and the texels of their materials. Surface ids: 0..5 the room's faces, then the solids."""

    room: Room
    solids: tuple[Solid, ...]
    atlas: Atlas

    @cached_property
    def centres(self) -> np.ndarray:
        """Of all solids, (solids, 3)."""
        return np.array([solid.centre for solid in self.solids]).reshape(-1, 3)

    @cached_property
    def to_local(self) -> np.ndarray:
        """`Solid.to_local` of all solids, (solids, 3, 3)."""
        return np.array([solid.to_local for solid in self.solids]).reshape(-1, 3, 3)

    @cached_property
    def corners(self) -> np.ndarray:
        """The corners of all bounding boxes, (solids, 8, 3)."""
        edges = np.array([solid.rotation * solid.half for solid in self.solids]).reshape(-1, 3, 3)
        return self.centres[:, None] + _CORNERS @ edges.swapaxes(1, 2)


@dataclass(frozen=True, kw_only=True)
class Camera:
    """A pinhole: intrinsics (3, 3) in pixels, centres at +0.5; world-to-camera [R | t] (3, 4), OpenCV axes."""

    intrinsics: np.ndarray
    world_to_camera: np.ndarray
    height: int
    width: int

    @property
    def position(self) -> np.ndarray:
        """Its centre in the world, (3,) metres."""
        return -self.world_to_camera[:, :3].T @ self.world_to_camera[:, 3]


@dataclass(frozen=True, kw_only=True)
class Hits:
    """What rays met: `depth` (samples, H, W) float32 metres along z, `surface` (samples, H, W) uint8 ids."""

    depth: np.ndarray
    surface: np.ndarray


def ray_axes(camera: Camera, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Camera-frame x (samples, 1, W) and y (samples, H, 1) of rays with z = 1, float32."""
    k = camera.intrinsics
    x = (np.arange(camera.width) + places[:, :1] - k[0, 2]) / k[0, 0]
    y = (np.arange(camera.height) + places[:, 1:] - k[1, 2]) / k[1, 1]
    return x[:, None, :].astype(np.float32), y[:, :, None].astype(np.float32)


def _windows(world: World, camera: Camera) -> np.ndarray:
    """Pixels that can see each solid, (solids, 4) integers: first and last + 1 row and column; empty if none can."""
    local = world.corners @ camera.world_to_camera[:, :3].T + camera.world_to_camera[:, 3]
    depth = local[..., 2]
    k = camera.intrinsics
    with np.errstate(divide="ignore", invalid="ignore"):
        x = np.clip(local[..., 0] / depth * k[0, 0] + k[0, 2], -1, camera.width)
        y = np.clip(local[..., 1] / depth * k[1, 1] + k[1, 2], -1, camera.height)
    windows = np.stack([y.min(1), y.max(1) + 1, x.min(1), x.max(1) + 1], 1)
    # A box that reaches behind the lens has no such outline; one that is wholly behind is not seen.
    windows[depth.min(1) < NEAR] = 0, camera.height, 0, camera.width
    windows[depth.max(1) < NEAR] = 0
    return np.clip(windows, 0, [camera.height, camera.height, camera.width, camera.width]).astype(int)


def _meet_box(o: Sequence, d: Sequence) -> np.ndarray:
    """Entry parameter of rays o + t d into [-1, 1]^3, inf where they miss."""
    enter, leave = None, None
    for origin, direction in zip(o, d, strict=True):
        # Never zero, which would make an interval of NaN for a ray along a face.
        inverse = np.reciprocal(direction + np.float32(1e-12))
        middle = inverse * -origin
        reach = np.abs(inverse, out=inverse)
        near, far = middle - reach, np.add(middle, reach, out=middle)
        enter = near if enter is None else np.maximum(enter, near, out=enter)
        leave = far if leave is None else np.minimum(leave, far, out=leave)
    enter[enter > leave] = np.inf
    return enter


def _meet_sphere(o: Sequence, d: Sequence) -> np.ndarray:
    """Entry parameter of rays into the unit sphere, inf where they miss; exact by way of the nearest point."""
    square = d[0] * d[0]
    square += d[1] * d[1]
    square += d[2] * d[2]
    nearest = (d[0] * o[0] + d[1] * o[1] + d[2] * o[2]) / -square
    gap = np.float32(1)
    for origin, direction in zip(o, d, strict=True):
        gap = gap - (origin + nearest * direction) ** 2
    return np.where(gap > 0, nearest - np.sqrt(np.maximum(gap, 0) / square), np.inf)


def _meet_frustum(o: Sequence, d: Sequence, taper: float) -> np.ndarray:
    """Entry parameter of rays into x^2 + y^2 <= r(z)^2, |z| <= 1, with r from 1 at the bottom to `taper` on top."""
    slope = np.float32((taper - 1) / 2)
    radius = np.float32((taper + 1) / 2) + slope * o[2]
    change = slope * d[2]
    a = d[0] * d[0] + d[1] * d[1] - change * change
    b = o[0] * d[0] + o[1] * d[1] - radius * change
    c = o[0] * o[0] + o[1] * o[1] - radius * radius
    root = b * b - a * c
    root = np.sqrt(np.maximum(root, 0, out=root), out=root)
    # The stable form of both roots: no difference of near-equal numbers.
    twice = -(b + np.copysign(root, b))
    best = None
    for t in (twice / a, c / twice):
        height = np.abs(o[2] + t * d[2])
        inside = (height <= 1) & (root > 0) & (radius + t * change >= 0)
        t = np.where(inside, t, np.inf)  # noqa: PLW2901
        best = t if best is None else np.minimum(best, t)
    # A convex body is entered through the cap that faces the ray, or not through a cap at all.
    up = d[2] < 0
    t = (np.where(up, 1, -1).astype(np.float32) - o[2]) / d[2]
    cap = np.where(up, np.float32(taper**2), np.float32(1))
    inside = (o[0] + t * d[0]) ** 2 + (o[1] + t * d[1]) ** 2 <= cap
    return np.minimum(best, np.where(inside, t, np.inf))


def meet(solid: Solid, origin: np.ndarray, rays: Sequence) -> np.ndarray:
    """Entry parameter of rays from unit-space `origin` (3,) along `rays`; inf where they miss or it lies behind."""
    if solid.shape == "box":
        t = _meet_box(origin, rays)
    elif solid.shape == "sphere":
        t = _meet_sphere(origin, rays)
    else:
        # Start beside the body instead of at the camera: the roots of float32 quadratics stay exact to 1e-6.
        middle = np.float32(
            np.linalg.norm(origin) / max(1e-6, float(np.linalg.norm([np.mean(r) for r in rays])))
        )
        t = middle + _meet_frustum(
            [o + middle * r for o, r in zip(origin, rays, strict=True)], rays, solid.taper
        )
    t[t < NEAR] = np.inf
    return t


def cast(world: World, camera: Camera, places: np.ndarray) -> Hits:
    """What the rays through `places` (samples, 2: x, y within the pixel) of every pixel meet first."""
    x, y = ray_axes(camera, places)
    # Columns: world directions of camera x, y, z.
    axes = camera.world_to_camera[:, :3].T
    position = camera.position
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        far = []
        for axis in range(3):
            ray = axes[axis, 0].astype(np.float32) * x + (axes[axis, 1] * y + axes[axis, 2]).astype(
                np.float32
            )
            positive = ray > 0
            ahead, behind = world.room.size[axis] - position[axis], position[axis]
            # A ray along the wall divides by zero and meets it at infinity, as it should.
            wall = np.where(positive, np.float32(ahead), np.float32(behind)) / np.abs(ray)
            far.append((wall, positive))
        depth = far[0][0]
        surface = far[0][1].astype(np.uint8)
        for axis in (1, 2):
            t, positive = far[axis]
            nearer = t < depth
            np.copyto(depth, t, where=nearer)
            np.copyto(surface, positive.view(np.uint8) + np.uint8(2 * axis), where=nearer)
        directions = (world.to_local @ axes).astype(np.float32)
        origins = (world.to_local @ (position - world.centres)[..., None])[..., 0].astype(np.float32)
        for number, (top, bottom, left, right) in enumerate(_windows(world, camera).tolist()):
            if top >= bottom or left >= right:
                continue
            rows, columns = slice(top, bottom), slice(left, right)
            direction = directions[number]
            part_x, part_y = x[:, :, columns], y[:, rows, :]
            rays = [direction[i, 0] * part_x + (direction[i, 1] * part_y + direction[i, 2]) for i in range(3)]
            t = meet(world.solids[number], origins[number], rays)
            nearer = t < depth[:, rows, columns]
            np.copyto(depth[:, rows, columns], t, where=nearer)
            np.copyto(surface[:, rows, columns], np.uint8(number + 6), where=nearer)
    return Hits(depth=depth, surface=surface)
