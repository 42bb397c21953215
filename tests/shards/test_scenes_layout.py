"""What stands where: inside the room, few enough for a byte, of named classes, the same for the same draws."""

import numpy as np
import pytest

from shards.sources.scenes_layout import CLASSES, lay_out
from shards.sources.scenes_textures import LEVEL_START


def generator(key: int) -> np.random.Generator:
    """A counter-based generator."""
    return np.random.Generator(np.random.Philox(key=key))


@pytest.fixture(scope="module")
def layouts():
    """A few scenes."""
    return [lay_out(generator(k), generator(k + 100), held_out=k % 2 == 1) for k in range(12)]


def test_everything_stands_in_the_room_and_has_a_class(layouts) -> None:
    seen: set[int] = set()
    for layout in layouts:
        size = layout.world.room.size
        assert 6 < len(layout.world.solids) < 250  # surface ids are bytes, six of them the room's
        for solid in layout.world.solids:
            assert np.all(solid.centre > -0.05) and np.all(solid.centre < size + 0.05)
            assert np.all(solid.half > 0) and 0 < solid.taper <= 1
            np.testing.assert_allclose(solid.rotation @ solid.rotation.T, np.eye(3), atol=1e-12)
            seen.add(solid.label)
    assert len(seen) > 8 and max(seen) < len(CLASSES) == len(set(CLASSES)) <= 255


def test_nothing_floats_below_the_floor(layouts) -> None:
    for layout in layouts:
        lowest = layout.world.corners[..., 2].min(1)
        assert np.all(lowest > -0.35)  # the corner of a box around a tilted body may dip under it, no more


def test_materials_point_at_textures_that_exist_and_lamps_hang_in_the_room(layouts) -> None:
    for layout in layouts:
        textures = len(layout.world.atlas.texels) // LEVEL_START[-1]
        materials = [*layout.world.room.materials, *(solid.material for solid in layout.world.solids)]
        assert all(0 <= material.texture < textures for material in materials)
        assert len({material.texture for material in materials}) > 5
        assert np.all(layout.light.positions > 0) and np.all(layout.light.positions < layout.world.room.size)


def test_scenes_vary(layouts) -> None:
    assert len({len(layout.world.solids) for layout in layouts}) > 4
    assert np.std([layout.world.room.size for layout in layouts], axis=0).min() > 0.1
