import io

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from shards.encode import encode_frame, fit_short_side, nearest
from shards.format import BadPhotograph, Frame
from shards.photographs import turn_upright


def dot_picture(height: int, width: int, x: float, y: float) -> np.ndarray:
    """Black with a soft white dot at (x, y), pixel centres at +0.5."""
    rows, columns = np.mgrid[:height, :width] + 0.5
    glow = np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * 6.0**2))
    return np.repeat((255 * glow).astype(np.uint8)[..., None], 3, -1)


def dot_found(pixels: np.ndarray) -> np.ndarray:
    weight = pixels[..., 1].astype(float)
    weight[weight < 40] = 0
    rows, columns = np.mgrid[: pixels.shape[0], : pixels.shape[1]] + 0.5
    return np.array([(columns * weight).sum(), (rows * weight).sum()]) / weight.sum()


INTRINSICS = np.array([[210.0, 0, 130], [0, 190, 88], [0, 0, 1]])
POSE = np.array([[0, -1, 0, 0.3], [1, 0, 0, -0.2], [0, 0, 1, 4.0]])
POINT = np.array([0.4, 0.5, 0.1])


def project(intrinsics: np.ndarray, pose: np.ndarray) -> np.ndarray:
    seen = intrinsics @ (pose[:, :3] @ POINT + pose[:, 3])
    return seen[:2] / seen[2]


def test_cameras_follow_the_pixels_when_they_are_reduced() -> None:
    image = dot_picture(180, 260, *project(INTRINSICS, POSE))
    stored = encode_frame(
        Frame(name="a", image=image, intrinsics=INTRINSICS, world_to_camera=POSE), short_side=97
    )
    assert stored.size == (97, 140) and stored.original_size == (180, 260)
    assert stored.intrinsics is not None and stored.world_to_camera is not None
    found = dot_found(simplejpeg.decode_jpeg(stored.jpeg))
    assert np.abs(found - project(stored.intrinsics, stored.world_to_camera)).max() < 0.1
    assert np.abs(stored.transform @ [*project(INTRINSICS, POSE), 1] - found).max() < 0.1


