"""What stands where in a rendered scene: a room, furniture and objects around a middle, materials and lamps.

`lay_out(rng, held_out)` draws a whole `World` from one generator. Furniture is built from the renderer's
convex solids; every piece has one class, so that labels name things rather than shapes. Walls carry doors,
windows and pictures, so that no wall is blank. This file knows nothing of cameras.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from shards.sources.scenes_rays import Material, Room, Solid, World
from shards.sources.scenes_render import Light
from shards.sources.scenes_textures import HELD_OUT, SHARED, Atlas, noise, paint, palette

CLASSES = (
    "wall",
    "floor",
    "ceiling",
    "box",
    "sphere",
    "cylinder",
    "cone",
    "table",
    "chair",
    "shelf",
    "picture",
    "rug",
    "lamp",
    "door",
    "window",
    "pillar",
    "steps",
    "plant",
)
_ID = {name: number for number, name in enumerate(CLASSES)}
OBJECT_TEXTURES = 6


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A drawn scene: its world, the point (3,) its things stand around, and the lamps' places, tints and reach."""

    world: World
    middle: np.ndarray
    light: Light


@dataclass
class _Builder:
    """Collects a scene's solids in each piece's own frame: x to the right, y to the back, z up from the floor."""

    rng: np.random.Generator
    solids: list[Solid] = field(default_factory=list)
    place: np.ndarray = field(default_factory=lambda: np.zeros(3))
    turn: np.ndarray = field(default_factory=lambda: np.eye(3))

    def material(self, texture: int | None = None, *, finer: float = 1.0, glow: float = 0.0) -> Material:
        """A material of the scene's object textures, at a place of its own in the texture."""
        rng = self.rng
        texture = int(rng.integers(OBJECT_TEXTURES)) if texture is None else texture
        gloss = float(rng.uniform(0.1, 0.5)) if rng.random() < 0.3 else 0.0
        period = float(rng.uniform(1.4, 2.6)) / finer
        return Material(texture=texture, period=period, offset=tuple(rng.random(2)), gloss=gloss, glow=glow)

    def add(
        self,
        shape: str,
        label: str,
        centre: tuple[float, float, float],
        half: tuple[float, float, float],
        material: Material,
        rotation: np.ndarray | None = None,
        taper: float = 1.0,
    ) -> None:
        """Put one solid at `centre` of the current piece's frame."""
        self.solids.append(
            Solid(
                shape=shape,  # type: ignore[arg-type]
                centre=self.place + self.turn @ np.array(centre),
                half=np.array(half, np.float64),
                rotation=self.turn if rotation is None else self.turn @ rotation,
                label=_ID[label],
                material=material,
                taper=taper,
            )
        )


