"""COLMAP's `cameras` and `images` files, binary or text, read without COLMAP.

What images observe says which tracks they share, so `points3D` is never opened. Counts in a damaged file are
held against the bytes that are there before anything is allocated for them. Poses are world-to-camera with OpenCV
axes; pixel centres are at +0.5. This file knows nothing of photographs and datasets.
"""

import math
import mmap
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shards.format import ShardsError

PARAMETERS = {
    "SIMPLE_PINHOLE": 3,
    "PINHOLE": 4,
    "SIMPLE_RADIAL": 4,
    "RADIAL": 5,
    "OPENCV": 8,
    "OPENCV_FISHEYE": 8,
    "FULL_OPENCV": 12,
    "FOV": 5,
    "SIMPLE_RADIAL_FISHEYE": 4,
    "RADIAL_FISHEYE": 5,
    "THIN_PRISM_FISHEYE": 12,
    "RAD_TAN_THIN_PRISM_FISHEYE": 16,
    "SIMPLE_DIVISION": 4,
    "DIVISION": 5,
    "SIMPLE_FISHEYE": 3,
    "FISHEYE": 4,
    "EUCM": 6,
    "EQUIRECTANGULAR": 2,
}
"""Camera model -> number of its parameters, in the order of the models' numbers in binary files."""

_NAMES = tuple(PARAMETERS)
_ONE_FOCAL = {"SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "SIMPLE_DIVISION"}
_CAMERA = struct.Struct("<IiQQ")
_IMAGE = struct.Struct("<I7dI")
_OBSERVATION = np.dtype([("xy", "<f8", 2), ("point", "<u8")])
_NO_POINT = np.uint64(2**64 - 1)
_LONGEST_SIDE = 1 << 20
_EXACT = 2**53
"""Below it, whole numbers are exact in float64."""


@dataclass(frozen=True, kw_only=True)
class Camera:
    """A camera."""

    model: str
    size: tuple[int, int]
    """(H, W)."""
    parameters: tuple[float, ...]

    @property
    def intrinsics(self) -> np.ndarray:
        """(3, 3), of a model whose parameters begin with focal lengths and principal point."""
        if self.model in _ONE_FOCAL:
            f, cx, cy = self.parameters[:3]
            return np.array([[f, 0, cx], [0, f, cy], [0, 0, 1]])
        fx, fy, cx, cy = self.parameters[:4]
        return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])


@dataclass(frozen=True, kw_only=True)
class RegisteredImage:
    """An image with a pose."""

    name: str
    camera: int
    world_to_camera: np.ndarray
    """(3, 4) float64."""
    points: np.ndarray
    """(n,) int64 ids of the 3-D points it observes."""
    xy: np.ndarray
    """(n, 2) float64 where it observes them."""


def read_cameras(path: Path) -> dict[int, Camera]:
    """Camera id -> camera, of a cameras.bin or cameras.txt. ShardsError where it is damaged."""
    try:
        return dict(_binary_cameras(path) if path.suffix == ".bin" else _text_cameras(path))
    except OSError as error:
        raise ShardsError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, IndexError, struct.error, OverflowError) as error:
        raise _damaged(path, error) from None


def read_images(path: Path) -> list[RegisteredImage]:
    """The images of an images.bin or images.txt, in its order. ShardsError where it is damaged."""
    try:
        return list(_binary_images(path) if path.suffix == ".bin" else _text_images(path))
    except OSError as error:
        raise ShardsError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, IndexError, struct.error, OverflowError) as error:
        raise _damaged(path, error) from None


def _binary_cameras(path: Path) -> Iterator[tuple[int, Camera]]:
    data = path.read_bytes()
    (count,) = struct.unpack_from("<Q", data)
    at = 8
    for _ in range(count):
        number, model, width, height = _CAMERA.unpack_from(data, at)
        at += _CAMERA.size
        if not 0 <= model < len(_NAMES):
            raise ValueError(f"camera {number} is of model {model}, which is not known")
        name = _NAMES[model]
        parameters = struct.unpack_from(f"<{PARAMETERS[name]}d", data, at)
        at += 8 * PARAMETERS[name]
        yield number, _camera(number, name, width, height, parameters)


