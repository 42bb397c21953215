"""BlendedMVS and BlendedMVG: rendered scenes of 24 hexadecimal digits with cameras, depth and scored pairs.

A scene holds `blended_images/%08d.jpg` (their `_masked` twins are left alone), `cams/%08d_cam.txt`
(world-to-camera, OpenCV axes, and K; pixel centres are taken at +0.5), `cams/pair.txt` and, where it was
fetched, `rendered_depth_maps/%08d.pfm`. K speaks of 768x576 in the low-res set and of 2048x1536 in the
high-res one, and the pictures may be of another size than either: of the three sizes it is taken for the one
whose middle its principal point is nearest to.

With depth, overlap is measured from it. Without, it is `pair.txt`'s score divided by the largest score of
the scene, unknown for pairs that are not listed: an order of how well two views go together, not a share of
pixels.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from shards.format import BadPhotograph, Frame, Scene, ShardsError
from shards.photographs import file_geometry
from shards.sources.folders import check_folders, children, list_photographs
from shards.sources.reduced import reduced_intrinsics

_LICENCE = "CC-BY-4.0"
_ID = re.compile(r"[0-9a-f]{24}")
_VIEW = re.compile(r"\d{8}")
_SIZES = ((576, 768), (1536, 2048))
_MOST_PIXELS = 1 << 26


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of `build blendedmvs`."""

    depth: bool = True
    """Store the rendered depth maps where there are any."""


@dataclass(frozen=True, kw_only=True)
class BlendedTask:
    """One scene."""

    name: str
    folder: Path
    depth: bool


def find(paths: Sequence[Path], options: Options) -> Iterator[BlendedTask]:
    """Every scene folder at or directly below `paths`."""
    check_folders(paths)
    for path in paths:
        is_scene = _ID.fullmatch(path.resolve().name) and (path / "cams").is_dir()
        folders = [path] if is_scene else [f for f in children(path) if _ID.fullmatch(f.name)]
        if not folders:
            raise ShardsError(
                f"{path} holds no scenes of BlendedMVS (folders named by 24 hexadecimal digits)"
            )
        for folder in folders:
            yield BlendedTask(name=folder.resolve().name, folder=folder, depth=options.depth)


def read(task: BlendedTask) -> Scene:
    """The scene's pictures with cameras, depth where it is there, and otherwise the scores of its pairs."""
    images = task.folder / "blended_images"
    paths = list_photographs(images) if images.is_dir() else []
    paths = [path for path in paths if _VIEW.fullmatch(path.stem)]
    if not paths:
        raise ShardsError(f"{images} holds no pictures named by eight digits")
    frames = [_frame(task, path) for path in paths]
    measured = any(frame.depth is not None for frame in frames)
    return Scene(
        name=task.name,
        frames=frames,
        licence=_LICENCE,
        overlap=None if measured else _pair_overlap(task.folder, [int(path.stem) for path in paths]),
    )


def read_camera(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """World-to-camera (3, 4) and K (3, 3) of a `_cam.txt`; ShardsError where it is none."""
    words = _read(path).split()
    try:
        if words[0] != "extrinsic" or words[17] != "intrinsic":
            raise ValueError
        numbers = np.array(words[1:17] + words[18:27], np.float64)
        if len(numbers) != 25 or not np.isfinite(numbers).all():
            raise ValueError
    except (ValueError, IndexError):
        raise ShardsError(
            f"{path} is no camera: it must hold 'extrinsic' with 16 numbers and 'intrinsic' with 9"
        ) from None
    return numbers[:16].reshape(4, 4)[:3], numbers[16:].reshape(3, 3)


def read_pairs(path: Path) -> dict[int, dict[int, float]]:
    """View -> {view: score} of a `pair.txt`; ShardsError where it is none."""
    words = iter(_read(path).split())
    try:
        pairs = {}
        for _ in range(int(next(words))):
            view, count = int(next(words)), int(next(words))
            pairs[view] = {int(next(words)): float(next(words)) for _ in range(count)}
    except (StopIteration, ValueError):
        raise ShardsError(
            f"{path} is no list of pairs: a count, then for each view its number and a line of neighbours and scores"
        ) from None
    return pairs


def read_pfm(path: Path) -> np.ndarray:
    """(h, w) float32 of a one-channel PFM file, its first row the upper one; BadPhotograph where it is none."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadPhotograph(str(path), error.strerror or "cannot be read") from None
    head = re.match(rb"Pf\s+(\d{1,6})\s+(\d{1,6})\s+(-?[\d.eE+-]+)\s", data[:200])
    if head is None:
        raise BadPhotograph(str(path), "is no PFM file of one channel")
    width, height = int(head[1]), int(head[2])
    order = "<f4" if head[3].startswith(b"-") else ">f4"
    if width * height > _MOST_PIXELS or len(data) - head.end() != 4 * width * height:
        raise BadPhotograph(str(path), f"should hold {width}x{height} numbers, and does not")
    values = np.frombuffer(data, order, offset=head.end()).reshape(height, width)
    return values[::-1].astype(np.float32)


def _frame(task: BlendedTask, path: Path) -> Frame:
    pose, intrinsics = read_camera(task.folder / "cams" / f"{path.stem}_cam.txt")
    depth = task.folder / "rendered_depth_maps" / f"{path.stem}.pfm"
    return Frame(
        name=path.name,
        image=path,
        intrinsics=reduced_intrinsics(path, intrinsics, _camera_size(path, intrinsics)),
        world_to_camera=pose,
        depth=partial(read_pfm, depth) if task.depth and depth.is_file() else None,
        camera_pixels="stored",
    )


def _camera_size(path: Path, intrinsics: np.ndarray) -> tuple[int, int]:
    """(H, W) that K speaks of."""
    geometry = file_geometry(path)
    sizes = _SIZES if geometry is None else (geometry[0], *_SIZES)

    def off_middle(size: tuple[int, int]) -> float:
        return abs(intrinsics[0, 2] / size[1] - 0.5) + abs(intrinsics[1, 2] / size[0] - 0.5)

    return min(sizes, key=off_middle)


def _pair_overlap(folder: Path, views: list[int]) -> np.ndarray | None:
    """(N, N): score / the scene's largest, nan for pairs that are not listed; None without `pair.txt`."""
    path = folder / "cams" / "pair.txt"
    if not path.is_file():
        return None
    row = {view: i for i, view in enumerate(views)}
    scores = np.full((len(views),) * 2, np.nan)
    for view, neighbours in read_pairs(path).items():
        for other, score in neighbours.items():
            if view in row and other in row and np.isfinite(score) and score >= 0:
                scores[row[view], row[other]] = score
    scores = np.fmax(scores, scores.T)  # a view's ten best need not name it among theirs
    largest = np.nanmax(scores, initial=0.0)
    if largest == 0:
        return None
    np.fill_diagonal(scores, largest)
    return scores / largest


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except OSError as error:
        raise ShardsError(f"{path} cannot be read: {error.strerror or 'no such file'}") from None
    except UnicodeDecodeError:
        raise ShardsError(f"{path} is no text file") from None
