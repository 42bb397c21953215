"""Mixtures: several datasets behind the interface of one, each chunk its owner's."""

import dataclasses
import pickle
from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from shards.fixed import fixed_views
from shards.format import ShardsError
from shards.loader import Loader
from shards.mixture import Mixture, members, open_mixture
from shards.plan import DataConfig, Plan, PlanError
from shards.reader import Dataset

CONFIG = DataConfig(size=32, images_per_lane=12, views=(2, 4), lanes=4)

Ramps = Callable[..., Dataset]


@pytest.fixture
def pair(ramps: Ramps) -> tuple[Dataset, Dataset]:
    return ramps([20, 11, 18, 11], val=[5], name="a"), ramps([25, 8, 9], val=[6, 7], name="b")


def test_a_mixture_reads_as_its_datasets_do(pair: tuple[Dataset, Dataset]) -> None:
    mixture = Mixture(pair, [2, 1])
    assert mixture.num_chunks == 10
    assert mixture.num_frames == sum(one.num_frames for one in pair)
    assert mixture.select("val").tolist() == [4, 8, 9]
    assert mixture.read_jpeg(6, 3) == pair[1].read_jpeg(1, 3)
    assert np.array_equal(mixture.covisibility(5), pair[1].covisibility(0))
    assert mixture.chunk(5).number == 5
    assert mixture.chunk(5).meta == pair[1].chunk(0).meta
    assert str(mixture.damaged(5, 0, "x")) == str(pair[1].damaged(0, 0, "x"))
    assert [first for first, _ in members(mixture)] == [0, 5]
    again = pickle.loads(pickle.dumps(mixture))
    assert again.hash == mixture.hash
    assert mixture.hash != Mixture(pair, [1, 1]).hash
    images, chunks = fixed_views(mixture, split="val", scenes=9, views=5, size=16)
    assert len(images) == 2  # scene4 is in both, and is one scene
    assert 8 in chunks.tolist()


def test_each_dataset_has_its_share_of_the_scenes_of_a_run(pair: tuple[Dataset, Dataset]) -> None:
    plan = Plan(Mixture(pair, [3, 1]), CONFIG)
    chunks = np.concatenate([plan.lane_step(s, v).chunks for s in range(60) for v in range(4)])
    assert abs((chunks < 5).mean() - 0.75) < 3 * 3 / len(chunks) * (60 / plan.steps_per_epoch)
    first, second = plan.summary()["sources"]
    assert first["source"].endswith("a") and second["source"].endswith("b")
    assert first["share_of_scenes"] == pytest.approx(0.75, abs=0.05)
    assert {first["passes_per_epoch"], second["passes_per_epoch"]} & {1.0}


def test_batches_of_a_mixture_depend_on_neither_ranks_nor_the_step_a_run_begins_at(
    pair: tuple[Dataset, Dataset],
) -> None:
    mixture = Mixture(pair, [1, 2])
    whole = {}
    for batch in islice(Loader(mixture, CONFIG, lanes_at_once=4), 5):
        whole |= {(batch.step, lane): int(crc) for lane, crc in zip(batch.lanes, batch.crcs, strict=True)}
    loader = Loader(mixture, CONFIG, rank=1, world=2, start_step=3, workers=1)
    loader.check(Loader(mixture, CONFIG).state(3))
    for batch in islice(loader, 4):
        assert [whole[batch.step, lane] for lane in batch.lanes] == batch.crcs.tolist()
    with pytest.raises(ShardsError, match="data had hash"):
        Loader(Mixture(pair, [1, 3]), CONFIG).check(Loader(mixture, CONFIG).state(3))


def test_single_photographs_join_every_step(ramps: Ramps) -> None:
    mixture = Mixture([ramps([20, 11, 18], name="scenes"), ramps([1] * 30, name="photos")], [1, 1])
    config = dataclasses.replace(CONFIG, images_per_lane=20, single_share=0.1)
    assert (config.single_images, config.scene_images, config.scenes_per_lane) == (2, 18, 8)
    plan = Plan(mixture, config)
    used: Counter = Counter()
    for step in range(15):
        for lane in range(4):
            part = plan.lane_step(step, lane)
            assert part.views.sum() == 20
            assert sorted(part.views.tolist())[:2] == [1, 1]
            assert ((part.views == 1) == (part.chunks >= 3)).all()
            used.update(part.chunks[part.views == 1].tolist())
    assert len(used) == 30
    assert set(used.values()) <= {3, 4, 5}
    with pytest.raises(PlanError, match=r"single_share 0\.1 asks for photographs"):
        Plan(ramps([20, 11], name="none"), config)
    (batch,) = islice(Loader(mixture, config, lanes_at_once=4), 1)
    assert len(batch.images) == 80


def test_a_source_without_a_scene_to_show_is_named(ramps: Ramps) -> None:
    mixture = Mixture([ramps([20, 11], name="scenes"), ramps([1, 1], name="photos")], [1, 1])
    with pytest.raises(PlanError, match=r"source .*photos' has no scene of 2 frames or more"):
        Plan(mixture, CONFIG)


def test_names_and_weights_are_read_from_words(pair: tuple[Dataset, Dataset], tmp_path: Path) -> None:
    a, b = (str(one.root) for one in pair)
    assert isinstance(open_mixture([a]), Dataset)
    assert isinstance(open_mixture([f"{a}=2"]), Dataset)
    assert open_mixture([f"{a}=2", f"{b}=0.5"]).weights == (2.0, 0.5)
    assert open_mixture([a, b]).weights == (60.0, 42.0)
    both = Plan(open_mixture([a, b]), CONFIG).summary()["sources"]
    assert [source["passes_per_epoch"] for source in both] == pytest.approx([1, 1], abs=0.2)
    odd = tmp_path / "x=3"
    Path(a).rename(odd)
    assert open_mixture([str(odd)]).root == odd
    for places, said in (
        ([f"{b}=2", str(odd)], "has no weight and others have"),
        ([f"{b}=0", f"{odd}=1"], "must be a positive number, not 0"),
        ([b, b], "is named twice"),
        ([], "no dataset is named"),
    ):
        with pytest.raises(ShardsError, match=said):
            open_mixture(places)
