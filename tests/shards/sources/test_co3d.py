import gzip
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shards.build import Report, build
from shards.format import BadPhotograph, ShardsError
from shards.reader import Dataset
from shards.sources.co3d import Options, find, read, to_opencv, to_pixels
from tests.trees import co3d, proof
from tests.trees.world import View, render_world

WORLD = render_world(6)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, View]]:
    root = tmp_path_factory.mktemp("co3d") / "CO3D"
    return root, co3d.write(root, WORLD)


@pytest.fixture(scope="module")
def built(tree: tuple[Path, dict[str, View]]) -> tuple[Dataset, Report]:
    report = build("co3d", [tree[0]], tree[0].parent / "out", workers=1)
    return Dataset(tree[0].parent / "out"), report


@pytest.fixture
def copy(tree: tuple[Path, dict[str, View]], tmp_path: Path) -> Path:
    return Path(shutil.copytree(tree[0], tmp_path / "copy"))


def scenes(dataset: Dataset) -> dict[str, dict]:
    return {d.meta["scene"]: d.meta for d in map(dataset.chunk, range(dataset.num_chunks))}


def rewrite(path: Path, change) -> None:
    with gzip.open(path) as file:
        value = json.load(file)
    with gzip.open(path, "wb") as file:
        file.write(json.dumps(change(value)).encode())


def test_depth_cameras_and_pixels_of_both_intrinsics_formats_are_those_of_the_world(
    tree: tuple[Path, dict[str, View]], built: tuple[Dataset, Report]
) -> None:
    assert {co3d.ISOTROPIC, co3d.BOUNDS} < set(scenes(built[0]))
    assert proof.warp_error(built[0], tree[1]) < 0.5
    assert proof.point_error(built[0], tree[1], WORLD.points) < 0.01
    assert proof.pixel_error(built[0], tree[1]) < 6


def test_pictures_keep_their_aspect_and_their_background(built: tuple[Dataset, Report]) -> None:
    assert built[0].read_image(0, 0).shape == (72, 96, 3)  # the object's mask in the tree is all black


def test_masked_and_unmeasured_depth_is_unknown(
    tree: tuple[Path, dict], built: tuple[Dataset, Report]
) -> None:
    depth = built[0].read_depth(0, 0)
    assert (depth[:, :9] == 0).all() and depth[0, -1] == 0 and (depth[1:, 9:] > 0).all()


def test_frames_follow_their_numbers_and_carry_their_times(built: tuple[Dataset, Report]) -> None:
    meta = scenes(built[0])[co3d.ISOTROPIC]
    assert meta["frames"] == ["frame000008.jpg", "frame000013.jpg", "frame000018.jpg"]
    assert meta["timestamps"] == [0, 0.2, 0.4]


def test_sequences_of_poor_quality_are_dropped_by_name_and_test_sequences_held_out(
    built: tuple[Dataset, Report],
) -> None:
    assert built[1].dropped == [(co3d.POOR, "viewpoint_quality_score 0.200, not above 0.5")]
    assert {name: meta["split"] for name, meta in scenes(built[0]).items()} == {
        co3d.ISOTROPIC: "train",
        co3d.BOUNDS: "train",
        co3d.TEST: "val",
    }


def test_a_missing_picture_is_counted_and_named(built: tuple[Dataset, Report]) -> None:
    ((name, reason),) = built[1].refused
    assert name.endswith("frame000999.jpg") and reason == "no such picture, though it is annotated"
    assert (built[1].frames_in, built[1].frames_out) == (9, 8)


def test_options_keep_poor_sequences_and_do_without_set_lists(copy: Path) -> None:
    shutil.rmtree(copy / "apple" / "set_lists")
    with pytest.raises(ShardsError, match=r"set_lists_fewview_dev\.json does not exist.*none"):
        list(find([copy / "apple"], Options()))
    options = Options(set_list="none", min_viewpoint_quality=-np.inf)
    tasks = list(find([copy / "apple"], options))
    assert [task.name for task in tasks] == [co3d.POOR, co3d.ISOTROPIC, co3d.BOUNDS]  # natural order: 7 < 110
    assert {task.split for task in tasks} == {None}
    with pytest.raises(ShardsError, match="manyview_dev_0"):
        list(find([copy / "teddybear"], Options(set_list="fewview_tests")))


def test_minus_infinity_keeps_every_sequence_in_a_build(copy: Path) -> None:
    options = Options(min_viewpoint_quality=-np.inf)
    for _ in range(2):  # the second finds the same build
        report = build("co3d", [copy], copy / "out", source_options=options, workers=1)
    assert report.existed and report.scenes_out == 4


def test_training_frames_that_stand_in_test_again_are_left_out(copy: Path) -> None:
    path = copy / "apple" / "set_lists" / "set_lists_fewview_dev.json"
    sets = json.loads(path.read_text())
    (again,) = [f for f in sets["train"] if f[0] == "110_13051_23361" and f[1] == 1]
    sets["test"].append(again)
    sets["train"] = [f for f in sets["train"] if f[0] != "189_20393_38136" or f[1] == 99]
    path.write_text(json.dumps(sets))
    task = {t.name: t for t in find([copy], Options())}[co3d.ISOTROPIC]
    assert task.views == 2 and task.split == "train"
    assert task.left_out == (
        ("apple/110_13051_23361/images/frame000013.jpg", "in test and train of fewview_dev"),
    )


