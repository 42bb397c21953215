import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from shards.format import ShardsError
from shards.sources.nerfstudio import read_transforms
from tests.trees.nerfstudio import describe_world
from tests.trees.world import render_world

WORLD = render_world(4)
GOOD = describe_world({"images/1.png": WORLD.views[0]}, scale=2)


def transforms(folder: Path, **changes: Any) -> Path:
    path = folder / "transforms.json"
    path.write_text(json.dumps({k: v for k, v in (GOOD | changes).items() if v is not None}))
    return path


def test_intrinsics_follow_a_picture_that_was_reduced(tmp_path: Path) -> None:
    read = read_transforms(transforms(tmp_path))
    Image.fromarray(np.ascontiguousarray(WORLD.views[0].image)).save(tmp_path / "1.png")
    frame = read.frame(read.listed[0], tmp_path / "1.png")
    assert np.allclose(read.intrinsics, np.diag([2, 2, 1]) @ WORLD.views[0].intrinsics)
    assert np.allclose(frame.intrinsics, WORLD.views[0].intrinsics)


def test_distance_between_cameras_is_kept(tmp_path: Path) -> None:
    listed = describe_world({str(i): v for i, v in enumerate(WORLD.views)})["frames"]
    poses = [entry.world_to_camera for entry in read_transforms(transforms(tmp_path, frames=listed)).listed]
    for one, two, view, other in zip(poses, poses[1:], WORLD.views, WORLD.views[1:], strict=False):
        relative = np.vstack([two, [0, 0, 0, 1]]) @ np.linalg.inv(np.vstack([one, [0, 0, 0, 1]]))
        true = np.vstack([other.world_to_camera, [0, 0, 0, 1]]) @ view.camera_to_world
        assert np.allclose(relative, true)


def test_lens_distortion_is_noted(tmp_path: Path) -> None:
    assert read_transforms(transforms(tmp_path)).distortion is None
    noted = read_transforms(transforms(tmp_path, k1=0.02, p2=-0.001)).distortion
    assert noted == {
        "model": "OPENCV",
        "params": [*(GOOD[k] for k in ("fl_x", "fl_y", "cx", "cy")), 0.02, 0, 0, -0.001],
    }


def test_fisheye_camera_has_no_intrinsics(tmp_path: Path) -> None:
    read = read_transforms(transforms(tmp_path, camera_model="OPENCV_FISHEYE", k3=0.1))
    assert read.intrinsics is None and read.distortion is not None and read.distortion["params"][6] == 0.1


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"fl_x": None}, "lacks 'fl_x'"),
        ({"frames": None}, "lacks 'frames'"),
        ({"frames": [{"file_path": "a.png"}]}, "lacks 'transform_matrix'"),
        ({"frames": [{"file_path": "a.png", "transform_matrix": [[1, 2], [3, 4]]}]}, r"a\.png is \(2, 2\)"),
        ({"frames": [{"file_path": "a.png", "transform_matrix": np.ones((4, 4)).tolist()}]}, "no rotation"),
        ({"frames": ["a.png"]}, "not a list of cameras"),
        ({"camera_model": "EQUIRECTANGULAR"}, "EQUIRECTANGULAR"),
        ({"fl_x": 0}, "impossible intrinsics"),
        ({"w": -1}, "impossible intrinsics"),
    ],
)
def test_broken_list_is_refused_in_one_line(tmp_path: Path, changes: dict, reason: str) -> None:
    path = transforms(tmp_path, **changes)
    with pytest.raises(ShardsError, match=reason) as caught:
        read_transforms(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "\xff"])
def test_file_that_is_no_json_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "transforms.json"
    path.write_bytes(text.encode("latin1"))
    with pytest.raises(ShardsError, match="is no JSON file") as caught:
        read_transforms(path)
    assert "\n" not in str(caught.value)
