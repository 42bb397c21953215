"""ImageNet as it lies on disk, from rendered worlds: class folders, and the same pictures as a webdataset.

`train/<wnid>/<wnid>_<number>.JPEG` and `val/<wnid>/ILSVRC2012_val_<number>.JPEG`; in tars a sample is a `.cls` with the
class's number, a `.jpg` and a `.json`, grouped by what stands before the first dot.
"""

import io
import json
import tarfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from tests.trees.figures import Figures, measure
from tests.trees.world import World, render_world

CLASSES = ("n01440764", "n01443537")


def write(root: Path, worlds: Sequence[World]) -> dict[str, np.ndarray]:
    """Write class folders, a class for each world, its last view in `val`; scene name -> picture."""
    pictures = {}
    for place, world in enumerate(worlds):
        wnid = CLASSES[place]
        for number, view in enumerate(world.views, 1):
            is_last = number == len(world.views)
            stem = f"ILSVRC2012_val_{293 + place:08d}" if is_last else f"{wnid}_{number * 37}"
            path = root / ("val" if is_last else "train") / wnid / f"{stem}.JPEG"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(_jpeg(view.image))
            pictures[f"{wnid}/{stem}"] = view.image
    return pictures


def write_webdataset(
    folder: Path, worlds: Sequence[World], *, name: str = "imagenet1k-train"
) -> dict[str, np.ndarray]:
    """Write a tar for each world; scene name -> picture."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = {}
    for number, world in enumerate(worlds):
        stem = f"{name}-{number:04d}"
        with tarfile.open(folder / f"{stem}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            for place, view in enumerate(world.views):
                key = f"{CLASSES[number]}_{place * 37}"
                for suffix, data in {
                    "cls": str(number).encode(),
                    "jpg": _jpeg(view.image),
                    "json": json.dumps(
                        {"label": number, "filename": f"{CLASSES[number]}/{key}.JPEG"}
                    ).encode(),
                }.items():
                    member = tarfile.TarInfo(f"{key}.{suffix}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
                pictures[f"{stem}/{key}"] = view.image
    return pictures


def figures(root: Path) -> Figures:
    """The source's row, from class folders."""
    worlds = [render_world(4, size=(48, 64), seed=seed, points=40) for seed in (3, 8)]
    pictures = write(root / "tree", worlds)
    view = worlds[0].views[0]
    views = {f"{name.split('/')[1]}.JPEG": replace(view, image=image) for name, image in pictures.items()}
    return measure("imagenet", [root / "tree"], root / "out", views, by="pixels")


def _jpeg(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=95, subsampling=0)
    return file.getvalue()
