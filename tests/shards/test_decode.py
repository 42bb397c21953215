"""Decoding and resizing: Pillow's pixels, into the given buffer, nothing absurd decoded."""

import io

import numpy as np
import pytest
import simplejpeg
import torch
from PIL import Image

from shards.decode import Decoder, centre_square, empty_batch, load_square, resize_crop


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Noise over a ramp: all frequencies, all levels."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0, 255, width)[None, :, None] * np.ones((height, 1, 3))
    return (0.5 * ramp + 0.5 * rng.integers(0, 256, (height, width, 3))).astype(np.uint8)


@pytest.mark.parametrize("crop", [(0, 0, 120, 160), (10, 33, 64, 71), (5, 7, 20, 24), (3, 4, 1, 1)])
@pytest.mark.parametrize("size", [(32, 32), (24, 56), (140, 140)])
def test_resize_is_within_one_grey_level_of_pillow(crop: tuple, size: tuple) -> None:
    image = picture(120, 160)
    top, left, height, width = crop
    box = (left, top, left + width, top + height)
    expected = np.asarray(Image.fromarray(image).crop(box).resize(size[::-1], Image.Resampling.BICUBIC))
    ours = resize_crop(image, crop, size).permute(1, 2, 0).numpy()
    assert np.abs(ours.astype(int) - expected).max() <= 1


def test_a_batch_is_filled_in_place_and_flipped() -> None:
    batch = empty_batch(3, 32, 40).fill_(7)
    decoder, image = Decoder(), picture(60, 80)
    decoder.resize_crop(image, (4, 6, 50, 66), batch[1], flip=True)
    assert torch.equal(batch[1].flip(-1), resize_crop(image, (4, 6, 50, 66), (32, 40)))
    assert (batch[0] == 7).all()
    assert (batch[2] == 7).all()
    assert batch.is_contiguous(memory_format=torch.channels_last)


def test_a_crop_of_the_wanted_size_is_copied() -> None:
    image = picture(60, 80)
    assert np.array_equal(resize_crop(image, (7, 9, 32, 32), 32).permute(1, 2, 0), image[7:39, 9:41])


def test_memory_is_reused_without_mixing_pictures() -> None:
    decoder = Decoder()
    for height, width in ((60, 80), (30, 20), (90, 100), (60, 80)):
        data = simplejpeg.encode_jpeg(picture(height, width, height), quality=95)
        assert np.array_equal(decoder.decode(data), np.asarray(Image.open(io.BytesIO(data))))


def test_damage_and_absurd_sizes_are_value_errors() -> None:
    data = simplejpeg.encode_jpeg(picture(60, 80), quality=90)
    absurd = data.replace(b"\x00\x3c\x00\x50", b"\xff\x00\xff\x00", 1)
    for bad in (data[: len(data) // 2], b"", b"no picture", absurd):
        with pytest.raises(ValueError):
            Decoder().decode(bad)
    with pytest.raises(ValueError, match="65280 x 65280"):
        Decoder().decode(absurd)


def test_a_promise_of_more_pixels_than_the_bytes_can_hold_takes_no_memory() -> None:
    data = simplejpeg.encode_jpeg(picture(60, 80), quality=90)
    # 65,000 x 1,000 px are fewer than the largest picture, but these few kilobytes cannot hold them.
    tall = data.replace(b"\x00\x3c\x00\x50", b"\xfd\xe8\x03\xe8", 1)
    decoder = Decoder()
    with pytest.raises(ValueError, match="promise 1000 x 65000"):
        decoder.decode(tall)
    assert decoder._picture._bytes.size == 0
    flat = simplejpeg.encode_jpeg(np.zeros((2000, 3000, 3), np.uint8), quality=1)
    assert decoder.decode(flat).shape == (2000, 3000, 3)  # nothing compresses further than one colour


def test_load_square_takes_the_middle_of_bytes_and_of_pixels() -> None:
    image = picture(60, 81)
    data = simplejpeg.encode_jpeg(image, quality=95)
    square, crop = load_square(data, 24)
    assert crop == centre_square(60, 81) == (0, 10, 60, 60)
    assert torch.equal(square, load_square(Decoder().decode(data), 24)[0])
    assert square.shape == (3, 24, 24)
    assert square.is_contiguous()