def _yaw(angle: float) -> np.ndarray:
    """Rotation about the upright axis, (3, 3)."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])


def _any_rotation(rng: np.random.Generator) -> np.ndarray:
    """A uniformly drawn rotation, (3, 3)."""
    w, x, y, z = (q := rng.normal(size=4)) / np.linalg.norm(q)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


_UPSIDE_DOWN = np.diag([1.0, -1.0, -1.0])

# Each piece is drawn around the frame's origin on the floor and answers with the radius of its footprint.
Piece = Callable[[_Builder], float]


def _crate(b: _Builder) -> float:
    """A box, or a few stacked askew."""
    half = b.rng.uniform(0.18, 0.42, 3)
    base = 0.0
    for _ in range(int(b.rng.choice([1, 1, 2, 3]))):
        b.add("box", "box", (0, 0, base + half[2]), tuple(half), b.material(), _yaw(b.rng.uniform(0, 1)))
        base += 2 * half[2]
        half = half * b.rng.uniform(0.55, 0.85)
    return 0.55


def _tumbled(b: _Builder) -> float:
    """A cube or slab standing on its corner, any way up."""
    half, rotation = b.rng.uniform(0.15, 0.35, 3), _any_rotation(b.rng)
    b.add("box", "box", (0, 0, float((np.abs(rotation) @ half)[2])), tuple(half), b.material(), rotation)
    return 0.5


def _ball(b: _Builder) -> float:
    """A ball on the floor or on a plinth."""
    radius, base = b.rng.uniform(0.2, 0.45), 0.0
    if b.rng.random() < 0.4:
        base = b.rng.uniform(0.3, 0.8)
        b.add("box", "pillar", (0, 0, base / 2), (0.25, 0.25, base / 2), b.material())
        radius *= 0.8
    squash = b.rng.uniform(0.8, 1.2)
    half = (radius, radius, radius * squash)
    b.add("sphere", "sphere", (0, 0, base + half[2]), half, b.material(), _yaw(b.rng.uniform(0, 6)))
    return 0.5


def _drum(b: _Builder) -> float:
    """A cylinder, upright or lying, or two of them."""
    radius, half = b.rng.uniform(0.14, 0.35), b.rng.uniform(0.2, 0.6)
    if b.rng.random() < 0.3:
        lying = np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0.0]])
        b.add("frustum", "cylinder", (0, 0, radius), (radius, radius, half), b.material(), lying)
        return max(radius, half)
    b.add("frustum", "cylinder", (0, 0, half), (radius, radius, half), b.material())
    if b.rng.random() < 0.4:
        top = radius * b.rng.uniform(0.4, 0.8)
        b.add("sphere", "sphere", (0, 0, 2 * half + top), (top, top, top), b.material(finer=1.5))
    return 0.4


def _cone(b: _Builder) -> float:
    """A cone, a stump or a funnel."""
    radius, half = b.rng.uniform(0.2, 0.42), b.rng.uniform(0.25, 0.6)
    taper = float(b.rng.choice([0.02, 0.4, 0.6]))
    b.add("frustum", "cone", (0, 0, half), (radius, radius, half), b.material(), taper=taper)
    return 0.45


def _table(b: _Builder) -> float:
    """A table, square or round, with things on it."""
    rng, top, legs = b.rng, b.rng.uniform(0.55, 0.8), b.material()
    if rng.random() < 0.4:
        width = depth = rng.uniform(0.4, 0.65)
        b.add("frustum", "table", (0, 0, top - 0.03), (width, width, 0.03), b.material())
        b.add("frustum", "table", (0, 0, top / 2 - 0.03), (0.07, 0.07, top / 2 - 0.03), legs, taper=0.6)
    else:
        width, depth = rng.uniform(0.5, 0.8), rng.uniform(0.35, 0.5)
        b.add("box", "table", (0, 0, top - 0.03), (width, depth, 0.03), b.material())
        for x in (-1, 1):
            for y in (-1, 1):
                place = (x * (width - 0.06), y * (depth - 0.06), top / 2 - 0.03)
                b.add("box", "table", place, (0.035, 0.035, top / 2 - 0.03), legs)
    for x in rng.permutation([-0.5, 0.0, 0.5])[: rng.integers(1, 4)]:
        size = rng.uniform(0.08, 0.17)
        spot = (x * width, rng.uniform(-0.4, 0.4) * depth, top + size)
        shape, label = [("box", "box"), ("sphere", "sphere"), ("frustum", "cylinder")][rng.integers(3)]
        b.add(shape, label, spot, (size, size, size), b.material(finer=2), _yaw(rng.uniform(0, 3)))
    return float(np.hypot(width, depth))


def _chair(b: _Builder) -> float:
    """A chair with a seat, a back and a block or legs beneath."""
    seat, half, material = b.rng.uniform(0.38, 0.5), b.rng.uniform(0.2, 0.27), b.material()
    b.add("box", "chair", (0, 0, seat), (half, half, 0.03), material)
    b.add("box", "chair", (0, half, seat + 0.3), (half, 0.03, 0.27), b.material())
    if b.rng.random() < 0.5:
        b.add("box", "chair", (0, 0, seat / 2 - 0.015), (half * 0.9, half * 0.9, seat / 2 - 0.015), material)
    else:
        for x in (-1, 1):
            b.add("box", "chair", (x * half * 0.9, 0, seat / 2), (0.03, half, seat / 2 - 0.03), material)
    return 0.4


def _steps(b: _Builder) -> float:
    """A short flight of steps."""
    width, rise, tread = b.rng.uniform(0.35, 0.6), b.rng.uniform(0.14, 0.22), b.rng.uniform(0.18, 0.28)
    for number in range(3):
        height = rise * (3 - number) / 2
        b.add("box", "steps", (0, tread * (1 - number), height), (width, tread / 2, height), b.material())
    return 0.65


def _plant(b: _Builder) -> float:
    """A pot with a few round bushes."""
    pot, texture = b.rng.uniform(0.13, 0.22), int(b.rng.integers(OBJECT_TEXTURES))
    b.add("frustum", "plant", (0, 0, pot), (pot, pot, pot), b.material(), _UPSIDE_DOWN, taper=0.75)
    for number in range(int(b.rng.integers(2, 4))):
        size = b.rng.uniform(0.14, 0.26)
        x, y = b.rng.uniform(-0.12, 0.12, 2)
        b.add(
            "sphere",
            "plant",
            (x, y, 2 * pot + 0.15 + 0.2 * number),
            (size, size, size * 1.1),
            b.material(texture),
        )
    return 0.35


def _floor_lamp(b: _Builder) -> float:
    """A pole with a glowing shade."""
    height, radius = b.rng.uniform(1.1, 1.6), b.rng.uniform(0.15, 0.25)
    b.add("frustum", "lamp", (0, 0, height / 2), (0.03, 0.03, height / 2), b.material())
    b.add("frustum", "lamp", (0, 0, 0.03), (0.16, 0.16, 0.03), b.material())
    b.add("frustum", "lamp", (0, 0, height), (radius, radius, 0.16), b.material(glow=0.5), taper=0.65)
    return 0.3


def _pillar(b: _Builder) -> float:
    """A column up to the ceiling's neighbourhood, round or square."""
    half, height = b.rng.uniform(0.13, 0.24), b.rng.uniform(0.7, 1.15)
    b.add("box", "pillar", (0, 0, 0.08), (half * 1.4, half * 1.4, 0.08), b.material())
    shape = "frustum" if b.rng.random() < 0.6 else "box"
    b.add(shape, "pillar", (0, 0, 0.16 + height), (half, half, height), b.material())
    return 0.4