@pytest.mark.parametrize("told_by", ["file", "source"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_cameras_of_stored_pixels_are_turned_upright_with_them(orientation: int, told_by: str) -> None:
    image = dot_picture(180, 260, *project(INTRINSICS, POSE))
    depth = np.arange(180 * 260, dtype=np.float32).reshape(180, 260) + 1
    frame = Frame(
        name="a",
        image=with_orientation(image, orientation if told_by == "file" else 5),
        intrinsics=INTRINSICS,
        world_to_camera=POSE,
        depth=depth,
        orientation=None if told_by == "file" else orientation,
        camera_pixels="stored",
    )
    stored = encode_frame(frame)
    assert stored.intrinsics is not None and stored.world_to_camera is not None and stored.depth is not None
    assert stored.size == ((260, 180) if orientation in {6, 8} else (180, 260))
    found = dot_found(simplejpeg.decode_jpeg(stored.jpeg))
    assert np.abs(found - project(stored.intrinsics, stored.world_to_camera)).max() < 0.1
    assert np.allclose(stored.intrinsics[2], [0, 0, 1]) and (np.diag(stored.intrinsics) > 0).all()
    assert np.linalg.det(stored.world_to_camera[:, :3]) == pytest.approx(1)
    assert np.abs(stored.depth - turn_upright(depth, orientation)).max() < 1


def test_cameras_of_upright_pixels_stay_as_they_are() -> None:
    image = dot_picture(180, 260, 50, 60)
    frame = Frame(name="a", image=with_orientation(image, 6), intrinsics=INTRINSICS, world_to_camera=POSE)
    stored = encode_frame(frame)
    assert np.array_equal(stored.intrinsics, INTRINSICS) and np.array_equal(stored.world_to_camera, POSE)


def test_mirrored_orientation_with_cameras_is_refused() -> None:
    image = with_orientation(dot_picture(40, 60, 5, 6), 2)
    with pytest.raises(BadPhotograph, match="mirrored"):
        encode_frame(Frame(name="a", image=image, intrinsics=INTRINSICS, camera_pixels="stored"))


def test_small_pictures_are_not_enlarged() -> None:
    stored = encode_frame(Frame(name="a", image=np.zeros((30, 50, 3), np.uint8)), short_side=384)
    assert stored.size == (30, 50) and simplejpeg.decode_jpeg(stored.jpeg).shape == (30, 50, 3)


def test_stored_jpeg_is_baseline_420() -> None:
    stored = encode_frame(Frame(name="a", image=np.zeros((500, 700, 3), np.uint8)))
    opened = Image.open(io.BytesIO(stored.jpeg))
    assert "progressive" not in opened.info and opened.size == (538, 384)
    assert simplejpeg.decode_jpeg_header(stored.jpeg)[2:] == ("YCbCr", "420")


def test_data_of_a_fitting_jpeg_is_kept_and_of_a_large_one_is_not() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)
    data = simplejpeg.encode_jpeg(pixels, 85, colorsubsampling="420")
    kept = encode_frame(Frame(name="a", image=data))
    assert kept.encoding == "kept" and kept.jpeg == data
    assert encode_frame(Frame(name="a", image=data), short_side=48).encoding == "jpeg90"


def test_depth_is_kept_to_a_part_in_ten_thousand() -> None:
    rng = np.random.default_rng(0)
    depth = rng.uniform(0.5, 80, (64, 96)).astype(np.float32)
    depth[0, 0], depth[0, 1], depth[0, 2], depth[0, 3] = 0, -1, np.nan, np.inf
    stored = encode_frame(Frame(name="a", image=np.zeros((64, 96, 3), np.uint8), depth=depth))
    assert stored.depth is not None and stored.depth_scale is not None
    assert (stored.depth[0, :4] == 0).all()
    assert np.abs(stored.depth - depth).ravel()[4:].max() < 1e-4 * 80
    png = np.array(Image.open(io.BytesIO(stored.depth_png)), np.uint16)
    assert np.array_equal(png.astype(np.float32) * np.float32(stored.depth_scale), stored.depth)


def test_known_depth_never_rounds_to_unknown() -> None:
    depth = np.full((32, 32), 1e4, np.float32)
    depth[0, 0] = 1e-3
    stored = encode_frame(Frame(name="a", image=np.zeros((32, 32, 3), np.uint8), depth=depth))
    assert stored.depth is not None and stored.depth[0, 0] > 0


def test_reduced_depth_and_labels_hold_only_measured_values() -> None:
    depth = np.where(np.arange(200) < 100, 1.0, 9.0).astype(np.float32)[None].repeat(150, 0)
    labels = np.where(np.arange(200) < 100, 3, 7).astype(np.uint8)[None].repeat(150, 0)
    stored = encode_frame(
        Frame(name="a", image=np.zeros((150, 200, 3), np.uint8), depth=depth, labels=labels), short_side=40
    )
    assert stored.depth is not None
    assert np.allclose(np.unique(stored.depth), [1, 9], atol=1e-3)
    assert set(np.unique(np.array(Image.open(io.BytesIO(stored.label_png))))) == {3, 7}


def test_nearest_takes_the_pixel_under_the_centre() -> None:
    assert nearest(np.arange(6)[None], (1, 3)).tolist() == [[1, 3, 5]]
    assert nearest(np.arange(2)[None], (1, 4)).tolist() == [[0, 0, 1, 1]]


def test_short_side_is_exact_and_aspect_kept() -> None:
    assert fit_short_side((480, 640), 384) == (384, 512)
    assert fit_short_side((640, 480), 384) == (512, 384)
    assert fit_short_side((100, 90), 384) == (100, 90)


@pytest.mark.parametrize("image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32)])
def test_arrays_of_another_kind_are_refused(image: np.ndarray) -> None:
    with pytest.raises(BadPhotograph, match="uint8"):
        encode_frame(Frame(name="a", image=image))


def with_orientation(pixels: np.ndarray, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", exif=exif)
    return file.getvalue()