def test_sequences_that_no_list_names_are_dropped(copy: Path) -> None:
    tasks = list(find([copy / "apple"], Options(set_list="manyview_dev_0")))
    assert {t.dropped for t in tasks if t.name != co3d.POOR} == {"not in set list manyview_dev_0"}
    assert all(t.views == 0 and t.rows == b"" for t in tasks)


def test_a_sequence_that_was_not_downloaded_is_dropped_by_name(copy: Path) -> None:
    shutil.rmtree(copy / co3d.ISOTROPIC)
    task = {t.name: t for t in find([copy], Options())}[co3d.ISOTROPIC]
    assert read(task).dropped == "none of its 3 pictures are there"


def test_a_task_carries_its_rows_in_a_quarter_of_a_kilobyte_a_frame(copy: Path) -> None:
    rng = np.random.default_rng(0)

    def change(rows: list[dict]) -> list[dict]:
        def one(number: int) -> dict:
            row = json.loads(
                json.dumps(rows[0] | {"sequence_name": "110_13051_23361", "frame_number": number})
            )
            row["image"]["path"] = f"apple/110_13051_23361/images/frame{number:06d}.jpg"
            row["viewpoint"]["R"] = rng.normal(size=(3, 3)).astype(np.float32).tolist()
            row["viewpoint"]["T"] = rng.normal(size=3).astype(np.float32).tolist()
            return row

        return [one(number) for number in range(200)]

    rewrite(copy / "apple" / "frame_annotations.jgz", change)
    tasks = {t.name: t for t in find([copy], Options(set_list="none"))}
    assert tasks[co3d.ISOTROPIC].views == 200
    assert len(tasks[co3d.ISOTROPIC].rows) < 200 * 250


def test_reading_a_task_does_not_touch_the_annotations(copy: Path) -> None:
    tasks = list(find([copy], Options()))
    (copy / "apple" / "frame_annotations.jgz").unlink()
    assert [len(read(task).frames) for task in tasks] == [0, 3, 3, 2]


def test_a_point_is_where_pytorch3d_puts_it() -> None:
    """A camera at the origin: PyTorch3D's +x is our -x, its +y our -y."""
    pose = to_opencv(np.eye(3).tolist(), [0.5, 0, 0])
    np.testing.assert_allclose(pose @ [1, 2, 3, 1], [-1.5, -2, 3])
    turned = to_opencv([[0, 1, 0], [-1, 0, 0], [0, 0, 1]], [0, 0, 0])  # row vector x -> y
    np.testing.assert_allclose(turned @ [1, 0, 0, 1], [0, -1, 0])


def test_intrinsics_of_each_format_have_known_pixels() -> None:
    viewpoint = {"focal_length": [2.0, 3.0], "principal_point": [0.5, -0.25]}
    isotropic = to_pixels(viewpoint | {"intrinsics_format": "ndc_isotropic"}, 200, 400)
    np.testing.assert_allclose(isotropic, [[200, 0, 150], [0, 300, 125], [0, 0, 1]])
    np.testing.assert_allclose(to_pixels(viewpoint, 200, 400), [[400, 0, 100], [0, 300, 125], [0, 0, 1]])
    with pytest.raises(ShardsError, match="ndc_isotropic"):
        to_pixels(viewpoint | {"intrinsics_format": "screen"}, 200, 400)


def test_a_depth_mask_of_another_size_is_refused_by_name(copy: Path) -> None:
    frame = read(next(t for t in find([copy], Options()) if t.name == co3d.ISOTROPIC)).frames[0]
    Image.new("L", (10, 10)).save(copy / co3d.ISOTROPIC / "depth_masks" / "frame000008.png")
    with pytest.raises(BadPhotograph, match="depth_masks/frame000008"):
        frame.depth()


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", gzip.compress(b"{}"), gzip.compress(b'[{"sequence_name": "a"}]'), gzip.compress(b"[1, 2")],
)
def test_annotations_that_are_none_are_refused_by_name(copy: Path, content: bytes) -> None:
    (copy / "apple" / "frame_annotations.jgz").write_bytes(content)
    with pytest.raises(ShardsError, match=r"apple/frame_annotations\.jgz is no gzipped JSON list"):
        list(find([copy], Options()))


def test_truncated_annotations_are_refused_by_name(copy: Path) -> None:
    path = copy / "apple" / "frame_annotations.jgz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ShardsError, match=r"frame_annotations\.jgz is no gzipped JSON list"):
        list(find([copy], Options()))


def test_a_frame_with_half_a_viewpoint_is_refused_by_name(copy: Path) -> None:
    def change(rows: list[dict]) -> list[dict]:
        return [row | {"viewpoint": {"R": row["viewpoint"]["R"]}} for row in rows]

    rewrite(copy / "apple" / "frame_annotations.jgz", change)
    task = next(t for t in find([copy], Options()) if t.name == co3d.BOUNDS)
    with pytest.raises(ShardsError, match=f"of {co3d.BOUNDS} is no frame annotation"):
        read(task)


def test_a_folder_that_is_no_co3d_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ShardsError, match=r"holds no frame_annotations\.jgz"):
        list(find([tmp_path], Options()))
