import io
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from shards.format import BadPhotograph
from shards.photographs import file_geometry, read_photograph, turn_upright, upright_transform

ORIENTATION = 0x0112


def picture(height: int = 48, width: int = 64) -> Image.Image:
    """Smooth, with different corners, so that every turn shows."""
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([x * 255 / width, y * 255 / height, (x + y) * 255 / (height + width)], -1)
    return Image.fromarray(pixels.astype(np.uint8))


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[ORIENTATION] = orientation
    return tags


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "PPM"])
def test_common_formats_give_the_picture(kind: str) -> None:
    read = read_photograph(encoded(picture(), kind), "a")
    assert read.pixels.dtype == np.uint8
    assert np.abs(read.pixels.astype(int) - np.asarray(picture())).mean() < 4


def test_progressive_jpeg_is_the_same_picture_as_baseline() -> None:
    progressive = read_photograph(encoded(picture(), "JPEG", quality=95, progressive=True), "a")
    baseline = read_photograph(encoded(picture(), "JPEG", quality=95), "a")
    assert np.array_equal(progressive.pixels, baseline.pixels)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_greyscale_is_repeated(kind: str) -> None:
    pixels = read_photograph(encoded(picture().convert("L"), kind), "a").pixels
    assert (pixels[..., 0] == pixels[..., 1]).all() and (pixels[..., 0] == pixels[..., 2]).all()
    assert np.abs(pixels[..., 0].astype(int) - np.asarray(picture().convert("L"))).mean() < 2


def test_cmyk_keeps_its_colours() -> None:
    red = Image.new("RGB", (32, 32), (220, 30, 30)).convert("CMYK")
    pixels = read_photograph(encoded(red, "JPEG", quality=95), "a").pixels
    assert np.abs(pixels[16, 16].astype(int) - (220, 30, 30)).max() < 12


def test_transparency_is_laid_over_white() -> None:
    image = Image.new("RGBA", (32, 32), (10, 20, 30, 255))
    image.paste((200, 0, 0, 0), (0, 0, 16, 32))
    pixels = read_photograph(encoded(image, "PNG"), "a").pixels
    assert pixels[5, 5].tolist() == [255, 255, 255]
    assert pixels[5, 30].tolist() == [10, 20, 30]


def test_palette_with_a_transparent_colour_is_laid_over_white() -> None:
    image = Image.new("P", (32, 32), 1)
    image.putpalette([9, 9, 9, 50, 60, 70])
    image.paste(0, (0, 0, 16, 32))
    pixels = read_photograph(encoded(image, "PNG", transparency=0), "a").pixels
    assert pixels[5, 5].tolist() == [255, 255, 255]
    assert pixels[5, 30].tolist() == [50, 60, 70]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_to_eight(kind: str) -> None:
    values = np.linspace(0, 65535, 32 * 32).astype(np.uint16).reshape(32, 32)
    pixels = read_photograph(encoded(Image.fromarray(values), kind), "a").pixels
    assert np.abs(pixels[..., 1].astype(float) - values / 257).max() <= 0.5


def test_wide_gamut_profile_is_converted_to_srgb() -> None:
    plain = Image.new("RGB", (32, 32), (0, 200, 0))
    tagged = encoded(plain, "PNG", icc_profile=swapped_profile())
    assert read_photograph(tagged, "a").pixels[4, 4].argmax() == 0  # the profile's "green" is red
    assert (
        read_photograph(encoded(plain, "JPEG", icc_profile=swapped_profile()), "a").pixels[4, 4].argmax() == 0
    )


def test_unreadable_profile_is_passed_over() -> None:
    image = encoded(picture(), "PNG", icc_profile=b"not a profile")
    assert np.array_equal(read_photograph(image, "a").pixels, np.asarray(picture()))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_exif_orientation_is_applied(orientation: int, kind: str) -> None:
    upright = np.asarray(picture())
    undo = {6: 8, 8: 6}.get(orientation, orientation)  # all other turns undo themselves
    stored = Image.fromarray(np.ascontiguousarray(turn_upright(upright, undo)))
    read = read_photograph(encoded(stored, kind, exif=exif(orientation), **quality(kind)), "a")
    assert read.orientation == orientation
    assert read.size == (48, 64) and read.file_size == (stored.height, stored.width)
    assert np.abs(read.pixels.astype(int) - upright).mean() < (4 if kind == "JPEG" else 1e-9)


def quality(kind: str) -> dict:
    return {"quality": 95, "subsampling": 0} if kind == "JPEG" else {}


@given(st.integers(1, 8), st.integers(1, 9), st.integers(1, 9), st.data())
def test_transform_says_where_each_pixel_goes(
    orientation: int, height: int, width: int, data: st.DataObject
) -> None:
    row, column = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    marked = np.zeros((height, width), int)
    marked[row, column] = 1
    x, y, _ = upright_transform(orientation, height, width) @ [column + 0.5, row + 0.5, 1]
    assert turn_upright(marked, orientation)[int(y), int(x)] == 1


