"""What is trained on: never an image that is scored, and never a scene that choices are made on."""

from dataclasses import replace
from pathlib import Path

import pytest

from probes.benchmarks import open_benchmark
from probes.data.frames import FrameList
from probes.data.pairs import PairConfig, choose_pairs
from probes.data.training_pairs import held_out_scenes, training_pairs
from probes.errors import ProbeError

CONFIG = PairConfig(size=64, pairs=20, angles=(0, 180))


def test_a_scene_is_held_out_whole(rendered: Path) -> None:
    data = open_benchmark(str(rendered))
    found = training_pairs(data, choose_pairs("d", data.test, CONFIG), CONFIG)
    held, fitted = ({pair.scene for pair in part} for part in (found.held_out, found.fitted))
    assert len(held) == 1
    assert len(fitted) == 4
    assert not held & fitted
    assert found.dropped == 0
    assert len(found.chosen.pairs) == len(found.fitted) + len(found.held_out)


def test_images_that_are_scored_are_told_by_their_bytes(rendered: Path) -> None:
    """Also under another name, in another list."""
    data = open_benchmark(str(rendered))
    scored = choose_pairs("d", data.test, CONFIG)
    renamed = [replace(frame, name=f"other-{frame.name}") for frame in data.test.frames]
    both = replace(data, train=FrameList(frames=(*data.train.frames, *renamed)))
    found = training_pairs(both, scored, PairConfig(size=64, pairs=60))
    assert found.dropped > 0
    assert not set(found.chosen.frames.hashes) & set(scored.frames.hashes)
    with pytest.raises(ProbeError, match=r"all images of the training data .* are also scored"):
        training_pairs(replace(data, train=data.test), scored, CONFIG)


def test_data_without_a_training_part_is_refused(rendered: Path) -> None:
    data = open_benchmark(str(rendered))
    with pytest.raises(ProbeError, match=r"nothing to train on.*--train-data"):
        training_pairs(replace(data, train=None), choose_pairs("d", data.test, CONFIG), CONFIG)


def test_few_scenes_are_all_trained_on_and_a_tenth_of_many_is_held_out() -> None:
    assert held_out_scenes(["a", "b", "c", "d"]) == set()
    assert len(held_out_scenes([str(i) for i in range(40)])) == 4
    assert held_out_scenes(["a", "b", "c", "d", "e"]) == held_out_scenes(["e", "d", "c", "b", "a"])
