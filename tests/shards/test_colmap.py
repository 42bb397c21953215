from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import shards
from shards.build import BuildOptions, build
from shards.encode import encode_frame
from shards.format import BadPhotograph, ShardsError
from shards.sources.colmap import Options, find, read, read_model
from shards.verify import verify

REAL = (
    "llff_fern",
    "opensfm_lund",
    "sceaux_castle",
    "strecha_fountain_p11",
    "strecha_herzjesu_p25",
    "vggt_kitchen",
)
POINTS = np.array([[0.2, 0.1, 0.3], [-0.4, 0.2, 0.1], [0.5, -0.3, -0.2], [0.0, 0.4, 0.2]])
SHIFTS = (0.0, 0.5, -0.6)
SEEN = ([0, 1, 2, 3], [0, 1, 2], [1, 3])
CAMERA = "1 PINHOLE 120 80 100 90 61 41"


@pytest.fixture
def model(tmp_path: Path) -> Callable[..., Path]:
    """Write a COLMAP model in text form, three photographs of four points; returns the scene's folder."""

    def make(
        camera: str = CAMERA,
        *,
        place: str = "sparse/0",
        size: tuple[int, int] = (120, 80),
        orientation: int = 1,
    ) -> Path:
        scene = tmp_path / "scene"
        folder = scene / place
        folder.mkdir(parents=True)
        (scene / "images" / "left").mkdir(parents=True)
        fx, fy, cx, cy = (100, 90, 61, 41)
        images, tracks = "# a comment\n", {i: [] for i in range(len(POINTS))}
        for number, (shift, seen) in enumerate(zip(SHIFTS, SEEN, strict=True), 1):
            name = f"left/view_{12 - number}.jpg"
            exif = Image.Exif()
            exif[0x0112] = orientation
            Image.new("RGB", size, (40 * number, 0, 0)).save(scene / "images" / name, exif=exif)
            spots = []
            for row, point in enumerate(seen):
                x, y, z = POINTS[point] + (shift, 0, 3)
                spots.append(f"{fx * x / z + cx} {fy * y / z + cy} {point + 1}")
                tracks[point].append(f"{number} {row}")
            spots.append("5.0 6.0 -1")  # a key point without a 3-D point
            images += f"{number} 1 0 0 0 {shift} 0 3 1 {name}\n{' '.join(spots)}\n"
        points = "".join(
            f"{p + 1} {x} {y} {z} 9 9 9 0.1 {' '.join(tracks[p])}\n" for p, (x, y, z) in enumerate(POINTS)
        )
        (folder / "cameras.txt").write_text(camera + "\n")
        (folder / "images.txt").write_text(images)
        (folder / "points3D.txt").write_text(points)
        return scene

    return make


def to_binary(scene: Path) -> None:
    pycolmap = pytest.importorskip("pycolmap", reason="writes COLMAP's binary files")
    folder = scene / "sparse" / "0"
    pycolmap.Reconstruction(str(folder)).write_binary(str(folder))
    for path in folder.glob("*.txt"):
        path.unlink()


@pytest.mark.parametrize("binary", [False, True])
def test_cameras_and_tracks_are_the_models(model: Callable[..., Path], binary: bool) -> None:
    scene = model()
    if binary:
        to_binary(scene)
    frames = read_model(scene).frames
    assert [f.name for f in frames] == [f"left/view_{n}.jpg" for n in (9, 10, 11)]  # natural order
    for frame, shift, seen in zip(frames[::-1], SHIFTS, SEEN, strict=True):
        assert frame.path.is_file() and frame.camera_size == (80, 120) and frame.distortion is None
        assert np.allclose(frame.intrinsics, [[100, 0, 61], [0, 90, 41], [0, 0, 1]])
        assert np.allclose(frame.world_to_camera, np.hstack([np.eye(3), [[shift], [0], [3]]]))
        assert frame.points.tolist() == [p + 1 for p in seen]
        for point, xy in zip(seen, frame.xy, strict=True):
            projected = frame.intrinsics @ (frame.world_to_camera @ [*POINTS[point], 1])
            assert np.allclose(projected[:2] / projected[2], xy)


@pytest.mark.parametrize("place", ["sparse/0", "sparse", "."])
def test_model_is_found_where_people_put_it(model: Callable[..., Path], place: str) -> None:
    (task,) = find([model(place=place)], Options())
    assert task.name == "scene" and task.model[0].name.startswith("cameras")
    assert len(read(task).frames) == 3


def test_models_are_found_below_a_folder(model: Callable[..., Path]) -> None:
    assert [task.name for task in find([model().parent], Options())] == ["scene"]


def test_overlap_comes_from_the_tracks(model: Callable[..., Path], tmp_path: Path) -> None:
    build("colmap", [model()], tmp_path / "out", workers=1)
    chunk = shards.open_dataset(tmp_path / "out").chunk(0)
    share = chunk.covisibility[::-1, ::-1] / 254  # frames stand in the order 3, 2, 1
    assert np.allclose(share, [[1, 3 / 4, 2 / 4], [3 / 4, 1, 1 / 3], [2 / 4, 1 / 3, 1]], atol=0.003)


def test_lens_distortion_is_noted_and_intrinsics_kept(model: Callable[..., Path], tmp_path: Path) -> None:
    build("colmap", [model("1 OPENCV 120 80 100 90 61 41 0.1 0.01 0 0")], tmp_path / "out", workers=1)
    chunk = shards.open_dataset(tmp_path / "out").chunk(0)
    assert chunk.intrinsics is not None and chunk.intrinsics[0, 0, 0] == 100
    noted = chunk.meta["distortions"][0]
    assert noted["model"] == "OPENCV" and noted["params"][4:6] == [0.1, 0.01]


