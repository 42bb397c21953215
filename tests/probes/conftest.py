"""A small rendered dataset, shared by the tests of the probes."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from probes.benchmarks import open_benchmark
from probes.data.frames import Benchmark
from shards.convert import Conversion, convert_scene
from shards.sources import scenes
from shards.writer import DatasetWriter


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    """Steps this small lose more to threads that wait for each other than they win."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five training and six held-out scenes of five 64-px views each."""
    out = tmp_path_factory.mktemp("rendered") / "shards"
    options = scenes.Options(scenes=5, val_scenes=6, frames=5, size=64, seed=3)
    with DatasetWriter(out, source="scenes") as writer:
        for task in scenes.find([], options):
            scene = convert_scene(
                scenes.read(task), source="scenes", split=task.split, conversion=Conversion(short_side=64)
            )
            for chunk in scene.chunks:
                writer.add(chunk)
        writer.finish({})
    return out


@pytest.fixture(scope="session")
def benchmark(rendered: Path) -> Benchmark:
    """The rendered dataset, opened."""
    return open_benchmark(str(rendered))
