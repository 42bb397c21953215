"""Mean and deviation of every channel of some features, by which trained heads standardise what they read.

One learning rate then suits every encoder, whatever the scale of its features.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor, inf

PART = 64
"""Images whose features are held at once."""


class Moments(NamedTuple):
    """Mean and deviation of every channel (C,); the deviation of one that never moves is infinite."""

    mean: Tensor
    deviation: Tensor


def channel_moments(
    tokens: Callable[[Sequence[int]], Tensor], images: Sequence[int], *, part: int = PART
) -> Moments:
    """Moments, float64, of every channel over all patches of some images.

    Args:
        tokens: gives features (n, patches, C) of the images at indices, such as `FeatureMaps.tokens`.
        images: their indices.
        part: images read at once.
    """
    total = squares = count = 0
    for start in range(0, len(images), part):
        flat = tokens(images[start : start + part]).flatten(0, 1).double()
        total, squares, count = total + flat.sum(0), squares + flat.square().sum(0), count + len(flat)
    mean = total / count
    deviation = (squares / count - mean.square()).clamp_min(0).sqrt()
    # A channel that never moves says nothing: dividing by its rounding noise would make it loud.
    return Moments(mean, deviation.where(deviation > 1e-4 * deviation.max(), inf))
