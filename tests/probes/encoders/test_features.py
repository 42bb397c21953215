"""The feature cache: what is reused, what is not, and that a cache changes no number."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from probes.encoders import features
from probes.encoders.encoder import open_encoder
from probes.encoders.features import FeatureMaps, extract, fill, fill_in_processes
from probes.errors import ProbeError


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


def test_features_in_memory_have_the_layout_of_those_on_disk(tmp_path: Path) -> None:
    kept, fresh = (extract(Counting(), Noise("ab"), [1], cache=cache)[1] for cache in (tmp_path, None))
    assert kept.tokens([0, 1]).stride() == fresh.tokens([0, 1]).stride()


@pytest.mark.parametrize("images", ["abcdefg", "a", "abcd"])
def test_maps_stay_with_their_images_whatever_the_batch(tmp_path: Path, images: str) -> None:
    alone = {name: extract(Counting(), Noise(name), [1])[1].tokens([0]) for name in images}
    for cache in (tmp_path, None):
        maps = extract(Counting(), Noise(images), [1], cache=cache, batch=2)[1]
        for index, name in enumerate(images):
            assert torch.equal(maps.tokens([index]), alone[name])


def test_all_layers_are_asked_for_at_once() -> None:
    asked: list[tuple[int, ...]] = []

    class Asked(Counting):
        def encode(self, images: torch.Tensor, layers: Sequence[int]) -> dict[int, torch.Tensor]:
            asked.append(tuple(layers))
            return super().encode(images, layers)

    extract(Asked(), Noise("abc"), [1, 2], batch=2)
    assert asked == [(1, 2), (1, 2)]


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY\x01\x00", b"no array at all", "cut"])
def test_a_damaged_map_is_made_anew(tmp_path: Path, damage: bytes | str) -> None:
    whole = extract(Counting(), Noise("abc"), [1], cache=tmp_path)[1].tokens(range(3))
    (stored,) = tmp_path.glob("*/b.npy")
    stored.write_bytes(stored.read_bytes()[:-3] if damage == "cut" else damage)
    encoder = Counting()
    again = extract(encoder, Noise("abc"), [1], cache=tmp_path)[1].tokens(range(3))
    assert encoder.seen == 1
    assert torch.equal(whole, again)


def test_a_pickled_object_in_the_cache_is_never_opened(tmp_path: Path) -> None:
    extract(Counting(), Noise("a"), [1], cache=tmp_path)
    (stored,) = tmp_path.glob("*/a.npy")
    np.save(stored, np.array([{}], object), allow_pickle=True)
    encoder = Counting()
    extract(encoder, Noise("a"), [1], cache=tmp_path)
    assert encoder.seen == 1


def test_features_from_other_weights_under_this_name_are_refused(tmp_path: Path) -> None:
    extract(Counting("a"), Noise("a"), [1], cache=tmp_path)
    (first,) = tmp_path.iterdir()
    extract(Counting("b"), Noise("a"), [1], cache=tmp_path)
    (second,) = set(tmp_path.iterdir()) - {first}
    for path in second.iterdir():
        path.replace(first / path.name)
    with pytest.raises(ProbeError, match="weights b instead of a"):
        extract(Counting("a"), Noise("a"), [1], cache=tmp_path)


@pytest.mark.parametrize("key", [None, "{", "[]"])
def test_maps_without_their_key_are_refused(tmp_path: Path, key: str | None) -> None:
    extract(Counting(), Noise("a"), [1], cache=tmp_path)
    (file,) = tmp_path.glob("*/key.json")
    file.unlink() if key is None else file.write_text(key)
    with pytest.raises(ProbeError, match=r"no readable key\.json"):
        extract(Counting(), Noise("a"), [1], cache=tmp_path)


def test_features_that_are_not_finite_are_refused() -> None:
    class Broken(Counting):
        def encode(self, images: torch.Tensor, layers: Sequence[int]) -> dict[int, torch.Tensor]:
            maps = super().encode(images, layers)
            maps[1][1, 0, 0, 0] = torch.nan
            return maps

    with pytest.raises(ProbeError, match=r"'counting' gives features that are not finite \(image b\)"):
        extract(Broken(), Noise("abc"), [1])


def test_an_image_that_cannot_be_read_stops_with_its_own_words(tmp_path: Path) -> None:
    class Torn(Noise):
        def load(self, index: int) -> np.ndarray:
            if index == 5:
                raise ProbeError("five is torn")
            return super().load(index)

    encoder = Counting()
    with pytest.raises(ProbeError, match="five is torn"):
        extract(encoder, Torn("abcdefghijklmnop"), [1], cache=tmp_path, batch=1)
    # What was encoded before it is kept.
    assert {path.stem for path in tmp_path.glob("*/*.npy")} >= set("abcd")


def test_parts_fill_a_cache_together(tmp_path: Path) -> None:
    encoder = Counting()
    made = [fill(encoder, Noise("abcdea"), [1], cache=tmp_path, part=(i, 3), batch=2) for i in range(3)]
    assert made == [2, 2, 1]
    extract(encoder, Noise("abcdea"), [1], cache=tmp_path)
    assert encoder.seen == 5
    assert fill(encoder, Noise("abcdea"), [1], cache=tmp_path, part=(0, 3)) == 0


def test_devices_take_equal_shares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class InThreads(ThreadPoolExecutor):
        def __init__(self, count: int, mp_context: object) -> None:
            super().__init__(count)

    opened: dict[str, Counting] = {}

    def open_on(spec: str, *, size: int, seed: int, device: str) -> Counting:
        return opened.setdefault(f"{spec} {size} {seed} {device}", Counting())

    monkeypatch.setattr(features, "ProcessPoolExecutor", InThreads)
    monkeypatch.setattr(features, "open_encoder", open_on)
    devices = ["cuda:0", "cuda:1"]
    made = fill_in_processes("x", Noise("abcde"), (1,), cache=tmp_path, devices=devices, seed=4)
    assert made == 5
    assert {name: encoder.seen for name, encoder in opened.items()} == {
        "x 16 4 cuda:0": 3,
        "x 16 4 cuda:1": 2,
    }


def test_a_process_of_its_own_makes_the_same_numbers(tmp_path: Path) -> None:
    images = Noise("abc", size=32)
    assert fill_in_processes("random:test_vit", images, (2, 6), cache=tmp_path, devices=["cpu"], seed=4) == 3
    encoder = open_encoder("random:test_vit", size=32, seed=4)
    assert fill(encoder, images, (2, 6), cache=tmp_path) == 0
    kept, fresh = (extract(encoder, images, (2, 6), cache=cache) for cache in (tmp_path, None))
    for layer in (2, 6):
        assert torch.equal(kept[layer].tokens(range(3)), fresh[layer].tokens(range(3)))


def test_writers_of_the_same_map_do_not_disturb_each_other(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        maps = list(pool.map(lambda _: extract(Counting(), Noise("abcd"), [1], cache=tmp_path)[1], range(8)))
    for found in maps:
        assert torch.equal(found.tokens(range(4)), maps[0].tokens(range(4)))
    assert not list(tmp_path.glob("*/.*"))


def test_a_map_that_vanishes_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "KEEP_IN_MEMORY", 0)
    maps = extract(Counting(), Noise("ab"), [1], cache=tmp_path)[1]
    (stored,) = tmp_path.glob("*/b.npy")
    stored.unlink()
    with pytest.raises(ProbeError, match="can no longer be read"):
        maps.tokens([1])


def test_maps_that_do_not_fit_into_memory_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = extract(Counting(), Noise("abc"), [1], cache=tmp_path)[1].without_position().tokens(range(3))
    monkeypatch.setattr(features, "KEEP_IN_MEMORY", 0)
    large = extract(Counting(), Noise("abc"), [1], cache=tmp_path)[1].without_position().tokens(range(3))
    assert torch.equal(small, large)


def test_a_part_is_the_same_maps_in_the_order_asked_for() -> None:
    maps = FeatureMaps([np.full((2, 2, 3), i, np.float32) for i in range(5)]).without_position()
    torch.testing.assert_close(maps.part([3, 1]).tokens([0, 1]), maps.tokens([3, 1]))
