"""ETH3D's high-resolution training scenes: DSLR photographs with laser-scanned depth, undistorted as they are read.

Depth maps are raw floats, row by row, in files that are named as the photographs. Photographs, depth and cameras
are brought to pinholes a quarter as wide. The sequence of a scene is every fifth photograph by name, as in the
evaluations that followed Pi3's; this is not the official protocol.
"""

from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from probes.benchmarks.lens import ThinPrismFisheye
from probes.benchmarks.picture_files import (
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
from shards.format import ShardsError
from shards.sources.colmap_files import Camera, RegisteredImage, read_cameras, read_images

SCENES = (
    *("courtyard", "delivery_area", "electro", "facade", "kicker", "meadow", "office", "pipes", "playground"),
    *("relief", "relief_2", "terrace", "terrains"),
)
STEP = 5
"""Every which photograph a sequence takes."""

REDUCTION = 4

_MODEL = "dslr_calibration_jpg"
_IMAGES, _DEPTHS = "images", "ground_truth_depth"


def _open(root: Path, spec: str, allow_missing: bool) -> Benchmark:
    if not any((root / scene).is_dir() for scene in SCENES):
        raise unlike(spec, f"folders of scenes such as {SCENES[0]} with {_MODEL}", found_in(root))
    frames: list[Frame] = []
    sequences: list[FrameSequence] = []
    missing: list[str] = []
    named = 0
    for scene in SCENES:
        model = root / scene / _MODEL
        absent = [
            f"{scene}/{_MODEL}/{name}"
            for name in ("cameras.txt", "images.txt")
            if not (model / name).is_file()
        ]
        missing, named = missing + absent, named + 2
        if absent:
            continue
        cameras, images = _read_model(model, spec)
        chosen = []
        for place, image in enumerate(images):
            files = [f"{scene}/{folder}/{image.name}" for folder in (_IMAGES, _DEPTHS)]
            absent = [file for file in files if not (root / file).is_file()]
            missing, named = missing + absent, named + 2
            if absent:
                continue
            if place % STEP == 0:
                chosen.append(len(frames))
            frames.append(_frame(root, scene, image, cameras[image.camera]))
        if len(chosen) > 1:
            sequences.append(FrameSequence(name=scene, scene=scene, frames=tuple(chosen)))
    refuse_missing(spec, missing, named, allow_missing=allow_missing)
    if not frames:
        raise ProbeError(f"data {spec!r}: no photograph has its depth map")
    return Benchmark(
        name="eth3d",
        spec=spec,
        test=FrameList(frames=tuple(frames), sequences=tuple(sequences)),
        truth="depth",
        fit="squash",
        unit="m",
        auc="histogram",
        missing=tuple(missing),
        notes=(
            f"Every {STEP}th photograph of a scene by name makes its sequence: not ETH3D's official protocol.",
        ),
    )


def _read_model(model: Path, spec: str) -> tuple[dict[int, Camera], list[RegisteredImage]]:
    """Cameras by number, and photographs by name. ProbeError where the model is damaged or has other lenses."""
    try:
        cameras, images = read_cameras(model / "cameras.txt"), read_images(model / "images.txt")
    except ShardsError as error:
        raise ProbeError(f"data {spec!r}: {error}") from error
    for image in images:
        if image.camera not in cameras or cameras[image.camera].model != "THIN_PRISM_FISHEYE":
            kind = cameras[image.camera].model if image.camera in cameras else "absent"
            raise ProbeError(
                f"data {spec!r}: the camera of {image.name} in {model} is {kind}, not THIN_PRISM_FISHEYE: use the"
                " distorted photographs (multi_view_training_dslr_jpg) with their calibration"
            )
    return cameras, sorted(images, key=lambda image: image.name)


def _frame(root: Path, scene: str, image: RegisteredImage, camera: Camera) -> Frame:
    path, depth = (root / scene / folder / image.name for folder in (_IMAGES, _DEPTHS))
    lens = ThinPrismFisheye(size=camera.size, parameters=camera.parameters, reduction=REDUCTION)
    size = picture_size(path)
    if size != camera.size:
        raise ProbeError(
            f"{path} is {size[1]} x {size[0]} px, but its camera {camera.size[1]} x {camera.size[0]}: use the"
            " photographs at the size they were published in"
        )
    check_camera(path, lens.pinhole_size, lens.pinhole)
    height, width = lens.pinhole_size
    return Frame(
        name=f"{scene}/{Path(image.name).name}",
        scene=scene,
        height=height,
        width=width,
        image=partial(_read_image, path, lens),
        digest=digest_of(path),
        intrinsics=lens.pinhole,
        world_to_camera=image.world_to_camera,
        depth=truth_of(_read_depth, depth, lens),
        stamp=stamp_of(root, [depth]),
    )


def _read_image(path: Path, lens: ThinPrismFisheye) -> NDArray[np.uint8]:
    return lens.undistort(read_picture(path, upright=False))


def _read_depth(path: Path, lens: ThinPrismFisheye) -> NDArray[np.float32] | None:
    if not path.is_file():
        return None
    height, width = lens.size
    if path.stat().st_size != 4 * height * width:
        raise ProbeError(
            f"{path} holds {path.stat().st_size} bytes, the depth of {width} x {height} px has {4 * height * width}:"
            " fetch it again"
        )
    depth = lens.undistort_depth(np.memmap(path, "<f4", "r", shape=(height, width)))
    return np.where(np.isfinite(depth) & (depth > 0), depth, np.float32(0))


READER = BenchmarkReader(
    title="ETH3D (high-resolution training scenes)",
    where="eth3d.net/datasets: multi_view_training_dslr_jpg.7z and multi_view_training_dslr_depth.7z",
    layout="<scene>/images/dslr_images/*.JPG\n<scene>/dslr_calibration_jpg/{cameras,images}.txt\n"
    "<scene>/ground_truth_depth/dslr_images/*.JPG",
    open=_open,
)
