"""A build that is stopped goes on behind its last finished shard, and its bytes do not tell."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shards import executor
from shards.build import BuildOptions, build
from shards.format import ShardsError
from shards.writer import DatasetWriter

OPTIONS = BuildOptions(shard_mb=1)
SCENES = 8


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight scenes of three pictures, three scenes to a shard of 1 MiB, one scene of several chunks among them."""
    root = tmp_path_factory.mktemp("input") / "photos"
    rng = np.random.default_rng(0)
    for scene in range(SCENES):
        (root / f"s{scene}").mkdir(parents=True)
        size, count = ((30, 40), 200) if scene == 4 else ((380, 380), 3)
        for number in range(count):
            noise = Image.fromarray(rng.integers(0, 255, (*size, 3), np.uint8))
            noise.save(root / f"s{scene}" / f"{number}.jpg", quality=90)
    return root


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def clean(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What an undisturbed build writes."""
    out = tmp_path_factory.mktemp("clean") / "out"
    build("images", [photos], out, workers=1, options=OPTIONS)
    written = tree(out)
    assert sum(name.endswith(".tar") for name in written) >= 4
    return written


@pytest.fixture
def converted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the tasks that are converted in this process."""
    names: list[str] = []
    real = executor.convert_task

    def counting(job: executor.Job) -> list:
        names.append(job[1].name)
        return real(job)

    monkeypatch.setattr(executor, "convert_task", counting)
    return names


@pytest.fixture
def stop(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Stop a build, as Ctrl-C does, when it adds its n-th chunk."""

    def at(number: int) -> None:
        left = [number]
        real = DatasetWriter.add

        def add(self: DatasetWriter, chunk: object) -> object:
            left[0] -= 1
            if left[0] == 0:
                raise KeyboardInterrupt
            return real(self, chunk)

        monkeypatch.setattr(DatasetWriter, "add", add)

    return at


@pytest.mark.parametrize("chunk", range(2, 11))
def test_stopped_build_goes_on_and_ends_with_the_same_bytes(
    photos: Path, clean: dict, tmp_path: Path, stop: Callable, chunk: int
) -> None:
    stop(chunk)
    with pytest.raises(KeyboardInterrupt):
        build("images", [photos], tmp_path / "out", workers=1, options=OPTIONS)
    assert not (tmp_path / "out" / "manifest.jsonl").exists() and not (tmp_path / "out" / "shards").exists()
    report = build("images", [photos], tmp_path / "out", workers=1, options=OPTIONS)
    assert (report.frames_in, report.scenes_in, report.existed) == (221, SCENES, False)
    assert tree(tmp_path / "out") == clean


def test_what_is_finished_is_not_converted_again(
    photos: Path, tmp_path: Path, stop: Callable, converted: list[str]
) -> None:
    stop(10)
    with pytest.raises(KeyboardInterrupt):
        build("images", [photos], tmp_path / "out", workers=1, options=OPTIONS)
    before = len(converted)
    build("images", [photos], tmp_path / "out", workers=1, options=OPTIONS)
    assert before == SCENES and converted[before:] == ["s6", "s7"]


def test_nothing_is_left_of_a_build_that_finished_no_shard(
    photos: Path, tmp_path: Path, stop: Callable
) -> None:
    stop(2)
    with pytest.raises(KeyboardInterrupt):
        build("images", [photos], tmp_path / "out", workers=1, options=OPTIONS)
    assert not (tmp_path / "out").exists()


@pytest.fixture
def stopped(tmp_path: Path, stop: Callable) -> Callable[[Path], Path]:
    """A build of a folder of pictures that was stopped behind its second shard or later."""

    def run(source: Path) -> Path:
        stop(10)
        with pytest.raises(KeyboardInterrupt):
            build("images", [source], tmp_path / "out", workers=1, options=OPTIONS)
        return tmp_path / "out"

    return run


@pytest.fixture
def copy(photos: Path, tmp_path: Path) -> Path:
    """The pictures again, to be changed."""
    import shutil

    return Path(shutil.copytree(photos, tmp_path / "copy"))


@pytest.mark.parametrize(("scene", "again"), [("s7", ["s6", "s7"]), ("s0", [f"s{i}" for i in range(SCENES)])])
def test_picture_that_changed_costs_only_what_comes_from_it_on(
    copy: Path, tmp_path: Path, stopped: Callable, converted: list[str], scene: str, again: list[str]
) -> None:
    out = stopped(copy)
    converted.clear()
    (copy / scene / "1.jpg").write_bytes((copy / scene / "0.jpg").read_bytes())
    build("images", [copy], out, workers=1, options=OPTIONS)
    assert converted == again
    build("images", [copy], tmp_path / "clean", workers=1, options=OPTIONS)
    assert tree(out) == tree(tmp_path / "clean")


def test_other_options_start_over(
    photos: Path, tmp_path: Path, stopped: Callable, converted: list[str]
) -> None:
    out, other = stopped(photos), BuildOptions(shard_mb=1, short_side=200)
    converted.clear()
    build("images", [photos], out, workers=1, options=other)
    assert len(converted) == SCENES
    build("images", [photos], tmp_path / "clean", workers=1, options=other)
    assert tree(out) == tree(tmp_path / "clean")


@pytest.mark.parametrize("damage", ["index", "tar", "journal", "line"])
def test_shard_that_is_not_whole_any_more_is_made_again(
    photos: Path, clean: dict, stopped: Callable, damage: str
) -> None:
    out = stopped(photos)
    staging = out / ".building"
    journal = staging / "journal.jsonl"
    if damage == "index":
        index = staging / "images-000001.idx"
        index.write_bytes(index.read_bytes()[:-1] + b"?")
    elif damage == "tar":
        (staging / "images-000001.tar").unlink()
    elif damage == "journal":
        journal.write_bytes(b"\x00\xff")
    else:
        journal.write_bytes(journal.read_bytes()[:-30])
    build("images", [photos], out, workers=1, options=OPTIONS)
    assert tree(out) == clean


@pytest.mark.parametrize("move", range(1, 10))
def test_build_stopped_while_it_moves_its_shards_converts_nothing_again(
    photos: Path, clean: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, move: int
) -> None:
    real, left = os.replace, [move]

    def replace(source: Path, target: Path) -> None:
        if ".building" not in str(target):
            left[0] -= 1
            if left[0] == 0:
                raise KeyboardInterrupt
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace)
        with pytest.raises(KeyboardInterrupt):
            build("images", [photos], tmp_path / "out", workers=1, options=OPTIONS)
    assert not (tmp_path / "out" / "manifest.jsonl").exists()
    monkeypatch.setattr(executor, "convert_scene", None)
    build("images", [photos], tmp_path / "out", workers=1, options=OPTIONS)
    assert tree(tmp_path / "out") == clean


def test_truncated_picture_stops_the_build_and_mending_it_goes_on(
    copy: Path, tmp_path: Path, converted: list[str]
) -> None:
    broken = copy / "s7" / "2.jpg"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:900])
    with pytest.raises(ShardsError, match=r"s7/2\.jpg: is truncated"):
        build("images", [copy], tmp_path / "out", workers=1, options=OPTIONS)
    converted.clear()
    broken.write_bytes(whole)
    build("images", [copy], tmp_path / "out", workers=1, options=OPTIONS)
    assert converted == ["s6", "s7"]


def _workers_of(tag: str) -> list[int]:
    """Processes with `tag` in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if tag.encode() in (process / "environ").read_bytes():
                found.append(int(process.name))
        except OSError:
            continue
    return found


def test_killed_at_random_moments_and_built_again_the_bytes_are_the_same(
    photos: Path, clean: dict, tmp_path: Path
) -> None:
    out, tag = tmp_path / "out", f"MUM_TEST_TAG={tmp_path}"
    command = [sys.executable, "-m", "shards", "build", "images", str(photos), "--out", str(out)]
    environment = os.environ | dict([tag.split("=")])
    rng = random.Random(0)
    ended, stopped = False, 0
    for kill, workers in ((signal.SIGKILL, 2), (signal.SIGINT, 1), (None, 1)):
        process = subprocess.Popen(
            [*command, "--shard-mb", "1", "--workers", str(workers)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        if kill is not None:
            shards = rng.randrange(1, 3)  # wait until so many are begun, and a moment more
            while process.poll() is None and len(list(out.glob(".building/*.tar"))) < shards:
                time.sleep(0.001)
            time.sleep(rng.random() * 0.02)
            process.send_signal(kill)
        _, errors = process.communicate()
        if process.returncode:
            stopped += 1
            assert kill is not None and not (out / "manifest.jsonl").exists(), errors.decode()
        else:
            ended = True
        while _workers_of(tag):  # a killed build leaves no process behind
            time.sleep(0.01)
    assert ended and stopped and tree(out) == clean
