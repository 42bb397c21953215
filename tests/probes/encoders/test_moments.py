"""Moments of channels: of the images asked for, whatever the parts they are read in."""

import numpy as np
import torch

from probes.encoders.features import FeatureMaps
from probes.encoders.moments import channel_moments


def test_moments_are_those_of_the_asked_images_alone() -> None:
    rng = np.random.default_rng(0)
    maps = rng.normal(3, 2, (5, 4, 4, 6)).astype(np.float32)
    maps[0] += 100
    found = channel_moments(FeatureMaps(list(maps)).tokens, range(1, 5), part=3)
    np.testing.assert_allclose(found.mean, maps[1:].reshape(-1, 6).mean(0), rtol=1e-5)
    np.testing.assert_allclose(found.deviation, maps[1:].reshape(-1, 6).std(0), rtol=1e-5)


def test_a_channel_that_never_moves_has_no_finite_deviation() -> None:
    tokens = torch.rand(3, 4, 2)
    tokens[..., 1] = 7
    found = channel_moments(lambda images: tokens[images], [0, 1, 2])
    assert torch.isfinite(found.deviation).tolist() == [True, False]
