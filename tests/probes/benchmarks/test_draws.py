"""Draws from names: distinct, frozen, even, and the same in any order."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from probes.benchmarks.draws import FRAMES, by_hash, draw_frames


@given(st.text(), st.integers(0, 300))
def test_frames_are_distinct_ascending_and_of_the_sequence(name: str, count: int) -> None:
    drawn = draw_frames(name, count)
    assert drawn == sorted(set(drawn)) == draw_frames(name, count)
    assert len(drawn) == min(FRAMES, count) and set(drawn) <= set(range(count))


FROZEN = [47, 52, 55, 62, 72, 86, 94, 110, 134, 163]


def test_the_draw_is_frozen() -> None:
    """A change here changes every published number: it must be on purpose."""
    assert draw_frames("apple/540_79043_153212", 202) == FROZEN


def test_all_places_are_drawn_about_equally_often() -> None:
    counts = np.bincount([i for name in range(2000) for i in draw_frames(str(name), 20)], minlength=20)
    assert counts.min() > 900 and counts.max() < 1100


def test_the_order_by_hash_does_not_depend_on_the_order_given() -> None:
    names = [f"{i}" for i in range(20)]
    assert by_hash(names) == by_hash(names[::-1]) != names
