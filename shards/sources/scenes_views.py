"""Where the cameras of a rendered scene stand and how each exposes: views that overlap, none of them blank.

A path walks round the scene's middle; each step is drawn again until a cheap 20 x 20 cast says that the
view is clear (nothing in front of the lens, no wall filling it) and shares the wished part of its picture
with the views before. Exposure, white balance, gamma and the balance of the lamps change from view to view,
and the held-out split reaches beyond what training sees.
"""

from dataclasses import dataclass

import numpy as np

from shards.sources.scenes_layout import Layout
from shards.sources.scenes_rays import CENTRE, Camera, World, cast
from shards.sources.scenes_render import Light

PROBE = 20
TRIES = 10


@dataclass(frozen=True, kw_only=True)
class Exposure:
    """A camera's way of turning light into bytes: gain, gamma, white balance (3,), vignetting, grain (deviation)."""

    gain: float
    gamma: float
    white: np.ndarray
    vignette: float
    grain: float


def look_at(position: np.ndarray, target: np.ndarray, roll: float) -> np.ndarray:
    """World-to-camera [R | t] (3, 4) of a camera at `position` looking at `target`, turned by `roll` radians."""
    forward = target - position
    forward = forward / np.linalg.norm(forward)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    c, s = np.cos(roll), np.sin(roll)
    rotation = np.stack([c * right + s * down, c * down - s * right, forward])
    return np.concatenate([rotation, -(rotation @ position)[:, None]], 1)


def _clear(world: World, position: np.ndarray, margin: float) -> bool:
    """Whether a ball of `margin` metres round `position` touches neither the walls nor (by bounding box) a solid."""
    if np.any(position < margin) or np.any(position > world.room.size - margin):
        return False
    return all(
        np.any(np.abs(solid.rotation.T @ (position - solid.centre)) > solid.half + margin)
        for solid in world.solids
    )


def _intrinsics(focal: float, size: int) -> np.ndarray:
    """(3, 3) of a camera with `focal` in picture widths, principal point in the middle."""
    return np.array([[focal * size, 0, size / 2], [0, focal * size, size / 2], [0, 0, 1.0]])


@dataclass(frozen=True)
class _Probe:
    """A candidate view seen coarsely: its camera, depth (PROBE, PROBE) and points (PROBE ** 2, 3) in the world."""

    camera: Camera
    depth: np.ndarray
    points: np.ndarray
    surfaces: np.ndarray


def _probe(world: World, camera: Camera) -> _Probe:
    """Cast PROBE x PROBE rays through a small copy of the camera."""
    hits = cast(world, camera, CENTRE)
    depth = hits.depth[0]
    k = camera.intrinsics
    line = np.arange(PROBE) + 0.5
    rays = np.stack(
        np.broadcast_arrays((line[None] - k[0, 2]) / k[0, 0], (line[:, None] - k[1, 2]) / k[1, 1], 1.0), -1
    )
    rotation, shift = camera.world_to_camera[:, :3], camera.world_to_camera[:, 3]
    points = ((rays * depth[..., None]).reshape(-1, 3) - shift) @ rotation
    return _Probe(camera, depth, points, hits.surface[0])