FREE_PIECES: tuple[tuple[Piece, float], ...] = (
    (_crate, 3),
    (_tumbled, 2),
    (_ball, 2),
    (_drum, 2),
    (_cone, 1.5),
    (_table, 2),
    (_chair, 2),
    (_steps, 1),
    (_plant, 1),
    (_floor_lamp, 0.7),
    (_pillar, 0.7),
)


def _wall_frames(size: np.ndarray) -> list[tuple[np.ndarray, np.ndarray, float]]:
    """For each wall: its middle on the floor (3,), rotation with +y out of the room, and half its length."""
    x, y = size[:2] / 2
    return [
        (np.array([0, y, 0]), _yaw(np.pi / 2), y),
        (np.array([2 * x, y, 0]), _yaw(-np.pi / 2), y),
        (np.array([x, 0, 0]), _yaw(np.pi), x),
        (np.array([x, 2 * y, 0]), _yaw(0), x),
    ]


def _dress_wall(b: _Builder, length: float, height: float, pictures: list[int]) -> None:
    """Furnish one wall (the frame's y = 0 plane): bays of pictures, a door, a window, a shelf, a cabinet."""
    rng = b.rng
    bays = max(1, int(length / 0.85))
    for bay in range(bays):
        x = (2 * bay + 1 - bays) * length / bays + rng.uniform(-0.15, 0.15)
        kind = rng.choice(["picture", "picture", "door", "window", "shelf", "cabinet", "none"])
        if kind == "picture":
            half, tall = rng.uniform(0.25, 0.6), rng.uniform(0.22, 0.5)
            material = b.material(pictures[rng.integers(len(pictures))], finer=1.2)
            b.add(
                "box",
                "picture",
                (x, -0.01, rng.uniform(1.2, min(1.7, height - 0.7))),
                (half, 0.03, tall),
                material,
            )
        elif kind == "door":
            b.add("box", "door", (x, 0, 1.0), (0.42, 0.05, 1.0), b.material())
            b.add("sphere", "door", (x + 0.33, -0.08, 1.0), (0.04, 0.04, 0.04), b.material(finer=3))
        elif kind == "window":
            half = rng.uniform(0.4, 0.6)
            b.add("box", "window", (x, 0, 1.45), (half, 0.03, 0.5), b.material(glow=rng.uniform(0.2, 0.6)))
            b.add("box", "window", (x, -0.02, 1.45), (0.03, 0.04, 0.5), frame := b.material(finer=2))
            b.add("box", "window", (x, -0.06, 0.92), (half + 0.08, 0.1, 0.03), frame)
        elif kind == "shelf":
            half, base, wood = rng.uniform(0.35, 0.5), rng.uniform(0.8, 1.2), b.material()
            for level in range(2):
                z = base + 0.45 * level
                b.add("box", "shelf", (x, -0.15, z), (half, 0.15, 0.025), wood)
                for side in (-0.55, 0.3):
                    size = rng.uniform(0.07, 0.13)
                    shape, label = ("box", "box") if rng.random() < 0.6 else ("sphere", "sphere")
                    spot = (x + side * half, -0.15, z + 0.025 + size)
                    b.add(shape, label, spot, (size, size, size), b.material(finer=2))
        elif kind == "cabinet":
            half, tall = rng.uniform(0.3, 0.5), rng.uniform(0.35, 0.9)
            b.add("box", "shelf", (x, -0.22, tall), (half, 0.22, tall), b.material())


