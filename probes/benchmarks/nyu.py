"""NYU Depth v2, the labelled set: 654 test and 795 training images with raw Kinect depth, in metres.

`nyu_depth_v2_labeled.mat` is HDF5 of MATLAB's: every array lies with its axes reversed, text is a table of
references to letters. Depth is `rawDepths`, as the published scores use it, not the in-painted `depths`; what counts
is Eigen's crop, rows 45 to 470 and columns 41 to 600. `splits.mat` counts from 1. Intrinsics are those of the
toolbox's `camera_params.m`, moved to pixel centres at +0.5 from MATLAB's first pixel at 1. The data set has no poses.
Normals are those of Ladicky et al. where `nyu_normals_gt/` is there; see `probes.benchmarks.nyu_normals`.
"""

import hashlib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.benchmarks.nyu_normals import NormalFiles
from probes.benchmarks.picture_files import stamp_of
from probes.benchmarks.reader import BenchmarkReader, found_in, refuse_missing, unlike
from probes.data.frames import Benchmark, Frame, FrameList
from probes.errors import ProbeError
from shards.sources.depth_maps import load_h5py

FILE, SPLITS, NORMALS = "nyu_depth_v2_labeled.mat", "splits.mat", "nyu_normals_gt"
HEIGHT, WIDTH = 480, 640
INTRINSICS = np.array(
    [
        [518.85790117450188, 0, 325.58244941119034 - 0.5],
        [0, 519.46961112127485, 253.73616633400465 - 0.5],
        [0, 0, 1],
    ]
)
_NEEDED = ("images", "rawDepths", "scenes")


def _open(root: Path, spec: str, allow_missing: bool) -> Benchmark:
    file, lists = root / FILE, root / SPLITS
    if not file.is_file() or not lists.is_file():
        if not file.is_file() and not lists.is_file():
            raise unlike(spec, f"{FILE} and {SPLITS}", found_in(root))
        refuse_missing(spec, [p.name for p in (file, lists) if not p.is_file()], 2, allow_missing=False)
    scenes = _read_scenes(file)
    test, train = _read_splits(lists, len(scenes))
    listed = tuple((number, part) for part, of in (("test", test), ("train", train)) for number in of)
    normals: NormalFiles | None = None
    missing: list[str] = []
    if (root / NORMALS).is_dir():
        normals = NormalFiles(
            folder=root / NORMALS, intrinsics=INTRINSICS, depth=partial(_read_depth, file), sample=listed
        )
        files = [normals.path(*which) for which in listed]
        missing = [str(path.relative_to(root)) for path in files if not path.is_file()]
        refuse_missing(spec, missing, len(files), allow_missing=allow_missing)
    stamp = stamp_of(root, [file])
    frames = {
        part: tuple(_frame(file, number, scenes[number - 1], stamp, part, normals) for number in of)
        for part, of in (("test", test), ("train", train))
    }
    return Benchmark(
        name="nyu",
        spec=spec,
        test=FrameList(frames=frames["test"]),
        train=FrameList(frames=frames["train"]),
        split="test (labelled set)",
        truth="depth",
        fit="squash",
        unit="m",
        auc="exact",
        depth_range=(0.001, 10.0),
        missing=tuple(missing),
        notes=(
            "Heads train on the 795 labelled images; published ones often on 24,000 to 31,000 of the raw videos.",
            *(() if normals else (f"Without {NORMALS}/ normals are those of the raw depth.",)),
        ),
    )


def _frame(file: Path, number: int, scene: str, stamp: str, part: str, normals: NormalFiles | None) -> Frame:
    """The image of a number from 1."""
    known = normals is not None and normals.path(number, part).is_file()
    return Frame(
        name=f"{number:04d}",
        scene=scene,
        height=HEIGHT,
        width=WIDTH,
        image=partial(_read_picture, file, number),
        digest=partial(_digest, file, number),
        intrinsics=INTRINSICS,
        depth=partial(_read_depth, file, number),
        normals=partial(normals.read, number, part) if known else None,
        mask=eigen_crop,
        stamp=f"{stamp} {stamp_of(normals.folder.parent, [normals.path(number, part)]) if known else ''}",
    )


def eigen_crop() -> NDArray[np.bool_]:
    """(480, 640): the pixels that Eigen et al. score."""
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[45:471, 41:601] = True
    return mask


def _read_picture(file: Path, number: int) -> NDArray[np.uint8]:
    return np.ascontiguousarray(_read(file, "images", number).transpose(2, 1, 0))


def _read_depth(file: Path, number: int) -> NDArray[np.float32]:
    return np.ascontiguousarray(_read(file, "rawDepths", number).T, np.float32)


def _digest(file: Path, number: int) -> str:
    return hashlib.sha256(_read_picture(file, number).tobytes()).hexdigest()


def _read(file: Path, key: str, number: int) -> NDArray:
    h5py = _h5py()
    try:
        with h5py.File(file, "r") as opened:
            return np.asarray(opened[key][number - 1])
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise ProbeError(f"{file}: image {number} cannot be read ({' '.join(str(error).split())})") from error


def _read_scenes(file: Path) -> list[str]:
    """The scene of every image; checks what else the file must hold."""
    h5py = _h5py()
    try:
        with h5py.File(file, "r") as opened:
            missing = [key for key in _NEEDED if key not in opened]
            if missing:
                raise ProbeError(f"{file} is not NYU's labelled set: it lacks {', '.join(missing)}")
            shapes = opened["images"].shape[1:], opened["rawDepths"].shape[1:]
            if shapes != ((3, WIDTH, HEIGHT), (WIDTH, HEIGHT)):
                raise ProbeError(f"{file} is not NYU's labelled set: its images and depths are {shapes}")
            names = ["".join(map(chr, np.ravel(opened[ref]))) for ref in np.ravel(opened["scenes"])]
            if len(names) != len(opened["images"]):
                raise ProbeError(f"{file} has {len(names)} scenes for {len(opened['images'])} images")
            return names
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, ProbeError):
            raise
        raise ProbeError(f"{file} cannot be read ({' '.join(str(error).split())})") from error


def _read_splits(path: Path, count: int) -> tuple[list[int], list[int]]:
    """Numbers from 1 of the test and of the training images."""
    try:
        from scipy.io import loadmat
    except ImportError:
        raise ProbeError("NYU's splits.mat needs scipy: pip install 'mumkit[probes]'") from None
    try:
        loaded: dict[str, Any] = loadmat(path)
        test, train = (
            [int(i) for i in np.ravel(np.asarray(loaded[key], np.int64))] for key in ("testNdxs", "trainNdxs")
        )
    except Exception as error:  # loadmat fails in many ways on what is no such file
        raise ProbeError(
            f"{path} holds no testNdxs and trainNdxs ({' '.join(str(error).split())})"
        ) from error
    if not test or min([*test, *train]) < 1 or max([*test, *train]) > count or set(test) & set(train):
        raise ProbeError(f"{path} does not split the {count} images of {FILE}, counted from 1")
    return test, train


def _h5py() -> Any:
    try:
        return load_h5py()
    except ValueError as error:
        raise ProbeError(str(error)) from error


READER = BenchmarkReader(
    title="NYU Depth v2, labelled set",
    where="https://cs.nyu.edu/~silberman/datasets/nyu_depth_v2.html and indoor_seg_sup/splits.mat beside it",
    layout=f"{FILE}\n{SPLITS}\n{NORMALS}/{{train,test}}/<number>.png (optional: Ladicky's normals)",
    open=_open,
)