def _shared(source: _Probe, other: _Probe) -> float:
    """The part of `source`'s picture that `other` sees too (in its frame, and not hidden there)."""
    rotation, shift = other.camera.world_to_camera[:, :3], other.camera.world_to_camera[:, 3]
    local = source.points @ rotation.T + shift
    z = local[:, 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        x = local[:, 0] / z * other.camera.intrinsics[0, 0] + PROBE / 2
        y = local[:, 1] / z * other.camera.intrinsics[1, 1] + PROBE / 2
    inside = (z > 0.05) & (x >= 0) & (x < PROBE) & (y >= 0) & (y < PROBE)
    seen = other.depth[y[inside].astype(int), x[inside].astype(int)]
    return float(np.count_nonzero(np.abs(seen - z[inside]) < 0.08 * seen) / inside.size)


def _faults(probe: _Probe, earlier: list[_Probe]) -> float:
    """How bad a candidate view is: 0 where every wish is met."""
    counts = np.bincount(probe.surfaces.ravel(), minlength=7)
    faults = max(0.0, 0.75 - float(np.quantile(probe.depth, 0.08))) * 3
    faults += max(0.0, counts.max() / counts.sum() - 0.5) * 2
    faults += max(0.0, 0.25 - counts[6:].sum() / counts.sum()) * 2
    if earlier:
        last = 0.5 * (_shared(probe, earlier[-1]) + _shared(earlier[-1], probe))
        all_of_them = np.mean([_shared(probe, other) for other in earlier])
        faults += max(0.0, 0.45 - last) * 4 + max(0.0, last - 0.9) * 4 + max(0.0, 0.3 - all_of_them) * 2
    return faults


def draw_cameras(rng: np.random.Generator, layout: Layout, count: int, size: int) -> list[Camera]:
    """`count` cameras of `size` x `size` pixels round the scene's middle; the same prefix for any `count`."""
    world, middle = layout.world, layout.middle
    focal = 1 / (2 * np.tan(np.radians(rng.uniform(52, 74)) / 2))
    azimuth, sign = rng.uniform(0, 2 * np.pi), rng.choice([-1, 1])
    away, height = rng.uniform(1.5, 2.6), rng.uniform(0.9, 1.7)
    aim = middle + np.array([*rng.normal(0, 0.2, 2), rng.uniform(0.5, 0.95)])
    probes: list[_Probe] = []
    cameras: list[Camera] = []
    while len(cameras) < count:
        best: tuple[float, Camera, _Probe, tuple[float, float, float]] | None = None
        for attempt in range(40):
            step = 0.0 if not cameras else sign * np.radians(rng.uniform(4, 18))
            # A walk that finds no clear place anywhere near starts to look all around.
            if attempt >= TRIES:
                step = rng.uniform(-np.pi, np.pi)
            spot = azimuth + step
            reach = np.clip(away + rng.normal(0, 0.18), 1.2, 3.2)
            up = np.clip(height + rng.normal(0, 0.12), 0.7, world.room.size[2] - 0.5)
            position = aim + np.array([np.cos(spot) * reach, np.sin(spot) * reach, 0])
            position[:2] = np.clip(position[:2], 0.4, world.room.size[:2] - 0.4)
            position[2] = up
            target = aim + rng.normal(0, 0.12, 3)
            roll, zoom = rng.normal(0, np.radians(3)), rng.uniform(0.94, 1.06)
            if np.hypot(*(target - position)[:2]) < 0.8 or not _clear(world, position, 0.15):
                continue
            extrinsics = look_at(position, target, roll)
            small = Camera(
                intrinsics=_intrinsics(focal * zoom, PROBE),
                world_to_camera=extrinsics,
                height=PROBE,
                width=PROBE,
            )
            probe = _probe(world, small)
            faults = _faults(probe, probes)
            if best is None or faults < best[0]:
                large = Camera(
                    intrinsics=_intrinsics(focal * zoom, size),
                    world_to_camera=extrinsics,
                    height=size,
                    width=size,
                )
                best = faults, large, probe, (spot, reach, up)
            if best[0] == 0 or attempt >= TRIES - 1:
                break
        if best is None:
            raise RuntimeError(
                "no clear place for a camera in this scene"
            )  # the rooms are too large for this
        _, camera, probe, (azimuth, away, height) = best
        cameras.append(camera)
        probes.append(probe)
        sign = -sign if rng.random() < 0.12 else sign
    return cameras


def draw_moment(rng: np.random.Generator, light: Light, *, held_out: bool) -> tuple[Light, Exposure]:
    """The lamps and the exposure of one view: the scene's, changed within limits that are wider when `held_out`."""
    wide = 1.3 if held_out else 1.0
    strengths = np.exp(rng.uniform(-0.3, 0.3, (2, 1)) * wide)
    tint = 1 + rng.uniform(-1, 1) * np.array([0.05, 0, -0.05]) * wide
    moment = Light(
        positions=light.positions + rng.normal(0, 0.08, light.positions.shape),
        colours=light.colours * strengths * tint,
        ambient=light.ambient * np.exp(rng.uniform(-0.25, 0.25, (2, 1)) * wide),
        reach=light.reach,
    )
    white = np.exp(rng.uniform(-0.05, 0.05, 3) * wide)
    return moment, Exposure(
        gain=float(np.exp(rng.uniform(-0.32, 0.3) * wide)),
        gamma=float(np.exp(rng.uniform(-0.13, 0.16) * wide)),
        white=white / white.mean(),
        vignette=float(rng.uniform(0, 0.25)),
        grain=float(rng.uniform(0, 0.003)),
    )


def develop(colour: np.ndarray, exposure: Exposure, level: float, grain: np.random.Generator) -> np.ndarray:
    """Linear light (H, W, 3) to uint8: gain over the scene's `level`, soft shoulder, gamma, vignette, grain."""
    height, width = colour.shape[:2]
    x = np.linspace(-1, 1, width, dtype=np.float32)[None]
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    scale = (exposure.gain / level * exposure.white).astype(np.float32)
    light = colour * (1 - np.float32(exposure.vignette) * (x * x + y * y) / 2)[..., None] * scale
    value = np.power(1 - np.exp(-light), np.float32(exposure.gamma / 2.2))
    value += np.float32(exposure.grain) * grain.standard_normal(value.shape, dtype=np.float32)
    return (np.clip(value, 0, 1) * 255 + 0.5).astype(np.uint8)
