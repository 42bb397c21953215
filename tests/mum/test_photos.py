"""Photographs of every kind come out upright, RGB, in bytes; broken ones are refused by name."""

import numpy as np
import pytest
from PIL import Image

from mum import photos


@pytest.fixture
def corner() -> Image.Image:
    """Red in the upper left quarter, blue elsewhere; 40 wide, 20 high."""
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[..., 2] = 200
    pixels[:10, :20] = (200, 0, 0)
    return Image.fromarray(pixels)


def test_exif_orientation_is_applied(corner, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise to see it upright
    corner.save(tmp_path / "a.jpg", exif=exif, quality=95)
    image = photos.read_photo(tmp_path / "a.jpg")
    assert image.size == (20, 40)
    r, _, b = np.asarray(image)[5, 15].tolist()
    assert r > 150 and b < 60


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "1", "LA", "RGBA"])
def test_every_mode_becomes_rgb(corner, tmp_path, mode):
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    corner.convert(mode).save(path)
    image = photos.read_photo(path)
    assert (image.mode, image.size) == ("RGB", (40, 20))


def test_sixteen_bits_keep_their_brightness(tmp_path):
    ramp = np.linspace(0, 65535, 40).astype(np.uint16)[None].repeat(20, 0)
    Image.fromarray(ramp).save(tmp_path / "a.png")
    pixels = np.asarray(photos.read_photo(tmp_path / "a.png"))
    assert (pixels[0, :, 0] == np.round(ramp[0] / 257)).all()


def test_transparency_lies_over_white(tmp_path):
    Image.new("RGBA", (8, 8), (200, 0, 0, 0)).save(tmp_path / "a.png")
    assert (np.asarray(photos.read_photo(tmp_path / "a.png")) == 255).all()


def test_broken_files_are_refused_by_name(corner, tmp_path):
    corner.resize((400, 200)).save(tmp_path / "whole.jpg")
    data = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "half.jpg").write_bytes(data[: len(data) // 2])
    (tmp_path / "text.jpg").write_text("hello")
    for name in ("half.jpg", "text.jpg"):
        with pytest.raises(ValueError, match=f"{name} is not a readable image"):
            photos.read_photo(tmp_path / name)


def test_folders_are_searched_in_order(corner, tmp_path):
    for name in ("b/2.jpg", "a.PNG", "b/1.jpg", "b/notes.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        corner.save(path, format="PNG")
    assert [str(name) for _, name in photos.find_photos([tmp_path])] == ["a.PNG", "b/1.jpg", "b/2.jpg"]


def test_nothing_found_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no photographs"):
        photos.find_photos([tmp_path])
    with pytest.raises(ValueError, match="does not exist"):
        photos.find_photos([tmp_path / "x"])


@pytest.mark.parametrize(
    ("size", "expected"), [((400, 300), (64, 80)), ((300, 400), (80, 64)), ((100, 100), (64, 64))]
)
def test_short_side_keeps_the_aspect_in_whole_patches(size, expected):
    assert photos.short_side(Image.new("RGB", size), 64, 16).shape == (3, *expected)


def test_square_is_the_centre(corner):
    pixels = photos.square(corner, 20)
    assert pixels.shape == (3, 20, 20)
    assert pixels[0, 2, 2] > 150 and pixels[0, 2, 17] < 60
