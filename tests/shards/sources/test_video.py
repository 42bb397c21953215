import io
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import shards
from shards.build import BuildOptions, build
from shards.format import Scene, ShardsError
from shards.sources import video_colour
from shards.sources.video import Options, VideoTask, find, read
from shards.sources.video_measures import motion
from tests.trees import video as tree
from tests.trees.proof import pixel_error
from tests.trees.world import World, render_world

pytest.importorskip("av", reason="videos are read by PyAV: pip install 'mumkit[datasets]'")

EVERY_FRAME = Options(every=0.01)
LOSSY = 5.0
"""Mean absolute difference, grey levels, that 4:2:0 in the video (crf 4) and in the stored JPEG may make; 12 pixels of
motion between frames make more than 20."""


@pytest.fixture(scope="module")
def worlds() -> list[World]:
    return [render_world(2, size=(96, 160), seed=seed, points=40) for seed in (3, 8)]


def scenes_of(path: Path, options: Options = EVERY_FRAME) -> list[Scene]:
    return list(read(VideoTask(name="clip", video=path, options=options)))


def numbers(scene: Scene) -> list[int]:
    return [int(frame.name.removeprefix("frame_")) for frame in scene.frames]


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data))).astype(int)


def test_built_video_has_its_shots_order_times_and_pixels(worlds: list[World], tmp_path: Path) -> None:
    times = tree.UNEVEN
    shown = tree.write(tmp_path / "walk.mp4", worlds, times=times, blurred=[5], rotation=90)
    report = build("video", [tmp_path / "walk.mp4"], tmp_path / "out", source_options=EVERY_FRAME, workers=1)
    assert (report.frames_in, report.frames_out, report.scenes_out) == (24, 23, 2)
    assert report.refused == [("frame_000005", "is blurred")]
    dataset = shards.open_dataset(tmp_path / "out")
    stored = {chunk.scene: chunk for chunk in map(dataset.chunk, range(dataset.num_chunks))}
    kept = [n for n in range(24) if n != 5]
    for scene, numbers_of_shot in {"walk/0000": kept[:11], "walk/0001": kept[11:]}.items():
        assert stored[scene].frame_names == [f"frame_{n:06d}" for n in numbers_of_shot]
        assert np.allclose(stored[scene].meta["timestamps"], [times[n] / 1000 for n in numbers_of_shot])
    truth = {f"frame_{n:06d}": SimpleNamespace(image=shown[n].image) for n in kept}
    assert pixel_error(dataset, truth) < LOSSY  # type: ignore[arg-type]


def test_row_of_the_table_counts_the_frames_and_their_error(tmp_path: Path) -> None:
    row = tree.figures(tmp_path)
    assert (row.scenes, row.frames, row.proof, row.error) == (2, 23, "pixels", None)
    assert row.pixels < LOSSY and row.refused == (("frame_000005", "is blurred"),)


@pytest.mark.parametrize("rotation", [0, 90, -90, 180])
def test_display_matrix_is_undone(worlds: list[World], tmp_path: Path, rotation: int) -> None:
    shown = tree.write(tmp_path / "v.mov", worlds[:1], frames=2, rotation=rotation)
    (scene,) = scenes_of(tmp_path / "v.mov")
    assert np.abs(pixels(scene.frames[1].image) - shown[1].image).mean() < LOSSY