def test_fisheye_has_no_intrinsics(model: Callable[..., Path], tmp_path: Path) -> None:
    build("colmap", [model("1 OPENCV_FISHEYE 120 80 100 90 61 41 0.1 0 0 0")], tmp_path / "out", workers=1)
    chunk = shards.open_dataset(tmp_path / "out").chunk(0)
    assert chunk.intrinsics is None and chunk.world_to_camera is not None
    assert chunk.meta["distortions"][0]["model"] == "OPENCV_FISHEYE"


def test_intrinsics_follow_photographs_that_were_reduced(model: Callable[..., Path]) -> None:
    (task,) = find([model(size=(60, 40))], Options())
    intrinsics = read(task).frames[0].intrinsics
    assert intrinsics is not None
    assert np.allclose(intrinsics, [[50, 0, 30.5], [0, 45, 20.5], [0, 0, 1]])


def test_cropped_photographs_are_refused(model: Callable[..., Path]) -> None:
    (task,) = find([model(size=(80, 80))], Options())
    with pytest.raises(ShardsError, match="is 80x80, but its camera in the COLMAP model is 120x80"):
        read(task)


def test_exif_is_ignored_by_colmap_so_camera_and_picture_turn_together(model: Callable[..., Path]) -> None:
    (task,) = find([model(orientation=6)], Options())
    frame = encode_frame(read(task).frames[0])
    assert frame.size == (120, 80) and frame.intrinsics is not None
    assert np.allclose(frame.intrinsics, [[90, 0, 80 - 41], [0, 100, 61], [0, 0, 1]])


def test_camera_of_the_upright_size_means_the_upright_picture(model: Callable[..., Path]) -> None:
    (task,) = find([model(size=(80, 120), orientation=6)], Options())
    frame = encode_frame(read(task).frames[0])
    assert frame.size == (80, 120) and frame.intrinsics is not None
    assert np.allclose(frame.intrinsics, [[100, 0, 61], [0, 90, 41], [0, 0, 1]])


def test_model_without_its_photographs_says_where_it_looked(
    model: Callable[..., Path], tmp_path: Path
) -> None:
    scene = model()
    (scene / "images").rename(scene / "photos")
    with pytest.raises(ShardsError, match=r"none of the 3 photographs .* --images"):
        build("colmap", [scene], tmp_path / "out", workers=1)
    assert not (tmp_path / "out").exists()
    report = build("colmap", [scene], tmp_path / "out", workers=1, source_options=Options(images="photos"))
    assert report.frames_out == 3


def test_one_missing_photograph_is_named(model: Callable[..., Path], tmp_path: Path) -> None:
    scene = model()
    (scene / "images" / "left" / "view_10.jpg").unlink()
    with pytest.raises(BadPhotograph, match=r"view_10\.jpg: No such file"):
        build("colmap", [scene], tmp_path / "out", workers=1)
    report = build("colmap", [scene], tmp_path / "out", workers=1, options=BuildOptions(skip_bad=True))
    assert (report.frames_out, report.frames_refused) == (2, 1)


def test_damaged_model_is_refused_in_one_line(model: Callable[..., Path], tmp_path: Path) -> None:
    scene = model()
    to_binary(scene)
    images = scene / "sparse" / "0" / "images.bin"
    images.write_bytes(images.read_bytes()[:100])
    with pytest.raises(ShardsError) as caught:
        build("colmap", [scene], tmp_path / "out", workers=1)
    assert "\n" not in str(caught.value) and str(scene) in str(caught.value)


def test_folder_without_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ShardsError, match="holds no COLMAP model"):
        list(find([tmp_path], Options()))


def test_real_photographs_with_models(testdata: Callable[[str], Path], tmp_path: Path) -> None:
    scenes = [testdata(f"data/real/{name}") for name in REAL]
    report = build("colmap", scenes, tmp_path / "out", workers=2)
    assert (report.frames_in, report.frames_out, report.scenes_out) == (117, 117, 6)
    assert verify(tmp_path / "out") == []
    dataset = shards.open_dataset(tmp_path / "out")
    assert dataset.num_frames == 117
    for number in range(dataset.num_chunks):
        chunk = dataset.chunk(number)
        model = read_model(testdata(f"data/real/{chunk.scene}"))
        assert chunk.frame_names == [f.name for f in model.frames]
        # the tracks' observations still fit where the stored cameras put shared points
        scale = chunk.sizes[0][::-1] / model.frames[0].camera_size[::-1]
        assert chunk.intrinsics is not None
        assert np.allclose(chunk.intrinsics[0][:2], scale[:, None] * model.frames[0].intrinsics[:2])
        together = chunk.covisibility[~np.eye(chunk.num_frames, dtype=bool)].reshape(chunk.num_frames, -1)
        assert (together.max(1) > 0.05 * 254).all()  # every photograph sees something of another


def test_real_photographs_as_plain_folders(testdata: Callable[[str], Path], tmp_path: Path) -> None:
    scenes = [testdata(f"data/real/{name}") for name in REAL]
    report = build("images", scenes, tmp_path / "out", workers=2)
    assert (report.frames_out, report.scenes_out) == (117, 6)
    dataset = shards.open_dataset(tmp_path / "out")
    assert {dataset.chunk(i).scene for i in range(6)} == set(REAL)
    assert verify(tmp_path / "out") == []
