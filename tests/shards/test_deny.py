import json
from pathlib import Path

import pytest
from PIL import Image

from shards.build import BuildOptions, build
from shards.deny import DEFAULT, denied, read_rules
from shards.format import ShardsError


@pytest.mark.parametrize(
    ("source", "scene", "benchmark"),
    [
        ("megadepth", "0015", "MegaDepth-1500"),
        ("megadepth", "Undistorted_SfM/0022", "MegaDepth-1500"),
        ("megadepth", "1589/dense0", "Image Matching Challenge"),
        ("scannet", "scene0707_00", "ScanNet test"),
        ("scannet", "scans_test/scene0806_01", "ScanNet test"),
        ("dl3dv", "1K/0a1b7c20a92c43c6b8954b1ac909fb2f0fa8b2997b80604bc8bbec80a1cb2da3", "DL3DV benchmark"),
        ("jgz", "0022", "MegaDepth-1500"),
        ("jgz", "1K/032dee9fb0a8bc1b90871dc5fe950080d0bcd3caf166447f44e60ca50ac04ec7", "DL3DV benchmark"),
        ("imagenet", "test/ILSVRC2012_test_00000001", "ImageNet test"),
    ],
)
def test_evaluation_scene_is_known_wherever_its_name_stands(source: str, scene: str, benchmark: str) -> None:
    assert denied(source, scene).startswith("evaluation scene: ") and benchmark in denied(source, scene)


@pytest.mark.parametrize(
    ("source", "scene"),
    [
        ("megadepth", "0016"),
        ("megadepth", "10015"),
        ("megascenes", "0015"),
        ("scannet", "scene0706_00"),
        ("scannet", "scene0807_00"),
        ("images", "0015"),
        ("dl3dv", "1K/0003dc82473fd52c53dcbdc2deb4e6e9c3548d6f8c9b03f9ea8d3c7d3ce33546"),
        ("imagenet", "n01440764/ILSVRC2012_val_00000293"),
    ],
)
def test_every_other_scene_may_be_trained_on(source: str, scene: str) -> None:
    assert denied(source, scene) == ""


def test_megadepth_list_is_the_two_benchmarks_and_nothing_else() -> None:
    listed = set(DEFAULT["megadepth"])
    assert listed == {"0015", "0022", "0008", "0019", "0021", "0024", "0025", "0032", "0063", "1589"}


def test_file_adds_to_the_default_list(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("# ours\ndl3dv 0a1b* our benchmark\n\n* kitchen  # everywhere\nmegadepth 0001\n")
    rules = read_rules(str(path))
    assert rules.denied("dl3dv", "1K/0a1b7c") == "evaluation scene: our benchmark"
    assert rules.denied("colmap", "home/kitchen") == "evaluation scene: listed in mine.txt"
    assert rules.denied("megadepth", "0001") and rules.denied("megadepth", "0015")
    assert rules.denied("colmap", "1K/0a1b7c") == ""
    assert read_rules("none").denied("megadepth", "0015") == ""
    assert len({read_rules(deny).hash for deny in ("default", "none", str(path))}) == 3


@pytest.mark.parametrize(("text", "reason"), [("megadepth\n", "line 1"), (None, "cannot be read")])
def test_file_that_cannot_be_read_is_told_in_one_sentence(
    tmp_path: Path, text: str | None, reason: str
) -> None:
    if text is not None:
        (tmp_path / "list.txt").write_text(text)
    with pytest.raises(ShardsError, match=reason):
        read_rules(str(tmp_path / "list.txt"))


def test_denied_scenes_are_left_out_of_a_build_and_reported(tmp_path: Path) -> None:
    for scene, count in {"a": 3, "b": 2, "c": 2}.items():
        (tmp_path / "photographs" / scene).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (32, 24), (40 * number, 0, 0)).save(
                tmp_path / "photographs" / scene / f"{number}.jpg"
            )
    path = tmp_path / "mine.txt"
    path.write_text("images b held out for a paper\n")
    options = BuildOptions(deny=str(path))
    source = tmp_path / "photographs"
    report = build("images", [source], tmp_path / "out", options=options, workers=1)
    assert report.dropped == [("b", "evaluation scene: held out for a paper")]
    assert (report.scenes_in, report.scenes_out, report.scenes_dropped) == (3, 2, 1)
    assert (report.frames_in, report.frames_out) == (7, 5)
    stored = [json.loads(line) for line in (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()]
    assert stored[0]["scenes"] == 2
    path.write_text("images c held out, too\n")  # the same option, another list
    with pytest.raises(ShardsError, match="holds another dataset"):
        build("images", [source], tmp_path / "out", options=options, workers=1)