def _room(rng: np.random.Generator, size: np.ndarray, textures: list[int]) -> Room:
    """The shell: four walls of one to four of the textures, floor and ceiling."""
    walls = rng.choice(textures[2:], 4)
    faces = [*walls, textures[0], textures[1]]
    return Room(
        size=size,
        labels=(_ID["wall"],) * 4 + (_ID["floor"], _ID["ceiling"]),
        materials=tuple(
            Material(texture=int(t), period=float(rng.uniform(3.6, 5.6)), offset=tuple(rng.random(2)))
            for t in faces
        ),
    )


def _paint_all(rng: np.random.Generator, count: int, *, held_out: bool) -> Atlas:
    """The scene's textures: families drawn at random, half of them from the held-out ones in that split."""
    saturation = rng.uniform(0.3, 0.75)
    # Four octaves of stains and wear, more in some scenes than in others.
    stain = np.clip(1 + rng.uniform(0.08, 0.2) * noise(rng, 1, 16, 0.9), 0.3, 1.7)
    images = []
    for _ in range(count):
        families = HELD_OUT if held_out and rng.random() < 0.5 else SHARED
        family = list(families.values())[rng.integers(len(families))]
        table = palette(rng, saturation, held_out=held_out)
        images.append(paint(rng, family, table, stain))
    return Atlas.build(images)