@pytest.mark.parametrize(
    ("suffix", "codec", "layout", "bound"),
    [
        (".mkv", "libx264", "yuv420p", LOSSY),
        (".mkv", "libx265", "yuv420p10le", LOSSY),
        (".avi", "mpeg4", "yuv420p", 2.5 * LOSSY),
    ],
)
def test_pixels_are_8_bit_srgb_whatever_the_codec(
    worlds: list[World], tmp_path: Path, suffix: str, codec: str, layout: str, bound: float
) -> None:
    path = (tmp_path / "v").with_suffix(suffix)
    shown = tree.write(
        path, worlds[:1], frames=3, codec=codec, pixels=layout, options={"x265-params": "log-level=0"}
    )
    (scene,) = scenes_of(path)
    errors = [np.abs(pixels(f.image) - s.image).mean() for f, s in zip(scene.frames, shown, strict=True)]
    assert max(errors) < bound


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize(
    ("height", "named", "red", "blue"),
    [
        (480, 2, 0.299, 0.114),  # unnamed: BT.601 below 720 lines,
        (720, 2, 0.2126, 0.0722),  # BT.709 from there on
        (480, 1, 0.2126, 0.0722),
        (720, 6, 0.299, 0.114),
        (720, 9, 0.2627, 0.0593),
    ],
)
def test_colours_follow_the_matrix_and_range_of_the_frame(
    height: int, named: int, red: float, blue: float, full_range: bool
) -> None:
    import av

    colour = np.array([200.0, 60, 30])
    luma = np.dot(colour, [red, 1 - red - blue, blue])
    differences = np.array([(colour[2] - luma) / (1 - blue), (colour[0] - luma) / (1 - red)]) / 2
    signal = (
        [luma, *128 + differences] if full_range else [16 + luma * 219 / 255, *128 + differences * 224 / 255]
    )
    planes = np.round(signal).astype(np.uint8)[:, None, None].repeat(height, 1).repeat(32, 2)
    frame = av.VideoFrame.from_ndarray(planes, format="yuv444p")
    frame.colorspace, frame.color_range = named, 2 if full_range else 1
    assert np.abs(video_colour.to_rgb(frame, (64, 32)).astype(float) - colour).max() < 3


def test_hdr_diffuse_white_is_white_and_black_is_black() -> None:
    # ITU-R BT.2408: 203 cd/m2 is 58 % of PQ and 75 % of HLG.
    for transfer, white in ((16, 0.5807), (18, 0.75)):
        signal = np.array([0.0, white, white / 2], np.float32)[:, None].repeat(3, 1)[None]
        black, full, half = video_colour._hdr_to_srgb(signal, transfer)[0, :, 0].tolist()
        assert black == 0 and full >= 253 and 20 < half < 200


def test_frames_are_taken_by_time(worlds: list[World], tmp_path: Path) -> None:
    tree.write(tmp_path / "v.mp4", worlds[:1], frames=12)  # 40 ms apart
    (scene,) = scenes_of(tmp_path / "v.mp4", Options(every=0.12))
    assert numbers(scene) == [0, 3, 6, 9] and scene.ordered
    assert [f.timestamp for f in scene.frames] == pytest.approx([0, 0.12, 0.24, 0.36])


def test_frames_are_taken_by_the_motion_of_the_picture(worlds: list[World], tmp_path: Path) -> None:
    tree.write(tmp_path / "v.mp4", worlds[:1], frames=12, step=4, size=(96, 112))  # 4 of 96 pixels a frame
    (scene,) = scenes_of(tmp_path / "v.mp4", Options(spacing="parallax", parallax=0.11, every=0.01))
    assert numbers(scene) == [0, 3, 6, 9]  # 3 * 4 / 96 = 0.125
    tree.write(tmp_path / "still.mp4", worlds[:1], frames=12, step=0)
    (scene,) = scenes_of(tmp_path / "still.mp4", Options(spacing="parallax", every=0.01))
    assert numbers(scene) == [0]


@pytest.mark.parametrize("shift", [(0, 3), (5, 0), (4, 7)])
def test_motion_is_the_displacement_of_the_picture(worlds: list[World], shift: tuple[int, int]) -> None:
    grey = worlds[0].views[0].image.mean(2)
    one, other = grey[16:80, 16:144], grey[16 - shift[0] :, 16 - shift[1] :][:64, :128]
    assert motion(one, other) == pytest.approx(np.hypot(*shift) / 64, abs=0.5 / 64)
    assert motion(one, worlds[1].views[0].image.mean(2)[16:80, 16:144]) == np.inf


def test_blurred_frame_gives_its_place_to_the_next(worlds: list[World], tmp_path: Path) -> None:
    tree.write(tmp_path / "v.mp4", worlds[:1], frames=12, blurred=[4, 5])
    (scene,) = scenes_of(tmp_path / "v.mp4", Options(every=0.16))
    assert numbers(scene) == [0, 6, 10]
    assert scene.left_out == [("frame_000004", "is blurred"), ("frame_000005", "is blurred")]
    (scene,) = scenes_of(tmp_path / "v.mp4", Options(every=0.16, blur=0))
    assert numbers(scene) == [0, 4, 8]


