"""ARKitScenes: rooms captured by tablet, with depth by its scanner and poses by ARKit; pictures are turned upright.

A capture of the 3D detection release is `3dod/<fold>/<id>/<id>_frames/`, one of the raw release
`raw/<fold>/<id>/`. In it lie `lowres_wide/` (256x192) or, in the raw release, `vga_wide/` (640x480), which is
preferred; `<pictures>_intrinsics/*.pincam` (width height fx fy cx cy), `lowres_depth/` (16-bit PNG in
millimetres) and `lowres_wide.traj`, whose rows are seconds, an axis-angle and a translation from world to
camera, ten a second. Files are named `<id>_<seconds>`, and what belongs together may differ by a millisecond.
A picture's pose is interpolated between the rows before and after it. Pictures passed over for --rate are
not counted as refused.

The tablet was held in any of four ways. Gravity (the world's -z) as the poses see it says which; the
published `sky_direction` is often wrong and not read. A whole capture is turned by one multiple of 90
degrees: pictures, depth, intrinsics and poses alike. Captures of the fold `Validation` go to the val split.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from shards.format import Frame, Scene, ShardsError
from shards.sources.depth_maps import read_millimetres
from shards.sources.folders import check_folders, children
from shards.sources.reduced import reduced_intrinsics
from shards.sources.tables import read_rows

_LICENCE = "ARKitScenes: CC-BY-NC-SA-4.0"
_TRAJECTORY = "lowres_wide.traj"
_PICTURES = ("vga_wide", "lowres_wide")
_SAME_TIME = 0.0015
"""Seconds: a millisecond, and the rounding of two names."""
_LONGEST_GAP = 0.25
"""Seconds between two rows beyond which no pose is interpolated."""
_DEEPEST = 3
"""Folders between a path and a capture: release, fold, id."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of `build arkitscenes`."""

    depth: bool = True
    """Store the depth maps."""
    rate: float = 10.0
    """Take at most about so many pictures a second: the 3D detection release has ten, the raw one thirty or
    sixty, each nearly the last one again."""

    def __post_init__(self) -> None:
        if not self.rate > 0:
            raise ShardsError(f"--rate must be above 0 pictures a second, not {self.rate}")


@dataclass(frozen=True, kw_only=True)
class CaptureTask:
    """One capture."""

    name: str
    trajectory: Path
    pictures: Path
    intrinsics: Path
    depths: Path | None
    """None where none are wanted."""
    rate: float
    split: Literal["train", "val"] | None


def find(paths: Sequence[Path], options: Options) -> Iterator[CaptureTask]:
    """The captures at or below `paths`; of two releases of one capture, that with the larger pictures."""
    check_folders(paths)
    captures: dict[str, tuple[Path, str]] = {}
    for path in paths:
        found = list(_captures(path, _DEEPEST))
        if not found:
            raise ShardsError(
                f"{path} holds no captures of ARKitScenes (<id>_frames/{_TRAJECTORY} or <id>/{_TRAJECTORY})"
            )
        for folder in found:
            name = folder.resolve().name.removesuffix("_frames")
            pictures = next(p for p in (*_PICTURES, "") if (folder / p).is_dir())
            if not pictures:
                raise ShardsError(f"{folder} holds no pictures ({' or '.join(_PICTURES)})")
            if name not in captures or (captures[name][1], pictures) == _PICTURES[::-1]:
                captures[name] = folder, pictures
    held_out = {name for name, (folder, _) in captures.items() if "Validation" in folder.resolve().parts}
    for name, (folder, pictures) in captures.items():
        split: Literal["train", "val"] = "val" if name in held_out else "train"
        yield CaptureTask(
            name=name,
            trajectory=folder / _TRAJECTORY,
            pictures=folder / pictures,
            intrinsics=folder / f"{pictures}_intrinsics",
            depths=folder / "lowres_depth" if options.depth else None,
            rate=options.rate,
            split=split if held_out else None,
        )


