"""Textures: tiling, mip levels and sampling, and families that training never sees."""

import itertools

import numpy as np
import pytest

from shards.sources.scenes_textures import HELD_OUT, LEVELS, SHARED, SIZE, Atlas, noise, paint, palette

ALL = {**SHARED, **HELD_OUT}


def generator(key: int = 0) -> np.random.Generator:
    """A counter-based generator."""
    return np.random.Generator(np.random.Philox(key=key))


@pytest.mark.parametrize("name", ALL)
def test_every_family_gives_varied_reflectance_with_contrast_at_the_scale_of_a_patch(name: str) -> None:
    pictures = []
    for key in range(4):
        rng = generator(key)
        stain = np.clip(1 + 0.1 * noise(rng, 1, 45, 0.9), 0.3, 1.7)
        image = paint(rng, ALL[name], palette(rng, 0.4, held_out=False), stain)
        assert image.dtype == np.float32 and image.shape == (3, SIZE, SIZE)
        assert image.min() > 0 and image.max() <= 1
        assert image.mean(0).std() > 0.02
        pictures.append(image)
    assert min(np.abs(a - b).mean() for a, b in itertools.pairwise(pictures)) > 0.02


@pytest.mark.parametrize("name", ALL)
def test_textures_tile(name: str) -> None:
    """The step over the border is no larger than the steps inside, both ways."""
    for key in range(3):
        tone, shade = ALL[name](generator(key))
        image = np.broadcast_to(tone * shade, (SIZE, SIZE))
        for axis in (0, 1):
            steps = np.abs(np.diff(image, axis=axis)).mean(1 - axis)
            seam = np.abs(np.take(image, 0, axis) - np.take(image, -1, axis)).mean()
            assert seam <= steps.max() * 1.5 + 0.02, f"axis {axis}, key {key}"


def test_noise_has_unit_deviation_and_keeps_to_its_band() -> None:
    field = noise(generator(), 4, 12, 1.0)
    assert abs(field.mean()) < 1e-4 and abs(field.std() - 1) < 1e-3
    power = np.abs(np.fft.fft2(field)) ** 2
    frequency = np.hypot(*np.meshgrid(*[np.fft.fftfreq(SIZE, 1 / SIZE)] * 2))
    assert power[(frequency > 1.5) & (frequency < 30)].sum() > 0.999 * power.sum()
    np.testing.assert_allclose(power[1:20, 1:20].mean(), power[1:20, -19:].mean(), rtol=0.6)  # no lean


def test_sampling_at_texel_centres_returns_the_texel_of_the_level_that_fits() -> None:
    images = [generator(k).random((3, SIZE, SIZE), dtype=np.float32) for k in range(2)]
    atlas = Atlas.build(images)
    rows, columns = np.array([0, 3, 255]), np.array([7, 255, 0])
    u, v = ((columns + 0.5) / SIZE).astype(np.float32), ((rows + 0.5) / SIZE).astype(np.float32)
    for texture in (0, 1):
        for turn in (0, 2, -3):
            sampled = atlas.sample(np.full(3, texture), u + turn, v - turn, np.ones(3, np.float32))
            np.testing.assert_allclose(sampled, images[texture][:, rows, columns], atol=1e-4)
    coarse = images[1].reshape(3, SIZE // 4, 4, SIZE // 4, 4).mean((2, 4))
    u, v = (np.array([5, 63]) + 0.5) / 64, (np.array([9, 0]) + 0.5) / 64
    sampled = atlas.sample(
        np.ones(2, int), u.astype(np.float32), v.astype(np.float32), np.full(2, 4, np.float32)
    )
    np.testing.assert_allclose(sampled, coarse[:, [9, 0], [5, 63]], atol=1e-4)
    far = atlas.sample(
        np.zeros(1, int), np.zeros(1, np.float32), np.zeros(1, np.float32), np.full(1, 1e9, np.float32)
    )
    assert np.isfinite(far).all() and LEVELS > 3


def test_held_out_families_and_hues_are_not_in_training() -> None:
    assert not set(SHARED) & set(HELD_OUT) and len(HELD_OUT) >= 4

    def mean_hues(held_out: bool) -> np.ndarray:
        table = np.stack([palette(generator(k), 0.5, held_out=held_out) for k in range(300)])
        assert table.min() >= 0.02 and table.max() <= 0.9
        chroma = np.ptp(table, -1) / table.max(-1)
        assert 0.1 < chroma.mean() < 0.5  # moderate: nowhere a flag
        return table

    train, held_out = mean_hues(False), mean_hues(True)
    assert not np.array_equal(train, held_out)
