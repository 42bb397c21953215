"""Frames of a sequence, drawn once for everybody: from the sequence's name alone, on any machine, in any order.

The published evaluators draw from one global stream, so that a sequence that is skipped changes all that follow.
"""

import hashlib
from collections.abc import Sequence

import numpy as np

FRAMES = 10
"""Frames drawn of a sequence, as PoseDiffusion and VGGT do."""


def shuffled(name: str, count: int) -> list[int]:
    """The places 0 to `count` - 1 in a random order that depends on a name and on nothing else."""
    key = np.frombuffer(hashlib.sha256(name.encode()).digest()[:16], "<u8")
    # Of NumPy's random numbers only the raw ones are promised to stay the same in later versions.
    return np.argsort(np.random.Philox(key=key).random_raw(count), kind="stable").tolist()


def draw_frames(sequence: str, count: int) -> list[int]:
    """`FRAMES` distinct places of a sequence's `count` frames, ascending; all of them where there are no more."""
    return sorted(shuffled(sequence, count)[:FRAMES])


def by_hash(names: Sequence[str]) -> list[str]:
    """Names in an order that looks random and is the same everywhere."""
    return sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())
