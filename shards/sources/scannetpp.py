"""ScanNet++: DSLR photographs of rooms, undistorted by its toolkit, or fisheye as they were taken.

A scene is `data/<id>/dslr/`. Undistorted pictures lie in `resized_undistorted_images/`, their cameras in
`nerfstudio/transforms_undistorted.json`; where `colmap/` is there too, its tracks give the overlap. Fisheye
pictures lie in `resized_images/` and have COLMAP's text model in `colmap/`, without intrinsics here. Only the
`train` frames of `train_test_lists.json` are read: the `test` frames are the benchmark's. Frames marked as
bad are left out too. The scenes of both versions of the dataset have this form. Its terms forbid passing the
frames on, in shards too: the licence tag says so.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from shards.format import Frame, Scene, ShardsError
from shards.sources import colmap
from shards.sources.folders import check_folders, children, natural_key
from shards.sources.json_files import read_json
from shards.sources.nerfstudio import read_transforms

_LICENCE = "ScanNet++ terms of use: no redistribution"


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of `build scannetpp`."""

    images: Literal["undistorted", "fisheye"] = "undistorted"
    """`undistorted` pictures, which the dataset's toolkit makes, or `fisheye` ones as they are downloaded."""


@dataclass(frozen=True, kw_only=True)
class ScanNetTask:
    """One scene."""

    name: str
    dslr: Path
    images: Literal["undistorted", "fisheye"]


def find(paths: Sequence[Path], options: Options) -> Iterator[ScanNetTask]:
    """Every scene of the root folders (or of their `data`)."""
    check_folders(paths)
    for path in paths:
        data = path / "data" if (path / "data").is_dir() else path
        folders = [folder for folder in children(data) if (folder / "dslr").is_dir()]
        if not folders:
            raise ShardsError(f"{path} holds no data/<scene>/dslr: name the root of ScanNet++")
        for folder in folders:
            yield ScanNetTask(name=folder.name, dslr=folder / "dslr", images=options.images)


def read(task: ScanNetTask) -> Scene:
    """The scene's training frames."""
    train, test = _lists(task.dslr / "train_test_lists.json")
    frames, bad = _undistorted(task.dslr) if task.images == "undistorted" else _fisheye(task.dslr)
    kept, left_out = [], []
    for frame in sorted(frames, key=lambda frame: natural_key(frame.name)):
        if frame.name in test:
            reason = "a test frame"
        elif frame.name not in train:
            reason = "in neither of train_test_lists.json's lists"
        elif frame.name in bad:
            reason = "marked as bad"
        else:
            kept.append(frame)
            continue
        left_out.append((f"{task.name}/{frame.name}", reason))
    return Scene(name=task.name, frames=kept, left_out=left_out, licence=_LICENCE)


def _lists(path: Path) -> tuple[set[str], set[str]]:
    """Names of the train and test frames."""
    lists = read_json(path)
    names = [lists.get("train"), lists.get("test", [])]
    if not all(isinstance(part, list) and all(isinstance(name, str) for name in part) for part in names):
        raise ShardsError(f"{path} must hold lists of names under 'train' and 'test'")
    return set(names[0]), set(names[1])


def _undistorted(dslr: Path) -> tuple[list[Frame], set[str]]:
    """The frames, and the names of those marked as bad."""
    images = dslr / "resized_undistorted_images"
    if not images.is_dir():
        raise ShardsError(
            f"{images} is missing: run the toolkit's undistortion first, or take the pictures as they are with"
            " --images fisheye"
        )
    transforms = read_transforms(dslr / "nerfstudio" / "transforms_undistorted.json")
    listed = [*transforms.listed, *transforms.tests]
    frames = [transforms.frame(entry, images / Path(entry.file).name) for entry in listed]
    if (dslr / "colmap" / "images.txt").is_file():
        model = colmap.read_model(dslr / "colmap")
        points = {registered.name: registered.points for registered in model.frames}
        if any(map(len, points.values())):  # a model of poses alone says nothing of overlap
            frames = [dataclasses.replace(frame, points=points.get(frame.name)) for frame in frames]
    return frames, {Path(entry.file).name for entry in listed if entry.is_bad}


def _fisheye(dslr: Path) -> tuple[list[Frame], set[str]]:
    model = colmap.read_model(dslr / "colmap", images=dslr / "resized_images")
    return [colmap.to_frame(registered) for registered in model.frames], set()
