import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.build import build
from shards.format import ShardsError
from shards.reader import Dataset
from shards.sources import jgz
from shards.sources.jgz import Options, find, read, read_annotation
from tests.trees import jgz as tree
from tests.trees import proof
from tests.trees.world import render_world

WORLD = render_world(4, seed=2)


def packed(path: Path, value: object) -> Path:
    text = value if isinstance(value, str) else json.dumps(value)
    path.write_bytes(gzip.compress(text.encode()))
    return path


@pytest.mark.parametrize("form", ["vggt", "megadepth"])
def test_true_points_fall_where_the_cameras_see_them(tmp_path: Path, form: str) -> None:
    path, views = tree.write(tmp_path / "images", WORLD, form=form)
    report = build(
        "jgz", [path], tmp_path / "out", source_options=Options(root=tmp_path / "images"), workers=1
    )
    dataset = Dataset(tmp_path / "out")
    assert report.frames_out == 4 and dataset.chunk(0).frame_names == list(views)
    assert proof.point_error(dataset, views, WORLD.points) < 0.5
    assert proof.pixel_error(dataset, views) < 4


def test_mums_list_keeps_order_poses_and_pixels(tmp_path: Path) -> None:
    path, views = tree.write(tmp_path / "images", WORLD, form="mum")
    build("jgz", [path], tmp_path / "out", source_options=Options(root=tmp_path / "images"), workers=1)
    dataset = Dataset(tmp_path / "out")
    chunk = dataset.chunk(0)
    assert chunk.scene == "apple/110_13051_23361" and chunk.frame_names == list(views)
    assert chunk.intrinsics is None and chunk.world_to_camera is not None
    assert np.allclose(chunk.world_to_camera, [view.world_to_camera for view in views.values()])
    assert proof.pixel_error(dataset, views) < 4


def test_paths_start_from_the_files_own_folder_by_default(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.jgz", {"s": [{"filepath": "s/1.jpg", "id": 1}]})
    (task,) = find([path], Options())
    assert task.photographs == (tmp_path / "s" / "1.jpg",)
    (frame,) = read(task).frames
    assert frame.name == "s/1.jpg" and frame.world_to_camera is None and frame.intrinsics is None


@settings(max_examples=60)
@given(
    value=st.dictionaries(st.text(), st.lists(st.text() | st.floats(allow_nan=False)), min_size=1),
    indent=st.sampled_from([None, 1]),
)
def test_scenes_are_read_one_by_one_whatever_the_pieces(
    tmp_path_factory: pytest.TempPathFactory, value: dict, indent: int | None
) -> None:
    path = packed(tmp_path_factory.getbasetemp() / "pieces.jgz", json.dumps(value, indent=indent))
    piece, jgz._PIECE = jgz._PIECE, 3
    try:
        assert list(read_annotation(path)) == list(value.items())
    finally:
        jgz._PIECE = piece


def test_bomb_is_refused_before_it_unpacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jgz, "_ALWAYS_READ", 1 << 20)
    monkeypatch.setattr(jgz, "_PIECE", 1 << 14)
    path = packed(tmp_path / "a.jgz", '{"s": [' + "0," * 10_000_000)
    with pytest.raises(ShardsError, match="unpacks to more than"):
        list(find([path], Options()))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "must hold a JSON object"),
        ("[]", "must hold a JSON object"),
        ("{}", "lists no sequence"),
        ('{"a": []', "broken JSON after 'a'"),
        ('{"a": [1, }', "broken JSON"),
        ('{"a": [] "b": []}', "broken JSON after 'a'"),
        ('{"a": [],}', "broken JSON after 'a'"),
        ('{"a": []} {', "broken JSON after 'a'"),
        ('{"a": [], "a": []}', "broken JSON after 'a'"),
        ('{"a": ' + "[" * 100_000, "no JSON of annotations"),
        ('{"a": 3}', "must be a list of pictures"),
        ('{"a": [3]}', "not described as it should be"),
        ('{"a": [{"id": 1}]}', "without 'filepath'"),
        ('{"a": [{"filepath": 7}]}', "not described as it should be"),
        ('{"a": [{"filepath": "../b.jpg"}]}', "leads out of the root"),
        ('{"a": [{"filepath": "/etc/b.jpg"}]}', "leads out of the root"),
        ('{"a": [{"filepath": "b", "qvec": [1, 0, 0, 0]}]}', "without 'tvec'"),
        ('{"a": [{"filepath": "b", "qvec": [0, 0, 0, 0], "tvec": [0, 0, 0]}]}', "is no rotation"),
        ('{"a": [{"filepath": "b", "extri": [[1, 2], [3, 4]]}]}', r"a pose of \(2, 2\)"),
        ('{"a": [{"filepath": "b", "intri": [[1, 2], [3]]}]}', "not described as it should be"),
        (
            '{"a": [[{"filepath": "b"}], [{"filepath": "b", "intri": [[1,0,0],[0,1,0],[0,0,1]]}]]}',
            "two different cameras",
        ),
    ],
)
def test_wrong_annotations_are_refused_in_one_line(tmp_path: Path, text: str, reason: str) -> None:
    path = packed(tmp_path / "a.jgz", text)
    with pytest.raises(ShardsError, match=reason) as caught:
        list(find([path], Options()))
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b'{"a": []}', "is no gzip file"),
        (gzip.compress(b'{"a": [' + bytes(range(32, 90)) * 99)[:-9], "is damaged"),
        (gzip.compress(b'{"a\xff": []}'), "no JSON of annotations"),
    ],
)
def test_file_that_is_not_gzip_text_is_refused_in_one_line(tmp_path: Path, data: bytes, reason: str) -> None:
    (tmp_path / "a.jgz").write_bytes(data)
    with pytest.raises(ShardsError, match=reason) as caught:
        list(find([tmp_path / "a.jgz"], Options()))
    assert "\n" not in str(caught.value)


def test_missing_file_and_missing_root_are_named(tmp_path: Path) -> None:
    with pytest.raises(ShardsError, match=r"none\.jgz cannot be read: No such file"):
        list(find([tmp_path / "none.jgz"], Options()))
    with pytest.raises(ShardsError, match=r"--root .*nowhere is no folder"):
        list(find([tmp_path / "none.jgz"], Options(root=tmp_path / "nowhere")))
    with pytest.raises(ShardsError, match="at least one annotation file"):
        list(find([], Options()))