def lay_out(rng: np.random.Generator, paints: np.random.Generator, *, held_out: bool) -> Layout:
    """Draw a scene; `rng` gives shapes and places, `paints` the textures, from families that `held_out` widens."""
    size = np.array([rng.uniform(3.8, 6.5), rng.uniform(3.8, 6.5), rng.uniform(2.4, 3.3)])
    middle = np.array([size[0] * rng.uniform(0.42, 0.58), size[1] * rng.uniform(0.42, 0.58), 0.0])
    pictures = [OBJECT_TEXTURES, OBJECT_TEXTURES + 1]
    shell = list(range(OBJECT_TEXTURES + 1, OBJECT_TEXTURES + 5))
    builder = _Builder(rng)
    for place, turn, length in _wall_frames(size):
        builder.place, builder.turn = place, turn
        _dress_wall(builder, length, size[2], pictures)
    pieces, weights = zip(*FREE_PIECES, strict=True)
    chances = np.array(weights) / sum(weights)
    taken: list[tuple[np.ndarray, float]] = []
    for _ in range(int(rng.integers(4, 9))):
        piece = pieces[rng.choice(len(pieces), p=chances)]
        # Draw the piece at the origin first: its footprint decides where it fits.
        mark = len(builder.solids)
        builder.place, builder.turn = np.zeros(3), _yaw(rng.uniform(0, 2 * np.pi))
        radius = piece(builder)
        fresh, builder.solids = builder.solids[mark:], builder.solids[:mark]
        for _ in range(12):
            angle, away = rng.uniform(0, 2 * np.pi), 1.5 * np.sqrt(rng.random())
            spot = middle + np.array([np.cos(angle) * away, np.sin(angle) * away, 0])
            free = all(np.hypot(*(spot - other)[:2]) > radius + reach for other, reach in taken)
            if free and np.all(spot[:2] > radius + 0.1) and np.all(spot[:2] < size[:2] - radius - 0.1):
                taken.append((spot, radius))
                builder.solids += [_moved(solid, spot) for solid in fresh]
                break
    builder.place, builder.turn = middle, _yaw(rng.uniform(0, 2 * np.pi))
    if rng.random() < 0.6:
        half = rng.uniform(0.7, 1.3, 2)
        texture = builder.material(pictures[0])
        if rng.random() < 0.6:
            builder.add("box", "rug", (0, 0, 0.008), (half[0], half[1], 0.008), texture)
        else:
            builder.add("frustum", "rug", (0, 0, 0.008), (half[0], half[0], 0.008), texture)
    lamp = _ceiling_lamp(builder, size[2])
    tints = 1 + rng.uniform(-1, 1, (3, 1)) * (np.array([[0.12, 0.0, -0.12]]))
    light = Light(
        positions=np.stack([lamp, [*rng.uniform(0.6, size[:2] - 0.6), rng.uniform(1.4, size[2] - 0.3)]]),
        colours=np.array([[2.2], [0.7]]) * rng.uniform(0.7, 1.3, (2, 1)) * tints[:2],
        ambient=np.array([[0.4], [0.25]]) * rng.uniform(0.7, 1.3) * tints[2],
        reach=float(rng.uniform(2.0, 3.5)),
    )
    atlas = _paint_all(paints, OBJECT_TEXTURES + 5, held_out=held_out)
    world = World(room=_room(rng, size, shell), solids=tuple(builder.solids), atlas=atlas)
    return Layout(world=world, middle=middle, light=light)


def _moved(solid: Solid, by: np.ndarray) -> Solid:
    """The same solid, shifted by (3,) metres."""
    return Solid(**{**vars(solid), "centre": solid.centre + by})


def _ceiling_lamp(b: _Builder, ceiling: float) -> np.ndarray:
    """Hang a glowing lamp over the middle, perhaps; answers with the place (3,) of its light."""
    b.place, b.turn = b.place + np.array([*b.rng.uniform(-0.8, 0.8, 2), 0.0]), np.eye(3)
    height = ceiling - b.rng.uniform(0.25, 0.5)
    if b.rng.random() < 0.6:
        radius = b.rng.uniform(0.14, 0.25)
        if b.rng.random() < 0.5:
            b.add("sphere", "lamp", (0, 0, height), (radius, radius, radius), b.material(glow=0.7))
        else:
            b.add("frustum", "lamp", (0, 0, height), (radius, radius, 0.12), b.material(glow=0.7), taper=0.5)
    return b.place + np.array([0, 0, height])
