"""Pictures of matches: what is drawn, how right and wrong are told apart, and that nothing is fetched."""

import xml.etree.ElementTree as ET

import numpy as np
import pytest

from probes.matching.pictures import BAD, GOOD, MOST_LINES, empty_shown, match_picture, shown_points


def draw(size: int = 64, title: str = "a pair") -> ET.Element:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2, 3, size, size), np.uint8)
    queries = np.array([[8.0, 8], [20, 40], [50, 60]])
    errors = np.array([1.0, 30.0, 7.9])
    return ET.fromstring(match_picture(images, queries, queries + 1, errors, patch=8, title=title))


def test_right_matches_are_solid_and_wrong_ones_dashed() -> None:
    lines = [line for line in draw().iter("line") if line.get("stroke") in (GOOD, BAD)]
    kinds = [(line.get("stroke"), line.get("stroke-dasharray") is not None) for line in lines]
    assert kinds == [(BAD, True), (GOOD, False), (GOOD, False)], "right ones last, on top"


def test_lines_run_from_the_left_view_to_the_right_one() -> None:
    for line in draw().iter("line"):
        assert float(line.get("x1")) < 64 < float(line.get("x2"))
    images = list(draw().iter("image"))
    assert [image.get("x") for image in images] == ["0.00", "67.84"]


@pytest.mark.parametrize(("size", "kind"), [(64, "png"), (400, "jpeg")])
def test_photographs_are_embedded(size: int, kind: str) -> None:
    for image in draw(size).iter("image"):
        assert image.get("href").startswith(f"data:image/{kind};base64,")
        assert len(image.get("href")) < 200_000


def test_titles_are_text() -> None:
    assert draw(title='<b>"A" & B</b>').find("title").text == '<b>"A" & B</b>'


def test_shown_points_are_spread_and_few() -> None:
    assert shown_points(5).tolist() == [0, 1, 2, 3, 4]
    many = shown_points(784)
    assert len(many) == MOST_LINES
    assert (many[0], many[-1]) == (0, 783)
    assert np.isnan(empty_shown(3)).all()
