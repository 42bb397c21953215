"""ADE20K's scene parsing benchmark: 2,000 validation and 20,210 training images with 150 classes.

`sceneCategories.txt` names every image and is the list that is held against the disk. Annotations are 8-bit PNG in
which 0 is everything that has no class and the classes count from 1; here they count from 0 and what has none is
ignored. Every image is a scene of its own to the statistics.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from probes.benchmarks.picture_files import digest_of, picture_size, read_picture, stamp_of
from probes.benchmarks.reader import BenchmarkReader, found_in, refuse_missing, unlike
from probes.data.frames import Benchmark, Frame, FrameList
from probes.errors import ProbeError

CLASSES = 150
LIST, NAMES = "sceneCategories.txt", "objectInfo150.txt"
_PARTS = {"ADE_val": "validation", "ADE_train": "training"}


def _open(root: Path, spec: str, allow_missing: bool) -> Benchmark:
    needed = [LIST, NAMES, "images/", "annotations/"]
    if not all((root / name).exists() for name in needed):
        raise unlike(spec, f"ADEChallengeData2016's {', '.join(needed)}", found_in(root))
    listed = _read_list(root / LIST)
    test, missing = _frames(root, listed["validation"])
    refuse_missing(spec, missing, 2 * len(listed["validation"]), allow_missing=allow_missing)
    train, absent = _frames(root, listed["training"])
    notes = ["Images are squashed to squares; published linear probes slide a window of 512 px over them."]
    if absent:
        notes.append(
            f"Files of training images that are not on disk, whose images are left out: {len(absent)}."
        )
    return Benchmark(
        name="ade20k",
        spec=spec,
        test=FrameList(frames=test),
        train=FrameList(frames=train) if train else None,
        split="validation",
        truth="labels",
        fit="squash",
        auc="exact",
        classes=_read_names(root / NAMES),
        missing=tuple(missing),
        notes=tuple(notes),
    )


def _read_list(path: Path) -> dict[str, list[str]]:
    """Names of the images of both parts, in the file's order."""
    listed: dict[str, list[str]] = {part: [] for part in _PARTS.values()}
    for number, line in enumerate(_lines(path), 1):
        name = line.split()[0] if line.split() else ""
        part = _PARTS.get(name.rpartition("_")[0])
        if name and part is None:
            raise ProbeError(f"{path}, line {number}: {name!r} is neither ADE_train_* nor ADE_val_*")
        if part:
            listed[part].append(name)
    if not listed["validation"]:
        raise ProbeError(f"{path} names no validation image (ADE_val_*)")
    return listed


def _read_names(path: Path) -> tuple[str, ...]:
    """The first name of every class, in the order of their numbers."""
    rows = [line.split("\t") for line in _lines(path) if line[:1].isdigit()]
    if [row[0] for row in rows] != [str(i) for i in range(1, CLASSES + 1)]:
        raise ProbeError(
            f"{path} does not list the classes 1 to {CLASSES}, one a line, columns split by tabs"
        )
    return tuple(row[-1].split(",")[0].strip() for row in rows)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise ProbeError(f"{path} cannot be read: {' '.join(str(error).split())}") from error


def _frames(root: Path, names: Sequence[str]) -> tuple[tuple[Frame, ...], list[str]]:
    """Frames of the images that have both files, and the files that are not there."""
    frames, missing = [], []
    for name in names:
        part = _PARTS[name.rpartition("_")[0]]
        files = root / "images" / part / f"{name}.jpg", root / "annotations" / part / f"{name}.png"
        lost = [str(path.relative_to(root)) for path in files if not path.is_file()]
        missing += lost
        if not lost:
            frames.append(_frame(root, name, *files))
    return tuple(frames), missing


def _frame(root: Path, name: str, picture: Path, labels: Path) -> Frame:
    height, width = picture_size(picture)
    return Frame(
        name=name,
        scene=name,
        height=height,
        width=width,
        image=partial(read_picture, picture, upright=False),
        digest=digest_of(picture),
        labels=partial(_read_labels, labels),
        stamp=stamp_of(root, [labels]),
    )


def _read_labels(path: Path) -> NDArray[np.uint8]:
    """(H, W) class ids from 0, `IGNORED` where the file holds 0."""
    try:
        with Image.open(path) as opened:
            stored = np.asarray(opened)
    except (OSError, ValueError) as error:
        raise ProbeError(f"{path} cannot be read: {error}") from error
    if stored.ndim != 2 or stored.dtype != np.uint8 or stored.max(initial=0) > CLASSES:
        raise ProbeError(f"{path} must hold one channel of class numbers 0 to {CLASSES}")
    return stored - np.uint8(1)  # 0 wraps to 255


READER = BenchmarkReader(
    title="ADE20K, scene parsing benchmark (150 classes)",
    where="http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip (0.9 GB)",
    layout=f"images/{{training,validation}}/*.jpg\nannotations/{{training,validation}}/*.png\n{NAMES}\n{LIST}",
    open=_open,
)
