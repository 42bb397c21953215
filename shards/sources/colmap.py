"""Photographs with a COLMAP model (binary or text): cameras, poses, and overlap from shared tracks.

Poses and pixels are COLMAP's own, which are ours too: world-to-camera, OpenCV axes, pixel centres at +0.5.
Pinhole cameras with lens distortion (OPENCV and its like) keep their pixels and intrinsics, the distortion
noted beside them; fisheye and spherical cameras have no intrinsics here. Models speak of pixels as a file
stores them, so a photograph with an EXIF orientation is turned upright together with its camera.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from shards.format import Frame, Scene, ShardsError
from shards.photographs import file_geometry
from shards.sources.colmap_files import Camera, RegisteredImage, read_cameras, read_images
from shards.sources.folders import check_folders, distinct_names, natural_key, subfolders

_SUFFIXES = (".bin", ".txt")
_PINHOLE = {"SIMPLE_PINHOLE", "PINHOLE"}
_DISTORTED = {"SIMPLE_RADIAL", "RADIAL", "OPENCV", "FULL_OPENCV", "SIMPLE_DIVISION", "DIVISION"}


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of `build colmap`."""

    images: str = "images"
    """Folder of the photographs, relative to each scene's folder."""
    model: str | None = None
    """Folder of the model, relative to each scene's folder; by default sparse/0, sparse or the folder
    itself."""
    licence: str = "unknown"
    """Licence tag of the photographs, kept with every chunk."""


@dataclass(frozen=True, kw_only=True)
class ColmapFrame:
    """A registered photograph."""

    name: str
    path: Path
    """Where the photograph should be."""
    camera_size: tuple[int, int]
    """(H, W) that the intrinsics speak of."""
    intrinsics: np.ndarray | None
    """(3, 3) float64, or None for a camera that is no pinhole."""
    distortion: dict[str, Any] | None
    """`{"model": COLMAP's name, "params": all its parameters}` where there is any."""
    world_to_camera: np.ndarray
    """(3, 4) float64."""
    points: np.ndarray
    """(n,) int64 ids of the 3-D points it observes."""
    xy: np.ndarray
    """(n, 2) float64 where it observes them, in pixels of `camera_size`."""


@dataclass(frozen=True, kw_only=True)
class ColmapScene:
    """A model: its registered photographs in natural order of their names."""

    name: str
    frames: list[ColmapFrame]


@dataclass(frozen=True, kw_only=True)
class ColmapTask:
    """One model to be read."""

    name: str
    model: tuple[Path, ...]
    """The model's files."""
    images: Path
    licence: str
    views: int | None


def find(paths: Sequence[Path], options: Options) -> Iterator[ColmapTask]:
    """A scene for every model at `paths`, or below a path that holds none itself."""
    check_folders(paths)
    folders: list[tuple[Path, Path]] = []
    for path in paths:
        found: dict[Path, Path] = {}
        for folder in [path] if _model_folder(path, options.model) else subfolders(path):
            model = _model_folder(folder, options.model)
            if model and not found.keys() & set(folder.parents):
                found[folder] = model
        if not found:
            where = options.model or "sparse/0, sparse or the folder itself"
            raise ShardsError(f"{path} holds no COLMAP model (cameras and images, .bin or .txt, in {where})")
        folders += found.items()
    for (folder, model), name in zip(folders, distinct_names([f for f, _ in folders]), strict=True):
        files = tuple(sorted(p for p in model.iterdir() if p.suffix in {".bin", ".txt"} and p.is_file()))
        yield ColmapTask(
            name=name,
            model=files,
            images=folder / options.images,
            licence=options.licence,
            views=_count_images(model),
        )


def read(task: ColmapTask) -> Scene:
    """The scene with cameras, tracks and the paths of its photographs."""
    model = read_model(task.model[0].parent, images=task.images, name=task.name)
    missing = [frame.name for frame in model.frames if not frame.path.is_file()]
    if len(missing) == len(model.frames):
        raise ShardsError(
            f"none of the {len(missing)} photographs of the COLMAP model {task.model[0].parent} are in "
            f"{task.images} (the first is {missing[0]}); say where they are with --images"
        )
    frames = [to_frame(frame) for frame in model.frames]
    return Scene(name=task.name, frames=frames, licence=task.licence)


