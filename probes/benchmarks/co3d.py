"""CO3D v2 for poses of many views: ten frames of every test sequence, as PoseDiffusion and VGGT score them.

Scored are the sequences that `fewview_dev` names in `test`, of the 41 categories those works train on, with a
viewpoint_quality_score above 0.5 and at least ten frames with a sound camera; which ten is drawn from the
sequence's name. Trained on are ten frames each of up to `TRAIN_SEQUENCES` sequences a category that it names
in `train` alone.
The files and PyTorch3D's conventions are those of `shards.sources.co3d`, which reads them.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from probes.benchmarks.draws import FRAMES, by_hash, draw_frames
from probes.benchmarks.picture_files import digest_of, read_picture, stamp_of, truth_of
from probes.benchmarks.reader import BenchmarkReader, found_in, refuse_missing, unlike
from probes.data.frames import Benchmark, Frame, FrameList, FrameSequence
from probes.errors import ProbeError
from shards.sources import co3d
from shards.sources.depth_maps import read_half_bits
from shards.sources.folders import children

SET_LIST = "fewview_dev"
MIN_QUALITY = 0.5
TRAIN_SEQUENCES = 40
CATEGORIES = (
    *("apple", "backpack", "banana", "baseballbat", "baseballglove", "bench", "bicycle", "bottle", "bowl"),
    *("broccoli", "cake", "car", "carrot", "cellphone", "chair", "cup", "donut", "hairdryer", "handbag"),
    *("hydrant", "keyboard", "laptop", "microwave", "motorcycle", "mouse", "orange", "parkingmeter", "pizza"),
    *("plant", "stopsign", "teddybear", "toaster", "toilet", "toybus", "toyplane", "toytrain", "toytruck"),
    *("tv", "umbrella", "vase", "wineglass"),
)
"""The scored ones; the other ten of CO3D are left for tests on unseen categories."""

_WILD = 1e5
"""Translations beyond it are failed reconstructions, as in the published preprocessing."""

Part = Literal["test", "train"]


@dataclass(kw_only=True)
class _Found:
    """What the categories hold, while it is gathered."""

    frames: dict[Part, list[Frame]] = field(default_factory=lambda: {"test": [], "train": []})
    sequences: dict[Part, list[FrameSequence]] = field(default_factory=lambda: {"test": [], "train": []})
    missing: list[str] = field(default_factory=list)
    absent: int = 0
    """Training frames that are not on disk."""
    named: int = 0
    short: int = 0


def _open(root: Path, spec: str, allow_missing: bool) -> Benchmark:
    there = {folder.name: folder for folder in children(root) if (folder / co3d.FRAMES).is_file()}
    if not there:
        raise unlike(spec, f"CO3D's root with <category>/{co3d.FRAMES}", found_in(root))
    found = _Found()
    for category in CATEGORIES:
        if category not in there:
            found.missing.append(f"{category}/{co3d.FRAMES}")
            found.named += 1
            continue
        try:
            _read_category(root, there[category], found)
        except (KeyError, TypeError) as error:
            raise ProbeError(
                f"data {spec!r}: {category}/{co3d.FRAMES} holds an element that is no frame annotation ({error!r})"
            ) from error
        except ValueError as error:
            raise ProbeError(f"data {spec!r}: {' '.join(str(error).split())}") from error
    refuse_missing(spec, found.missing, found.named, allow_missing=allow_missing)
    if not found.sequences["test"]:
        raise ProbeError(f"data {spec!r} has no test sequence of {FRAMES} frames in set list {SET_LIST}")
    notes = []
    if found.short:
        notes.append(
            f"Test sequences left out for fewer than {FRAMES} frames with a sound camera: {found.short}."
        )
    if found.absent:
        notes.append(f"Training frames left out because they are not on disk: {found.absent}.")
    return Benchmark(
        name="co3d",
        spec=spec,
        test=_listed(found, "test"),
        train=_listed(found, "train") if found.sequences["train"] else None,
        split=f"{SET_LIST} test",
        truth="depth",
        fit="squash",
        auc="histogram",
        missing=tuple(found.missing),
        notes=tuple(notes),
    )


def _listed(found: _Found, part: Part) -> FrameList:
    return FrameList(frames=tuple(found.frames[part]), sequences=tuple(found.sequences[part]))


def _read_category(root: Path, folder: Path, found: _Found) -> None:
    """Add the drawn frames of a category's sequences."""
    sets = co3d.read_set_list(folder, SET_LIST)
    good = {
        row["sequence_name"]
        for row in co3d.read_annotations(folder / co3d.SEQUENCES, "sequence_name")
        if (row.get("viewpoint_quality_score") or 0) > MIN_QUALITY
    }
    test = {sequence for (sequence, _), parts in sets.items() if "test" in parts} & good
    # A sequence that has frames in `val` or `test` is not trained on, not even its other frames.
    held = {sequence for (sequence, _), parts in sets.items() if parts - {"train"}}
    train = set(by_hash(sorted(good & {sequence for sequence, _ in sets} - held))[:TRAIN_SEQUENCES])
    rows: dict[str, list[dict[str, Any]]] = {sequence: [] for sequence in sorted(test | train)}
    for row in co3d.read_annotations(folder / co3d.FRAMES, "sequence_name", "frame_number", "image"):
        sequence = row["sequence_name"]
        part: Part = "test" if sequence in test else "train"
        if sequence in rows and part in sets.get((sequence, row["frame_number"]), ()) and _is_sound(row):
            rows[sequence].append(row)
    for sequence, listed in rows.items():
        _add(root, f"{folder.name}/{sequence}", listed, "test" if sequence in test else "train", found)


