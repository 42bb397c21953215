"""Shard folders: the chunks' own truth, scenes in a frozen order, and what is refused."""

from pathlib import Path
from typing import Literal

import numpy as np
import pytest

import shards
from probes.benchmarks import open_benchmark
from probes.benchmarks import shards as reader
from probes.errors import ProbeError
from shards.convert import Conversion, convert_scene
from shards.format import Frame, Scene
from shards.writer import DatasetWriter
from tests.trees.proof import benchmark_warp_error
from tests.trees.world import View


def test_val_is_scored_and_train_is_trained_on(rendered: Path) -> None:
    found = open_benchmark(str(rendered))
    assert found.name == "shards" and found.split == "val" and found.fit == "crop" and found.auc == "exact"
    assert len({f.scene for f in found.test.frames}) == 6 and len({f.scene for f in found.train.frames}) == 5
    assert not {f.scene for f in found.test.frames} & {f.scene for f in found.train.frames}
    assert len({f.name for f in found.test.frames}) == len(found.test.frames) == 30
    assert found.test.pairs is None and not found.missing and found.classes


def test_pixels_depth_labels_and_cameras_are_the_chunks_own(rendered: Path) -> None:
    dataset = shards.open_dataset(rendered)
    frame = open_benchmark(str(rendered)).test.frames[7]
    (number,) = (i for i in dataset.select("val") if dataset.chunk(int(i)).key == frame.group)
    chunk = dataset.chunk(int(number))
    index = chunk.frame_names.index(frame.name.removeprefix(f"{frame.group}/"))
    assert (frame.image() == dataset.read_image(int(number), index)).all()
    assert (frame.depth() == dataset.read_depth(int(number), index)).all()
    assert (frame.labels() == dataset.read_labels(int(number), index)).all()
    np.testing.assert_array_equal(frame.intrinsics, chunk.intrinsics[index])
    np.testing.assert_array_equal(frame.world_to_camera, np.asarray(chunk.world_to_camera[index])[:3])
    assert frame.image().shape == (frame.height, frame.width, 3)
    assert len(frame.digest()) == 64 and frame.stamp == dataset.hash


def test_warps_agree_with_the_chunks_truth(rendered: Path) -> None:
    split = open_benchmark(str(rendered)).test
    nothing = np.empty(0, np.int64), np.empty((0, 2))
    views = {
        frame.name: View(
            image=frame.image(),
            intrinsics=frame.intrinsics,
            world_to_camera=frame.world_to_camera,
            depth=frame.depth(),
            points=nothing[0],
            xy=nothing[1],
        )
        for frame in split.frames
    }
    assert benchmark_warp_error(split, views, fit="crop") < 0.01


def test_the_list_is_the_same_every_time(rendered: Path) -> None:
    first = open_benchmark(str(rendered)).test.hash
    open_benchmark.cache_clear()
    assert open_benchmark(str(rendered)).test.hash == first


def test_of_a_large_folder_the_same_scenes_are_taken_whatever_is_asked_for(
    rendered: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scenes(most: int) -> set[str]:
        monkeypatch.setattr(reader, "TEST_SCENES", most)
        open_benchmark.cache_clear()
        return {f.scene for f in open_benchmark(str(rendered)).test.frames}

    assert [len(scenes(most)) for most in (1, 3, 6, 9)] == [1, 3, 6, 6]
    assert scenes(1) < scenes(3) < scenes(6)


def bare(out: Path, split: Literal["train", "val"]) -> Path:
    """One scene of three photographs without cameras."""
    rng = np.random.default_rng(0)
    frames = [Frame(name=str(i), image=rng.integers(0, 256, (64, 64, 3), np.uint8)) for i in range(3)]
    scene = Scene(name="bare", frames=frames, split=split)
    with DatasetWriter(out, source="images") as writer:
        for chunk in convert_scene(scene, source="images", split=split, conversion=Conversion()).chunks:
            writer.add(chunk)
        writer.finish({})
    return out


def test_photographs_alone_are_frames_without_truth(tmp_path: Path) -> None:
    found = open_benchmark(str(bare(tmp_path / "d", "val")))
    assert found.train is None and len(found.test.frames) == 3 and found.classes == ()
    for frame in found.test.frames:
        assert frame.intrinsics is None and frame.world_to_camera is None and frame.stamp == ""
        assert frame.depth is None and frame.labels is None and frame.tracks is None


def test_a_folder_without_validation_scenes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProbeError, match="has no scenes in its val split: build it with validation scenes"):
        open_benchmark(str(bare(tmp_path / "d", "train")))


def test_a_folder_of_another_form_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProbeError, match=f"data '{tmp_path}'.*manifest"):
        open_benchmark(str(tmp_path))
