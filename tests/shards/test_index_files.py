import pickle
import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shards.format import ShardsError
from shards.index_files import (
    read_megadepth_index,
    read_roma_index,
    read_scannet_arrays,
    read_scannet_lines,
)


def index(**changes: Any) -> dict[str, Any]:
    """Three images, the middle one absent, and one pair, in the form of MegaDepth-1500."""
    pose = np.eye(4)
    pose[:3, 3] = 1, 2, 3
    return {
        "image_paths": np.array(["a.jpg", None, "b.jpg"], object),
        "depth_paths": np.array(["a.h5", None, "b.h5"], object),
        "intrinsics": np.array([np.diag([5.0, 6, 1]), None, np.eye(3)], object),
        "poses": np.array([np.eye(4), None, pose], object),
        "pair_infos": [(np.array([0, 2]), np.float64(0.25), np.zeros(4))],
    } | changes


def pickled(path: Path, value: Any) -> Path:
    path.write_bytes(pickle.dumps(value, protocol=4))
    return path


@pytest.mark.parametrize("name", ["0015_0.1_0.3", "0015_0.3_0.5"])
def test_real_megadepth_indices_are_read(testdata: Callable[[str], Path], name: str) -> None:
    read = read_megadepth_index(testdata(f"data/real/megadepth_test_1500/{name}.npz"))
    assert len(read.image_paths) == len(read.depth_paths) == 2429
    present = [path is not None for path in read.image_paths]
    assert sum(present) == 445 and read.pairs.shape == (300, 2)
    assert (np.isfinite(read.intrinsics).all((1, 2)) == present).all()
    assert (np.isfinite(read.world_to_camera).all((1, 2)) == present).all()
    low, high = (float(part) for part in name.split("_")[1:])
    assert low <= read.overlaps.min() and read.overlaps.max() <= high
    assert all(present[i] for i in read.pairs.ravel())
    first = read.image_paths[read.pairs[0, 0]]
    assert first is not None and first.startswith("Undistorted_SfM/0015/images/")


def test_real_scannet_pairs_agree_in_both_forms(testdata: Callable[[str], Path]) -> None:
    folder = testdata("data/real/scannet_pairs")
    arrays = read_scannet_arrays(folder / "test.npz", folder / "intrinsics.npz")
    lines = read_scannet_lines(folder / "pairs_with_gt.txt")
    assert len(arrays.names) == len(lines.names) == 7
    assert arrays.names[0] == ("scene0711_00/color/1680.jpg", "scene0711_00/color/1995.jpg")
    assert lines.names[0] == ("scene0711_00_frame-001680.jpg", "scene0711_00_frame-001995.jpg")
    assert np.allclose(arrays.second_from_first, lines.second_from_first, atol=1e-6)
    assert np.allclose(arrays.intrinsics, lines.intrinsics, atol=1e-5)
    rotations = lines.second_from_first[:, :, :3]
    assert np.allclose(rotations @ rotations.transpose(0, 2, 1), np.eye(3), atol=1e-4)


def test_images_that_are_absent_are_none_and_nan(tmp_path: Path) -> None:
    read = read_megadepth_index(pickled(tmp_path / "a.npz", index()))
    assert read.image_paths == ["a.jpg", None, "b.jpg"] and read.depth_paths[1] is None
    assert np.isnan(read.intrinsics[1]).all() and read.intrinsics[0, 1, 1] == 6
    assert read.world_to_camera[2].tolist() == [[1, 0, 0, 1], [0, 1, 0, 2], [0, 0, 1, 3]]
    assert read.pairs.tolist() == [[0, 2]] and read.overlaps.tolist() == [0.25]


def roma(**changes: Any) -> dict[str, Any]:
    """The same in the form of RoMa's training lists."""
    described = index()
    infos = described.pop("pair_infos")
    pairs, overlaps = np.array([info[0] for info in infos]), np.array([info[1] for info in infos])
    return described | {"pairs": pairs, "overlaps": overlaps} | changes


def test_lists_of_roma_say_the_same(tmp_path: Path) -> None:
    np.save(tmp_path / "0001.npy", roma())
    read, same = (
        read_roma_index(tmp_path / "0001.npy"),
        read_megadepth_index(pickled(tmp_path / "a", index())),
    )
    assert read.image_paths == same.image_paths and read.depth_paths == same.depth_paths
    for name in ("intrinsics", "world_to_camera", "pairs", "overlaps"):
        np.testing.assert_array_equal(getattr(read, name), getattr(same, name))


