"""NAVI: photographs of scanned objects, with the object's depth and its pose before the camera.

Scored are the wild sets (one object before many backgrounds) and trained on the multi-view sets, as probe3d does:
every fourth image with one partner at most 120 degrees away; here that choice is frozen, each image's partner drawn
from its name, and the stride begins anew with every object. Cameras are OpenCV's, world-to-camera in the object's
frame, q as w x y z, one focal length, the principal point at the middle (NAVI's own `data_util.py`). Depth PNG store
disparity: millimetres are 655350 over the value, 0 unknown. Pictures are turned upright as their EXIF asks; depth
lies upright already. Files have 12 or more megapixels, so frames are given reduced to a short side of 1024 px.
"""

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.benchmarks.draws import shuffled
from probes.benchmarks.picture_files import (
    at_size,
    check_size,
    digest_of,
    read_picture,
    stamp_of,
    truth_of,
)
from probes.benchmarks.reader import BenchmarkReader, found_in, refuse_missing, unlike
from probes.data.frames import Benchmark, Frame, FrameList, FramePair
from probes.errors import ProbeError
from shards.sources.depth_maps import read_png16
from shards.sources.folders import children, natural_key

STRIDE = 4
MOST_DEGREES = 120.0
SHORT_SIDE = 1024
_DISPARITY = 65535 * 10
_WILD, _MULTIVIEW, _LIST = "wild_set", "multiview", "annotations.json"


@dataclass(frozen=True, kw_only=True)
class _View:
    """An annotated image and its files."""

    name: str
    picture: Path
    depth: Path
    size: tuple[int, int]
    """(H, W) upright, as annotated."""
    focal: float
    world_to_camera: NDArray

    @property
    def missing(self) -> list[Path]:
        return [path for path in (self.picture, self.depth) if not path.is_file()]


def _open(root: Path, spec: str, allow_missing: bool) -> Benchmark:
    objects = [folder for folder in children(root) if any((f / _LIST).is_file() for f in children(folder))]
    if not any((folder / _WILD / _LIST).is_file() for folder in objects):
        raise unlike(spec, f"NAVI's root with <object>/{_WILD}/{_LIST}", found_in(root))
    missing: list[Path] = []
    named, absent = 0, 0
    test: list[Frame] = []
    pairs: list[FramePair] = []
    train: list[Frame] = []
    for folder in objects:
        if (folder / _WILD / _LIST).is_file():
            views = _read_views(root, folder / _WILD)
            chosen = _pairs(views)
            used = sorted({i for pair in chosen for i in pair})
            lost = {i: views[i].missing for i in used}
            missing += [path for paths in lost.values() for path in paths]
            named += 2 * len(used)
            kept = [i for i in used if not lost[i]]
            places = {i: len(test) + place for place, i in enumerate(kept)}
            test += [_frame(root, views[i], folder.name, f"{folder.name}/{_WILD}") for i in kept]
            pairs += [
                FramePair(
                    name=f"{views[i].name}|{views[j].name}", scene=folder.name, a=places[i], b=places[j]
                )
                for i, j in chosen
                if i in places and j in places
            ]
        for scene in children(folder):
            if scene.name.startswith(_MULTIVIEW) and (scene / _LIST).is_file():
                views = _read_views(root, scene)
                there = [view for view in views if not view.missing]
                absent += len(views) - len(there)
                train += [_frame(root, view, folder.name, f"{folder.name}/{scene.name}") for view in there]
    lost_names = [str(path.relative_to(root)) for path in missing]
    refuse_missing(spec, lost_names, named, allow_missing=allow_missing)
    if not pairs:
        raise ProbeError(f"data {spec!r} has no pair of wild images at most {MOST_DEGREES:g} degrees apart")
    notes = [
        "Images are not cut to the object's box, as probe3d's are; training images show the same objects."
    ]
    if absent:
        notes.append(f"Training images left out for want of their picture or depth file: {absent}.")
    return Benchmark(
        name="navi",
        spec=spec,
        test=FrameList(frames=tuple(test), pairs=tuple(pairs)),
        train=FrameList(frames=tuple(train)) if train else None,
        split="wild sets, every fourth image",
        truth="depth",
        fit="crop",
        unit="mm",
        auc="exact",
        missing=tuple(lost_names),
        notes=tuple(notes),
    )


