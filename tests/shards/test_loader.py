"""The loader: the same batches for any ranks and workers, from any step, and never a damaged frame."""

import dataclasses
import json
from collections.abc import Callable
from itertools import islice, pairwise

import numpy as np
import pytest
import torch

from shards.decode import Decoder
from shards.fixed import fixed_views
from shards.format import ShardsError
from shards.loader import Loader
from shards.microbatch import Batch
from shards.plan import DataConfig, PlanError
from shards.reader import Dataset
from shards.substitution import read_views

CONFIG = DataConfig(size=32, images_per_lane=12, views=(4, 8), lanes=4, flip="scene")
PHOTOGRAPHS = [20, 11, 18, 11, 25, 24]

Ramps = Callable[..., Dataset]


def load(dataset: Dataset, steps: int, config: DataConfig = CONFIG, **options) -> list[Batch]:
    """The first batches of one rank."""
    loader = Loader(dataset, config, **options)
    return list(islice(loader, steps * loader.micro_batches_per_step))


def by_lane(batches: list[Batch]) -> dict[tuple[int, int], int]:
    return {(b.step, lane): int(crc) for b in batches for lane, crc in zip(b.lanes, b.crcs, strict=True)}


def spoil(dataset: Dataset, chunk: int, frame: int) -> None:
    """Change one byte in the middle of a frame's JPEG."""
    offset, size, _ = dataset._member(chunk, frame, 0)
    path = dataset.root / dataset.shards[dataset.shard_of(chunk)]["name"]
    data = bytearray(path.read_bytes())
    data[offset + size // 2] ^= 0x55
    path.write_bytes(data)


@pytest.mark.parametrize("workers", [0, 2])
def test_neither_ranks_nor_workers_nor_grouping_change_a_lane(ramps: Ramps, workers: int) -> None:
    dataset = ramps(PHOTOGRAPHS)
    reference = by_lane(load(dataset, 3))
    assert len(set(reference.values())) == len(reference) == 12
    for world, at_once in ((1, 4), (2, 1), (2, 4), (4, 1)):
        found = {}
        for rank in range(world):
            batches = load(dataset, 3, rank=rank, world=world, lanes_at_once=at_once, workers=workers)
            assert [(b.step, b.lanes) for b in batches] == sorted((b.step, b.lanes) for b in batches)
            assert all(lane % world == rank for b in batches for lane in b.lanes)
            found |= by_lane(batches)
        assert found == reference


def test_starting_later_continues_the_same_batches(ramps: Ramps) -> None:
    dataset = ramps(PHOTOGRAPHS)
    whole = by_lane(load(dataset, 4, lanes_at_once=2))
    later = by_lane(load(dataset, 2, lanes_at_once=1, start_step=2, workers=1))
    assert later == {key: crc for key, crc in whole.items() if key[0] >= 2}


def test_a_batch_is_packed_in_lane_order(ramps: Ramps) -> None:
    dataset = ramps(PHOTOGRAPHS)
    (together,) = load(dataset, 1, lanes_at_once=4)
    apart = load(dataset, 1)
    assert together.lanes == (0, 1, 2, 3)
    assert together.images.shape == (48, 3, 32, 32)
    assert together.images.dtype == torch.uint8
    assert together.views.sum() == 48
    for field in ("images", "views", "intrinsics", "world_to_camera"):
        assert torch.equal(getattr(together, field), torch.cat([getattr(b, field) for b in apart]))
    assert together.overlap == pytest.approx(np.mean([b.overlap for b in apart]))


def test_views_outside_the_band_are_counted(ramps: Ramps) -> None:
    """Neighbours overlap by 0.8, the next by 0.6: a band from 0.5 to 0.7 has too few for all."""
    config = dataclasses.replace(CONFIG, band=(0.5, 0.7))
    loader = Loader(ramps(PHOTOGRAPHS), config, lanes_at_once=4)
    (batch,) = islice(loader, 1)
    shares = [loader.plan.lane_step(0, lane).outside for lane in range(4)]
    assert batch.outside == pytest.approx(np.mean(shares))
    assert 0 < batch.outside < 1


def test_loading_leaves_the_global_generators_alone(ramps: Ramps) -> None:
    dataset = ramps(PHOTOGRAPHS)
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    load(dataset, 1, workers=1)
    assert torch.equal(torch.rand(1), expected)


def test_cameras_follow_the_pixels(ramps: Ramps) -> None:
    """The ramps' colours say where in the stored picture a pixel was; so do the cameras, flipped or not."""
    dataset = ramps(PHOTOGRAPHS)
    (batch,) = load(dataset, 1, lanes_at_once=4)
    stored = dataset.chunk(0).intrinsics[0]
    height, width = dataset.chunk(0).sizes[0]
    off = {(axis, mirrored): [] for axis in "xy" for mirrored in (False, True)}
    for image, now, pose in zip(batch.images, batch.intrinsics.numpy(), batch.world_to_camera, strict=True):
        across, down = image[0, 16].float().numpy(), image[1, :, 16].float().numpy()
        mirrored = bool(across[4] > across[-4])
        pixels = np.arange(4, 28)
        x = (pixels + 0.5 - now[0, 2]) / now[0, 0] * (-1 if mirrored else 1) * stored[0, 0] + stored[0, 2]
        y = (pixels + 0.5 - now[1, 2]) / now[1, 1] * stored[1, 1] + stored[1, 2]
        off["x", mirrored].append(x - across[pixels] / 255 * width)
        off["y", mirrored].append(y - down[pixels] / 255 * height)
        # All three entries of t are equal in these poses; a mirrored one has its x negated.
        assert float(pose[0, 3]) == pytest.approx(float(pose[1, 3]) * (-1 if mirrored else 1))
    # JPEG's noise aside, which is some tenths of a pixel; half a pixel would be the wrong convention.
    assert {key: round(float(np.mean(found)), 1) for key, found in off.items()} == dict.fromkeys(off, 0.0)


def test_views_flipped_one_by_one_have_no_cameras(ramps: Ramps) -> None:
    (batch,) = load(ramps(PHOTOGRAPHS), 1, dataclasses.replace(CONFIG, flip="view"), lanes_at_once=4)
    assert batch.intrinsics is None
    assert batch.world_to_camera is None


def test_unwanted_cameras_leave_meta_unread(ramps: Ramps, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = ramps(PHOTOGRAPHS)
    monkeypatch.setattr(dataset, "meta", None)
    (batch, *_) = load(dataset, 1, cameras=False)
    assert batch.intrinsics is None


def test_ranks_that_do_not_divide_the_lanes_are_refused_by_name(ramps: Ramps) -> None:
    dataset = ramps(PHOTOGRAPHS)
    with pytest.raises(ShardsError, match="3 ranks cannot share 4 lanes evenly: use one of 1, 2, 4 ranks"):
        Loader(dataset, CONFIG, world=3)
    with pytest.raises(ShardsError, match="3 lanes at once do not divide the 4 lanes"):
        Loader(dataset, CONFIG, lanes_at_once=3)
    with pytest.raises(PlanError, match="largest scene of the train split has 5 frames"):
        Loader(ramps([5, 4], name="small"), CONFIG)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_frame_is_replaced_told_and_never_used(ramps: Ramps, workers: int) -> None:
    dataset = ramps(PHOTOGRAPHS)
    clean = load(dataset, 2)
    part = Loader(dataset, CONFIG).plan.lane_step(1, 2)
    chunk, frame = int(part.chunks[0]), int(part.frames[1])
    spoil(dataset, chunk, frame)
    damaged = load(dataset, 2, workers=workers)
    assert by_lane(damaged) == by_lane(load(dataset, 2, rank=0, world=1, lanes_at_once=4))

    (batch,) = [b for b in damaged if b.step == 1 and b.lanes == (2,)]
    (event,) = [e for e in batch.substituted if e["frame"] == frame and e["chunk"] == chunk]
    assert event["reason"] == "its bytes fail their crc32"
    assert event["shard"].endswith(".tar")
    assert event["key"].endswith(f".{frame:04d}.jpg")
    assert event["offset"] == dataset._member(chunk, frame, 0)[0]
    assert (event["step"], event["lane"]) == (1, 2)
    assert event["by"] not in part.frames[: part.views[0]]
    json.dumps(event)

    # The blue of a ramp is its frame: the bad one's is gone, the substitute's is there, all others are as before.
    index = clean.index(next(b for b in clean if b.step == 1 and b.lanes == (2,)))
    assert torch.equal(batch.views, clean[index].views)
    same = [i for i in range(12) if i != 1]
    if len(batch.substituted) == 1:
        assert torch.equal(batch.images[same], clean[index].images[same])
    blue = lambda f: (37 * chunk + 9 * f) % 256  # noqa: E731
    assert abs(int(batch.images[1, 2].float().mean()) - blue(event["by"])) <= 3
    assert abs(int(clean[index].images[1, 2].float().mean()) - blue(frame)) <= 3


def test_stand_ins_differ_while_they_last_and_damage_is_told_once(ramps: Ramps) -> None:
    for count, bad, expected in ((5, (0, 1), [3, 4, 2]), (4, (0, 1), [3, 3, 2])):
        dataset = ramps([count], known=False, name=f"of{count}")
        for frame in bad:
            spoil(dataset, 0, frame)
        damage: list[dict] = []
        views = read_views(dataset, lambda jpeg, _: Decoder().decode(jpeg), 0, np.array([0, 1, 2]), damage)
        assert [frame for frame, _ in views] == expected
        assert [(e["frame"], e["by"]) for e in damage] == [(0, expected[0]), (1, expected[1])]


def test_a_frame_that_does_not_decode_is_damage_too(ramps: Ramps, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = ramps(PHOTOGRAPHS)
    part = Loader(dataset, CONFIG).plan.lane_step(0, 0)
    bad = int(part.chunks[0]), int(part.frames[0])
    read = dataset.read_jpeg
    monkeypatch.setattr(dataset, "read_jpeg", lambda c, f: read(c, f)[: 200 if (c, f) == bad else None])
    (batch, *_) = load(dataset, 1)
    assert [(e["chunk"], e["frame"]) for e in batch.substituted] == [bad]


def test_a_chunk_without_a_sound_frame_gives_way_to_the_next(ramps: Ramps) -> None:
    dataset = ramps(PHOTOGRAPHS)
    part = Loader(dataset, CONFIG).plan.lane_step(0, 0)
    chunk = int(part.chunks[0])
    for frame in range(PHOTOGRAPHS[chunk]):
        spoil(dataset, chunk, frame)
    (batch, *_) = load(dataset, 1)
    assert batch.views.tolist() == part.views.tolist()
    lost = [e for e in batch.substituted if e["chunk"] == chunk]
    assert sorted({e["frame"] for e in lost}) == list(range(PHOTOGRAPHS[chunk]))
    assert {e["by"] for e in lost} == {None}


def test_nothing_readable_at_all_is_one_sentence_with_the_mend(ramps: Ramps) -> None:
    dataset = ramps([12, 12])
    for chunk in range(2):
        for frame in range(12):
            spoil(dataset, chunk, frame)
    for workers in (0, 1):
        with pytest.raises(ShardsError, match=r"no readable frame.*python -m shards verify") as caught:
            load(dataset, 1, workers=workers)
        assert "\n" not in str(caught.value)


def test_state_is_small_and_refuses_another_seed_data_or_config(ramps: Ramps) -> None:
    dataset = ramps(PHOTOGRAPHS)
    loader = Loader(dataset, CONFIG, world=2, rank=1)
    state = json.loads(json.dumps(loader.state(7)))
    assert len(json.dumps(state)) < 2048
    Loader(dataset, CONFIG, workers=2).check(state)
    refused = [
        (Loader(dataset, dataclasses.replace(CONFIG, seed=3)), "seed was 0 and is 3"),
        (Loader(dataset, dataclasses.replace(CONFIG, lanes=8)), "lanes was 4 and is 8"),
        (Loader(dataset, dataclasses.replace(CONFIG, views=(6, 6))), r"views was \[4, 8\] and is \[6, 6\]"),
        (Loader(ramps([12, 13], name="other"), CONFIG), "data had hash"),
    ]
    for other, message in refused:
        with pytest.raises(ShardsError, match=message):
            other.check(state)
    grown = ramps([*PHOTOGRAPHS, 12], name="grown")
    with pytest.raises(ShardsError, match=r"data had hash .* or go on with other data by --migrate"):
        Loader(grown, CONFIG).check(state)
    Loader(grown, CONFIG).check(state, migrate=True)
    with pytest.raises(ShardsError, match="seed was 0 and is 3"):
        Loader(grown, dataclasses.replace(CONFIG, seed=3)).check(state, migrate=True)
    with pytest.raises(ShardsError, match="the plan of its next steps is another"):
        loader.check({**state, "plan": "0" * 32}, migrate=True)
    with pytest.raises(ShardsError, match="the plan of its next steps is another"):
        loader.check({**state, "plan": "0" * 32})


def test_fixed_views_are_the_same_every_time_and_one_of_each_scene(ramps: Ramps) -> None:
    dataset = ramps([12, 12], val=[9, 5, 8, 7])
    images, chunks = fixed_views(dataset, split="val", scenes=10, views=6, size=16, seed=3)
    again, _ = fixed_views(dataset, split="val", scenes=10, views=6, size=16, seed=3)
    assert torch.equal(images, again)
    assert images.shape == (3, 6, 3, 16, 16)
    assert sorted(chunks.tolist()) == [2, 4, 5]
    for row, chunk in zip(images, chunks.tolist(), strict=True):
        frames = [round(((int(v[2].float().mean()) - 37 * chunk) % 256) / 9) for v in row]
        assert len(set(frames)) == 6
        assert all(a != b for a, b in pairwise(frames))
    few, _ = fixed_views(dataset, split="val", scenes=2, views=6, size=16, seed=3)
    assert torch.equal(few, images[:2])
    dataset.scene_hash[4] = dataset.scene_hash[2]  # two chunks of one scene
    assert len(fixed_views(dataset, split="val", scenes=10, views=6, size=16)[0]) == 2
    with pytest.raises(ShardsError, match=r"no scene of the val split .* has 10 frames .* the largest of 9"):
        fixed_views(dataset, split="val", scenes=2, views=10, size=16)
