"""CO3D v2: categories with gzipped annotations in PyTorch3D's conventions, set lists, and half-precision depth."""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.trees.figures import Figures, measure
from tests.trees.world import View, World, render_world

ISOTROPIC, BOUNDS, POOR, TEST = (
    "apple/110_13051_23361",
    "apple/189_20393_38136",
    "apple/7_100_200",
    "teddybear/34_1479_4753",
)
"""The sequences: the two intrinsics formats, one of poor quality with wrong poses, one of the test set."""
SCALE = 1.7
"""Every depth map's scale_adjustment."""


def write(root: Path, world: World) -> dict[str, View]:
    """Write the four sequences; the first two share the views, the other two repeat the first ones.

    Depth is masked out in the left tenth of each map, where the file holds nonsense. One annotated picture of the
    second sequence is missing.
    """
    half = len(world.views) // 2
    views = {
        ISOTROPIC: world.views[:half],
        BOUNDS: world.views[half:],
        POOR: world.views[:2],
        TEST: world.views[:2],
    }
    for category in ("apple", "teddybear"):
        folder = root / category
        (folder / "set_lists").mkdir(parents=True)
        rows, sequences = [], []
        sets: dict[str, list] = {"train": [], "val": [], "test": []}
        for sequence in (s for s in views if s.startswith(category)):
            written = [_write_frame(root, sequence, i, view) for i, view in enumerate(views[sequence])]
            if sequence == BOUNDS:
                missing = {"path": f"{sequence}/images/frame000999.jpg", "size": written[0]["image"]["size"]}
                written.append(written[0] | {"frame_number": 99, "image": missing})
            if sequence == POOR:
                for row in written:
                    row["viewpoint"]["R"] = np.eye(3).tolist()
            rows += written
            part = "test" if sequence == TEST else "train"
            sets[part] += [
                [row["sequence_name"], row["frame_number"], row["image"]["path"]] for row in written
            ]
            sequences.append(
                {
                    "sequence_name": sequence.split("/")[1],
                    "category": category,
                    "video": None,
                    "point_cloud": None,
                    "viewpoint_quality_score": 0.2 if sequence == POOR else 1.3,
                }
            )
        rows.sort(key=lambda row: -row["frame_number"])  # sequences mixed, numbers falling
        _write_jgz(folder / "frame_annotations.jgz", rows)
        _write_jgz(folder / "sequence_annotations.jgz", sequences)
        (folder / "set_lists" / "set_lists_fewview_dev.json").write_text(json.dumps(sets))
        (folder / "set_lists" / "set_lists_manyview_dev_0.json").write_text(
            json.dumps({"train": [], "val": [], "test": []})
        )
    return {
        f"{sequence}/{_file(i)}.jpg": view
        for sequence in (ISOTROPIC, BOUNDS, TEST)
        for i, view in enumerate(views[sequence])
    }


SCORED, OTHER, TRAINED = "apple/540_79043_153212", "teddybear/101_11758_21048", "apple/12_90_489"
"""Of the test set: sequences that are scored, in the two intrinsics formats, and one to train on."""
SHORT, BAD, UNSEEN = "apple/372_41112_81867", "teddybear/9_9_9", "kite/399_51022_100078"
"""Of the test set too, but not scored: of nine frames, of poor quality, of no category that is scored."""


