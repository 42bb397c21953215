import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.format import ShardsError
from shards.sources.colmap_files import PARAMETERS, read_cameras, read_images
from tests.trees.colmap_model import write_binary, write_text
from tests.trees.world import render_world

WORLD = render_world(4, seed=2)
VIEWS = {f"left/Église {i}.jpg": view for i, view in enumerate(WORLD.views)}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model in both forms; the first image of the text observes nothing."""
    folder = tmp_path_factory.mktemp("colmap")
    write_binary(folder / "binary", VIEWS, WORLD.points)
    write_text(folder / "text", VIEWS, WORLD.points, pointless=list(VIEWS)[:1])
    return folder


@pytest.mark.parametrize("form", ["binary/images.bin", "text/images.txt"])
def test_poses_and_observations_are_those_of_the_world(model: Path, form: str) -> None:
    images = read_images(model / form)
    assert [image.name for image in images] == list(VIEWS)
    for number, (image, view) in enumerate(zip(images, WORLD.views, strict=True)):
        assert np.allclose(image.world_to_camera, view.world_to_camera, atol=1e-12)
        pointless = form.startswith("text") and number == 0
        assert image.points.tolist() == ([] if pointless else (view.points + 1).tolist())
        assert np.array_equal(image.xy, view.xy[: len(image.points)])


@pytest.mark.parametrize("form", ["binary/cameras.bin", "text/cameras.txt"])
def test_intrinsics_are_those_of_the_world(model: Path, form: str) -> None:
    cameras = read_cameras(model / form)
    assert sorted(cameras) == [1, 2, 3, 4]
    assert all(np.array_equal(c.intrinsics, WORLD.views[0].intrinsics) for c in cameras.values())
    assert {c.size for c in cameras.values()} == {WORLD.views[0].image.shape[:2]}


def test_camera_models_are_numbered_as_in_colmap() -> None:
    pycolmap = pytest.importorskip("pycolmap", reason="says how COLMAP numbers its models")
    known = {m.value: m for m in pycolmap.CameraModelId.__members__.values() if m.value >= 0}
    for number, name in enumerate(PARAMETERS):
        if number in known:  # those of later versions may be missing
            camera = pycolmap.Camera.create_from_model_id(1, known[number], 50.0, 40, 30)
            assert (camera.model.name, len(camera.params)) == (name, PARAMETERS[name])


@pytest.mark.parametrize(
    "name", ["llff_fern", "opensfm_lund", "sceaux_castle", "strecha_fountain_p11", "vggt_kitchen"]
)
def test_real_models_are_read_as_colmap_reads_them(testdata: Callable[[str], Path], name: str) -> None:
    pycolmap = pytest.importorskip("pycolmap", reason="the reader to compare with")
    folder = testdata(f"data/real/{name}/sparse")
    theirs = pycolmap.Reconstruction(str(folder))
    cameras = read_cameras(folder / "cameras.bin")
    images = {image.name: image for image in read_images(folder / "images.bin")}
    assert len(images) == theirs.num_reg_images()
    for image in theirs.images.values():
        ours, camera = images[image.name], theirs.cameras[image.camera_id]
        assert np.allclose(ours.world_to_camera, image.cam_from_world().matrix(), atol=1e-14)
        assert np.array_equal(cameras[ours.camera].intrinsics, camera.calibration_matrix())
        seen = image.get_observation_points2D()
        assert ours.points.tolist() == [p.point3D_id for p in seen]
        assert np.array_equal(ours.xy, [p.xy for p in seen])


@settings(max_examples=100)
@given(
    form=st.sampled_from(["binary/images.bin", "binary/cameras.bin", "text/images.txt", "text/cameras.txt"]),
    at=st.floats(0, 1, exclude_max=True),
    length=st.integers(0, 300),
    bytes_there=st.binary(max_size=16) | st.just(b"\xff" * 8) | st.just(b"99999999999999999999"),
)
def test_damage_is_refused_in_one_line_or_read(
    model: Path, form: str, at: float, length: int, bytes_there: bytes
) -> None:
    data = (model / form).read_bytes()
    start = int(at * len(data))
    path = model / f"damaged{Path(form).suffix}"
    path.write_bytes(data[:start] + bytes_there + data[start + length :])
    read = read_cameras if "cameras" in form else read_images
    try:
        read(path)
    except ShardsError as error:
        assert "\n" not in str(error) and str(path) in str(error)


@pytest.mark.parametrize("end", [0, 7, 8, 100, -1])
def test_file_that_ends_early_is_refused(model: Path, tmp_path: Path, end: int) -> None:
    for name, read in (("images.bin", read_images), ("cameras.bin", read_cameras)):
        path = tmp_path / name
        path.write_bytes((model / "binary" / name).read_bytes()[:end])
        with pytest.raises(ShardsError, match="ends early"):
            read(path)


def test_absurd_counts_cost_no_memory(model: Path, tmp_path: Path) -> None:
    data = bytearray((model / "binary" / "images.bin").read_bytes())
    data[:8] = struct.pack("<Q", 2**63)
    (tmp_path / "images.bin").write_bytes(data)
    with pytest.raises(ShardsError, match="ends early"):
        read_images(tmp_path / "images.bin")
    name = next(iter(VIEWS)).encode()
    at = data.index(name) + len(name) + 1
    data[:8] = struct.pack("<Q", 4)
    data[at : at + 8] = struct.pack("<Q", 2**60)
    (tmp_path / "images.bin").write_bytes(data)
    with pytest.raises(ShardsError, match="ends early"):
        read_images(tmp_path / "images.bin")
