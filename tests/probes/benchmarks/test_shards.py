from pathlib import Path

import numpy as np
import pytest

import shards
from probes.benchmarks import open_benchmark
from probes.errors import ProbeError
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


def test_a_folder_of_another_form_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProbeError, match=f"data '{tmp_path}'.*manifest"):
        open_benchmark(str(tmp_path))