def read(task: CaptureTask) -> Scene:
    """The capture's pictures that have intrinsics and a pose, in time order, to be turned upright."""
    pictures = _by_time(task.pictures, ".png")
    cameras = _by_time(task.intrinsics, ".pincam")
    depths = _by_time(task.depths, ".png") if task.depths else {}
    camera_of, depth_of = _matches(pictures, cameras), _matches(pictures, depths)
    rows = read_trajectory(task.trajectory)
    poses = dict(zip(pictures, interpolate(rows, np.array(list(pictures))), strict=True))
    known = [pose for pose in poses.values() if pose is not None]
    orientation = upright_orientation(np.stack(known)) if known else 1
    whole = {t: path for t, path in pictures.items() if t in camera_of and poses[t] is not None}
    left_out = [
        (str(path), f"no {'pose' if time in camera_of else 'intrinsics'} of its time ({time:.3f} s)")
        for time, path in pictures.items()
        if time not in whole
    ]
    frames = []
    for time, picture in thin(whole, task.rate).items():
        intrinsics, size = _read_pincam(camera_of[time])
        frames.append(
            Frame(
                name=picture.name,
                image=picture,
                intrinsics=reduced_intrinsics(picture, intrinsics, size),
                world_to_camera=poses[time],
                depth=partial(read_millimetres, depth_of[time]) if time in depth_of else None,
                timestamp=time,
                orientation=orientation,
                camera_pixels="stored",
            )
        )
    return Scene(
        name=task.name, frames=frames, left_out=left_out, licence=_LICENCE, split=task.split, ordered=True
    )


def thin(files: dict[float, Path], rate: float) -> dict[float, Path]:
    """Of files by their seconds, rising, the first and each that follows the last one taken by a period of
    `rate`, or nearly: clocks jitter by some milliseconds."""
    taken: dict[float, Path] = {}
    last = -np.inf
    for time, path in files.items():
        if time - last > 0.9 / rate:
            taken[time], last = path, time
    return taken


def read_trajectory(path: Path) -> np.ndarray:
    """(n, 7) rows by time: seconds, axis-angle in radians, translation in metres, from world to camera."""
    rows = read_rows(path, 7)
    return rows[np.unique(rows[:, 0], return_index=True)[1]]


def interpolate(rows: np.ndarray, times: np.ndarray) -> list[np.ndarray | None]:
    """World-to-camera (3, 4) at each time, None where no rows (n, 7) lie near before and after it.

    The camera's centre moves on a line, its axes turn about one axis at an even rate.
    """
    quaternions = _quaternions(rows[:, 1:4])
    centres = -np.einsum("nji,nj->ni", _matrices(quaternions), rows[:, 4:])
    after = np.clip(np.searchsorted(rows[:, 0], times), 1 if len(rows) > 1 else 0, len(rows) - 1)
    before = np.maximum(after - 1, 0)
    gap = rows[after, 0] - rows[before, 0]
    share = np.clip((times - rows[before, 0]) / np.where(gap > 0, gap, 1), 0, 1)
    turned = _slerp(quaternions[before], quaternions[after], share)
    centre = centres[before] + share[:, None] * (centres[after] - centres[before])
    rotations = _matrices(turned)
    inside = (times > rows[0, 0] - _SAME_TIME) & (times < rows[-1, 0] + _SAME_TIME)
    at_a_row = np.minimum(abs(times - rows[before, 0]), abs(times - rows[after, 0])) < _SAME_TIME
    usable = inside & ((gap <= _LONGEST_GAP) | at_a_row)
    return [
        np.column_stack([r, -r @ c]) if ok else None
        for r, c, ok in zip(rotations, centre, usable, strict=True)
    ]


