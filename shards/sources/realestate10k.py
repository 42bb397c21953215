"""RealEstate10K: clips of house tours, whose frames were extracted from YouTube beforehand, with poses by SLAM.

A clip is `<split>/<id>.txt`: the video's URL, then a line a frame of 19 numbers: microseconds, fx fy cx cy as
shares of the picture's width and height, k1 k2 (0 in the published files), and world-to-camera 3x4 by rows.
Its frames are `<id>/<microseconds>.png` or `.jpg` beside the text file or where --frames says. Many videos
are gone: a clip without frames is counted and named, no error. A video's frames are near duplicates of their
neighbours, so only every --stride-th is taken; those between are not counted as refused. Clips in a folder
`test` go to the val split. Scale differs from clip to clip; overlap is measured from the poses.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from shards.format import Frame, Scene, ShardsError
from shards.photographs import file_geometry
from shards.sources.folders import check_folders, children, list_photographs, natural_key
from shards.sources.tables import read_rows

_LICENCE = "annotations CC-BY-4.0, frames as on YouTube"
_SPLITS = ("train", "test")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of `build realestate10k`."""

    frames: Path | None = None
    """Folder of the extracted frames: FRAMES/<id>/ or FRAMES/<split>/<id>/ for every clip; by default they lie
    beside the clips' text files."""
    stride: int = 6
    """Take every N-th frame of a clip; 6 of a video at 30 frames a second are 0.2 s."""

    def __post_init__(self) -> None:
        if self.stride < 1:
            raise ShardsError(f"--stride must be at least 1, not {self.stride}")
        if self.frames is not None and not self.frames.is_dir():
            raise ShardsError(f"--frames {self.frames} is no folder")


@dataclass(frozen=True, kw_only=True)
class ClipTask:
    """One clip."""

    name: str
    clip: Path
    """Its text file."""
    frames: Path | None
    """Folder of its frames; None where there is none."""
    stride: int
    split: Literal["train", "val"] | None

    @property
    def views(self) -> int | None:
        """0 for a clip whose video is gone; otherwise its text file knows."""
        return None if self.frames else 0


def find(paths: Sequence[Path], options: Options) -> Iterator[ClipTask]:
    """The clips at `paths` and in their folders `train` and `test`."""
    check_folders(paths)
    folders = [f for path in paths for f in (path, *(path / s for s in _SPLITS)) if f.is_dir()]
    clips = {folder: _clips(folder) for folder in folders}
    for path in paths:
        if not any(clips[f] for f in (path, *(path / s for s in _SPLITS)) if f in clips):
            raise ShardsError(f"{path} holds no clips of RealEstate10K (<id>.txt, in train/ and test/)")
    has_test = any(clips[f] for f in folders if f.resolve().name == "test")
    for folder in folders:
        part = folder.resolve().name if folder.resolve().name in _SPLITS else ""
        there = _frame_folders(folder, part, options)
        split: Literal["train", "val"] = "val" if part == "test" else "train"
        for clip in clips[folder]:
            yield ClipTask(
                name=f"{part}/{clip.stem}" if part else clip.stem,
                clip=clip,
                frames=there.get(clip.stem),
                stride=options.stride,
                split=split if has_test else None,
            )


def read(task: ClipTask) -> Scene:
    """Every `stride`-th frame that was extracted, in time order, with its camera."""
    common: dict[str, Any] = {
        "name": task.name,
        "licence": _LICENCE,
        "split": task.split,
        "ordered": True,
    }
    if not task.frames:
        return Scene(frames=[], dropped="its video is gone: no frames were extracted", **common)
    rows = read_clip(task.clip)
    pictures = {int(p.stem): p for p in list_photographs(task.frames) if p.stem.isdecimal()}
    left_out = [
        (f"{task.frames}/{time:d}", "was not extracted")
        for time in map(int, rows[:, 0])
        if time not in pictures
    ]
    if len(left_out) == len(rows):
        reason = f"its video is gone: none of its {len(rows)} frames are in {task.frames}"
        return Scene(frames=[], dropped=reason, **common)
    present = [row for row in rows if int(row[0]) in pictures]
    frames = [_frame(row, pictures[int(row[0])]) for row in present[:: task.stride]]
    return Scene(frames=frames, left_out=left_out, **common)


def _frame(row: np.ndarray, picture: Path) -> Frame:
    microseconds, (fx, fy, cx, cy), (k1, k2) = row[0], row[1:5], row[5:7]
    intrinsics = distortion = None
    geometry = file_geometry(picture)
    if geometry is not None:  # otherwise whoever decodes it will name it
        (height, width), _ = geometry
        intrinsics = np.array([[fx * width, 0, cx * width], [0, fy * height, cy * height], [0, 0, 1]])
        if k1 or k2:
            params = [fx * width, fy * height, cx * width, cy * height, k1, k2, 0.0, 0.0]
            distortion = {"model": "OPENCV", "params": [float(p) for p in params]}
    return Frame(
        name=picture.name,
        image=picture,
        intrinsics=intrinsics,
        world_to_camera=row[7:].reshape(3, 4),
        timestamp=float(microseconds) / 1e6,
        distortion=distortion,
        camera_pixels="stored",
    )


def read_clip(path: Path) -> np.ndarray:
    """(n, 19) rows by time, each time once."""
    rows = read_rows(path, 19, skip=1)
    return rows[np.unique(rows[:, 0], return_index=True)[1]]


def _clips(folder: Path) -> list[Path]:
    return sorted((p for p in folder.glob("*.txt") if p.is_file()), key=lambda p: natural_key(p.name))


def _frame_folders(folder: Path, part: str, options: Options) -> dict[str, Path]:
    """Clip's id -> folder of its frames, by listing each place once, not asking for every clip."""
    places = [folder] if options.frames is None else [options.frames, options.frames / part]
    return {f.name: f for place in places if place.is_dir() for f in children(place)}
