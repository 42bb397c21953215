"""Picture files: pixels as they are stored or upright, sizes, hashes, and errors that name the file."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from probes.benchmarks.picture_files import (
    at_size,
    check_camera,
    digest_of,
    picture_size,
    read_picture,
    stamp_of,
    truth_of,
)
from probes.errors import ProbeError


@pytest.fixture
def turned(tmp_path: Path) -> Path:
    """A picture of 20 x 30 px that its EXIF orientation turns by a quarter."""
    tags = Image.Exif()
    tags[0x0112] = 6
    pixels = np.zeros((20, 30, 3), np.uint8)
    pixels[:4] = 200  # the upper edge, which the turn brings to the right
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=tags)
    return tmp_path / "a.png"


def test_pixels_come_as_stored_or_upright(turned: Path) -> None:
    stored, upright = read_picture(turned, upright=False), read_picture(turned, upright=True)
    assert stored.shape == (20, 30, 3) and stored[0].min() == 200
    assert upright.shape == (30, 20, 3) and upright[:, -1].min() == 200


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "b.jpg").write_bytes(b"no")
    for name in ("b.jpg", "none.jpg"):
        with pytest.raises(ProbeError, match=name):
            read_picture(tmp_path / name, upright=True)
    with pytest.raises(ProbeError, match=r"none.jpg cannot be read"):
        digest_of(tmp_path / "none.jpg")()


def test_the_digest_is_of_the_bytes_and_taken_when_asked_for(turned: Path) -> None:
    digest = digest_of(turned)
    turned.write_bytes(b"other")
    assert digest() == hashlib.sha256(b"other").hexdigest()


def test_truth_that_is_gone_or_broken_is_an_error_of_the_user(tmp_path: Path) -> None:
    def broken(_: Path) -> np.ndarray:
        raise ValueError("a.png: is broken")

    assert truth_of(lambda path: np.ones(3), tmp_path)().sum() == 3
    with pytest.raises(ProbeError, match=r"a.png is not there any more"):
        truth_of(lambda path: None, tmp_path / "a.png")()
    with pytest.raises(ProbeError, match=r"a.png: is broken"):
        truth_of(broken, tmp_path)()


def test_the_stamp_names_files_and_sizes(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a.png").write_bytes(b"123")
    assert stamp_of(tmp_path, [tmp_path / "d" / "a.png"]) == "d/a.png:3"
    assert stamp_of(tmp_path, []) == ""


def test_a_picture_is_resized_where_asked_and_of_the_annotated_size(turned: Path) -> None:
    assert picture_size(turned) == (20, 30)
    half = read_picture(turned, upright=True, size=(15, 10), annotated=(30, 20))
    assert half.shape == (15, 10, 3) and half[:, -1].min() > 150 and half[:, 0].max() < 30
    with pytest.raises(ProbeError, match=r"a.png is 20 x 30, annotated is 30 x 20"):
        read_picture(turned, upright=True, annotated=(20, 30))
    with pytest.raises(ProbeError, match="is no picture"):
        picture_size(turned.with_name("none.png"))


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 60), st.integers(1, 60))
def test_maps_follow_a_resize_by_the_pixel_in_which_the_centre_lies(
    height: int, width: int, rows: int, columns: int
) -> None:
    values = np.arange(height * width).reshape(height, width)
    found = at_size(values, (rows, columns))
    assert found.shape == (rows, columns)
    for row, column in ((0, 0), (rows - 1, columns - 1), (rows // 2, columns // 2)):
        y, x = (2 * row + 1) * height // (2 * rows), (2 * column + 1) * width // (2 * columns)
        assert found[row, column] == values[y, x]


def test_a_camera_of_another_size_is_caught() -> None:
    camera = np.array([[100.0, 0, 70], [0, 100, 40], [0, 0, 1]])
    check_camera(Path("a.jpg"), (90, 130), camera)
    with pytest.raises(ProbeError, match=r"a.jpg is 65 x 45 px, but its camera looks at \(70, 40\)"):
        check_camera(Path("a.jpg"), (45, 65), camera)