def _text_cameras(path: Path) -> Iterator[tuple[int, Camera]]:
    for line in path.read_text(encoding="utf-8").splitlines():
        words = line.split()
        if words and not words[0].startswith("#"):
            number, model, width, height = int(words[0]), words[1], int(words[2]), int(words[3])
            yield number, _camera(number, model, width, height, tuple(float(w) for w in words[4:]))


def _camera(number: int, model: str, width: int, height: int, parameters: tuple[float, ...]) -> Camera:
    if PARAMETERS.get(model) != len(parameters):
        raise ValueError(f"camera {number} is {model} with {len(parameters)} parameters")
    if not (0 < width <= _LONGEST_SIDE and 0 < height <= _LONGEST_SIDE and np.isfinite(parameters).all()):
        raise ValueError(f"camera {number} is {width}x{height} with parameters {parameters}")
    return Camera(model=model, size=(height, width), parameters=parameters)


def _binary_images(path: Path) -> Iterator[RegisteredImage]:
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size < 8:
            raise ValueError("it ends early")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            (count,) = struct.unpack_from("<Q", data)
            at = 8
            for _ in range(count):
                number, *pose, camera = _IMAGE.unpack_from(data, at)
                end = data.find(b"\0", at + _IMAGE.size)
                if end < 0:
                    raise ValueError("it ends early")
                name = os.fsdecode(data[at + _IMAGE.size : end])
                (seen,) = struct.unpack_from("<Q", data, end + 1)
                at = end + 9
                if seen * _OBSERVATION.itemsize > len(data) - at:
                    raise ValueError("it ends early")
                listed = np.frombuffer(data[at : at + seen * _OBSERVATION.itemsize], _OBSERVATION)
                at += seen * _OBSERVATION.itemsize
                listed = listed[listed["point"] != _NO_POINT]
                yield _image(number, name, camera, pose, listed["point"].astype(np.int64), listed["xy"])


def _text_images(path: Path) -> Iterator[RegisteredImage]:
    """A line with the pose, then a line of what is observed, which is empty for an image that observes nothing."""
    with path.open(encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            words = line.split(maxsplit=9)
            if not words or words[0].startswith("#"):
                continue
            number, pose, camera, name = int(words[0]), words[1:8], int(words[8]), words[9].rstrip("\r\n ")
            seen = np.array(next(lines, "").split(), np.float64)
            if len(seen) % 3:
                raise ValueError(f"image {number} has a line of {len(seen)} numbers, not of triples")
            seen = seen.reshape(-1, 3)
            if not (np.abs(seen) < _EXACT).all():
                raise ValueError(f"image {number} observes a point that cannot be")
            seen = seen[seen[:, 2] >= 0]
            yield _image(
                number, name, camera, [float(p) for p in pose], seen[:, 2].astype(np.int64), seen[:, :2]
            )


def _image(
    number: int, name: str, camera: int, pose: list[float], points: np.ndarray, xy: np.ndarray
) -> RegisteredImage:
    length = math.sqrt(sum(q * q for q in pose[:4]))
    if not name or "\0" in name or not np.isfinite(pose).all() or not 0.5 < length < 2:
        raise ValueError(f"image {number}, {name!r}, has the pose {pose}")
    w, x, y, z = np.array(pose[:4]) / length
    rotation = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return RegisteredImage(
        name=name,
        camera=camera,
        world_to_camera=np.column_stack([rotation, pose[4:]]),
        points=points,
        xy=np.array(xy, np.float64),
    )


def _damaged(path: Path, error: Exception) -> ShardsError:
    reason = (
        "it ends early" if isinstance(error, (struct.error, IndexError)) else " ".join(str(error).split())
    )
    return ShardsError(f"the COLMAP model's {path} is damaged: {reason}")
