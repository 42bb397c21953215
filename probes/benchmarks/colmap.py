"""A COLMAP model with its photographs as a benchmark: one scene, true correspondences from its tracks."""

from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from probes.benchmarks.picture_files import digest_of
from probes.benchmarks.reader import BenchmarkReader, found_in, refuse_missing, unlike
from probes.data.frames import Benchmark, Frame, FrameList
from probes.errors import ProbeError
from shards.sources import colmap
from shards.sources.colmap import ColmapFrame

_PLACES = ("sparse/0", "sparse", ".")
"""Where in the folder a model may be."""


def _open(root: Path, spec: str, allow_missing: bool) -> Benchmark:
    if not any(_holds_model(root / place) for place in _PLACES):
        expected = (
            "a COLMAP model (cameras and images, .bin or .txt) in sparse/0, sparse or the folder itself"
        )
        raise unlike(spec, expected, found_in(root))
    try:
        model = colmap.read_model(root)
    except ValueError as error:
        raise ProbeError(f"data {spec!r}: {error}") from error
    missing = [frame.name for frame in model.frames if not frame.path.is_file()]
    refuse_missing(spec, missing, len(model.frames), allow_missing=allow_missing)
    frames = tuple(_frame(frame, root.resolve().name) for frame in model.frames if frame.path.is_file())
    without = sum(frame.intrinsics is None for frame in frames)
    return Benchmark(
        name="colmap",
        spec=spec,
        test=FrameList(frames=frames),
        split="all",
        truth="tracks",
        fit="crop",
        auc="exact",
        missing=tuple(missing),
        notes=(f"{without} photographs have a camera that is no pinhole.",) if without else (),
    )


def _holds_model(folder: Path) -> bool:
    return any(
        (folder / f"cameras{kind}").is_file() and (folder / f"images{kind}").is_file()
        for kind in (".bin", ".txt")
    )


def _frame(frame: ColmapFrame, scene: str) -> Frame:
    height, width = frame.camera_size
    order = np.argsort(frame.points, kind="stable")
    return Frame(
        name=frame.name,
        scene=scene,
        height=height,
        width=width,
        image=partial(_photograph, frame),
        digest=digest_of(frame.path),
        intrinsics=frame.intrinsics,
        world_to_camera=frame.world_to_camera,
        tracks=(frame.points[order], frame.xy[order]),
    )


def _photograph(frame: ColmapFrame) -> NDArray[np.uint8]:
    """The photograph (H, W, 3) in the pixels that its camera speaks of: as stored, or turned upright."""
    height, width = frame.camera_size
    try:
        with Image.open(frame.path) as image:
            for turned in (image, ImageOps.exif_transpose(image)):
                # Photographs may have been reduced since, but not cropped.
                if abs(turned.height * width / (turned.width * height) - 1) < 0.01:
                    picture = turned.convert("RGB")
                    if picture.size != (width, height):
                        picture = picture.resize((width, height), Image.Resampling.BICUBIC)
                    return np.asarray(picture)
            size = image.size
    except OSError as error:
        raise ProbeError(f"{frame.path} cannot be read: {error}") from error
    raise ProbeError(
        f"{frame.path} is {size[0]} x {size[1]}, but its camera in the model is {width} x {height}: give the "
        "photographs that the model was made from"
    )


READER = BenchmarkReader(
    title="a COLMAP model with its photographs",
    where="your own reconstruction",
    layout="images/\nsparse/0/{cameras,images,points3D}.bin (or .txt, or sparse/ itself)",
    open=_open,
)
