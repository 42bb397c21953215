"""Numbers and names as tables write them."""

import math

import pytest

from probes.probe import Metric
from probes.words import short_data, shown

SHARE = Metric(name="share", label="share", unit="%", scale=100, digits=1)


@pytest.mark.parametrize(
    ("value", "sign", "expected"),
    [
        (0.1234, False, "12.3"),
        (0.1234, True, "+12.3"),
        (-0.0001, True, "0.0"),
        (0.0001, True, "0.0"),
        (12.5, False, "1,250.0"),
        (math.inf, False, "∞"),
        (-math.inf, True, "-∞"),
        (None, False, "\N{EN DASH}"),
    ],
)
def test_values_are_scaled_and_rounded(value: float | None, sign: bool, expected: str) -> None:
    assert shown(value, SHARE, sign=sign) == expected


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("megadepth1500:/data/megadepth", "megadepth1500"),
        ("colmap:models/fountain", "colmap fountain"),
        ("demo/shards", "shards"),
        ("demo/shards/", "shards"),
    ],
)
def test_data_has_a_short_name(spec: str, expected: str) -> None:
    assert short_data(spec) == expected
