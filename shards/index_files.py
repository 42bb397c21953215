"""Pair lists of the two-view benchmarks in the forms they are published in, read safely.

MegaDepth-1500's files are called .npz and are bare pickles, RoMa's training lists are .npy files around one: both
are read by an unpickler that knows NumPy's array, dtype and scalar constructors and nothing else. ScanNet's pairs
come as LoFTR's arrays (`test.npz` with `intrinsics.npz`) or as SuperGlue's lines of text. Poses are OpenCV's,
world-to-camera; (3, 4) of a pair takes points of the first camera into the second. No picture is opened here.
"""

import io
import math
import pickle
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shards.format import ShardsError

_MEGADEPTH_KEYS = ("image_paths", "depth_paths", "intrinsics", "poses")
_LARGEST = 1 << 30


@dataclass(frozen=True, kw_only=True)
class MegaDepthIndex:
    """A scene's images, many of them absent, and its pairs: a file of MegaDepth-1500 or of a training list."""

    image_paths: list[str | None]
    """Relative to MegaDepth's root; None for an image that takes no part."""
    depth_paths: list[str | None]
    intrinsics: np.ndarray
    """(N, 3, 3) float64 in pixels of the full image, nan where there is no image."""
    world_to_camera: np.ndarray
    """(N, 3, 4) float64, nan where there is no image."""
    pairs: np.ndarray
    """(P, 2) int64 rows of the lists above."""
    overlaps: np.ndarray
    """(P,) float64."""


@dataclass(frozen=True, kw_only=True)
class ScanNetPairs:
    """Pairs of ScanNet frames with their measured relative pose."""

    names: list[tuple[str, str]]
    """P pairs of image names: `sceneXXXX_YY/color/N.jpg` from arrays, the names that stand there from lines of
    text."""
    intrinsics: np.ndarray
    """(P, 2, 3, 3) float64, in pixels of the size the file was made for: 640x480 for the arrays."""
    second_from_first: np.ndarray
    """(P, 3, 4) float64; not finite where ScanNet's tracking failed."""


def read_megadepth_index(path: Path) -> MegaDepthIndex:
    """Read a file of MegaDepth-1500 or of LoFTR's training lists, which have its form.

    ShardsError for anything else, and for a pickle that asks for more than arrays.
    """
    return _index(path, _load_arrays(path), "index of MegaDepth-1500", ("pair_infos",))


def read_roma_index(path: Path) -> MegaDepthIndex:
    """Read a scene of RoMa's and DKM's training lists (`prep_scene_info/<scene>.npy`); ShardsError as above."""
    held = _load_arrays(path, npy=True)
    held = held.item() if isinstance(held, np.ndarray) and held.shape == () else held
    return _index(path, held, "training list of RoMa", ("pairs", "overlaps"))


def _index(path: Path, data: Any, kind: str, lists: tuple[str, ...]) -> MegaDepthIndex:
    missing = [key for key in (*_MEGADEPTH_KEYS, *lists) if not isinstance(data, dict) or key not in data]
    if missing:
        raise ShardsError(f"{path} is no {kind}: it lacks {', '.join(missing)}")
    try:
        images, depths = (_paths(data[key]) for key in ("image_paths", "depth_paths"))
        count = len(images)
        if "pair_infos" in lists:
            listed, shared = ([info[column] for info in data["pair_infos"]] for column in (0, 1))
        else:
            listed, shared = data["pairs"], data["overlaps"]
        pairs = np.array(listed, np.int64).reshape(-1, 2)
        overlaps = np.array(shared, np.float64).reshape(-1)
        intrinsics = _matrices(data["intrinsics"], (3, 3))
        poses = _matrices(data["poses"], (4, 4))[:, :3]
        if not len(depths) == len(intrinsics) == len(poses) == count or len(pairs) != len(overlaps):
            raise ValueError("its lists differ in length")
        if len(pairs) and not (pairs.min() >= 0 and pairs.max() < count):
            raise ValueError("a pair names an image that is not listed")
    except (TypeError, ValueError, IndexError, KeyError) as error:
        raise ShardsError(f"{path} is no {kind}: {' '.join(str(error).split())}") from None
    return MegaDepthIndex(
        image_paths=images,
        depth_paths=depths,
        intrinsics=intrinsics,
        world_to_camera=poses,
        pairs=pairs,
        overlaps=overlaps,
    )


def read_scannet_arrays(pairs: Path, intrinsics: Path) -> ScanNetPairs:
    """Read LoFTR's `test.npz` (`name`, `rel_pose`) and `intrinsics.npz` (a matrix a scene)."""
    listed, cameras = _load_npz(pairs), _load_npz(intrinsics)
    try:
        names, poses = listed["name"], listed["rel_pose"].astype(np.float64)
        if names.ndim != 2 or names.shape[1] != 4 or poses.shape != (len(names), 12):
            raise ValueError(f"name is {names.shape} and rel_pose {poses.shape}, not (P, 4) and (P, 12)")
        scenes = [f"scene{scene:04d}_{part:02d}" for scene, part, _, _ in names]
        matrices = np.array([cameras[scene] for scene in scenes], np.float64).reshape(-1, 3, 3)
    except KeyError as error:
        raise ShardsError(f"{pairs} and {intrinsics} lack {error.args[0]!r}") from None
    except (TypeError, ValueError) as error:
        raise ShardsError(f"{pairs} is no list of ScanNet pairs: {' '.join(str(error).split())}") from None
    files = [
        (f"{scene}/color/{first}.jpg", f"{scene}/color/{second}.jpg")
        for scene, (_, _, first, second) in zip(scenes, names, strict=True)
    ]
    return ScanNetPairs(
        names=files,
        intrinsics=np.stack([matrices, matrices], 1),
        second_from_first=poses.reshape(-1, 3, 4),
    )


