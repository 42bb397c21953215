"""Ray casting of a small world in numpy: exact z-depth and labels, textured and lit anti-aliased colour.

A world is the six faces of a room (an axis-aligned box seen from inside) and convex solids: boxes, spheres
and frusta (cylinders and cones are frusta). Rays are cast through four sub-pixel places for colour and
through the pixel centre for depth and labels; a ray's direction has camera z = 1, so that its parameter IS
the z-depth in metres. Each solid is tested only in the rectangle of pixels that its bounding box projects
to, and textures are evaluated only at hits. World axes: x, y along the floor, z up, metres. This file draws
no random numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from shards.sources.scenes_textures import SIZE, Atlas

NEAR = 0.05
SUBPIXELS = np.array([(0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75)], np.float32)
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
class Light:
    """Lamps in one moment: positions (k, 3), colours (k, 3), and the sky's up and down tint, (2, 3), linear."""

    positions: np.ndarray
    colours: np.ndarray
    ambient: np.ndarray
    reach: float


@dataclass(frozen=True, kw_only=True)
class Hits:
    """What rays met: `depth` (samples, H, W) float32 metres along z, `surface` (samples, H, W) uint8 ids."""

    depth: np.ndarray
    surface: np.ndarray


def _ray_axes(camera: Camera, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
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


def _meet(solid: Solid, origin: np.ndarray, rays: Sequence) -> np.ndarray:
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
    x, y = _ray_axes(camera, places)
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
            t = _meet(world.solids[number], origins[number], rays)
            nearer = t < depth[:, rows, columns]
            np.copyto(depth[:, rows, columns], t, where=nearer)
            np.copyto(surface[:, rows, columns], np.uint8(number + 6), where=nearer)
    return Hits(depth=depth, surface=surface)


def _box_face(p: np.ndarray, half: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit normals (3, n) and metric texture coordinates u, v (n,) of points p (3, n) on the unit box."""
    size = np.abs(p)
    is_z = (size[2] > size[0]) & (size[2] > size[1])
    is_x = ~is_z & (size[0] > size[1])
    normal = np.stack([is_x, ~(is_x | is_z), is_z]) * np.sign(p)
    # Neighbouring faces take different parts of the texture.
    u = np.where(is_x, p[1] * half[1] + half[0], p[0] * half[0])
    v = np.where(is_z, p[1] * half[1] - 2 * half[2], -p[2] * half[2])
    return normal, u, v


def _turns(p: np.ndarray, axis: int, circumference: float, period: float) -> np.ndarray:
    """The angle about an axis as metres of texture, rounded so that a whole number of periods closes the seam."""
    angle = np.arctan2(p[(axis + 2) % 3], p[(axis + 1) % 3]) / np.float32(2 * np.pi)
    return angle * np.float32(max(1, round(circumference / period)) * period)


def _surface(solid: Solid, p: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """World normals (3, n) and metric texture coordinates (n,), (n,) at unit-space points p (3, n) of a solid."""
    half = solid.half.astype(np.float32)
    if solid.shape == "box":
        normal, u, v = _box_face(p, half)
    elif solid.shape == "sphere":
        normal = p
        girth = 2 * np.pi * float(half.mean())
        u = _turns(p, 0, girth, solid.material.period)
        v = np.arcsin(np.clip(p[0], -1, 1)) * np.float32(girth / (2 * np.pi))
    else:
        slope = (solid.taper - 1) / 2
        radius2 = p[0] * p[0] + p[1] * p[1]
        on_cap = (np.abs(p[2]) > 0.9999) & (radius2 < ((1 + slope + slope * p[2]) * 0.9999) ** 2)
        side = np.sqrt(radius2 + np.float32(1e-12))
        normal = np.stack([p[0], p[1], -slope * side])
        normal[:, on_cap] = 0
        normal[2, on_cap] = np.sign(p[2, on_cap])
        u = np.where(on_cap, p[0] * half[0], _turns(p, 2, 2 * np.pi * float(half[0]), solid.material.period))
        v = np.where(on_cap, p[1] * half[1], -p[2] * half[2])
    normal = solid.to_local.T.astype(np.float32) @ normal
    return normal / np.sqrt((normal * normal).sum(0)), u, v


def shade(
    world: World, camera: Camera, hits: Hits, places: np.ndarray, light: Light, lit: np.ndarray
) -> np.ndarray:
    """Linear colour of every ray, (samples, H, W, 3) float32 >= 0: texture, lamps with falloff, sky, gloss.

    `lit` (H, W) float32 in [0, 1] is how much of the first lamp a pixel sees.
    """
    x, y = _ray_axes(camera, places)
    axes = camera.world_to_camera[:, :3].T.astype(np.float32)
    position = camera.position.astype(np.float32)
    shape = hits.depth.shape
    surface = hits.surface.ravel()
    # Rays of one surface stand together: its points are a slice, without masks.
    order = np.argsort(surface, kind="stable")
    counts = np.bincount(surface, minlength=6 + len(world.solids))
    starts = np.concatenate([[0], np.cumsum(counts)])
    t = hits.depth.ravel()[order]
    view = np.broadcast_to(x, shape).ravel()[order], np.broadcast_to(y, shape).ravel()[order]
    ray = axes[:, 0:1] * view[0] + axes[:, 1:2] * view[1] + axes[:, 2:3]
    point = ray * t + position[:, None]
    normal = np.empty_like(point)
    u, v = np.empty_like(t), np.empty_like(t)
    texture = np.empty(t.size, np.int32)
    density, gloss, glow = np.empty_like(t), np.empty_like(t), np.empty_like(t)
    for number in np.flatnonzero(counts):
        part = slice(starts[number], starts[number + 1])
        if number < 6:
            material = world.room.materials[number]
            axis, high = divmod(int(number), 2)
            normal[:, part] = 0
            normal[axis, part] = 1 - 2 * high
            u[part] = point[1 if axis == 0 else 0, part]
            v[part] = point[1, part] if axis == 2 else -point[2, part]
        else:
            solid = world.solids[number - 6]
            material = solid.material
            local = solid.to_local.astype(np.float32) @ (
                point[:, part] - solid.centre.astype(np.float32)[:, None]
            )
            normal[:, part], u[part], v[part] = _surface(solid, local)
        scale = np.float32(1 / material.period)
        u[part] = u[part] * scale + np.float32(material.offset[0])
        v[part] = v[part] * scale + np.float32(material.offset[1])
        texture[part], density[part] = material.texture, SIZE * scale
        gloss[part], glow[part] = material.gloss, material.glow
    length = np.sqrt((ray * ray).sum(0))
    facing = np.abs((normal * ray).sum(0)) / length
    spacing = np.float32(1 / (camera.intrinsics[0, 0] * np.sqrt(len(places))))
    footprint = t * density * spacing / np.sqrt(np.maximum(facing, 0.1))
    colour = world.atlas.sample(texture, u, v, footprint)
    pixel = order % (shape[1] * shape[2])
    colour *= _irradiance(point, normal, ray / length, gloss, light, lit.ravel()[pixel]).T + glow[:, None]
    out = np.empty_like(colour)
    out[order] = colour
    return out.reshape(*shape, 3)


def _irradiance(
    point: np.ndarray, normal: np.ndarray, ray: np.ndarray, gloss: np.ndarray, light: Light, lit: np.ndarray
) -> np.ndarray:
    """Light that a white surface would send back, (3, n): sky by the normal's height, lamps by angle and distance."""
    up = 0.5 + 0.5 * normal[2]
    ambient = light.ambient.astype(np.float32)
    total = ambient[1][:, None] + (ambient[0] - ambient[1])[:, None] * up
    mirrored = ray - 2 * (ray * normal).sum(0) * normal
    for number, (position, tint) in enumerate(zip(light.positions, light.colours, strict=True)):
        to_lamp = position.astype(np.float32)[:, None] - point
        square = (to_lamp * to_lamp).sum(0)
        inverse = 1 / np.sqrt(square)
        angle = np.maximum((to_lamp * normal).sum(0) * inverse, 0)
        shine = np.maximum((to_lamp * mirrored).sum(0) * inverse, 0)
        for _ in range(3):
            shine *= shine
        strength = (angle + 2 * gloss * shine) / (1 + square * np.float32(1 / light.reach**2))
        if number == 0:
            strength *= lit
        total += tint.astype(np.float32)[:, None] * strength
    return total


def shadows(world: World, camera: Camera, hits: Hits, lamp: np.ndarray) -> np.ndarray:
    """How much of a lamp at (3,) every pixel's centre sees, (H, W) float32 in [0, 1], its edges softened.

    `hits` are those of the pixel centres, samples = 1.
    """
    x, y = _ray_axes(camera, CENTRE)
    axes = camera.world_to_camera[:, :3].T.astype(np.float32)
    shape = hits.depth.shape[1:]
    view = np.broadcast_to(x[0], shape).ravel(), np.broadcast_to(y[0], shape).ravel()
    ray = axes[:, 0:1] * view[0] + axes[:, 1:2] * view[1] + axes[:, 2:3]
    depth = hits.depth[0].ravel()
    # From the lamp to just before the surface, so that no surface shades itself.
    target = ray * (depth * np.float32(0.999)) + camera.position.astype(np.float32)[:, None]
    lamp = lamp.astype(np.float32)
    beam = target - lamp[:, None]
    square = (beam * beam).sum(0)
    lit = np.ones(depth.size, np.float32)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        middles = world.centres.astype(np.float32) - lamp
        for solid, middle, local in zip(
            world.solids, middles, world.to_local.astype(np.float32), strict=True
        ):
            if solid.material.glow:
                continue
            reach2 = np.float32((solid.half**2).sum())
            along = middle @ beam
            # The bounding sphere's distance from the beam, with 0 <= along / square <= 1 in the reach of it.
            off = np.float32(middle @ middle) - along * along / square
            near = np.flatnonzero((off < reach2) & (along > 0) & (lit > 0))
            if not near.size:
                continue
            t = _meet(solid, -local @ middle, list(local @ beam[:, near]))
            lit[near[t < 0.998]] = 0
    # Soft edges, but never from one surface on to the next.
    padded, surface = np.pad(lit.reshape(shape), 1), np.pad(hits.surface[0], 1, constant_values=255)
    height, width = shape
    total, count = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for down in range(3):
        for across in range(3):
            window = np.s_[down : down + height, across : across + width]
            same = surface[window] == hits.surface[0]
            total += padded[window] * same
            count += same
    return total / count


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A view: linear `colour` (H, W, 3) float32, exact `depth` (H, W) float32 metres, `labels` (H, W) uint8."""

    colour: np.ndarray
    depth: np.ndarray
    labels: np.ndarray


def render(world: World, camera: Camera, light: Light) -> Picture:
    """One view: colour as the mean of four rays a pixel, depth and label of the ray through the pixel's centre."""
    hits = cast(world, camera, np.concatenate([SUBPIXELS, CENTRE]))
    centre = Hits(depth=hits.depth[4:], surface=hits.surface[4:])
    fine = Hits(depth=hits.depth[:4], surface=hits.surface[:4])
    lit = shadows(world, camera, centre, light.positions[0])
    colour = shade(world, camera, fine, SUBPIXELS, light, lit)
    labels = np.array([*world.room.labels, *(solid.label for solid in world.solids)], np.uint8)
    return Picture(colour=colour.mean(0), depth=hits.depth[4], labels=labels[hits.surface[4]])