def upright_orientation(world_to_camera: np.ndarray) -> int:
    """The EXIF orientation (1, 3, 6 or 8) that turns pictures of cameras (n, 3, 4) so that +z of the world points
    up; 1 for cameras that look straight up or down."""
    right, down = world_to_camera[:, :2, 2].sum(0)  # the world's up, in the cameras' x and y
    if np.hypot(right, down) < 0.1 * len(world_to_camera):
        return 1
    if abs(down) >= abs(right):
        return 1 if down < 0 else 3
    return 6 if right < 0 else 8


def _captures(folder: Path, depth: int) -> Iterator[Path]:
    """Folders with a trajectory at most `depth` folders below; nothing is looked for inside a capture."""
    for place in (folder, folder / f"{folder.resolve().name}_frames"):
        if (place / _TRAJECTORY).is_file():
            yield place
            return
    if depth:
        for inner in children(folder):
            yield from _captures(inner, depth - 1)


def _by_time(folder: Path, suffix: str) -> dict[float, Path]:
    """Seconds -> file, in time order, of files named `<id>_<seconds><suffix>`."""
    names = [name for name in os.listdir(folder) if name.endswith(suffix)] if folder.is_dir() else []
    files = {}
    for name in names:
        try:
            files[float(name.removesuffix(suffix).rsplit("_", 1)[-1])] = folder / name
        except ValueError:
            raise ShardsError(f"{folder / name} is not named <id>_<seconds>{suffix}") from None
    return dict(sorted(files.items()))


def _matches(times: dict[float, Path], files: dict[float, Path]) -> dict[float, Path]:
    """Time -> the file nearest to it, if it is of the same millisecond or its neighbour."""
    if not times or not files:
        return {}
    theirs, ours = np.array(list(files)), np.array(list(times))
    right = np.clip(np.searchsorted(theirs, ours), 0, len(theirs) - 1)
    left = np.maximum(right - 1, 0)
    nearest = np.where(abs(theirs[left] - ours) <= abs(theirs[right] - ours), left, right)
    return {
        time: files[theirs[row]]
        for time, row in zip(times, nearest, strict=True)
        if abs(theirs[row] - time) < _SAME_TIME
    }


def _read_pincam(path: Path) -> tuple[np.ndarray, tuple[int, int]]:
    """K (3, 3) and the (H, W) it speaks of."""
    try:
        width, height, fx, fy, cx, cy = map(float, path.read_text(encoding="ascii").split())
    except (OSError, ValueError):
        raise ShardsError(f"{path} must hold six numbers: width height fx fy cx cy") from None
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]), (int(height), int(width))


def _quaternions(axis_angles: np.ndarray) -> np.ndarray:
    """(n, 4), scalar first, of rotation vectors (n, 3)."""
    angles = np.linalg.norm(axis_angles, axis=1, keepdims=True)
    axes = axis_angles / np.where(angles > 0, angles, 1)
    return np.hstack([np.cos(angles / 2), axes * np.sin(angles / 2)])


def _matrices(quaternions: np.ndarray) -> np.ndarray:
    """(n, 3, 3) rotations of unit quaternions (n, 4), scalar first."""
    w, x, y, z = quaternions.T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows), -1, 0)


def _slerp(one: np.ndarray, two: np.ndarray, share: np.ndarray) -> np.ndarray:
    """(n, 4) unit quaternions `share` (n,) of the shorter way from one to the other."""
    cosine = (one * two).sum(1, keepdims=True)
    two, cosine = np.where(cosine < 0, -two, two), np.minimum(abs(cosine), 1)
    angle = np.arccos(cosine)
    sine = np.sin(angle)
    share = share[:, None]
    flat = sine < 1e-9
    safe = np.where(flat, 1, sine)
    first = np.where(flat, 1 - share, np.sin((1 - share) * angle) / safe)
    second = np.where(flat, share, np.sin(share * angle) / safe)
    mixed = first * one + second * two
    return mixed / np.linalg.norm(mixed, axis=1, keepdims=True)
