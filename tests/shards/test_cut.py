"""Parts of JPEGs: the pixels of the whole picture, bit for bit, from fewer of its bytes; other files left alone."""

import io

import numpy as np
import pytest
import simplejpeg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from shards.cut import cut, restart_interval, write_lengths
from shards.decode import Decoder, empty_batch
from shards.encode import encode_frame
from shards.format import Frame


def picture(height: int, width: int) -> np.ndarray:
    """Noise over a ramp, so that no block is like another."""
    rng = np.random.default_rng(height * width)
    ramp = np.linspace(0, 255, width)[None, :, None] * np.ones((height, 1, 3))
    return (0.6 * ramp + 0.4 * rng.integers(0, 256, (height, width, 3))).astype(np.uint8)


def stored(height: int, width: int) -> bytes:
    return encode_frame(Frame(name="a", image=picture(height, width)), short_side=4096).jpeg


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_part_has_the_pixels_of_the_whole(data: st.DataObject) -> None:
    height, width = data.draw(st.integers(1, 150)), data.draw(st.integers(1, 330))
    along, across = data.draw(st.integers(1, height)), data.draw(st.integers(1, width))
    top, left = data.draw(st.integers(0, height - along)), data.draw(st.integers(0, width - across))
    jpeg = stored(height, width)
    found = cut(jpeg, (height, width), (top, left, along, across))
    if found is None:
        return
    part, size, (down, right, *inner_size) = found
    assert (along, across) == tuple(inner_size)
    inner = simplejpeg.decode_jpeg(part)
    assert inner.shape == (*size, 3)
    assert np.array_equal(
        inner[down : down + along, right : right + across],
        simplejpeg.decode_jpeg(jpeg)[top : top + along, left : left + across],
    )


def test_a_small_crop_needs_a_small_part() -> None:
    jpeg = stored(384, 512)
    part, size, inner = cut(jpeg, (384, 512), (100, 200, 60, 90))
    assert size == (80, 128)  # rows of 16 from 96 to 176, stretches of 64 from 192 to 320
    assert inner == (4, 8, 60, 90)
    assert len(part) < len(jpeg) / 10


def test_a_crop_of_nearly_all_and_files_of_another_form_are_left_whole() -> None:
    image = picture(128, 192)
    size, crop = (128, 192), (40, 60, 30, 30)
    assert cut(stored(*size), size, crop) is not None
    assert cut(stored(*size), size, (0, 0, 128, 190)) is None
    assert cut(simplejpeg.encode_jpeg(image, colorsubsampling="420"), size, crop) is None  # no restarts
    for options in (
        {"subsampling": "4:4:4", "restart_marker_blocks": 4},
        {"progressive": True, "restart_marker_blocks": 4},
        {"restart_marker_blocks": 5},  # does not divide the 12 blocks of a row
    ):
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", **options)
        assert cut(write_lengths(file.getvalue()), size, crop) is None
    assert cut(stored(*size)[:3000], size, crop) is None  # cut short
    assert cut(stored(*size), (192, 128), crop) is None  # another size than the header's
    assert cut(b"", size, crop) is None


def test_lengths_of_another_picture_are_not_believed() -> None:
    jpeg, size, crop = stored(128, 192), (128, 192), (40, 60, 30, 30)
    at = jpeg.index(b"stretches\0") + 10
    for wrong in (b"\0\0", b"\xff\xff", (int.from_bytes(jpeg[at : at + 2]) + 1).to_bytes(2)):
        assert cut(jpeg[:at] + wrong + jpeg[at + 2 :], size, crop) is None


def test_lengths_change_no_pixel() -> None:
    file = io.BytesIO()
    Image.fromarray(picture(90, 130)).save(file, "JPEG", subsampling="4:2:0", restart_marker_blocks=3)
    for plain in (file.getvalue(), simplejpeg.encode_jpeg(picture(90, 130), colorsubsampling="420")):
        written = write_lengths(plain)
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(written))), simplejpeg.decode_jpeg(plain))


@pytest.mark.parametrize(("width", "interval"), [(512, 4), (576, 4), (514, 3), (683, 43), (640, 4), (16, 1)])
def test_the_interval_divides_a_row(width: int, interval: int) -> None:
    assert restart_interval(width) == interval
    assert -(-width // 16) % interval == 0


@pytest.mark.parametrize("flip", [False, True])
def test_a_crop_is_shown_as_from_the_whole_picture(flip: bool) -> None:
    jpeg, crop = stored(150, 320), (20, 130, 90, 70)
    decoder, shown, whole = Decoder(), empty_batch(1, 64, 64), empty_batch(1, 64, 64)
    assert decoder.decode_crop(jpeg, lambda height, width: crop, shown[0], flip=flip) == crop
    decoder.resize_crop(decoder.decode(jpeg), crop, whole[0], flip=flip)
    assert torch.equal(shown, whole)


def test_damage_in_a_part_is_told_as_of_the_whole() -> None:
    jpeg = bytearray(stored(150, 320))
    middle = len(jpeg) // 2
    jpeg[middle : middle + 40] = b"\xff\x00" * 20
    out = empty_batch(1, 64, 64)
    with pytest.raises(ValueError, match="Corrupt JPEG data"):
        Decoder().decode_crop(bytes(jpeg), lambda height, width: (10, 10, 130, 200), out[0])
