"""Squares: points, pixels, depth, labels and intrinsics go the same way, out and back."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes.data.frames import Frame
from probes.data.square import Fit, Square, SquareFrames
from probes.errors import ProbeError

SIDES = st.integers(16, 900)
FITS = st.sampled_from(["crop", "squash"])


def frame(height: int, width: int, **changes: object) -> Frame:
    """A frame whose picture, depth and labels say where a pixel is: row in red, column in green."""
    rows, columns = np.mgrid[:height, :width]
    picture = np.stack([rows, columns, np.zeros_like(rows)], -1).astype(np.uint8)
    known: dict[str, object] = {
        "name": "a",
        "scene": "s",
        "height": height,
        "width": width,
        "image": lambda: picture,
        "digest": lambda: "0" * 64,
        "depth": lambda: (rows * width + columns).astype(np.float32),
    }
    return Frame(**(known | changes))


@given(SIDES, SIDES, st.integers(8, 512), FITS, st.data())
def test_outward_undoes_inward(height: int, width: int, size: int, fit: Fit, data: st.DataObject) -> None:
    square = Square(height=height, width=width, size=size, fit=fit)
    x, y = data.draw(st.floats(-width, 2 * width)), data.draw(st.floats(-height, 2 * height))
    there = square.inward(np.array([[x, y]]))
    np.testing.assert_allclose(square.outward(there), [[x, y]], atol=1e-6)
    np.testing.assert_allclose((square.matrix @ [x, y, 1])[:2], there[0], atol=1e-6)


@given(SIDES, SIDES, st.integers(8, 512), FITS)
def test_corners_of_the_part_become_corners_of_the_square(
    height: int, width: int, size: int, fit: Fit
) -> None:
    square = Square(height=height, width=width, size=size, fit=fit)
    top, left, rows, columns = square.crop
    corners = np.array([[left, top], [left + columns, top + rows]])
    np.testing.assert_allclose(square.inward(corners), [[0, 0], [size, size]], atol=1e-9)
    assert square.side == min(height, width)


def test_crop_takes_the_central_square_and_squash_everything() -> None:
    points = np.array([[50.0, 0.0], [150.0, 100.0]])
    crop = Square(height=100, width=200, size=50, fit="crop")
    np.testing.assert_allclose(crop.inward(points), [[0, 0], [50, 50]])
    squash = Square(height=100, width=200, size=50, fit="squash")
    np.testing.assert_allclose(squash.inward(points), [[12.5, 0], [37.5, 50]])


def test_contains_takes_the_left_edge_and_not_the_right() -> None:
    square = Square(height=100, width=200, size=50)
    assert square.contains(np.array([[0.0, 49.9], [50.0, 10.0], [-0.1, 5], [5, 50]])).tolist() == [
        True,
        False,
        False,
        False,
    ]


@pytest.mark.parametrize("fit", ["crop", "squash"])
def test_pixels_go_where_points_go(fit: Fit) -> None:
    """A bright spot lands in the square where `inward` puts its place."""
    picture = np.zeros((120, 180, 3), np.uint8)
    picture[60:72, 90:102] = 255
    frames = SquareFrames([frame(120, 180, image=lambda: picture)], 64, fit)
    mass = frames.load(0)[0].astype(float)
    rows, columns = np.mgrid[:64, :64] + 0.5
    found = [(mass * columns).sum() / mass.sum(), (mass * rows).sum() / mass.sum()]
    np.testing.assert_allclose(found, frames.square(0).inward(np.array([[96.0, 66.0]]))[0], atol=0.05)


@given(st.integers(8, 60), st.integers(8, 60), st.integers(4, 70), FITS)
def test_depth_is_that_of_the_pixel_in_which_the_centre_lies(
    height: int, width: int, size: int, fit: Fit
) -> None:
    frames = SquareFrames([frame(height, width)], size, fit)
    rows, columns = np.mgrid[:size, :size] + 0.5
    there = frames.square(0).outward(np.column_stack([columns.ravel(), rows.ravel()]))
    # Where a centre falls on the border of two pixels, rounding decides; step off it.
    off = np.abs(there - there.round()).min(1) > 1e-9
    expected = there[:, 1].astype(int) * width + there[:, 0].astype(int)
    assert (frames.depth(0).ravel()[off] == expected[off]).all()


def test_labels_and_masks_follow_as_depth_does_and_what_is_unknown_is_none() -> None:
    labels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    known = frame(8, 8, labels=lambda: labels, mask=lambda: labels > 30)
    frames = SquareFrames([known, frame(8, 8, depth=None)], 4, "squash")
    assert frames.labels(0).tolist() == labels[1::2, 1::2].tolist()
    assert (frames.mask(0) == (labels[1::2, 1::2] > 30)).all()
    assert frames.depth(1) is None and frames.labels(1) is None and frames.normals(1) is None


@pytest.mark.parametrize("fit", ["crop", "squash"])
def test_intrinsics_project_where_the_original_ones_do(fit: Fit) -> None:
    k = np.array([[90.0, 0, 70], [0, 110, 40], [0, 0, 1]])
    pose = np.eye(3, 4)
    frames = SquareFrames([frame(100, 150, intrinsics=k, world_to_camera=pose)], 64, fit)
    point = np.array([0.2, -0.1, 1.7])
    original, squared = k @ point, frames.intrinsics(0) @ point
    np.testing.assert_allclose(
        squared[:2] / squared[2], frames.square(0).inward((original[:2] / original[2])[None])[0]
    )
    assert frames.pose(0) is pose
    assert SquareFrames([frame(9, 9)], 8, fit).intrinsics(0) is None


@pytest.mark.parametrize("read", [lambda f: f.load(0), lambda f: f.depth(0)])
def test_a_file_of_another_size_than_its_frame_is_named(read: Callable[[SquareFrames], object]) -> None:
    wrong = dataclasses.replace(frame(40, 60), height=30)
    with pytest.raises(ProbeError, match="a should be 60 x 30 px, but its file holds 60 x 40"):
        read(SquareFrames([wrong], 16, "crop"))


def test_hashes_are_those_of_the_files_and_the_rule_names_the_fit() -> None:
    frames = SquareFrames([frame(9, 9, digest=lambda: "ab" * 32)], 8, "squash")
    assert frames.hashes == ["ab" * 16] and len(frames) == 1 and frames.names == ["a"]
    assert "squashed" in frames.rule and "central" in SquareFrames([frame(9, 9)], 8, "crop").rule
