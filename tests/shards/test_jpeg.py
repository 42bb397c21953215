import io

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from shards.jpeg import keep_data

PIXELS = np.random.default_rng(0).integers(0, 255, (40, 56, 3), np.uint8)


def jpeg(**options: object) -> bytes:
    file = io.BytesIO()
    mode = str(options.pop("mode", "RGB"))
    defaults = {"quality": 90, "subsampling": "4:2:0"} if mode == "RGB" else {"quality": 90}
    Image.fromarray(PIXELS).convert(mode).save(file, "JPEG", **(defaults | options))
    return file.getvalue()


def test_baseline_420_keeps_its_very_pixels() -> None:
    kept = keep_data(jpeg(), 90)
    assert kept is not None
    assert np.array_equal(simplejpeg.decode_jpeg(kept), simplejpeg.decode_jpeg(jpeg()))


def test_what_the_toolkit_encodes_is_kept_as_it_is() -> None:
    data = simplejpeg.encode_jpeg(PIXELS, 90, colorsubsampling="420")
    assert keep_data(data, 90) == data


def test_metadata_and_trailing_bytes_are_taken_away() -> None:
    exif = Image.Exif()
    exif[0x010E] = "taken at home"
    data = jpeg(exif=exif, comment=b"secret") + b"trailing"
    kept = keep_data(data, 90)
    assert kept is not None
    for secret in (b"taken at home", b"secret", b"trailing", b"Exif"):
        assert secret in data and secret not in kept


@pytest.mark.parametrize(
    "options",
    [
        {"progressive": True},
        {"subsampling": "4:4:4"},
        {"subsampling": "4:2:2"},
        {"quality": 95},
        {"mode": "L"},
        {"mode": "CMYK"},
    ],
    ids=str,
)
def test_other_kinds_must_be_encoded_anew(options: dict) -> None:
    assert keep_data(jpeg(**options), 90) is None


def test_no_cut_of_a_file_is_mistaken_for_a_whole_one() -> None:
    data = jpeg()
    for length in range(0, len(data) - 1, 7):
        assert keep_data(data[:length], 90) is None
