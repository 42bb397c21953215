"""Colour of a rendered view: textures where rays hit, lamps with falloff and soft shadows, sky light, gloss.

Four rays a pixel are averaged for colour; depth and label are those of the ray through the pixel's centre.
Textures are evaluated only at hits, all materials in one gather. Everything is linear light: exposure and
gamma come later. This file draws no random numbers.
"""

from dataclasses import dataclass

import numpy as np

from shards.sources.scenes_rays import CENTRE, Camera, Hits, Solid, World, cast, meet, ray_axes
from shards.sources.scenes_textures import SIZE

SUBPIXELS = np.array([(0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75)], np.float32)


@dataclass(frozen=True, kw_only=True)
class Light:
    """Lamps in one moment: positions (k, 3), colours (k, 3), and the sky's up and down tint, (2, 3), linear."""

    positions: np.ndarray
    colours: np.ndarray
    ambient: np.ndarray
    reach: float


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
    """Linear colour of every ray, (3, samples, H, W) float32 >= 0: texture, lamps with falloff, sky, gloss.

    `lit` (H, W) float32 in [0, 1] is how much of the first lamp a pixel sees.
    """
    x, y = ray_axes(camera, places)
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
    materials = [*world.room.materials, *(solid.material for solid in world.solids)]
    for number in np.flatnonzero(counts):
        part = slice(starts[number], starts[number + 1])
        if number < 6:
            axis, high = divmod(int(number), 2)
            normal[:, part] = 0
            normal[axis, part] = 1 - 2 * high
            across, down = (
                point[1 if axis == 0 else 0, part],
                point[1, part] if axis == 2 else -point[2, part],
            )
        else:
            solid = world.solids[number - 6]
            offset = point[:, part] - solid.centre.astype(np.float32)[:, None]
            normal[:, part], across, down = _surface(solid, solid.to_local.astype(np.float32) @ offset)
        scale, place = np.float32(1 / materials[number].period), materials[number].offset
        u[part] = across * scale + np.float32(place[0])
        v[part] = down * scale + np.float32(place[1])
    texture, density, gloss, glow = (
        np.repeat(np.array(values, kind), counts)
        for values, kind in (
            ([material.texture for material in materials], np.int32),
            ([SIZE / material.period for material in materials], np.float32),
            ([material.gloss for material in materials], np.float32),
            ([material.glow for material in materials], np.float32),
        )
    )
    length = np.sqrt((ray * ray).sum(0))
    facing = np.abs((normal * ray).sum(0)) / length
    spacing = np.float32(1 / (camera.intrinsics[0, 0] * np.sqrt(len(places))))
    footprint = t * density * spacing / np.sqrt(np.maximum(facing, 0.1))
    colour = world.atlas.sample(texture, u, v, footprint)
    pixel = order % (shape[1] * shape[2])
    colour *= _irradiance(point, normal, ray / length, gloss, light, lit.ravel()[pixel]) + glow
    back = np.empty_like(order)
    back[order] = np.arange(order.size)
    return colour.take(back, 1).reshape(3, *shape)


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
    x, y = ray_axes(camera, CENTRE)
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
            t = meet(solid, -local @ middle, list(local @ beam[:, near]))
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
    return Picture(
        colour=np.moveaxis(colour.mean(1), 0, -1), depth=hits.depth[4], labels=labels[hits.surface[4]]
    )
