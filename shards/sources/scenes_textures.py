"""Procedural textures of the rendered scenes: square, tileable reflectance images made with numpy alone.

A family is a function `(rng) -> (tone, shade)` of two (256, 256) float32 fields: `tone` in [0, 1] is looked
up in a palette, `shade` multiplies the colour (joints, grain, stains). A texture is a family, a palette and
a detail layer; textures of one scene share an `Atlas` with all their mip levels in one flat array, so that
the renderer samples any mixture of materials in one gather. Some families belong to the held-out split
only. This file knows nothing of geometry, light or cameras.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

SIZE = 256
LEVELS = 6
LEVEL_START = np.cumsum([0] + [(SIZE >> level) ** 2 for level in range(LEVELS)]).astype(np.int32)

Field = np.ndarray
Family = Callable[[np.random.Generator], tuple[Field, Field]]


@lru_cache(maxsize=1)
def _grid() -> tuple[Field, Field]:
    """Texel centres in [0, 1): u as (1, SIZE), v as (SIZE, 1), float32."""
    line = ((np.arange(SIZE) + 0.5) / SIZE).astype(np.float32)
    return line[None, :], line[:, None]


@lru_cache(maxsize=1)
def _frequency() -> Field:
    """The radius of every rfft2 bin in cycles per period, (SIZE, SIZE // 2 + 1) float32."""
    across, down = np.fft.rfftfreq(SIZE, 1 / SIZE), np.fft.fftfreq(SIZE, 1 / SIZE)
    return np.hypot(down[:, None], across[None, :]).astype(np.float32)


def noise(rng: np.random.Generator, lowest: float, highest: float, slope: float, stretch: int = 1) -> Field:
    """Tileable Gaussian noise with mean 0 and deviation 1, (SIZE, SIZE) float32.

    Its amplitude falls as frequency ** -slope between `lowest` and `highest` cycles per period; `stretch` squeezes
    it along v that many times (wood grain). Only the bins of the band are drawn: the rest of the spectrum is zero.
    """
    reach = min(int(2 * highest) + 2, SIZE // 2)
    radius = _frequency()[:reach, :reach]
    gain = np.exp(-((radius / highest) ** 2)) * np.maximum(radius, lowest) ** -slope
    gain[radius < 0.5 * lowest] = 0
    wave = (rng.standard_normal((4, reach, reach), dtype=np.float32) * gain).view()
    spectrum = np.zeros((SIZE, SIZE // 2 + 1), np.complex64)
    spectrum[:reach, :reach] = wave[0] + 1j * wave[1]
    spectrum[-reach + 1 :, :reach] = (wave[2] + 1j * wave[3])[:0:-1]
    spectrum[0, 0] = 0
    field = np.fft.irfft2(spectrum, s=(SIZE, SIZE))
    field = field.astype(np.float32, copy=False)
    if stretch > 1:
        field = np.tile(field[::stretch], (stretch, 1))[:SIZE]
    return (field - field.mean()) / max(field.std(), np.float32(1e-20))


def _unit(field: Field) -> Field:
    """Noise of deviation 1 squeezed into [0, 1]."""
    return np.clip(field * 0.22 + 0.5, 0, 1)


def _step(field: Field, width: float) -> Field:
    """0 below zero, 1 above, with a ramp of `width` texture periods: an edge without stairs."""
    return np.clip(field / width + 0.5, 0, 1)


def _warped(rng: np.random.Generator, strength: float) -> tuple[Field, Field]:
    """Grid coordinates bent by low noise, (SIZE, SIZE) each; they still tile."""
    u, v = _grid()
    if strength == 0:
        return np.broadcast_to(u, (SIZE, SIZE)), np.broadcast_to(v, (SIZE, SIZE))
    bend = noise(rng, 1, 5, 1.5)
    return u + strength * bend, v + strength * np.roll(bend, SIZE // 3, 0).T


def _grid_cells(u: Field, v: Field, across: int, down: int) -> tuple[np.ndarray, np.ndarray, Field, Field]:
    """The cell (column, row) of every texel in a grid of `across` x `down`, and its place in the cell, [0, 1)."""
    x, y = u * across, v * down
    column, row = np.floor(x), np.floor(y)
    return column.astype(np.int32) % across, row.astype(np.int32) % down, x - column, y - row


def _joint(x: Field, y: Field, across: int, down: int, width: float) -> Field:
    """1 inside a cell, 0 on its border of `width` periods."""
    edge = np.minimum(np.minimum(x, 1 - x) / across, np.minimum(y, 1 - y) / down)
    return _step(edge - width, 1.5 / SIZE)


def octaves(rng: np.random.Generator) -> tuple[Field, Field]:
    """Clouds: noise over several octaves."""
    return _unit(noise(rng, rng.uniform(1.5, 5), 20, rng.uniform(1.1, 1.7))), np.float32(1)


def patches(rng: np.random.Generator) -> tuple[Field, Field]:
    """Camouflage: noise cut into a few levels with crisp borders."""
    field = _unit(noise(rng, rng.uniform(2, 5), rng.uniform(6, 14), 1.0)) * rng.integers(3, 6)
    level = np.floor(field)
    return (level + _step(field - level - 0.92, 0.15)) / 5, np.float32(1)


def marble(rng: np.random.Generator) -> tuple[Field, Field]:
    """Veins: a wave bent by noise."""
    u, v = _grid()
    waves = rng.integers(-3, 4, 2)
    phase = 2 * np.pi * (waves[0] * u + (waves[1] or 2) * v) + rng.uniform(1.5, 3) * noise(rng, 2, 12, 1.4)
    return 0.5 + 0.5 * np.sin(phase, dtype=np.float32), np.float32(1)


def cells(rng: np.random.Generator) -> tuple[Field, Field]:
    """Voronoi cells with a tone each and darker seams."""
    count = int(rng.integers(4, 10))
    u, v = _warped(rng, 0.0 if rng.random() < 0.5 else 0.01)
    column, row, x, y = _grid_cells(u, v, count, count)
    place = np.pad(
        rng.random((2, count, count), dtype=np.float32) * 0.9 + 0.05, ((0, 0), (1, 1), (1, 1)), "wrap"
    )
    tone = np.pad(rng.random((count, count), dtype=np.float32), 1, "wrap")
    home = (row + 1) * (count + 2) + column + 1
    best = np.full((SIZE, SIZE), 9, np.float32)
    second, owner = best.copy(), home.copy()
    for down in (-1, 0, 1):
        for across in (-1, 0, 1):
            cell = home + (down * (count + 2) + across)
            distance = (place[0].take(cell) + across - x) ** 2 + (place[1].take(cell) + down - y) ** 2
            np.minimum(second, np.maximum(best, distance), out=second)
            np.copyto(owner, cell, where=distance < best)
            np.minimum(best, distance, out=best)
    seam = _step((np.sqrt(second) - np.sqrt(best)) / count - 0.008, 0.012)
    return tone.take(owner), 1 - rng.uniform(0.2, 0.8) * (1 - seam)


def tiles(rng: np.random.Generator) -> tuple[Field, Field]:
    """Square tiles: a checkerboard or random tones, with joints."""
    across, down = 2 * rng.integers(2, 6, 2) if rng.random() < 0.3 else [2 * rng.integers(2, 6)] * 2
    column, row, x, y = _grid_cells(*_grid(), int(across), int(down))
    tone = rng.random((down, across), dtype=np.float32)
    if rng.random() < 0.5:
        checker = (np.arange(down)[:, None] + np.arange(across)) % 2
        tone = 0.7 * checker + 0.3 * tone
    joint = _joint(x, y, across, down, rng.uniform(0.002, 0.007))
    return tone.astype(np.float32)[row, column], 1 - rng.uniform(0.1, 0.7) * (1 - joint)


def bricks(rng: np.random.Generator) -> tuple[Field, Field]:
    """Courses of bricks, each brick with its tone, every other course shifted."""
    down = 2 * int(rng.integers(3, 8))
    across = max(2, down // int(rng.integers(2, 4)))
    u, v = _warped(rng, 0.0 if rng.random() < 0.6 else 0.003)
    shift = rng.choice([0.5, 0.33]) * (np.floor(v * down) % 2) / across
    column, row, x, y = _grid_cells(u + shift, v, across, down)
    tone = rng.random((down, across), dtype=np.float32) * rng.uniform(0.5, 1)
    mortar = _joint(x, y, across, down, rng.uniform(0.004, 0.009))
    return np.where(mortar > 0.5, tone[row, column], np.float32(rng.random())), 0.6 + 0.4 * mortar


def planks(rng: np.random.Generator) -> tuple[Field, Field]:
    """Boards with grain, a tone a board."""
    down, across = int(rng.integers(4, 12)), int(rng.integers(1, 4))
    u, v = _grid()
    ends = rng.random(down, dtype=np.float32)
    course = np.floor(v * down).astype(np.int32)
    column, row, x, y = _grid_cells(u + ends[course], v, across, down)
    grain = noise(rng, 3, 30, 0.8, stretch=4 if rng.random() < 0.5 else 8)
    board = rng.random((down, across), dtype=np.float32)[row, column]
    joint = _joint(x, y, across, down, 0.003)
    return np.clip(0.75 * board + 0.1 * grain + 0.12, 0, 1), 1 - 0.6 * (1 - joint)


def stripes(rng: np.random.Generator) -> tuple[Field, Field]:
    """Bands of uneven width, upright, level or aslant."""
    u, v = _warped(rng, rng.choice([0.0, 0.0, 0.012, 0.025]))
    slant = [(1, 0), (0, 1), (1, 1), (1, -1), (2, 1)][rng.integers(5)]
    along = (slant[0] * u + slant[1] * v) % 1
    count = int(rng.integers(6, 22))
    edges = np.cumsum(rng.uniform(0.4, 1.6, count))
    line = np.interp(np.arange(4 * SIZE) / (4 * SIZE) * edges[-1], edges, np.arange(1, count + 1))
    band = np.round(line).astype(int) % count
    return rng.random(count, dtype=np.float32)[band][(along * (4 * SIZE)).astype(np.int32) % (4 * SIZE)], 1


def plaid(rng: np.random.Generator) -> tuple[Field, Field]:
    """Two families of bands crossing."""
    first, second = (
        np.repeat(rng.random(n, dtype=np.float32), -(-SIZE // n))[:SIZE] for n in rng.integers(6, 18, 2)
    )
    return (0.5 * (first[None, :] + second[:, None])).astype(np.float32), np.float32(1)


def dots(rng: np.random.Generator) -> tuple[Field, Field]:
    """Discs of many sizes on a ground, jittered out of a grid."""
    count = int(rng.integers(4, 11))
    column, row, x, y = _grid_cells(*_grid(), count, count)
    radius = rng.uniform(0.12, 0.42, (count, count)).astype(np.float32)
    middle = rng.uniform(-1, 1, (2, count, count)).astype(np.float32) * (0.48 - radius)
    tone = rng.random((count, count), dtype=np.float32)
    distance = np.hypot(x - 0.5 - middle[0][row, column], y - 0.5 - middle[1][row, column])
    inside = _step((radius[row, column] - distance) / count, 2 / SIZE)
    ground = np.float32(rng.random() * 0.3)
    return ground + inside * (0.35 + 0.65 * tone[row, column] - ground), np.float32(1)


def glyphs(rng: np.random.Generator) -> tuple[Field, Field]:
    """Signs as of an unknown script: small symmetric bitmaps, one a cell, each with its tone."""
    count, side = int(rng.integers(3, 8)), 6
    bits = rng.random((count, count, side, side)) < 0.5
    bits[..., side // 2 :] = bits[..., : side // 2][..., ::-1]
    bits[..., 0, :] = bits[..., :, 0] = bits[..., -1, :] = bits[..., :, -1] = False
    turned = np.where(rng.random((count, count, 1, 1)) < 0.5, bits, bits.swapaxes(2, 3))
    sheet = turned.swapaxes(1, 2).reshape(count * side, count * side)
    ink = rng.uniform(0.5, 1, (count, count)).astype(np.float32)
    u, v = _grid()
    x, y = (u * count * side).astype(np.int32), (v * count * side).astype(np.int32)
    paper = np.float32(rng.random() * 0.25)
    return np.where(sheet[y, x], ink[y // side, x // side], paper), np.float32(1)


def collage(rng: np.random.Generator) -> tuple[Field, Field]:
    """Paper scraps: rectangles and discs thrown over each other."""
    tone = np.full((SIZE, SIZE), rng.random(), np.float32)
    for _ in range(int(rng.integers(25, 70))):
        reach = int(rng.integers(10, 44))
        top, left = rng.integers(0, SIZE, 2)
        span = np.arange(-reach, reach + 1)
        down, across = span[:, None], span[None, :]
        turn = rng.uniform(0, np.pi)
        a = np.cos(turn) * across + np.sin(turn) * down
        b = np.cos(turn) * down - np.sin(turn) * across
        if rng.random() < 0.35:
            inside = a * a + b * b < (0.7 * reach) ** 2
        else:
            inside = (np.abs(a) < 0.7 * reach) & (np.abs(b) < rng.uniform(0.2, 0.7) * reach)
        rows, columns = (top + span) % SIZE, (left + span) % SIZE
        place = np.ix_(rows, columns)
        tone[place] = np.where(inside, np.float32(rng.random()), tone[place])
    return tone, np.float32(1)


def blobs(rng: np.random.Generator) -> tuple[Field, Field]:
    """Soft pools of colour with fine speckles."""
    pools = _unit(noise(rng, 1.2, rng.uniform(3, 7), 0.8))
    speckle = _step(noise(rng, 10, 24, 0.0) - rng.uniform(1.2, 2), 0.5)
    return pools, 1 - rng.uniform(0.3, 0.7) * speckle


def truchet(rng: np.random.Generator) -> tuple[Field, Field]:
    """Held out: quarter circles that join into winding bands."""
    count = 2 * int(rng.integers(2, 5))
    column, row, x, y = _grid_cells(*_grid(), count, count)
    x = np.where(rng.random((count, count))[row, column] < 0.5, x, 1 - x)
    near = np.minimum(np.hypot(x, y), np.hypot(1 - x, 1 - y))
    band = _step((rng.uniform(0.1, 0.25) - np.abs(near - 0.5)) / count, 2 / SIZE)
    return np.clip(0.75 * band + 0.25 * _unit(noise(rng, 1, 6, 1)), 0, 1), np.float32(1)


def hexagons(rng: np.random.Generator) -> tuple[Field, Field]:
    """Held out: hexagonal tiles with a tone each."""
    across, down = (pair := int(rng.integers(2, 5))) * 2, pair * 2
    u, v = _grid()
    best = np.full((SIZE, SIZE), 9, np.float32)
    second, tone = best.copy(), best.copy()
    tones = rng.random((2, down, across), dtype=np.float32)
    for lattice in (0, 1):
        shift = 0.5 * lattice
        x, y = u * across - shift, v * down - shift
        column, row = np.floor(x), np.floor(y)
        distance = (x - column - 0.5) ** 2 + 2.2 * (y - row - 0.5) ** 2
        closer = distance < best
        second = np.where(closer, best, np.minimum(second, distance))
        own = tones[lattice][row.astype(int) % down, column.astype(int) % across]
        best, tone = np.where(closer, distance, best), np.where(closer, own, tone)
    return tone, 1 - 0.6 * (1 - _step(second - best - 0.06, 0.06))


def contours(rng: np.random.Generator) -> tuple[Field, Field]:
    """Held out: the height lines of a map."""
    height = noise(rng, 1.5, 6, 1.2)
    wave = np.abs((height * rng.uniform(1.5, 3)) % 1 - 0.5)
    return _unit(height), 1 - rng.uniform(0.4, 0.8) * (1 - _step(wave - 0.08, 0.08))


def rings(rng: np.random.Generator) -> tuple[Field, Field]:
    """Held out: concentric rings about a few centres."""
    count = int(rng.integers(2, 5))
    column, row, x, y = _grid_cells(*_grid(), count, count)
    middle = rng.uniform(0.35, 0.65, (2, count, count))
    pitch = rng.uniform(3, 6, (count, count))
    distance = np.hypot(x - middle[0][row, column], y - middle[1][row, column]) * pitch[row, column]
    tone = rng.random((count, count, 8), dtype=np.float32)
    return tone[row, column, np.minimum(distance.astype(np.int32), 7)], np.float32(1)


def basket(rng: np.random.Generator) -> tuple[Field, Field]:
    """Held out: parquet of laths, crosswise from block to block."""
    count, laths = 2 * int(rng.integers(2, 5)), int(rng.integers(3, 5))
    column, row, x, y = _grid_cells(*_grid(), count, count)
    level = (column + row) % 2 == 0
    lath = np.where(level, y, x) * laths
    index = np.minimum(lath.astype(np.int32), laths - 1)
    tone = rng.random((count, count, laths), dtype=np.float32)
    edge = np.minimum(lath - index, 1 - lath + index)
    return tone[row, column, index], 1 - 0.5 * (1 - _step(edge - 0.08, 0.1))


SHARED: dict[str, Family] = {
    f.__name__: f
    for f in (
        octaves,
        patches,
        marble,
        cells,
        tiles,
        bricks,
        planks,
        stripes,
        plaid,
        dots,
        glyphs,
        collage,
        blobs,
    )
}
HELD_OUT: dict[str, Family] = {f.__name__: f for f in (truchet, hexagons, contours, rings, basket)}


def palette(rng: np.random.Generator, saturation: float, *, held_out: bool) -> np.ndarray:
    """256 linear reflectances, (256, 3) float32 in [0.02, 0.9]: light and dark mixed, one or two related hues.

    `saturation` in [0, 1] scales the chroma. Held-out palettes centre on hues between those of training.
    """
    anchors = int(rng.integers(3, 6))
    light = np.linspace(0.08, 0.75, anchors) + rng.uniform(-0.06, 0.06, anchors)
    light = rng.permutation(light) * rng.uniform(0.6, 1.05)
    # The hue circle in sixths, from red by way of violet and blue: training centres in two thirds of each.
    sixth = rng.choice(6, p=[0.08, 0.10, 0.26, 0.10, 0.12, 0.34])
    within = rng.uniform(2 / 3, 1) if held_out else rng.uniform(0, 2 / 3)
    hues = (
        (sixth + within) / 6 + rng.choice([0.0, 0.5], anchors, p=[0.75, 0.25]) + rng.normal(0, 0.07, anchors)
    )
    chroma = saturation * rng.uniform(0.2, 1, anchors)
    wheel = 0.5 + 0.5 * np.cos(2 * np.pi * (hues[:, None] + np.array([0, 1 / 3, 2 / 3])))
    colours = light[:, None] * (
        1 - chroma[:, None] + chroma[:, None] * 2 * wheel / (wheel.mean(1, keepdims=True) * 2)
    )
    spread = np.linspace(0, anchors - 1, 256)
    if rng.random() < 0.4:
        spread = np.round(spread)
    table = np.stack([np.interp(spread, np.arange(anchors), colours[:, c]) for c in range(3)], 1)
    return np.clip(table, 0.02, 0.9).astype(np.float32)


def paint(rng: np.random.Generator, family: Family, table: np.ndarray, stain: Field) -> np.ndarray:
    """One texture, (3, SIZE, SIZE) float32 linear reflectance in (0, 1]: family, palette `table` and stain.

    `stain` (SIZE, SIZE) multiplies everything, shifted at random: a scene's textures can share one.
    """
    tone, shade = family(rng)
    across, down = rng.integers(0, SIZE, 2)
    shade = (shade * np.roll(stain, (int(down), int(across)), (0, 1))).astype(np.float32, copy=False)
    index = (np.clip(tone, 0, 1) * 255).astype(np.intp)
    image = np.stack([np.ascontiguousarray(channel).take(index) for channel in table.T])
    image *= shade
    return np.minimum(image, 1, out=image)


@dataclass(frozen=True)
class Atlas:
    """Textures with their mip levels, texels flat: `texels` (textures * LEVEL_START[-1], 3) float32."""

    texels: np.ndarray

    @classmethod
    def build(cls, textures: list[np.ndarray]) -> "Atlas":
        """Halve every (3, SIZE, SIZE) texture LEVELS - 1 times by area and lay all texels out in one array."""
        texels = np.empty((len(textures), LEVEL_START[-1], 3), np.float32)
        for row, image in zip(texels, textures, strict=True):
            for level in range(LEVELS):
                row[LEVEL_START[level] : LEVEL_START[level + 1]] = image.reshape(3, -1).T
                half = image[:, 0::2] + image[:, 1::2]
                image = (half[..., 0::2] + half[..., 1::2]) * np.float32(0.25)  # noqa: PLW2901
        return cls(texels.reshape(-1, 3))

    def sample(self, texture: np.ndarray, u: np.ndarray, v: np.ndarray, footprint: np.ndarray) -> np.ndarray:
        """Reflectance at (u, v) periods, (3, n) float32: bilinear, in the mip level whose texels match `footprint`.

        `texture` (n,) integers, `u`, `v` (n,) in periods (any size: they wrap), `footprint` (n,) texels of level 0
        that one sample covers.
        """
        level = np.frexp(np.clip(footprint * 0.70710678, 0.5, 2 ** (LEVELS - 1.5)))[1]
        side = SIZE >> level
        base = texture * LEVEL_START[-1] + LEVEL_START.take(level)
        x = u * side - np.float32(0.5)
        y = v * side - np.float32(0.5)
        left, top = np.floor(x), np.floor(y)
        x -= left
        y -= top
        wrap = side - 1
        column, row = left.astype(np.int32), top.astype(np.int32)
        right, below = (column + 1) & wrap, base + ((row + 1) & wrap) * side
        column &= wrap
        row = base + (row & wrap) * side
        upper = self._between(row + column, row + right, x)
        lower = self._between(below + column, below + right, x)
        return self._blend(upper, lower, y)

    def _between(self, first: np.ndarray, second: np.ndarray, share: np.ndarray) -> np.ndarray:
        """Texels `first` (n,) and `second` (n,) blended, (3, n): channels first, where broadcasting is fast."""
        one, other = (np.ascontiguousarray(self.texels.take(index, 0).T) for index in (first, second))
        return self._blend(one, other, share)

    @staticmethod
    def _blend(one: np.ndarray, other: np.ndarray, share: np.ndarray) -> np.ndarray:
        """one + (other - one) * share, in place of `one`."""
        other -= one
        other *= share
        one += other
        return one