def read_scannet_lines(path: Path) -> ScanNetPairs:
    """Read SuperGlue's `*_pairs_with_gt.txt`: two names, two rotation flags, K, K and 4x4, row by row."""
    names, numbers = [], []
    try:
        for number, line in enumerate(path.read_text(encoding="ascii").splitlines(), 1):
            words = line.split()
            if not words:
                continue
            if len(words) != 38:
                raise ShardsError(f"{path}, line {number}: has {len(words)} fields, a pair has 38")
            if words[2:4] != ["0", "0"]:
                raise ShardsError(
                    f"{path}, line {number}: asks for rotated pictures, which are not read here"
                )
            names.append((words[0], words[1]))
            numbers.append([float(word) for word in words[4:]])
    except OSError as error:
        raise ShardsError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ShardsError(f"{path} is no text file") from None
    except ShardsError:
        raise
    except ValueError as error:
        raise ShardsError(f"{path}, line {number}: {error}") from None
    rows = np.array(numbers, np.float64).reshape(-1, 34)
    return ScanNetPairs(
        names=names,
        intrinsics=rows[:, :18].reshape(-1, 2, 3, 3),
        second_from_first=rows[:, 18:].reshape(-1, 4, 4)[:, :3],
    )


class _Array(np.ndarray):
    """An array in the making: takes its contents only if they are as many as its shape says."""

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, _, contents = state
        held = len(contents) if isinstance(contents, list) else len(contents) // max(1, dtype.itemsize)
        if dtype.hasobject != isinstance(contents, list) or held != math.prod(shape):
            raise pickle.UnpicklingError(f"an array of {shape} comes with {held} values")
        super().__setstate__(state)


def _begin_array(kind: Any, shape: tuple, code: bytes) -> np.ndarray:
    """NumPy's `_reconstruct`, which only ever begins with nothing."""
    if kind is not _NDARRAY or shape != (0,):
        raise pickle.UnpicklingError(f"an array begins as {shape}")
    return np.ndarray.__new__(_Array, (0,), np.dtype("i1"))


def _scalar(dtype: np.dtype, value: bytes) -> Any:
    if not isinstance(dtype, np.dtype) or dtype.hasobject or len(value) != dtype.itemsize:
        raise pickle.UnpicklingError("a scalar is not of its type's size")
    return np.frombuffer(value, dtype)[0]


_NDARRAY = object()
"""Stands for the class, which a pickle only hands on to `_reconstruct` and must not call."""

_KNOWN = {
    ("multiarray", "_reconstruct"): _begin_array,
    ("multiarray", "scalar"): _scalar,
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): np.dtype,
}


class _Unpickler(pickle.Unpickler):
    """Builds NumPy arrays, dtypes and scalars, dicts, lists, tuples, strings and numbers; nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """The few names that NumPy's pickles ask for."""
        if module in {"numpy.core.multiarray", "numpy._core.multiarray"}:
            module = "multiarray"
        if (module, name) not in _KNOWN:
            raise pickle.UnpicklingError(f"asks for {module}.{name}, which is no array")
        return _KNOWN[module, name]


def _load_arrays(path: Path, *, npy: bool = False) -> Any:
    """What a pickle of arrays holds, bare or in a .npy file; ShardsError where it is none or asks for anything else."""
    try:
        if path.stat().st_size > _LARGEST:
            raise ShardsError(f"{path} is larger than 1 GiB: no index is")
        data = io.BytesIO(path.read_bytes())
        if npy:
            version = np.lib.format.read_magic(data)
            read_header = (
                np.lib.format.read_array_header_1_0
                if version == (1, 0)
                else np.lib.format.read_array_header_2_0
            )
            _, _, dtype = read_header(data)
            if not dtype.hasobject:
                raise ValueError(f"an array of {dtype}")
        return _Unpickler(data).load()
    except OSError as error:
        raise ShardsError(f"{path} cannot be read: {error.strerror}") from None
    except ShardsError:
        raise
    except Exception as error:  # a pickle can be wrong in every way its opcodes allow
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ShardsError(f"{path} is no pickle of plain arrays: {reason}") from None


def _load_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        if path.exists() and not zipfile.is_zipfile(path):
            raise ShardsError(f"{path} is no .npz file")
        with np.load(path, allow_pickle=False) as file:
            return {key: file[key] for key in file.files}
    except OSError as error:
        raise ShardsError(f"{path} cannot be read: {error.strerror or error}") from None
    except ShardsError:
        raise
    except (ValueError, zipfile.BadZipFile, EOFError, AttributeError) as error:
        raise ShardsError(f"{path} is no .npz file of plain arrays: {' '.join(str(error).split())}") from None


def _paths(values: Any) -> list[str | None]:
    listed = list(values)
    if not all(value is None or isinstance(value, str) for value in listed):
        raise ValueError("a path is no text")
    return listed


def _matrices(values: Any, shape: tuple[int, int]) -> np.ndarray:
    """(N, *shape), nan where an entry is None."""
    matrices = np.full((len(values), *shape), np.nan)
    for row, value in enumerate(values):
        if value is not None:
            matrices[row] = np.asarray(value, np.float64).reshape(shape)
    return matrices
