"""Pictures of dense predictions: legible in black and white, honest about what is unknown."""

import numpy as np

from probes.dense.pictures import class_colours, class_legend, shades


def test_shades_grow_ever_brighter() -> None:
    values = np.linspace(0, 1, 200)[None]
    picture = shades(values, np.ones_like(values, bool)).astype(float)
    grey = picture[0] @ [0.299, 0.587, 0.114]
    assert (np.diff(grey) >= -0.5).all() and grey[-1] - grey[0] > 150


def test_unknown_is_grey_and_what_lies_outside_is_clipped() -> None:
    picture = shades(np.array([[-3.0, 0.0, 1.0, 4.0, 0.5]]), np.array([[True, True, True, True, False]]))[0]
    assert (picture[0] == picture[1]).all() and (picture[2] == picture[3]).all()
    assert picture[4].tolist() == [128] * 3


def test_the_legend_shows_the_colours_of_the_picture() -> None:
    red, green, blue = class_colours(np.array([[7]], np.uint8))[0, 0]
    legend = class_legend([(7, "box")])
    assert f'fill="rgb({red},{green},{blue})"' in legend and ">box<" in legend and "more" not in legend
