"""Normals of NYU: those of planes, signs read off the data, and files that are missing or wrong."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from probes.benchmarks.nyu import INTRINSICS
from probes.benchmarks.nyu_normals import agreeing_signs, normals_of_depth
from probes.errors import ProbeError
from tests.probes.benchmarks.opening import opener
from tests.trees import nyu
from tests.trees.world import render_world

opened = opener("nyu")


def plane(normal: np.ndarray, distance: float = 2.0) -> np.ndarray:
    """(480, 640) depth of the plane normal . X = -distance, seen by NYU's camera."""
    x, y = np.meshgrid(np.arange(640) + 0.5, np.arange(480) + 0.5)
    rays = np.stack([x, y, np.ones_like(x)], -1) @ np.linalg.inv(INTRINSICS).T
    return -distance / (rays @ normal)


@pytest.mark.parametrize("normal", [(0, 0, -1), (0.6, 0, -0.8), (0, -0.6, -0.8), (0.2, 0.3, -0.9)])
def test_normals_of_a_plane_are_its_own(normal: tuple[float, ...]) -> None:
    unit = np.array(normal) / np.linalg.norm(normal)
    found = normals_of_depth(plane(unit), INTRINSICS)
    np.testing.assert_allclose(found[1:-1, 1:-1], np.broadcast_to(unit, (478, 638, 3)), atol=1e-5)
    assert (found[0] == 0).all() and (found[:, -1] == 0).all()


def test_normals_are_unknown_beside_unknown_depth_and_at_steps() -> None:
    depth = plane(np.array([0, 0, -1.0]))
    depth[100, 100] = 0
    depth[:, 300:] += 1
    found = normals_of_depth(depth, INTRINSICS)
    assert (found[99:102, 100] == 0).all() and (found[100, 99:102] == 0).all()
    assert (found[:, 299:301] == 0).all() and (found[200, 302] != 0).any()


def test_signs_are_found_by_agreement() -> None:
    assert agreeing_signs(np.array([2.0, -0.1, 30])).tolist() == [1, -1, 1]


@pytest.mark.parametrize("signs", [(1, 1, 1), (1, -1, -1), (-1, 1, -1)])
def test_files_come_in_opencv_axes_whatever_theirs_are(tmp_path: Path, signs: tuple[int, ...]) -> None:
    _, raw = nyu.write(tmp_path, render_world(6, size=nyu.SIZE))
    small = INTRINSICS.copy()
    small[:2] /= nyu.TIMES
    true = [nyu.enlarged(normals_of_depth(d[:: nyu.TIMES, :: nyu.TIMES], small)) for d in raw]
    nyu.write_normals(tmp_path, true, signs)
    found = opened(tmp_path)
    assert not any("normals" in note for note in found.notes)
    for frame in (*found.test.frames, *found.train.frames):
        read, expected = frame.normals(), true[int(frame.name) - 1]
        known = np.linalg.norm(expected, axis=-1) > 0.5
        assert known.mean() > 0.3
        assert (np.linalg.norm(read, axis=-1) > 0.5).tolist() == known.tolist()
        np.testing.assert_allclose(np.linalg.norm(read[known], axis=-1), 1, atol=1e-6)
        assert (read[known] * expected[known]).sum(-1).min() > 0.999


def test_without_the_archive_there_are_no_normals_and_the_reader_is_told(tmp_path: Path) -> None:
    nyu.write(tmp_path, render_world(6, size=nyu.SIZE))
    found = opened(tmp_path)
    assert found.test.frames[0].normals is None
    assert found.notes[-1] == "Without nyu_normals_gt/ normals are those of the raw depth."


def test_missing_and_wrong_normal_files_are_named(tmp_path: Path) -> None:
    nyu.write(tmp_path, render_world(6, size=nyu.SIZE))
    nyu.write_normals(tmp_path, [np.zeros((480, 640, 3))] * 6, (1, 1, 1))
    gone = f"nyu_normals_gt/test/{nyu.TEST[0]:05d}.png"
    (tmp_path / gone).unlink()
    with pytest.raises(ProbeError, match=f"1 of 6 files are missing: {gone}"):
        opened(tmp_path)
    found = opened(tmp_path, allow_missing=True)
    assert found.missing == (gone,) and found.test.frames[0].normals is None
    path = tmp_path / "nyu_normals_gt" / "test" / f"{nyu.TEST[1]:05d}.png"
    Image.new("RGB", (320, 240)).save(path)
    with pytest.raises(ProbeError, match=f"{path.name} is 320 x 240, its image 640 x 480"):
        found.test.frames[1].normals()
