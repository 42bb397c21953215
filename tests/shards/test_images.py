from pathlib import Path

import pytest

from shards.sources.folders import distinct_names, list_photographs, natural_key
from shards.sources.images import Options, find, read


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def test_numbers_are_sorted_by_value() -> None:
    names = ["view10.jpg", "view9.jpg", "view09.jpg", "View1.jpg", "2.jpg", "a.jpg"]
    assert sorted(names, key=natural_key).index("view10.jpg") > names.index("view9.jpg")
    assert sorted(["v10", "v9", "v1"], key=natural_key) == ["v1", "v9", "v10"]


def test_only_photographs_that_are_not_hidden_count(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "B.JPEG", "c.png", "notes.txt", ".hidden.jpg", "._a.jpg", "d.heic")
    (tmp_path / "folder.jpg").mkdir()
    assert sorted(p.name for p in list_photographs(tmp_path)) == ["B.JPEG", "a.jpg", "c.png", "d.heic"]


def test_folder_of_photographs_is_one_scene(tmp_path: Path) -> None:
    touch(tmp_path, "trip/2.jpg", "trip/10.jpg", "trip/1.jpg")
    (task,) = find([tmp_path / "trip"], Options(licence="mine"))
    assert (task.name, task.views) == ("trip", 3)
    scene = read(task)
    assert [f.name for f in scene.frames] == ["1.jpg", "2.jpg", "10.jpg"] and scene.licence == "mine"


def test_every_folder_below_is_a_scene(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "all/b/1.jpg",
        "all/a/images/1.jpg",
        "all/a/depth.txt",
        "all/c/.thumbs/1.jpg",
        "all/c/d/e/1.jpg",
    )
    assert [t.name for t in find([tmp_path / "all"], Options())] == ["a", "b", "e"]


def test_scenes_of_one_name_are_told_apart() -> None:
    assert distinct_names([Path("/x/a"), Path("/y/a"), Path("/y/b")]) == ["x/a", "y/a", "b"]
    assert distinct_names([Path("/x/a/images"), Path("/y/a/images")]) == ["x/a", "y/a"]
    assert len(set(distinct_names([Path("/x"), Path("/x/images")]))) == 2


@pytest.mark.parametrize("order", [1, -1])
def test_names_do_not_depend_on_the_order_of_paths(order: int) -> None:
    paths = [Path("/x/a"), Path("/y/a"), Path("/z/q/a")]
    names = dict(zip(paths[::order], distinct_names(paths[::order]), strict=True))
    assert names == {paths[0]: "x/a", paths[1]: "y/a", paths[2]: "q/a"}
