"""CO3D v2: phone videos around objects of fifty-one categories, with cameras and depth by COLMAP.

The root holds a folder a category with `frame_annotations.jgz`, `sequence_annotations.jgz` and
`set_lists/set_lists_<name>.json`, and in it the sequences' pictures. Cameras are PyTorch3D's: row vectors,
X_camera = X_world R + T with x to the left and y upwards, intrinsics in one of its two normalised device
coordinates. Depth is PNG whose 16 bits are a half-precision float, to be scaled and masked. Pictures keep
their aspect and background: nothing is cropped, the object's masks are not read. A frame's number is not the
number in its file's name.

A category's frame annotations are hundreds of MB and cannot be entered in the middle, so `find` reads them
once, object by object, and each sequence's task carries its own rows, deflated, about 0.2 kB a frame.
"""

import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from shards.format import Frame, Scene, ShardsError
from shards.sources.depth_maps import read_half_bits
from shards.sources.folders import check_folders, children, natural_key
from shards.sources.json_files import read_json
from shards.sources.reduced import reduced_intrinsics

_LICENCE = "CC-BY-NC-4.0"
FRAMES, SEQUENCES = "frame_annotations.jgz", "sequence_annotations.jgz"


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of `build co3d`."""

    set_list: str = "fewview_dev"
    """The set list that says which frames are for training. A sequence that it names in `val` or `test` alone
    goes to the val split, one that it does not name is dropped; `none` takes every frame of every sequence."""
    min_viewpoint_quality: float = 0.5
    """Drop sequences whose viewpoint_quality_score is not above this, by name; -inf keeps all."""
    depth: bool = True
    """Store the depth maps."""


@dataclass(frozen=True, kw_only=True)
class SequenceTask:
    """One video."""

    name: str
    annotations: Path
    """The category's frame annotations; the paths in the rows start from its folder's parent."""
    folder: Path
    """The sequence's own folder, whose files the build looks at to know that they have not changed."""
    rows: bytes
    """The sequence's frame annotations by frame number, deflated JSON."""
    left_out: tuple[tuple[str, str], ...]
    dropped: str
    views: int
    depth: bool
    split: Literal["train", "val"] | None


def find(paths: Sequence[Path], options: Options) -> Iterator[SequenceTask]:
    """The sequences of the categories at or directly below `paths`, in natural order."""
    check_folders(paths)
    for path in paths:
        categories = [f for f in (path, *children(path)) if (f / FRAMES).is_file()]
        if not categories:
            raise ShardsError(f"{path} holds no {FRAMES}: name CO3D's root or the folder of a category")
        for category in categories:
            yield from _find_sequences(category, options)


def read(task: SequenceTask) -> Scene:
    """The sequence's frames that are on disk, by frame number; depth is read when a frame is encoded."""
    root = task.annotations.parent.parent
    left_out = list(task.left_out)
    common: dict[str, Any] = {
        "name": task.name,
        "licence": _LICENCE,
        "split": task.split,
        "ordered": True,
    }
    if task.dropped:
        return Scene(frames=[], left_out=left_out, dropped=task.dropped, **common)
    frames = []
    rows = json.loads(zlib.decompress(task.rows))
    for row in rows:
        try:
            picture = root / row["image"]["path"]
            if picture.is_file():
                frames.append(_frame(row, picture, root, task.depth))
            else:
                left_out.append((str(picture), "no such picture, though it is annotated"))
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, ShardsError):
                raise
            number = row.get("frame_number") if isinstance(row, dict) else row
            raise ShardsError(
                f"{task.annotations}: frame {number} of {task.name} is no frame annotation ({error!r})"
            ) from None
    if rows and not frames:
        reason = f"none of its {len(rows)} pictures are there"
        return Scene(frames=[], left_out=left_out, dropped=reason, **common)
    return Scene(frames=frames, left_out=left_out, **common)


def _frame(row: dict[str, Any], picture: Path, root: Path, with_depth: bool) -> Frame:
    height, width = map(int, row["image"]["size"])
    intrinsics = pose = depth = None
    if row.get("viewpoint"):
        intrinsics = reduced_intrinsics(picture, to_pixels(row["viewpoint"], height, width), (height, width))
        pose = to_opencv(row["viewpoint"]["R"], row["viewpoint"]["T"])
    if with_depth and row.get("depth"):
        annotated = row["depth"]
        mask = annotated.get("mask_path")
        scale = float(annotated["scale_adjustment"])
        depth = partial(read_half_bits, root / annotated["path"], scale, root / mask if mask else None)
    time = row.get("frame_timestamp")
    return Frame(
        name=picture.name,
        image=picture,
        intrinsics=intrinsics,
        world_to_camera=pose,
        depth=depth,
        timestamp=None if time is None else float(time),
        camera_pixels="stored",
    )


def to_opencv(rotation: Sequence[Sequence[float]], translation: Sequence[float]) -> np.ndarray:
    """World-to-camera (3, 4) in OpenCV axes of PyTorch3D's R and T: X_camera = X_world R + T, x left, y up."""
    flip = np.diag([-1.0, -1.0, 1.0])
    return np.column_stack([flip @ np.array(rotation, float).T, flip @ np.array(translation, float)])