def _is_sound(row: dict[str, Any]) -> bool:
    viewpoint = row.get("viewpoint")
    if not viewpoint:
        return False
    numbers = np.concatenate(
        [np.ravel(viewpoint[key]) for key in ("R", "T", "focal_length", "principal_point")]
    )
    return bool(np.isfinite(numbers).all() and np.abs(viewpoint["T"]).max() < _WILD)


def _add(root: Path, scene: str, rows: Iterable[dict[str, Any]], part: Part, found: _Found) -> None:
    rows = sorted(rows, key=lambda row: row["frame_number"])
    if len(rows) < FRAMES:
        found.short += part == "test"
        return
    drawn = [rows[i] for i in draw_frames(scene, len(rows))]
    kept = []
    for row in drawn:
        files = _files(root, row)
        lost = [str(path.relative_to(root)) for path in files if not path.is_file()]
        if part == "test":
            found.named += len(files)
            found.missing += lost
        else:
            found.absent += bool(lost)
        if not lost:
            kept.append(_frame(root, scene, row, files))
    if len(kept) < 2:
        return
    frames = found.frames[part]
    places = tuple(range(len(frames), len(frames) + len(kept)))
    frames += kept
    category = scene.split("/", maxsplit=1)[0]
    found.sequences[part].append(FrameSequence(name=scene, scene=scene, group=category, frames=places))


def _files(root: Path, row: dict[str, Any]) -> list[Path]:
    depth = row.get("depth") or {}
    names = [row["image"]["path"], depth.get("path"), depth.get("mask_path")]
    return [root / name for name in names if name]


def _frame(root: Path, scene: str, row: dict[str, Any], files: list[Path]) -> Frame:
    height, width = map(int, row["image"]["size"])
    picture, *truth = files
    scale = float(row["depth"]["scale_adjustment"]) if truth else 1.0
    return Frame(
        name=row["image"]["path"],
        scene=scene,
        height=height,
        width=width,
        image=partial(read_picture, picture, upright=False),
        digest=digest_of(picture),
        intrinsics=co3d.to_pixels(row["viewpoint"], height, width),
        world_to_camera=co3d.to_opencv(row["viewpoint"]["R"], row["viewpoint"]["T"]),
        depth=truth_of(read_half_bits, truth[0], scale, *truth[1:]) if truth else None,
        stamp=f"{scale} {stamp_of(root, truth)}",
    )


READER = BenchmarkReader(
    title="CO3D v2, ten frames a test sequence (PoseDiffusion's protocol)",
    where="https://github.com/facebookresearch/co3d (download_dataset.py, 5.5 TB; CC-BY-NC-4.0)",
    layout=(
        "<category>/{frame_annotations.jgz,sequence_annotations.jgz} of the 41 categories\n"
        "<category>/set_lists/set_lists_fewview_dev.json\n"
        "<category>/<sequence>/{images,depths,depth_masks}/"
    ),
    open=_open,
)
