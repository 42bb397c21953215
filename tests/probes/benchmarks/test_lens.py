"""The lens against COLMAP's own, and pictures and depth maps through it."""

import numpy as np
import pycolmap
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes.benchmarks.lens import ThinPrismFisheye

BENT = (0.21047, 0.21102, -5.4e-4, 5.15e-4, -0.158023, 0.406856, -8.5e-4, 8.6e-4)


@given(st.lists(st.tuples(st.floats(-1.2, 1.2), st.floats(-1.2, 1.2)), min_size=1, max_size=20))
def test_rays_arrive_where_colmap_puts_them(rays: list[tuple[float, float]]) -> None:
    parameters = (3411.42, 3300.02, 3041.29, 2014.07, *BENT)
    lens = ThinPrismFisheye(size=(4032, 6048), parameters=parameters)
    camera = pycolmap.Camera(model="THIN_PRISM_FISHEYE", width=6048, height=4032, params=list(parameters))
    through = np.column_stack([np.array(rays), np.ones(len(rays))])
    np.testing.assert_allclose(lens.project(np.array(rays)), camera.img_from_cam(through), atol=1e-6)


def straight(reduction: int = 1) -> ThinPrismFisheye:
    """A lens of so narrow a field that it bends nothing."""
    return ThinPrismFisheye(
        size=(24, 32), parameters=(1e5, 1.1e5, 15.0, 12.5, *[0.0] * 8), reduction=reduction
    )


def test_without_distortion_nothing_moves() -> None:
    rng = np.random.Generator(np.random.Philox(1))
    picture = rng.integers(0, 256, (24, 32, 3), np.uint8)
    depth = rng.random((24, 32), np.float32)
    np.testing.assert_array_equal(straight().undistort(picture), picture)
    np.testing.assert_array_equal(straight().undistort_depth(depth), depth)


def test_reduction_averages_colours_and_picks_depths() -> None:
    rng = np.random.Generator(np.random.Philox(2))
    picture = rng.integers(0, 256, (24, 32, 3), np.uint8)
    depth = rng.random((24, 32), np.float32)
    lens = straight(4)
    assert lens.pinhole_size == (6, 8)
    np.testing.assert_allclose(lens.pinhole[:2], [[2.5e4, 0, 3.75], [0, 2.75e4, 3.125]])
    means = picture.reshape(6, 4, 8, 4, 3).mean((1, 3))
    assert np.abs(lens.undistort(picture) - means).max() < 1
    # A block's middle lies on the corner of four pixels: any of them is nearest.
    picked = lens.undistort_depth(depth)
    blocks = np.stack([depth[1 + i :: 4, 1 + j :: 4] for i in (0, 1) for j in (0, 1)])
    assert (picked == blocks).any(0).all()


def test_what_the_lens_does_not_see_is_black_and_unknown() -> None:
    wide = ThinPrismFisheye(size=(24, 32), parameters=(20.0, 20.0, 16.0, 12.0, 1.5, *[0.0] * 7))
    ones = np.ones((24, 32), np.float32)
    seen = wide.undistort_depth(ones) > 0
    assert seen[12, 16] and not seen[0, 0]
    picture = wide.undistort(np.full((24, 32, 3), 200, np.uint8))
    assert picture[0, 0].tolist() == [0, 0, 0] and picture[12, 16] == pytest.approx(200)