def _read_views(root: Path, folder: Path) -> list[_View]:
    """The annotated images of a set, in natural order."""
    path = folder / _LIST
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        views = [_view(root, folder, row) for row in rows]
    except OSError as error:
        raise ProbeError(f"{path} cannot be read: {error.strerror}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise ProbeError(f"{path} is no list of NAVI's annotations: {error!r}") from error
    return sorted(views, key=lambda view: natural_key(view.name))


def _view(root: Path, folder: Path, row: dict[str, Any]) -> _View:
    camera, name = row["camera"], row["filename"]
    height, width = map(int, row["image_size"])
    picture = folder / "images" / name
    return _View(
        name=str(picture.relative_to(root)),
        picture=picture,
        depth=folder / "depth" / f"{picture.stem}.png",
        size=(height, width),
        focal=float(camera["focal_length"]),
        world_to_camera=np.column_stack([_rotation(camera["q"]), np.array(camera["t"], float).reshape(3)]),
    )


def _rotation(quaternion: list[float]) -> NDArray:
    """(3, 3) of w, x, y, z."""
    w, x, y, z = np.array(quaternion, float) / np.linalg.norm(quaternion)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def _pairs(views: list[_View]) -> list[tuple[int, int]]:
    """Every fourth view with the first of the others, in an order drawn from its name, that is near enough."""
    rotations = np.array([view.world_to_camera[:, :3] for view in views])
    pairs = []
    for i in range(0, len(views), STRIDE):
        cosines = (np.einsum("nij,ij->n", rotations, rotations[i]) - 1) / 2
        near = np.degrees(np.arccos(np.clip(cosines, -1, 1))) <= MOST_DEGREES
        partner = next((j for j in shuffled(views[i].name, len(views)) if near[j] and j != i), None)
        if partner is not None:
            pairs.append((i, partner))
    return pairs


def _frame(root: Path, view: _View, scene: str, group: str) -> Frame:
    (height, width), (rows, columns) = view.size, _reduced(view.size)
    intrinsics = [[view.focal, 0, width // 2], [0, view.focal, height // 2], [0, 0, 1]]
    return Frame(
        name=view.name,
        scene=scene,
        group=group,
        height=rows,
        width=columns,
        image=partial(read_picture, view.picture, upright=True, size=(rows, columns), annotated=view.size),
        digest=digest_of(view.picture),
        intrinsics=np.diag([columns / width, rows / height, 1.0]) @ intrinsics,
        world_to_camera=view.world_to_camera,
        depth=truth_of(_read_depth, view.depth, view.size),
        stamp=f"{SHORT_SIDE} {stamp_of(root, [view.depth])}",
    )


def _reduced(size: tuple[int, int]) -> tuple[int, int]:
    scale = min(1.0, SHORT_SIDE / min(size))
    return round(size[0] * scale), round(size[1] * scale)


def _read_depth(path: Path, size: tuple[int, int]) -> NDArray[np.float32] | None:
    """(H, W) float32 mm of the reduced frame, by the nearest pixel; None where there is no file."""
    stored = read_png16(path)
    if stored is None:
        return None
    check_size(path, stored.shape, size)
    nearest = at_size(stored, _reduced(size)).astype(np.float32)
    return np.divide(np.float32(_DISPARITY), nearest, out=np.zeros_like(nearest), where=nearest > 0)


READER = BenchmarkReader(
    title="NAVI, wild sets (probe3d's protocol)",
    where="https://github.com/google/navi (navi_v1.0.tar.gz, 16 GB)",
    layout=(
        "<object>/wild_set/{annotations.json,images/,depth/}\n"
        "<object>/multiview_*/{annotations.json,images/,depth/}"
    ),
    open=_open,
)
