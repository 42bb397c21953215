"""DTU's 22 test scans in MVSNet's form: tabletop objects from 49 fixed places, depth from structured light.

Depth counts inside the object's mask, eroded by 10 x 10 px, and the sequence of a scan is every fifth view, ten in
all: the evaluation that followed Spann3R's and Pi3's, not DTU's official one. Cameras take pixel centres at +0.5,
as MVSNet does.
"""

from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from probes.benchmarks.picture_files import (
    at_size,
    check_camera,
    digest_of,
    picture_size,
    read_picture,
    stamp_of,
    truth_of,
)
from probes.benchmarks.reader import BenchmarkReader, found_in, refuse_missing, unlike
from probes.data.frames import Benchmark, Frame, FrameList, FrameSequence
from probes.errors import ProbeError
from shards.sources.reduced import same_aspect

SCANS = (1, 4, 9, 10, 11, 12, 13, 15, 23, 24, 29, 32, 33, 34, 48, 49, 62, 75, 77, 110, 114, 118)
VIEWS = 49
STEP = 5
"""Every which view a sequence takes."""

ERODED = 10
"""Side in px of the square that erodes masks."""

_KINDS = {
    "images": "{:08d}.jpg",
    "cams": "{:08d}_cam.txt",
    "depths": "{:08d}.npy",
    "binary_masks": "{:08d}.png",
}


def _open(root: Path, spec: str, allow_missing: bool) -> Benchmark:
    if not any((root / f"scan{scan}").is_dir() for scan in SCANS):
        raise unlike(spec, f"folders such as scan{SCANS[0]} with {', '.join(_KINDS)}", found_in(root))
    frames: list[Frame] = []
    sequences: list[FrameSequence] = []
    files = {(scan, view): _files(scan, view) for scan in SCANS for view in range(VIEWS)}
    missing = [file for named in files.values() for file in named if not (root / file).is_file()]
    refuse_missing(spec, missing, len(_KINDS) * len(files), allow_missing=allow_missing)
    absent = set(missing)
    for scan in SCANS:
        chosen = []
        for view in range(VIEWS):
            if absent.intersection(files[scan, view]):
                continue
            if view % STEP == 0:
                chosen.append(len(frames))
            frames.append(_frame(root, scan, view))
        if len(chosen) > 1:
            sequences.append(FrameSequence(name=f"scan{scan}", scene=f"scan{scan}", frames=tuple(chosen)))
    if not frames:
        raise ProbeError(f"data {spec!r}: no view has its picture, camera, depth and mask")
    return Benchmark(
        name="dtu",
        spec=spec,
        test=FrameList(frames=tuple(frames), sequences=tuple(sequences)),
        truth="depth",
        fit="squash",
        unit="mm",
        auc="histogram",
        missing=tuple(missing),
        notes=(
            f"Every {STEP}th view of a scan makes its sequence, masks are eroded: not DTU's official protocol.",
        ),
    )


def _files(scan: int, view: int) -> list[str]:
    return [f"scan{scan}/{folder}/{name.format(view)}" for folder, name in _KINDS.items()]


def _frame(root: Path, scan: int, view: int) -> Frame:
    image, camera, depth, mask = (root / file for file in _files(scan, view))
    size = picture_size(image)
    intrinsics, world_to_camera = read_camera(camera)
    check_camera(image, size, intrinsics)
    return Frame(
        name=f"scan{scan}/{view:08d}",
        scene=f"scan{scan}",
        height=size[0],
        width=size[1],
        image=partial(read_picture, image, upright=False),
        digest=digest_of(image),
        intrinsics=intrinsics,
        world_to_camera=world_to_camera,
        depth=truth_of(_read_depth, depth, mask, size),
        mask=truth_of(_read_mask, mask, size),
        stamp=stamp_of(root, [depth, mask]),
    )


def read_camera(path: Path) -> tuple[NDArray, NDArray]:
    """Intrinsics (3, 3) and world-to-camera (3, 4) of a ``_cam.txt``.

    Raises:
        ProbeError: the file is not ``extrinsic``, 16 numbers, ``intrinsic``, 9 numbers, and up to four of depth.
    """
    try:
        words = path.read_text(encoding="ascii").split()
        if words[:1] != ["extrinsic"] or words[17:18] != ["intrinsic"] or not 27 <= len(words) <= 31:
            raise ValueError(f"{len(words)} words")
        pose = np.array(words[1:17], np.float64).reshape(4, 4)
        intrinsics = np.array(words[18:27], np.float64).reshape(3, 3)
        if not (np.isfinite(pose).all() and np.isfinite(intrinsics).all()):
            raise ValueError("numbers that are not finite")
    except (OSError, ValueError) as error:
        raise ProbeError(f"{path} is no camera of MVSNet's form: {' '.join(str(error).split())}") from error
    return intrinsics, pose[:3]


def _read_depth(path: Path, mask: Path, size: tuple[int, int]) -> NDArray[np.float32] | None:
    """(H, W) mm, 0 = unknown or outside the eroded mask."""
    if not path.is_file():
        return None
    try:
        depth = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ProbeError(f"{path} is no depth map: {' '.join(str(error).split())}") from error
    if depth.ndim != 2 or depth.dtype.kind != "f" or not same_aspect(depth.shape, size):
        raise ProbeError(
            f"{path} holds {depth.dtype} {depth.shape}, not the depth of a picture of {size[1]} x {size[0]} px"
        )
    counts = np.isfinite(depth) & (depth > 0) & _eroded(mask, depth.shape)
    return at_size(np.where(counts, depth, 0).astype(np.float32), size)


def _read_mask(path: Path, size: tuple[int, int]) -> NDArray[np.bool_] | None:
    return at_size(_eroded(path, size), size) if path.is_file() else None


def _eroded(path: Path, size: tuple[int, int]) -> NDArray[np.bool_]:
    """The mask at (H, W) where a whole square of `ERODED` px lies inside; beyond the picture counts as inside."""
    try:
        with Image.open(path) as opened:
            stored = np.asarray(opened.convert("L")) > 127
    except OSError as error:
        raise ProbeError(f"{path} cannot be read: {error}") from error
    inside = at_size(stored, size)
    for axis in (0, 1):
        # OpenCV's anchor of an even square: half of it before, half less one behind.
        pad = [(0, 0), (0, 0)]
        pad[axis] = (ERODED // 2, ERODED - 1 - ERODED // 2)
        padded = np.pad(inside, pad, constant_values=True)
        inside = np.lib.stride_tricks.sliding_window_view(padded, ERODED, axis).all(-1)
    return inside


READER = BenchmarkReader(
    title="DTU (MVSNet's test scans)",
    where="github.com/YoYo000/MVSNet (DTU test data) with the depths and masks of Spann3R"
    " (github.com/HengyiWang/spann3r)",
    layout="scanN/images/%08d.jpg\nscanN/cams/%08d_cam.txt\nscanN/depths/%08d.npy\nscanN/binary_masks/%08d.png",
    open=_open,
)