@pytest.mark.parametrize(
    ("kind", "options"),
    [("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}), ("WEBP", {}), ("TIFF", {})],
)
@settings(max_examples=25, deadline=None)
@given(share=st.floats(0.01, 0.97))
def test_truncated_files_are_refused_by_name(kind: str, options: dict, share: float) -> None:
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 255, (64, 64, 3), np.uint8))
    data = encoded(noise, kind, **options)
    with pytest.raises(BadPhotograph, match="holiday"):
        read_photograph(data[: int(len(data) * share)], "holiday")


@pytest.mark.parametrize("lost", [1, 2, 3, 20])
def test_jpeg_that_lost_its_last_bytes_is_called_truncated(lost: int) -> None:
    data = encoded(picture(), "JPEG")
    with pytest.raises(BadPhotograph, match="is truncated"):
        read_photograph(data[:-lost], "a")


def test_damaged_jpeg_data_is_refused() -> None:
    data = bytearray(encoded(Image.effect_noise((128, 128), 80).convert("RGB"), "JPEG"))
    data[len(data) // 2 : len(data) // 2 + 64] = b"\xff\0" * 32  # all ones: no Huffman code
    with pytest.raises(BadPhotograph, match="cannot be decoded"):
        read_photograph(bytes(data), "a")


@pytest.mark.parametrize("padding", [b"ab", bytes(300)])
def test_padding_before_the_end_does_no_harm(padding: bytes) -> None:
    data = encoded(picture(), "JPEG")
    padded = read_photograph(data[:-2] + padding + data[-2:], "a")
    assert np.array_equal(padded.pixels, read_photograph(data, "a").pixels)


def test_bytes_after_the_end_do_no_harm() -> None:
    read = read_photograph(encoded(picture(), "JPEG") + b"a camera's private notes", "a")
    assert read.pixels.shape == (48, 64, 3)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is empty"),
        (b"<html>not found</html>", "is not a picture"),
        (b"\0\0\0\x18ftypheic" + bytes(50), "HEIC"),
        (encoded(Image.new("RGB", (8, 100)), "PNG"), "at least 16"),
        (encoded(Image.new("F", (32, 32)), "TIFF"), "floating-point"),
    ],
)
def test_what_is_no_photograph_is_refused_with_the_reason(data: bytes, reason: str) -> None:
    with pytest.raises(BadPhotograph, match=reason) as caught:
        read_photograph(data, "shot.jpg")
    assert str(caught.value).startswith("shot.jpg: ")


def test_header_that_claims_gigapixels_is_refused_before_decoding() -> None:
    data = bytearray(encoded(picture(), "JPEG"))
    start = data.index(b"\xff\xc0")
    data[start + 5 : start + 9] = struct.pack(">HH", 65000, 65000)
    with pytest.raises(BadPhotograph, match="pixels"):
        read_photograph(bytes(data), "a")


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadPhotograph, match="No such file"):
        read_photograph(tmp_path / "a.jpg", "a.jpg")


def test_large_jpeg_is_decoded_no_smaller_than_twice_what_is_asked() -> None:
    data = encoded(picture(960, 1280), "JPEG")
    read = read_photograph(data, "a", short_side=100)
    assert read.size == (960, 1280)
    assert 200 <= min(read.pixels.shape[:2]) < 960


def test_geometry_is_read_from_the_header(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(encoded(picture(), "JPEG", exif=exif(6)))
    assert file_geometry(tmp_path / "a.jpg") == ((48, 64), 6)
    assert file_geometry(tmp_path / "b.jpg") is None


def swapped_profile() -> bytes:
    """A minimal ICC profile whose red and green primaries are exchanged."""

    def xyz(*values: float) -> bytes:
        return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(v * 65536) for v in values))

    gamma = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(2.2 * 256)) + b"\0\0"
    name = b"swapped\0"
    text = b"desc\0\0\0\0" + struct.pack(">I", len(name)) + name + bytes(78)
    tags = {
        b"desc": text + bytes(-len(text) % 4),
        b"wtpt": xyz(0.9642, 1.0, 0.8249),
        b"rXYZ": xyz(0.3851, 0.7169, 0.0971),
        b"gXYZ": xyz(0.4361, 0.2225, 0.0139),
        b"bXYZ": xyz(0.1431, 0.0606, 0.7141),
        **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), gamma),
    }
    at = 128 + 4 + 12 * len(tags)
    table, body = struct.pack(">I", len(tags)), b""
    for tag, data in tags.items():
        table += tag + struct.pack(">II", at + len(body), len(data))
        body += data
    header = struct.pack(">I4sI4s4s4s", at + len(body), b"\0" * 4, 0x02100000, b"mntr", b"RGB ", b"XYZ ")
    header += bytes(12) + b"acsp" + bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return header + bytes(128 - len(header)) + table + body
