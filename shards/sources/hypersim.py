"""Hypersim: rendered rooms with exact distance and cameras, some of them with tilted or shifted lenses.

The root holds `ai_VVV_NNN/images/scene_cam_XX_final_preview/frame.IIII.tonemap.jpg` (the other previews there,
of colour, diffuse light and residual, are not read), distances in `scene_cam_XX_geometry_hdf5/` and positions
and orientations of every camera in `_detail/cam_XX/`. Every camera is a scene. Cameras are OpenGL's (x right,
y up, looking along -z), positions in the artist's units, brought to metres by `_detail/metadata_scene.csv`.
`metadata_camera_parameters.csv` (ml-hypersim, contrib/mikeroberts3000) gives each scene a projection matrix;
where its lens is tilted, the matrix is no pinhole's about the camera's own axes, but it is one about others:
camera and pose are turned to those, exactly. `depth_meters` is the distance to the camera, not depth.

With `metadata_images_split_scene_v1.csv` (ml-hypersim, evermotion_dataset/analysis) beside it, the partitions
`val` and `test` go to the val split and rows that were not released are left out. Three scenes whose cameras
are wrong are dropped. Needs h5py.
"""

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from shards.format import BadPhotograph, Frame, Scene, ShardsError
from shards.sources.depth_maps import load_h5py, read_hdf5
from shards.sources.folders import check_folders, children, natural_key
from shards.sources.reduced import reduced_intrinsics

_LICENCE = "CC-BY-SA-3.0"
_SCENE = re.compile(r"ai_\d{3}_\d{3}")
_PREVIEW = re.compile(r"scene_(cam_\d+)_final_preview")
_PICTURE = re.compile(r"frame\.(\d+)\.tonemap\.jpg")
_BAD_SCENES = {"ai_024_012", "ai_026_008", "ai_026_013"}
_PARAMETERS, _SPLIT = "metadata_camera_parameters.csv", "metadata_images_split_scene_v1.csv"
_TO_OPENCV = np.diag([1.0, -1.0, -1.0])


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of `build hypersim`."""

    camera_parameters: Path | None = None
    """The file metadata_camera_parameters.csv; by default in the root or its parent."""
    split_file: Path | None = None
    """The file metadata_images_split_scene_v1.csv; by default in the root or its parent, if it is there."""
    depth: bool = True
    """Store depth where the distances were downloaded."""


@dataclass(frozen=True, kw_only=True)
class CameraTask:
    """One camera's trajectory."""

    name: str
    previews: Path
    """Folder of the pictures."""
    distances: Path | None
    """Folder of the distances; None where none are wanted."""
    keyframes: Path
    """Folder of positions and orientations."""
    units: Path
    """The scene's metadata_scene.csv."""
    projection: tuple[float, ...]
    """Rows 0, 1 and 3 of the projection, three numbers each: OpenGL camera to x, y, w of the clip space."""
    size: tuple[int, int]
    """(H, W) of the rendering."""
    excluded: tuple[tuple[int, str], ...]
    """(frame, reason) of those that the split file does not release."""
    dropped: str
    split: Literal["train", "val"] | None

    @property
    def views(self) -> int | None:
        """0 for a scene that is dropped."""
        return 0 if self.dropped else None


def find(paths: Sequence[Path], options: Options) -> Iterator[CameraTask]:
    """Every camera of the scenes at or directly below `paths`."""
    check_folders(paths)
    load_h5py()
    for path in paths:
        scenes = [f for f in (path, *children(path)) if _SCENE.fullmatch(f.resolve().name)]
        cameras = [(scene, camera) for scene in scenes for camera in _cameras(scene)]
        if not cameras:
            raise ShardsError(
                f"{path} holds no ai_VVV_NNN/images/scene_cam_XX_final_preview: name Hypersim's root or a scene"
            )
        parameters = _read_csv(_beside(path, _PARAMETERS, options.camera_parameters))
        projections = {row["scene_name"]: row for row in parameters}
        releases = _read_releases(path, options.split_file)
        for scene, camera in cameras:
            yield _task(scene, camera, projections, releases, options)


