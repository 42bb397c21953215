"""Shared batches: never overwritten while anything of them is in use, given back with the last view of them."""

import dataclasses
import gc
import os
import pickle
from collections.abc import Callable
from itertools import islice

import pytest
import torch

from shards.crc import crc32
from shards.loader import Loader
from shards.microbatch import Batch
from shards.plan import DataConfig
from shards.reader import Dataset
from shards.ring import Ring, Sent, pictures

CONFIG = DataConfig(size=32, images_per_lane=12, views=(4, 8), lanes=2)


@dataclasses.dataclass
class Parcel:
    images: torch.Tensor | None


@pytest.fixture
def ring() -> Ring:
    return Ring(owners=2, each=2, shape=(3, 4, 5))


def send(ring: Ring, owner: int, value: int) -> Parcel:
    """Fill a slot as a worker does, and receive it as a trainer does."""
    slot = ring.take(owner)
    images = pictures(ring.array(slot)).fill_(value)
    return pickle.loads(pickle.dumps(Sent(Parcel(images), "images", ring, slot)))


def test_a_slot_is_in_use_while_any_view_of_it_lives(ring: Ring) -> None:
    parcel = send(ring, 0, 7)
    assert parcel.images.shape == (3, 3, 4, 5)
    assert (parcel.images == 7).all()
    row, array = parcel.images[1], parcel.images[2].numpy()
    for last in ("parcel", "row", "array"):
        assert ring.in_use == 1, last
        if last == "parcel":
            parcel.images = None
        elif last == "row":
            row = None
        else:
            array = None
    assert ring.in_use == 0
    assert row is array is None


def test_an_owner_has_its_own_slots_and_no_more(ring: Ring) -> None:
    held = [send(ring, 1, value) for value in (1, 2)]
    assert ring.take(1) is None
    assert ring.take(0) is not None
    assert [int(parcel.images[0, 0, 0, 0]) for parcel in held] == [1, 2]
    del held[0]
    assert ring.take(1) is not None


def test_a_forked_process_gives_nothing_back(ring: Ring) -> None:
    parcel = send(ring, 0, 7)
    child = os.fork()
    if child == 0:
        parcel.images = None
        gc.collect()
        os._exit(0)
    os.waitpid(child, 0)
    assert ring.in_use == 1


def lane_sums(batch: Batch) -> list[int]:
    return [crc32(part.permute(0, 2, 3, 1).contiguous().numpy()) for part in batch.images.split(12)]


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_that_are_kept_and_batches_that_are_dropped_are_the_same(
    ramps: Callable[..., Dataset], workers: int
) -> None:
    loader = dict(dataset=ramps([20, 11, 18]), config=CONFIG, lanes_at_once=2)
    steps = 6 * workers  # more than there are slots
    expected = [lane_sums(batch) for batch in islice(Loader(**loader), steps)]
    kept = list(islice(Loader(**loader, workers=workers), steps))
    assert [lane_sums(batch) for batch in kept] == expected
    assert [lane_sums(batch) for batch in islice(Loader(**loader, workers=workers), steps)] == expected
    assert kept[0].images.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("workers", [0, 1])
def test_memory_is_used_again(ramps: Callable[..., Dataset], workers: int) -> None:
    places = set()
    for batch in islice(Loader(ramps([20, 11]), CONFIG, workers=workers), 20):
        places.add(batch.images.data_ptr())
    assert len(places) <= 4
