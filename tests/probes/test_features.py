"""The feature cache: what is reused, what is not, and that a cache changes no number."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from probes.errors import ProbeError
from probes.features import FeatureMaps, extract


class Counting:
    """An encoder that counts the images it sees; its features are the mean colour of each quadrant."""

    spec, patch_size, num_layers, run = "counting", 8, 2, None

    def __init__(self, weights: str = "a") -> None:
        self.identity = {"weights": weights}
        self.seen = 0

    def encode(self, images: torch.Tensor, layers: Sequence[int]) -> dict[int, torch.Tensor]:
        self.seen += len(images)
        maps = torch.nn.functional.adaptive_avg_pool2d(images.float(), 2).permute(0, 2, 3, 1)
        return {layer: maps * layer for layer in layers}


class Noise:
    """Images of noise; ``names`` are their hashes."""

    rule = "none"

    def __init__(self, names: str, size: int = 16) -> None:
        self.hashes, self.size = list(names), size

    def __len__(self) -> int:
        return len(self.hashes)

    def load(self, index: int) -> np.ndarray:
        rng = np.random.default_rng(ord(self.hashes[index]))
        return rng.integers(0, 256, (3, self.size, self.size), np.uint8)


def test_the_second_time_nothing_is_encoded_and_the_numbers_are_the_same(tmp_path: Path) -> None:
    encoder = Counting()
    fresh = extract(encoder, Noise("abc"), [1, 2], cache=tmp_path)
    again = extract(encoder, Noise("abc"), [1, 2], cache=tmp_path)
    assert encoder.seen == 3
    for layer in (1, 2):
        assert torch.equal(fresh[layer].tokens(range(3)), again[layer].tokens(range(3)))
        without = extract(Counting(), Noise("abc"), [1, 2])[layer]
        assert torch.equal(fresh[layer].tokens(range(3)), without.tokens(range(3)))


def test_only_new_images_are_encoded(tmp_path: Path) -> None:
    encoder = Counting()
    extract(encoder, Noise("ab"), [1], cache=tmp_path)
    extract(encoder, Noise("cab"), [1], cache=tmp_path)
    assert encoder.seen == 3


def test_equal_images_are_encoded_once() -> None:
    encoder = Counting()
    maps = extract(encoder, Noise("aba"), [1])[1]
    assert encoder.seen == 2
    assert torch.equal(maps.tokens([0]), maps.tokens([2]))


@pytest.mark.parametrize("change", ["weights", "size", "layer"])
def test_other_weights_sizes_or_layers_are_never_served(tmp_path: Path, change: str) -> None:
    extract(Counting("a"), Noise("a"), [1], cache=tmp_path)
    other = Counting("b" if change == "weights" else "a")
    images = Noise("a", size=32 if change == "size" else 16)
    extract(other, images, [2 if change == "layer" else 1], cache=tmp_path)
    assert other.seen == 1


def test_a_torn_part_is_not_read(tmp_path: Path) -> None:
    extract(Counting(), Noise("a"), [1], cache=tmp_path)
    (stored,) = tmp_path.glob("*/a.npy")
    stored.rename(stored.with_name(".a.npy.1.part"))
    encoder = Counting()
    extract(encoder, Noise("a"), [1], cache=tmp_path)
    assert encoder.seen == 1


def test_maps_too_large_for_half_precision_keep_their_values() -> None:
    class Loud(Counting):
        def encode(self, images: torch.Tensor, layers: Sequence[int]) -> dict[int, torch.Tensor]:
            return {layer: torch.full((len(images), 2, 2, 3), 1e6) for layer in layers}

    assert extract(Loud(), Noise("a"), [1])[1].tokens([0]).max() == 1e6


def test_without_position_every_position_has_mean_zero() -> None:
    rng = np.random.default_rng(0)
    place = rng.normal(size=(4, 4, 8)).astype(np.float32) * 10
    maps = FeatureMaps([place + rng.normal(size=(4, 4, 8)).astype(np.float32) for _ in range(6)])
    assert maps.without_position().tokens(range(6)).mean(0).abs().max() < 1e-5


def test_a_cache_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ProbeError, match="cannot be written"):
        extract(Counting(), Noise("a"), [1], cache=tmp_path / "file")
