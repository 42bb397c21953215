"""What runs a build does not show in its bytes, and what goes wrong there is one sentence."""

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from shards.build import BuildOptions, build
from shards.executor import Execution, convert_task
from shards.format import BadPhotograph, ShardsError
from shards.sources.images import FolderTask

RAY = Execution(executor="ray")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("input") / "photos"
    rng = np.random.default_rng(0)
    for scene in range(9):
        (root / f"s{scene}").mkdir(parents=True)
        for number in range(2 + scene % 3):
            noise = Image.fromarray(rng.integers(0, 255, (300, 300, 3), np.uint8))
            noise.save(root / f"s{scene}" / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A Ray cluster of this machine with two workers."""
    ray = pytest.importorskip("ray")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    yield ray
    ray.shutdown()


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


class Deadly:
    """A task that kills the process that unpacks it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __reduce__(self) -> tuple:
        return (os._exit, (9,))


def test_address_without_a_cluster_is_one_sentence_at_once(photos: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    with socket.socket() as taken, pytest.raises(ShardsError, match=r"no Ray cluster at 127\.0\.0\.1:"):
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        build("images", [photos], tmp_path / "out", execution=Execution(executor="ray", ray_address=address))
    assert not (tmp_path / "out").exists()


def test_one_process_two_processes_and_a_ray_cluster_write_the_same_bytes(
    photos: Path, tmp_path: Path, cluster: Any
) -> None:
    options = BuildOptions(shard_mb=1)
    for name, execution in {"one": Execution(workers=1), "two": Execution(workers=2), "ray": RAY}.items():
        build("images", [photos], tmp_path / name, options=options, execution=execution)
    assert tree(tmp_path / "one") == tree(tmp_path / "two") == tree(tmp_path / "ray")
    assert len(list((tmp_path / "one" / "shards").glob("*.tar"))) > 1


def test_bad_picture_on_a_ray_cluster_is_named_as_it_is_here(
    photos: Path, tmp_path: Path, cluster: Any
) -> None:
    (tmp_path / "photos" / "a").mkdir(parents=True)
    for number in range(2):
        (tmp_path / "photos" / "a" / f"{number}.png").write_bytes(b"no picture")
    said = []
    for execution in (Execution(workers=1), RAY):
        with pytest.raises(BadPhotograph, match=r"a/0\.png") as error:
            build("images", [tmp_path / "photos"], tmp_path / "out", execution=execution)
        said.append(str(error.value))
    assert said[0] == said[1] and not (tmp_path / "out").exists()


def test_worker_that_is_killed_on_a_ray_cluster_is_one_sentence_with_the_scene(
    photos: Path, tmp_path: Path, cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def get(result: object) -> None:
        raise cluster.exceptions.WorkerCrashedError

    monkeypatch.setattr(cluster, "get", get)  # a real crash is tried again, which takes seconds
    with pytest.raises(ShardsError, match=r"worker process was killed .* while it converted scene s0"):
        build("images", [photos], tmp_path / "out", execution=RAY)
    assert not (tmp_path / "out").exists()


def test_worker_that_is_killed_here_is_one_sentence_with_the_scenes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shards.sources.images.find", lambda paths, options: map(Deadly, "abcd"))
    with pytest.raises(
        ShardsError, match=r"was killed .* one of the scenes a, b; build with fewer --workers"
    ):
        build("images", [tmp_path], tmp_path / "out", workers=2)
    assert not (tmp_path / "out").exists()


def test_ray_that_is_not_installed_is_one_sentence(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ShardsError, match="pip install"):
        build("images", [photos], tmp_path / "out", execution=RAY)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("given", "message"), [({"workers": 0}, "at least 1"), ({"ray_address": "auto"}, "--executor ray")]
)
def test_execution_that_cannot_be_is_one_sentence(given: dict, message: str) -> None:
    with pytest.raises(ShardsError, match=message):
        Execution(**given)


def task(folder: Path) -> FolderTask:
    return FolderTask(name="scene", photographs=(folder / "0.png",), licence="")


@pytest.mark.parametrize("error", [FileNotFoundError(2, "No such file", "x/depth.h5"), EOFError("cut off")])
def test_file_that_a_source_cannot_read_is_a_sentence_with_the_scene(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def read(task: FolderTask) -> None:
        raise error

    monkeypatch.setattr("shards.sources.images.read", read)
    with pytest.raises(ShardsError, match=f"scene scene cannot be read: {type(error).__name__}"):
        convert_task(("images", task(tmp_path), "train", BuildOptions()))
    (scene,) = convert_task(("images", task(tmp_path), "train", BuildOptions(skip_bad=True)))
    assert "cannot be read" in scene.reason and scene.frames_in == 1


def test_folder_that_a_source_may_not_list_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find(paths: list[Path], options: object) -> None:
        raise PermissionError(13, "Permission denied", "photos/a")

    monkeypatch.setattr("shards.sources.images.find", find)
    with pytest.raises(ShardsError, match=r"photos/a cannot be read: Permission denied"):
        build("images", [tmp_path], tmp_path / "out")


def test_fault_of_the_program_is_not_said_to_be_the_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(task: FolderTask) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("shards.sources.images.read", read)
    with pytest.raises(ZeroDivisionError) as error:
        convert_task(("images", task(tmp_path), "train", BuildOptions(skip_bad=True)))
    assert error.value.__notes__ == ["while converting scene scene of images"]
