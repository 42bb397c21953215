import base64
import io
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shards.format import ShardsError
from shards.plan import DataConfig, Plan
from shards.preview_cameras import top_view
from shards.preview_page import write_page
from shards.reader import Dataset


class Tags(HTMLParser):
    """Start tags of a page with their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def page_of(dataset: Dataset, out: Path, **options: int) -> str:
    write_page(dataset, out, summary={"frames": "8 & more"}, **options)
    return out.read_text()


def wedges(svg: str) -> tuple[np.ndarray, list[bool], list[int]]:
    """(n, 3, 2) apex and far corners, whether each was drawn, and the numbers in the order of the wedges."""
    groups = re.findall(
        r'<g class="camera( drawn)?">.*?points="([^"]+)".*?(?:<text[^>]*>(\d+)</text>)?</g>', svg
    )
    corners = [[tuple(map(float, pair.split(","))) for pair in points.split()] for _, points, _ in groups]
    return np.array(corners), [bool(d) for d, _, _ in groups], [int(n) for _, _, n in groups if n]


def test_page_shows_the_pictures_that_the_plan_draws(ramps: Callable[..., Dataset], tmp_path: Path) -> None:
    dataset = ramps([8, 9])
    page = page_of(dataset, tmp_path / "page.html", sequences=3, views=4, seed=5)
    pictures = [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(attributes["src"].split(",")[1]))))
        for tag, attributes in Tags(page).found
        if tag == "img" and attributes["src"]
    ]
    plan = Plan(dataset, DataConfig(images_per_lane=4, views=(4, 4), lanes=1, seed=5))
    drawn = [
        (int(step.chunks[0]), int(f)) for step in map(plan.lane_step, range(3), [0] * 3) for f in step.frames
    ]
    blues = [(37 * chunk + 9 * frame) % 256 for chunk, frame in drawn]  # what a ramp's frame is coloured with
    assert len(pictures) == 12
    assert all(abs(np.median(p[..., 2]) - blue) < 6 for p, blue in zip(pictures, blues, strict=True))


def test_page_asks_for_nothing_outside_itself(ramps: Callable[..., Dataset], tmp_path: Path) -> None:
    page = page_of(ramps([8]), tmp_path / "page.html", sequences=2)
    tags = Tags(page).found
    assert not {tag for tag, _ in tags} & {"script", "link", "iframe", "object", "embed", "base"}
    links = [value for _, attributes in tags for name, value in attributes.items() if name in {"src", "href"}]
    assert links and all(str(link).startswith("data:image/") for link in links)
    assert "url(" not in page and "@import" not in page


def test_page_tells_overlap_and_cameras_or_that_there_are_none(
    ramps: Callable[..., Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = page_of(ramps([8]), tmp_path / "known.html", sequences=1)
    assert known.count('class="matrix"') == 1 and known.count('class="camera drawn"') == 6
    assert known.count('class="camera"') == 2
    unknown = ramps([8], known=False, name="unknown")
    monkeypatch.setattr("shards.reader.Chunk.world_to_camera", None)
    page = page_of(unknown, tmp_path / "unknown.html", sequences=1)
    assert "Nobody measured the overlap" in page and "no cameras" in page and "<b>unknown</b>" in page


def test_single_pictures_are_shown_without_overlap_and_cameras(
    ramps: Callable[..., Dataset], tmp_path: Path
) -> None:
    page = page_of(ramps([1, 1]), tmp_path / "page.html", sequences=2)
    assert "2 sequences of 1 view, overlap unknown" in page and page.count("a single picture") == 2
    assert "<svg" not in page and "Nobody measured" not in page


def test_names_cannot_break_the_page(
    ramps: Callable[..., Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shards.reader.Chunk.scene", "<script>x</script>")
    monkeypatch.setattr("shards.reader.Chunk.frame_names", [f'"><img src=x{n}>' for n in range(8)])
    tags = Tags(page_of(ramps([8]), tmp_path / "page.html", sequences=1, views=4)).found
    assert "script" not in {tag for tag, _ in tags}
    assert sum(tag == "img" for tag, _ in tags) == 4


def row_of_cameras(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cameras one unit apart along x that look along z, 90 degrees wide."""
    poses = np.tile(np.eye(3, 4), (count, 1, 1))
    poses[:, 0, 3] = -np.arange(count)
    intrinsics = np.tile(np.array([[50.0, 0, 50], [0, 50, 30], [0, 0, 1]]), (count, 1, 1))
    return poses, intrinsics, np.tile([60, 100], (count, 1))


def test_cameras_stand_where_they_are_and_look_where_they_look() -> None:
    poses, intrinsics, sizes = row_of_cameras(4)
    corners, drawn, numbers = wedges(top_view(poses, intrinsics, sizes, list("abcd"), [3, 0]))
    assert sorted(drawn) == [False, False, True, True] and sorted(numbers) == [1, 2]
    corners = corners[np.argsort(corners[:, 0, 0])]
    steps = np.diff(corners[:, 0], axis=0)
    assert np.allclose(steps, steps[0], atol=0.2) and steps[0][0] > 20 and abs(steps[0][1]) < 0.2
    sides = corners[:, 1:] - corners[:, :1]
    assert np.allclose(np.abs(sides[..., 0]), np.abs(sides[..., 1]), atol=0.2)  # 45 degrees to either side
    assert (sides[..., 1] < 0).all()  # up the page
    assert (sides[:, 0, 0] < 0).all() and (sides[:, 1, 0] > 0).all()  # the picture's left is on the left


@pytest.mark.parametrize("seed", range(4))
def test_the_view_from_above_does_not_depend_on_the_world_frame(seed: int) -> None:
    rng = np.random.default_rng(seed)
    poses, intrinsics, sizes = row_of_cameras(5)
    angles = rng.uniform(-0.7, 0.7, 5)
    c, s, zero, one = np.cos(angles), np.sin(angles), np.zeros(5), np.ones(5)
    turns = np.stack([c, zero, s, zero, one, zero, -s, zero, c], 1).reshape(5, 3, 3)
    centres = np.column_stack([rng.uniform(-3, 3, 5), rng.uniform(-0.1, 0.1, 5), rng.uniform(-1, 1, 5)])
    poses = np.concatenate([turns, -turns @ centres[:, :, None]], 2)
    world = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    world *= np.sign(np.linalg.det(world))
    moved = np.concatenate(
        [poses[:, :, :3] @ world.T, poses[:, :, 3:] - poses[:, :, :3] @ world.T @ np.ones((3, 1))], 2
    )
    views = [wedges(top_view(p, intrinsics, sizes, list("abcde"), [0, 2]))[0] for p in (poses, moved)]
    assert np.allclose(*views, atol=0.2)


def test_cameras_that_all_stand_in_one_place_can_be_shown() -> None:
    poses, _, sizes = row_of_cameras(3)
    poses[:, 0, 3] = 0
    corners, _, _ = wedges(top_view(poses, None, sizes, list("abc"), [0]))
    assert np.isfinite(corners).all() and len(corners) == 3


@pytest.mark.parametrize(
    ("options", "reason"),
    [({"views": 0}, "--views"), ({"size": 0}, "--size"), ({"sequences": 999}, "--sequences")],
)
def test_page_that_cannot_be_made(
    ramps: Callable[..., Dataset], tmp_path: Path, options: dict, reason: str
) -> None:
    with pytest.raises(ShardsError, match=reason):
        write_page(ramps([4]), tmp_path / "page.html", summary={}, **options)
    assert not (tmp_path / "page.html").exists()