def write_test_set(root: Path, world: World, trained: World) -> dict[str, View]:
    """Write sequences of the test set of `fewview_dev`, and one to train on that shows another world; returns those.

    The scored ones have two frames more whose cameras are broken, and one that the set list does not name.
    """
    parts = {SCORED: "test", OTHER: "test", TRAINED: "train", SHORT: "test", BAD: "test", UNSEEN: "test"}
    for category in ("apple", "teddybear", "kite"):
        (root / category / "set_lists").mkdir(parents=True)
        rows: list[dict[str, Any]] = []
        sets: dict[str, list] = {"train": [], "val": [], "test": []}
        for sequence in (s for s in parts if s.startswith(category)):
            views = (trained if sequence == TRAINED else world).views[: 9 if sequence == SHORT else None]
            written = [_write_frame(root, sequence, i, view, bounds=(OTHER,)) for i, view in enumerate(views)]
            if sequence in {SCORED, OTHER}:
                for number, broken in ((100, [1e6, 0.0, 0.0]), (101, [float("nan"), 0.0, 0.0])):
                    viewpoint = written[0]["viewpoint"] | {"T": broken}
                    written.append(written[0] | {"frame_number": number, "viewpoint": viewpoint})
                unlisted = [written[1] | {"frame_number": 102}]
            else:
                unlisted = []
            sets[parts[sequence]] += [
                [row["sequence_name"], row["frame_number"], row["image"]["path"]] for row in written
            ]
            rows += written + unlisted
        _write_jgz(root / category / "frame_annotations.jgz", rows[::-1])
        _write_jgz(
            root / category / "sequence_annotations.jgz",
            [
                {
                    "sequence_name": sequence.split("/")[1],
                    "category": category,
                    "viewpoint_quality_score": 0.49 if sequence == BAD else 0.51,
                }
                for sequence in parts
                if sequence.startswith(category)
            ],
        )
        (root / category / "set_lists" / "set_lists_fewview_dev.json").write_text(json.dumps(sets))
    return {
        f"{sequence}/images/{_file(i)}.jpg": view
        for sequence in (SCORED, OTHER, TRAINED)
        for i, view in enumerate((trained if sequence == TRAINED else world).views)
    }


def _file(number: int) -> str:
    return f"frame{5 * number + 8:06d}"


def figures(root: Path) -> Figures:
    """The source's row, from a tree written below `root`."""
    views = write(root / "tree", render_world(6))
    return measure("co3d", [root / "tree"], root / "out", views, by="depth")


def _write_frame(
    root: Path, sequence: str, number: int, view: View, bounds: Sequence[str] = (BOUNDS,)
) -> dict[str, Any]:
    stem = _file(number)
    for kind in ("images", "depths", "depth_masks", "masks"):
        (root / sequence / kind).mkdir(parents=True, exist_ok=True)
    Image.fromarray(view.image).save(root / sequence / "images" / f"{stem}.jpg", quality=97)
    height, width = view.depth.shape
    stored = (view.depth / SCALE).astype(np.float16)
    mask = np.full((height, width), 255, np.uint8)
    stored[:, : width // 10], mask[:, : width // 10] = 9.0, 0
    stored[0, -1] = np.nan
    depth = f"{sequence}/depths/{stem}.jpg.geometric.png"
    Image.fromarray(stored.view(np.uint16)).save(root / depth)
    Image.fromarray(mask).save(root / sequence / "depth_masks" / f"{stem}.png")
    Image.new("L", (width, height), 0).save(root / sequence / "masks" / f"{stem}.png")
    return {
        "sequence_name": sequence.split("/")[1],
        "frame_number": number,
        "frame_timestamp": number / 5,
        "image": {"path": f"{sequence}/images/{stem}.jpg", "size": [height, width]},
        "depth": {
            "path": depth,
            "scale_adjustment": SCALE,
            "mask_path": f"{sequence}/depth_masks/{stem}.png",
        },
        "mask": {"path": f"{sequence}/masks/{stem}.png", "mass": 0.0},
        "viewpoint": _viewpoint(view, "ndc_norm_image_bounds" if sequence in bounds else "ndc_isotropic"),
        "meta": None,
    }


def _viewpoint(view: View, intrinsics_format: str) -> dict[str, Any]:
    """PyTorch3D: points are rows, X R + T; the camera's x points left, its y up; NDC +1 is the picture's left or
    upper edge (or the edge of its middle square)."""
    height, width = view.depth.shape
    right, down, forward = view.world_to_camera[:, :3]
    tx, ty, tz = view.world_to_camera[:, 3]
    (fx, _, cx), (_, fy, cy), _ = view.intrinsics
    side_x, side_y = (min(height, width),) * 2 if intrinsics_format == "ndc_isotropic" else (width, height)
    return {
        "R": np.column_stack([-right, -down, forward]).tolist(),
        "T": [-tx, -ty, tz],
        "focal_length": [2 * fx / side_x, 2 * fy / side_y],
        "principal_point": [(width - 2 * cx) / side_x, (height - 2 * cy) / side_y],
        "intrinsics_format": intrinsics_format,
    }


def _write_jgz(path: Path, value: list) -> None:
    with gzip.open(path, "wb") as file:
        file.write(json.dumps(value).encode())