def read(task: CameraTask) -> Scene:
    """The camera's tone-mapped pictures with a pose; depth is read when a frame is encoded."""
    if task.dropped:
        return Scene(name=task.name, frames=[], dropped=task.dropped, licence=_LICENCE)
    intrinsics, turn = pinhole(np.reshape(task.projection, (3, 3)), task.size)
    poses = _read_poses(task)
    excluded = dict(task.excluded)
    pictures = sorted((p for p in task.previews.iterdir() if _PICTURE.fullmatch(p.name)), key=_number)
    frames, left_out = [], []
    for picture in pictures:
        number = _number(picture)
        if number in excluded or number not in poses:
            left_out.append((str(picture), excluded.get(number, "no pose of its number")))
            continue
        file = f"frame.{number:04d}.depth_meters.hdf5"
        depth = partial(read_depth, task.distances / file, intrinsics, task.size) if task.distances else None
        frames.append(
            Frame(
                name=picture.name,
                image=picture,
                intrinsics=reduced_intrinsics(picture, intrinsics, task.size),
                world_to_camera=turn @ poses[number],
                depth=depth,
                camera_pixels="stored",
            )
        )
    return Scene(name=task.name, frames=frames, left_out=left_out, licence=_LICENCE, split=task.split)


def pinhole(projection: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The pinhole camera that sees what a projection (3, 3) of OpenGL camera coordinates to clip x, y, w does.

    Returns K (3, 3) in pixels of a picture of `size` (H, W), and the rotation (3, 3) from the camera's axes in
    OpenCV's order to the pinhole's, whose third is perpendicular to the picture.
    """
    height, width = size
    to_pixels = np.array([[width / 2, 0, width / 2], [0, -height / 2, height / 2], [0, 0, 1]])
    combined = to_pixels @ projection @ _TO_OPENCV
    # RQ decomposition by QR of the matrix read backwards; K's diagonal is made positive.
    orthogonal, triangular = np.linalg.qr(combined[::-1].T)
    intrinsics, turn = triangular.T[::-1, ::-1], orthogonal.T[::-1]
    signs = np.sign(np.diag(intrinsics))
    intrinsics, turn = intrinsics * signs, signs[:, None] * turn
    if not np.isfinite(combined).all() or (signs == 0).any() or np.linalg.det(turn) < 0:
        raise ShardsError("a Hypersim projection matrix is no camera's; use the published file unchanged")
    return intrinsics / intrinsics[2, 2], turn


def read_depth(path: Path, intrinsics: np.ndarray, size: tuple[int, int]) -> np.ndarray | None:
    """(h, w) float32 metres along the axis of the pinhole, from distances to it; None where there is no file."""
    distances = read_hdf5(path)
    if distances is None:
        return None
    if distances.ndim != 2 or 0 in distances.shape:
        raise BadPhotograph(str(path), f"distances must be (height, width), not {distances.shape}")
    height, width = distances.shape
    scaled = np.diag([width / size[1], height / size[0], 1.0]) @ intrinsics
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    rays = np.linalg.solve(scaled, np.stack([x.ravel(), y.ravel(), np.ones(x.size)]))
    return (distances / np.linalg.norm(rays, axis=0).reshape(height, width)).astype(np.float32)


def _task(scene: Path, camera: str, projections: dict, releases: dict | None, options: Options) -> CameraTask:
    name = scene.resolve().name
    dropped = "its cameras are wrong" if name in _BAD_SCENES else ""
    row = projections.get(name)
    if row is None and not dropped:
        raise ShardsError(f"{_PARAMETERS} has no row of {name}: use the published file")
    try:
        projection = tuple(float(row[f"M_proj_{i}{j}"]) for i in (0, 1, 3) for j in range(3)) if row else ()
        size = (
            (int(float(row["settings_output_img_height"])), int(float(row["settings_output_img_width"])))
            if row
            else (0, 0)
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ShardsError(f"{_PARAMETERS}: the row of {name} is incomplete ({error})") from None
    split: Literal["train", "val"] | None = None
    excluded: list[tuple[int, str]] = []
    if releases is not None and not dropped:
        rows = releases.get((name, camera), [])
        partitions = {row["split_partition_name"] for row in rows} - {""}
        excluded = [
            (int(row["frame_id"]), row["exclude_reason"].lower() or "not in the public release")
            for row in rows
            if row["included_in_public_release"] != "True"
        ]
        dropped = "" if partitions else f"no released frame in {_SPLIT}"
        split = "train" if partitions == {"train"} else "val"
    images, detail = scene / "images", scene / "_detail"
    return CameraTask(
        name=f"{name}/{camera}",
        previews=images / f"scene_{camera}_final_preview",
        distances=images / f"scene_{camera}_geometry_hdf5" if options.depth else None,
        keyframes=detail / camera,
        units=detail / "metadata_scene.csv",
        projection=projection,
        size=size,
        excluded=tuple(excluded),
        dropped=dropped,
        split=split,
    )


def _read_poses(task: CameraTask) -> dict[int, np.ndarray]:
    """Frame's number -> world-to-camera (3, 4) in metres, axes in OpenCV's order."""
    metres = _metres_per_unit(task.units)
    folder = task.keyframes
    try:
        positions = read_hdf5(folder / "camera_keyframe_positions.hdf5")
        rotations = read_hdf5(folder / "camera_keyframe_orientations.hdf5")
        numbers = read_hdf5(folder / "camera_keyframe_frame_indices.hdf5")
    except BadPhotograph as error:
        raise ShardsError(str(error)) from None
    if positions is None or rotations is None or rotations.shape != (len(positions), 3, 3):
        raise ShardsError(
            f"{folder} must hold positions (n, 3) and orientations (n, 3, 3) of the camera's keyframes"
        )
    numbers = np.arange(len(positions)) if numbers is None else numbers
    poses = {}
    for number, position, to_world in zip(numbers, positions, rotations, strict=True):
        to_camera = _TO_OPENCV @ to_world.T
        poses[int(number)] = np.column_stack([to_camera, -to_camera @ (position * metres)])
    return poses


def _metres_per_unit(path: Path) -> float:
    for row in _read_csv(path):
        if row.get("parameter_name") == "meters_per_asset_unit":
            try:
                return float(row["parameter_value"])
            except (KeyError, TypeError, ValueError):
                break
    raise ShardsError(f"{path} does not say meters_per_asset_unit")


def _read_releases(path: Path, given: Path | None) -> dict[tuple[str, str], list[dict[str, str]]] | None:
    """(scene, camera) -> its rows of the split file; None where there is none."""
    places = (
        [given]
        if given
        else [place for p in (path, path.resolve().parent) if (place := p / _SPLIT).is_file()]
    )
    if not places:
        return None
    releases: dict[tuple[str, str], list[dict[str, str]]] = {}
    for row in _read_csv(places[0]):
        try:
            releases.setdefault((row["scene_name"], row["camera_name"]), []).append(row)
            row["frame_id"], row["included_in_public_release"], row["split_partition_name"].strip()
        except (KeyError, AttributeError) as error:
            raise ShardsError(f"{places[0]} lacks a column ({error})") from None
    return releases


def _beside(path: Path, name: str, given: Path | None) -> Path:
    for place in [given] if given else [path / name, path.resolve().parent / name]:
        if place.is_file():
            return place
    if given:
        raise ShardsError(f"{given} does not exist")
    raise ShardsError(
        f"{path} has no {name}: put the file of the ml-hypersim repository (contrib/mikeroberts3000) there, or"
        " name it with --camera-parameters"
    )


def _read_csv(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error) as error:
        raise ShardsError(f"{path} cannot be read: {' '.join(str(error).split())}") from None


def _cameras(scene: Path) -> list[str]:
    images = scene / "images"
    matches = (_PREVIEW.fullmatch(f.name) for f in children(images)) if images.is_dir() else ()
    return sorted((match[1] for match in matches if match), key=natural_key)


def _number(picture: Path) -> int:
    match = _PICTURE.fullmatch(picture.name)
    assert match is not None
    return int(match[1])