def to_pixels(viewpoint: dict[str, Any], height: int, width: int) -> np.ndarray:
    """(3, 3) intrinsics in pixels of a viewpoint's focal length and principal point; ShardsError for a format
    that is neither `ndc_isotropic` nor `ndc_norm_image_bounds`."""
    half = np.array([width, height]) / 2
    kind = viewpoint.get("intrinsics_format", "ndc_norm_image_bounds")
    units = {"ndc_norm_image_bounds": half, "ndc_isotropic": np.array([half.min()] * 2)}
    if kind not in units:
        raise ShardsError(f"CO3D's intrinsics_format is {kind!r}, not one of {', '.join(units)}")
    focal = np.array(viewpoint["focal_length"], float) * units[kind]
    centre = half - np.array(viewpoint["principal_point"], float) * units[kind]
    return np.array([[focal[0], 0, centre[0]], [0, focal[1], centre[1]], [0, 0, 1]])


def _find_sequences(category: Path, options: Options) -> Iterator[SequenceTask]:
    sets = None if options.set_list == "none" else read_set_list(category, options.set_list)
    quality = {
        annotated["sequence_name"]: annotated.get("viewpoint_quality_score")
        for annotated in read_annotations(category / SEQUENCES, "sequence_name")
    }
    sequences: dict[str, list[dict[str, Any]]] = {name: [] for name in quality}
    for row in read_annotations(category / FRAMES, "sequence_name", "frame_number", "image"):
        sequences.setdefault(row["sequence_name"], []).append(row)
        row.pop("mask", None)
    for sequence in sorted(sequences, key=natural_key):
        rows = sorted(sequences.pop(sequence), key=lambda row: row["frame_number"])
        name = f"{category.resolve().name}/{sequence}"
        split, kept, left_out = _choose(rows, sets, options.set_list)
        score = quality.get(sequence)
        dropped = ""
        if not rows:
            dropped = "no frame is annotated"
        elif score is None and options.min_viewpoint_quality > -np.inf:
            dropped = "no viewpoint_quality_score"
        elif score is not None and not score > options.min_viewpoint_quality:
            dropped = f"viewpoint_quality_score {score:.3f}, not above {options.min_viewpoint_quality}"
        elif not kept:
            dropped = f"not in set list {options.set_list}"
        yield SequenceTask(
            name=name,
            annotations=category / FRAMES,
            folder=category / sequence,
            rows=b"" if dropped else zlib.compress(json.dumps(kept, separators=(",", ":")).encode()),
            left_out=() if dropped else tuple(left_out),
            dropped=dropped,
            views=0 if dropped else len(kept),
            depth=options.depth,
            split=split,
        )


Sets = dict[tuple[str, int], set[str]]
"""(sequence, frame number) -> the sets it is in."""


def _choose(
    rows: list[dict[str, Any]], sets: Sets | None, set_list: str
) -> tuple[Literal["train", "val"] | None, list[dict[str, Any]], list[tuple[str, str]]]:
    """(split, the frames that belong to it, those left out and why) of a sequence."""
    if sets is None:
        return None, rows, []
    parts = [sets.get((row["sequence_name"], row["frame_number"]), set()) for row in rows]
    # In some lists training frames stand in `test` again; a frame of `test` is never trained on.
    train = [row for row, part in zip(rows, parts, strict=True) if "train" in part and "test" not in part]
    if not train:
        train_or_val: Literal["train", "val"] = "val"
        kept = [row for row, part in zip(rows, parts, strict=True) if part]
    else:
        train_or_val, kept = "train", train
    numbers = {row["frame_number"] for row in kept}
    left_out = [
        (
            row["image"]["path"],
            f"in {' and '.join(sorted(part))} of {set_list}" if part else f"not in {set_list}",
        )
        for row, part in zip(rows, parts, strict=True)
        if kept and row["frame_number"] not in numbers
    ]
    return train_or_val, kept, left_out


def read_set_list(category: Path, name: str) -> Sets:
    """The sets of a category's list; ShardsError where it is not there, with those that are, or is no list."""
    path = category / "set_lists" / f"set_lists_{name}.json"
    if not path.is_file():
        there = sorted(p.stem.removeprefix("set_lists_") for p in path.parent.glob("set_lists_*.json"))
        raise ShardsError(
            f"{path} does not exist: name another --set-list ({', '.join([*there, 'none'])});"
            " none takes evaluation sequences too"
        )
    sets: Sets = {}
    try:
        for part, frames in read_json(path).items():
            for sequence, number, *_ in frames:
                sets.setdefault((sequence, number), set()).add(part)
    except (TypeError, ValueError) as error:
        if isinstance(error, ShardsError):
            raise
        raise ShardsError(
            f"{path} is no set list: it must hold lists of [sequence, frame number, path]"
        ) from None
    return sets


def read_annotations(path: Path, *needed: str) -> Iterator[dict[str, Any]]:
    """The objects of a gzipped JSON list, one at a time; ShardsError where it is none or one lacks a field."""
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            text = file.read().strip()
        if not (text.startswith("[") and text.endswith("]")):
            raise ValueError("it is no list")
        decode, at = json.JSONDecoder().raw_decode, 1
        while True:
            while text[at] in ", \t\r\n":
                at += 1
            if text[at] == "]":
                return
            value, at = decode(text, at)
            missing = [field for field in needed if not isinstance(value, dict) or field not in value]
            if missing:
                raise ValueError(f"an element lacks {missing[0]!r}")
            yield value
    except (OSError, EOFError, ValueError, zlib.error) as error:
        reason = " ".join(str(error).split())
        raise ShardsError(f"{path} is no gzipped JSON list of annotations: {reason}") from None