def read_model(path: Path, images: Path | None = None, name: str | None = None) -> ColmapScene:
    """Read a COLMAP scene: the folder of a model, or a folder with sparse/0 or sparse and images in it.

    `images` is the folder of the photographs; by default `images` beside the model. The photographs need not
    exist. ShardsError where there is no model or it cannot be read.
    """
    path = Path(path)
    model = _model_folder(path, None)
    if model is None:
        raise ShardsError(f"{path} holds no COLMAP model (cameras and images as .bin or .txt)")
    scene = model.parent.parent if model.parent.name == "sparse" else model.parent
    scene = scene if model != path or model.name in {"sparse", "0"} else path
    images = images if images is not None else scene / "images"
    suffix = next(suffix for suffix in _SUFFIXES if _has(model, suffix))
    cameras = read_cameras(model / f"cameras{suffix}")
    registered = read_images(model / f"images{suffix}")
    if not registered:
        raise ShardsError(f"the COLMAP model {model} has no registered photograph")
    registered.sort(key=lambda image: natural_key(image.name))
    absent = [image for image in registered if image.camera not in cameras]
    if absent:
        raise ShardsError(f"the COLMAP model {model} lacks camera {absent[0].camera} of {absent[0].name}")
    frames = [_colmap_frame(image, cameras[image.camera], images) for image in registered]
    return ColmapScene(name=name or distinct_names([scene])[0], frames=frames)


def _colmap_frame(image: RegisteredImage, camera: Camera, images: Path) -> ColmapFrame:
    model = camera.model
    return ColmapFrame(
        name=image.name,
        path=images / image.name,
        camera_size=camera.size,
        intrinsics=camera.intrinsics if model in _PINHOLE | _DISTORTED else None,
        distortion=None if model in _PINHOLE else {"model": model, "params": list(camera.parameters)},
        world_to_camera=image.world_to_camera,
        points=image.points,
        xy=image.xy,
    )


def to_frame(frame: ColmapFrame) -> Frame:
    """The frame with its camera in the pixels of the photograph that is there; ShardsError if it was cropped."""
    intrinsics, pixels = frame.intrinsics, "stored"
    geometry = file_geometry(frame.path)
    if geometry is not None:
        size, orientation = geometry
        pixels = _pixels_meant(frame, size, orientation)
        height, width = size if pixels == "stored" or orientation < 5 else size[::-1]
        scale = np.diag([width / frame.camera_size[1], height / frame.camera_size[0], 1.0])
        intrinsics = None if intrinsics is None else scale @ intrinsics
    return Frame(
        name=frame.name,
        image=frame.path,
        intrinsics=intrinsics,
        world_to_camera=frame.world_to_camera,
        points=frame.points,
        distortion=frame.distortion,
        camera_pixels=pixels,
    )


def _pixels_meant(
    frame: ColmapFrame, size: tuple[int, int], orientation: int
) -> Literal["stored", "upright"]:
    """Whether the camera's size is that of the file as stored, or only of the upright picture."""

    def fits(height: int, width: int) -> bool:
        rows, columns = frame.camera_size
        return abs(height * columns / (width * rows) - 1) < 0.01  # photographs may be reduced, not cropped

    if fits(*size):
        return "stored"
    if orientation >= 5 and fits(*size[::-1]):
        return "upright"
    raise ShardsError(
        f"{frame.path} is {size[1]}x{size[0]}, but its camera in the COLMAP model is "
        f"{frame.camera_size[1]}x{frame.camera_size[0]}: give the photographs that the model was made from"
    )


def _model_folder(folder: Path, model: str | None) -> Path | None:
    places = [folder / model] if model else [folder / "sparse" / "0", folder / "sparse", folder]
    return next((place for place in places if any(_has(place, suffix) for suffix in _SUFFIXES)), None)


def _has(folder: Path, suffix: str) -> bool:
    return (folder / f"cameras{suffix}").is_file() and (folder / f"images{suffix}").is_file()


def _count_images(model: Path) -> int | None:
    """Registered photographs, read from the head of the file; None where it does not say."""
    binary = model / "images.bin"
    if binary.is_file():
        with binary.open("rb") as file:
            head = file.read(8)
        return struct.unpack("<Q", head)[0] if len(head) == 8 else None
    return None