def test_lists_of_roma_that_are_something_else_are_refused_in_one_line(tmp_path: Path) -> None:
    np.save(tmp_path / "calls.npy", roma(pairs=Call(exec, "raise SystemExit")))
    np.save(tmp_path / "numbers.npy", np.ones(3))
    np.save(tmp_path / "lacks.npy", index())
    np.save(tmp_path / "differs.npy", roma(overlaps=np.ones(2)))
    (tmp_path / "text.npy").write_text("no array")
    for name, reason in (
        ("calls", "no pickle of plain arrays: asks for builtins.exec"),
        ("numbers", "no pickle of plain arrays: an array of float64"),
        ("lacks", "no training list of RoMa: it lacks pairs, overlaps"),
        ("differs", "differ in length"),
        ("text", "no pickle of plain arrays"),
        ("absent", "cannot be read"),
    ):
        with pytest.raises(ShardsError, match=reason) as caught:
            read_roma_index(tmp_path / f"{name}.npy")
        assert "\n" not in str(caught.value)


class Call:
    """Pickles as a call of `function`."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple:
        return self.function, self.arguments


@pytest.mark.parametrize("function", [exec, __import__, Path, np.load, np.frombuffer, pickle.loads])
def test_pickle_that_calls_anything_else_is_refused_unopened(tmp_path: Path, function: Any) -> None:
    argument = f"open({str(tmp_path / 'touched')!r}, 'w')"
    path = pickled(tmp_path / "a.npz", index(pair_infos=Call(function, argument)))
    with pytest.raises(ShardsError, match="which is no array") as caught:
        read_megadepth_index(path)
    assert "\n" not in str(caught.value) and not (tmp_path / "touched").exists()


@pytest.mark.parametrize(
    "value",
    [
        Call(np.ndarray, (1 << 40,)),
        Call(np._core.multiarray._reconstruct, np.ndarray, (1 << 40,), b"b"),
    ],
)
def test_array_that_begins_with_all_memory_is_refused(tmp_path: Path, value: Any) -> None:
    with pytest.raises(ShardsError, match="no pickle of plain arrays"):
        read_megadepth_index(pickled(tmp_path / "a.npz", index(poses=value)))


@pytest.mark.parametrize("contents", [b"12345678", [None]])
def test_array_with_fewer_values_than_its_shape_is_refused(tmp_path: Path, contents: Any) -> None:
    class Short:
        def __reduce__(self) -> tuple:
            dtype = np.dtype("f8") if isinstance(contents, bytes) else np.dtype("O")
            begin = np._core.multiarray._reconstruct
            return begin, (np.ndarray, (0,), b"b"), (1, (1 << 40,), dtype, False, contents)

    with pytest.raises(ShardsError, match="comes with 1 values"):
        read_megadepth_index(pickled(tmp_path / "a.npz", index(poses=Short())))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"poses": [np.eye(4)]}, "differ in length"),
        ({"poses": [np.eye(3)] * 3}, "cannot reshape"),
        ({"image_paths": [1, 2, 3]}, "no text"),
        ({"pair_infos": [(np.array([0, 3]), 0.5)]}, "not listed"),
        ({"pair_infos": [3]}, "not subscriptable"),
    ],
)
def test_index_that_contradicts_itself_is_refused(tmp_path: Path, changes: dict, reason: str) -> None:
    with pytest.raises(ShardsError, match=reason):
        read_megadepth_index(pickled(tmp_path / "a.npz", index(**changes)))


def test_other_files_are_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no pickle")
    np.savez(tmp_path / "real.npz", a=np.ones(3))
    pickled(tmp_path / "other", {"a": 1})
    cut = pickletools.optimize(pickle.dumps(index(), protocol=4))[:-20]
    (tmp_path / "cut").write_bytes(cut)
    for name in ("text", "real.npz", "other", "cut", "absent"):
        with pytest.raises(ShardsError) as caught:
            read_megadepth_index(tmp_path / name)
        assert "\n" not in str(caught.value) and name in str(caught.value)


def test_arrays_that_are_no_pairs_are_refused_in_one_line(tmp_path: Path) -> None:
    np.savez(tmp_path / "pairs.npz", name=np.ones((2, 4), np.uint16), rel_pose=np.ones((3, 12)))
    np.savez(tmp_path / "k.npz", scene0001_01=np.eye(3))
    np.savez(tmp_path / "objects.npz", name=np.array([None]))
    np.save(tmp_path / "one.npy", np.ones(3))
    (tmp_path / "text.npz").write_text("no archive")
    for name in ("pairs.npz", "k.npz", "objects.npz", "one.npy", "text.npz", "absent.npz"):
        with pytest.raises(ShardsError) as caught:
            read_scannet_arrays(tmp_path / name, tmp_path / "k.npz")
        assert "\n" not in str(caught.value) and name in str(caught.value)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("a.jpg b.jpg 0 0 1 2", "has 6 fields"),
        ("a.jpg b.jpg 1 0" + " 1" * 34, "rotated"),
        ("a.jpg b.jpg 0 0 x" + " 1" * 33, "could not convert"),
    ],
)
def test_broken_line_is_refused_with_its_number(tmp_path: Path, line: str, reason: str) -> None:
    path = tmp_path / "pairs.txt"
    path.write_text("a.jpg b.jpg 0 0" + " 1" * 34 + "\n" + line + "\n")
    with pytest.raises(ShardsError, match=rf"line 2: .*{reason}"):
        read_scannet_lines(path)
