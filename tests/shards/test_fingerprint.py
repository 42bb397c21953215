import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from shards.fingerprint import Fingerprint


@dataclass(frozen=True, kw_only=True)
class Task:
    name: str
    files: tuple[Path, ...]
    folder: Path


@pytest.fixture
def tasks(tmp_path: Path) -> list[Task]:
    (tmp_path / "scene" / "depth").mkdir(parents=True)
    for name in ("a.jpg", "b.jpg", "scene/camera.txt", "scene/depth/0.h5"):
        (tmp_path / name).write_bytes(b"xyz")
        os.utime(tmp_path / name, ns=(0, 0))
    files = (tmp_path / "a.jpg", tmp_path / "b.jpg")
    return [
        Task(name="one", files=files[:1], folder=tmp_path / "nowhere"),
        Task(name="two", files=files, folder=tmp_path / "scene"),
    ]


def fingerprint(tasks: list[Task], notes: tuple[str, str] = ("train", "val")) -> Fingerprint:
    return Fingerprint(zip(tasks, notes, strict=True))


@pytest.mark.parametrize(
    "change", ["size", "time", "time below a folder", "new file", "lost file", "name", "order", "note"]
)
def test_everything_that_decides_a_build_changes_the_hash(
    tasks: list[Task], tmp_path: Path, change: str
) -> None:
    before = fingerprint(tasks)
    assert fingerprint(tasks).whole == before.whole
    notes = ("train", "val")
    if change == "size":
        (tmp_path / "b.jpg").write_bytes(b"wxyz")
        os.utime(tmp_path / "b.jpg", ns=(0, 0))
    elif change == "time":
        os.utime(tmp_path / "b.jpg", ns=(0, 1))
    elif change == "time below a folder":
        os.utime(tmp_path / "scene/depth/0.h5", ns=(0, 1))
    elif change == "new file":
        (tmp_path / "scene/depth/1.h5").write_bytes(b"")
    elif change == "lost file":
        (tmp_path / "b.jpg").unlink()
    elif change == "name":
        tasks[1] = Task(name="three", files=tasks[1].files, folder=tasks[1].folder)
    elif change == "order":
        tasks[1] = Task(name="two", files=tasks[1].files[::-1], folder=tasks[1].folder)
    else:
        notes = ("train", "train")
    after = fingerprint(tasks, notes)
    assert after.whole != before.whole and after.first(2) != before.first(2)
    assert after.first(1) == before.first(1)


def test_hash_beyond_the_last_task_says_that_none_follows(tasks: list[Task]) -> None:
    one, two = Fingerprint([(tasks[0], "train")]), fingerprint(tasks)
    assert one.first(1) == two.first(1)
    assert one.first(2) != two.first(2) and one.first(2) != one.first(1)


def test_hash_does_not_depend_on_how_many_tasks_are_asked_for_at_once(
    tasks: list[Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fingerprint(tasks).whole
    monkeypatch.setattr("shards.fingerprint._BLOCK", 1)
    assert fingerprint(tasks).whole == whole
