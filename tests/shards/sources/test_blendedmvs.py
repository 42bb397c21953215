from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shards.build import Report, build
from shards.format import BadPhotograph, ShardsError
from shards.reader import Dataset
from shards.sources.blendedmvs import Options, find, read, read_camera, read_pairs, read_pfm
from tests.trees import blendedmvs, proof
from tests.trees.world import View, render_world

WORLD = render_world(4, size=(72, 96), seed=2)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, View]]:
    root = tmp_path_factory.mktemp("BlendedMVS")
    return root, blendedmvs.write(root, WORLD)


@pytest.fixture(scope="module")
def built(tree: tuple[Path, dict[str, View]]) -> tuple[Dataset, Report]:
    report = build("blendedmvs", [tree[0]], tree[0] / "out", workers=1)
    return Dataset(tree[0] / "out"), report


def test_depth_cameras_and_pixels_are_those_of_the_world(
    tree: tuple[Path, dict[str, View]], built: tuple[Dataset, Report]
) -> None:
    dataset, views = built[0], tree[1]
    assert proof.warp_error(dataset, views) < 0.5
    assert proof.point_error(dataset, views, WORLD.points) < 0.01
    assert proof.pixel_error(dataset, views) < 4


def test_masked_pictures_stay_out(tree: tuple[Path, dict[str, View]], built: tuple[Dataset, Report]) -> None:
    assert set(proof.stored_frames(built[0])) == set(tree[1])
    assert built[1].frames_in == 4 and built[0].chunk(0).meta["overlap_from"] == "depth"


def test_without_depth_overlap_is_the_pairs_score_over_the_largest(tmp_path: Path) -> None:
    blendedmvs.write(tmp_path, WORLD, depth=False)
    (task,) = find([tmp_path], Options())
    overlap = read(task).overlap
    assert overlap is not None
    scores = {
        (i, j): blendedmvs.score(WORLD.views[i], WORLD.views[j]) for i in range(4) for j in range(4) if i != j
    }
    best = {
        (i, j)
        for i in range(4)
        for j in sorted((j for j in range(4) if j != i), key=lambda j: -scores[i, j])[:2]
    }
    largest = max(scores.values())
    for (i, j), score in scores.items():
        listed = (i, j) in best or (j, i) in best
        assert overlap[i, j] == score / largest if listed else np.isnan(overlap[i, j])
    assert np.isnan(overlap).any() and (np.diagonal(overlap) == 1).all()


def test_pairs_that_are_not_listed_are_stored_as_unknown(tmp_path: Path) -> None:
    views = blendedmvs.write(tmp_path, WORLD, depth=False)
    build("blendedmvs", [tmp_path], tmp_path / "out", workers=1)
    dataset = Dataset(tmp_path / "out")
    (task,) = find([tmp_path], Options())
    overlap = read(task).overlap
    assert overlap is not None and dataset.chunk(0).meta["overlap_from"] == "source"
    assert ((dataset.chunk(0).covisibility == 255) == np.isnan(overlap)).all()
    assert proof.point_error(dataset, views, WORLD.points) < 0.5


@pytest.mark.parametrize("size", [(72, 96), (576, 768), (1536, 2048)])
def test_intrinsics_of_either_set_are_brought_to_the_picture(tmp_path: Path, size: tuple[int, int]) -> None:
    blendedmvs.write(tmp_path, WORLD, depth=False)
    scene = tmp_path / blendedmvs.SCENE
    view = WORLD.views[0]
    scale = size[0] / 72
    text = (scene / "cams" / "00000000_cam.txt").read_text().split("intrinsic")[0]
    rows = (np.diag([scale, scale, 1]) @ view.intrinsics).tolist()
    numbers = "\n".join(" ".join(map(repr, row)) for row in rows)
    (scene / "cams" / "00000000_cam.txt").write_text(f"{text}intrinsic\n{numbers}\n\n1 1\n")
    (task,) = find([tmp_path], Options())
    assert np.allclose(read(task).frames[0].intrinsics, view.intrinsics)


def test_cropped_pictures_are_refused(tmp_path: Path) -> None:
    blendedmvs.write(tmp_path, WORLD)
    Image.new("RGB", (96, 60)).save(tmp_path / blendedmvs.SCENE / "blended_images" / "00000002.jpg")
    with pytest.raises(ShardsError, match=r"00000002\.jpg is 96x60, but its camera is given for 768x576"):
        build("blendedmvs", [tmp_path], tmp_path / "out", workers=1)
    assert not (tmp_path / "out").exists()


def test_first_row_of_a_pfm_file_is_the_lowest(tmp_path: Path) -> None:
    rows = np.array([[1, 2, 3], [4, 5, 6]], "<f4")
    (tmp_path / "little.pfm").write_bytes(b"Pf\n3 2\n-1.0\n" + rows.tobytes())
    (tmp_path / "big.pfm").write_bytes(b"Pf\n3 2\n1.0\n" + rows.astype(">f4").tobytes())
    for name in ("little", "big"):
        assert read_pfm(tmp_path / f"{name}.pfm").tolist() == [[4, 5, 6], [1, 2, 3]]


@pytest.mark.parametrize(
    "data", [b"", b"PF\n1 1\n-1\n" + bytes(12), b"Pf\n999999 999999\n-1\n", b"Pf\n2 2\n-1\n" + bytes(15)]
)
def test_broken_depth_is_refused_by_name(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.pfm").write_bytes(data)
    with pytest.raises(BadPhotograph, match=r"a\.pfm"):
        read_pfm(tmp_path / "a.pfm")


@pytest.mark.parametrize(
    "text", ["", "extrinsic\n1 0 0 0", "extrinsic" + " 1" * 16 + " intrinsic" + " nan" * 9, "é"]
)
def test_broken_camera_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "00000000_cam.txt"
    path.write_text(text)
    with pytest.raises(ShardsError) as caught:
        read_camera(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


@pytest.mark.parametrize("text", ["", "2\n0\n1 1 3.5\n", "1\n0\n2 1 3.5\n", "1\n0\n1 1 much\n"])
def test_broken_pairs_are_refused_in_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "pair.txt"
    path.write_text(text)
    with pytest.raises(ShardsError, match=r"pair\.txt is no list of pairs"):
        read_pairs(path)


def test_folder_without_scenes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    with pytest.raises(ShardsError, match="24 hexadecimal digits"):
        list(find([tmp_path], Options()))
    (tmp_path / blendedmvs.SCENE).mkdir()
    (task,) = find([tmp_path], Options())
    with pytest.raises(ShardsError, match="no pictures named by eight digits"):
        read(task)