def test_video_is_one_scene_where_no_cut_is_looked_for(worlds: list[World], tmp_path: Path) -> None:
    tree.write(tmp_path / "v.mp4", worlds, frames=3)
    assert [(s.name, numbers(s)) for s in scenes_of(tmp_path / "v.mp4")] == [
        ("clip/0000", [0, 1, 2]),
        ("clip/0001", [3, 4, 5]),
    ]
    (scene,) = scenes_of(tmp_path / "v.mp4", Options(every=0.01, cut=0))
    assert scene.name == "clip" and numbers(scene) == [0, 1, 2, 3, 4, 5]


def test_key_frames_alone_are_decoded_where_asked(worlds: list[World], tmp_path: Path) -> None:
    tree.write(tmp_path / "v.mp4", worlds[:1], frames=25, step=1, options={"g": "10", "sc_threshold": "0"})
    (scene,) = scenes_of(tmp_path / "v.mp4", Options(every=0.01, keyframes=True))
    assert [f.timestamp for f in scene.frames] == pytest.approx([0, 0.4, 0.8])


def test_frames_of_a_scene_and_of_a_video_are_bounded(worlds: list[World], tmp_path: Path) -> None:
    tree.write(tmp_path / "v.mp4", worlds[:1], frames=24, step=1)
    (scene,) = scenes_of(tmp_path / "v.mp4", Options(every=0.01, most_a_scene=5))
    assert numbers(scene) == [0, 8, 16]  # every other one given up at the 6th, 12th and 24th
    (scene,) = scenes_of(tmp_path / "v.mp4", Options(every=0.01, most=4))
    assert numbers(scene) == [0, 6, 12, 18]  # 0.96 s over 4


def test_frames_are_held_no_larger_than_asked(worlds: list[World], tmp_path: Path) -> None:
    tree.write(tmp_path / "v.mp4", worlds[:1], frames=2, rotation=90)
    (scene,) = scenes_of(tmp_path / "v.mp4", Options(held_side=48))
    assert pixels(scene.frames[0].image).shape == (48, 64, 3)


def test_videos_are_found_in_folders_in_natural_order(tmp_path: Path) -> None:
    for name in ("b/10.mp4", "b/9.MOV", "a.mkv", "a.mp4", ".x.mp4", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert [task.name for task in find([tmp_path], Options())] == ["a.mkv", "a.mp4", "9.MOV", "10.mp4"]
    assert [task.name for task in find([tmp_path / "b"], Options())] == ["9", "10"]
    (tmp_path / "c").mkdir()
    with pytest.raises(ShardsError, match="hold no videos"):
        list(find([tmp_path / "c"], Options()))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_truncated_video_is_told_in_one_sentence(worlds: list[World], tmp_path: Path, suffix: str) -> None:
    path = (tmp_path / "v").with_suffix(suffix)
    times = range(0, 9600, 400)
    tree.write(path, worlds, times=times, options={"movflags": "faststart"})
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        ShardsError, match=rf"v\{suffix} (is no video|is truncated|is damaged).*copy it again"
    ):
        scenes_of(path)


def test_what_is_no_video_is_told_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_bytes(b"not a video at all" * 100)
    tree.write_audio(tmp_path / "song.mp4")
    with pytest.raises(ShardsError, match=r"text\.mp4 is no video"):
        scenes_of(tmp_path / "text.mp4")
    with pytest.raises(ShardsError, match=r"song\.mp4 holds no video stream, only audio"):
        scenes_of(tmp_path / "song.mp4")


def test_bad_video_is_dropped_by_name_with_skip_bad(worlds: list[World], tmp_path: Path) -> None:
    tree.write(tmp_path / "good.mp4", worlds[:1], frames=3)
    tree.write_audio(tmp_path / "song.mp4")
    options = BuildOptions(skip_bad=True)
    report = build(
        "video", [tmp_path], tmp_path / "out", options=options, source_options=EVERY_FRAME, workers=1
    )
    assert report.frames_out == 3 and report.dropped[0][0] == "song" and report.scenes_dropped == 1


@pytest.mark.parametrize(
    "wrong", [{"every": 0}, {"parallax": 0.5}, {"cut": 2}, {"window": 0}, {"most_a_scene": 1}]
)
def test_options_out_of_range_are_refused(wrong: dict) -> None:
    with pytest.raises(ShardsError, match="--" + next(iter(wrong)).replace("_", "-")):
        Options(**wrong)
