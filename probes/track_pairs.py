"""True correspondences from tracks: the 3-D points of a COLMAP model that both photographs observe.

Photographs and model are read by `shards.sources.colmap`; points stay where the model saw them, mapped into pixels
of the evaluated square. One model is one scene.
"""

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from probes.errors import ProbeError
from probes.metrics import viewing_angle
from probes.pairs import Pair, PairConfig, PairSet, candidates, refusal, refuse_empty
from probes.square import Square, SquareImages
from shards.sources import colmap
from shards.sources.colmap import ColmapFrame, ColmapScene


def read_model(path: Path, spec: str) -> ColmapScene:
    """The COLMAP scene at ``path`` with all its photographs in place; ProbeError otherwise."""
    try:
        model = colmap.read_model(path)
    except ValueError as error:
        raise ProbeError(f"data {spec!r}: {error}") from error
    missing = [frame.path for frame in model.frames if not frame.path.is_file()]
    if missing:
        raise ProbeError(
            f"data {spec!r}: {len(missing)} of {len(model.frames)} photographs of the model are missing, the "
            f"first is {missing[0]}"
        )
    return model


def model_hash(model: ColmapScene) -> str:
    """SHA-256 over the photographs' bytes and everything of the model that pairs depend on."""
    digest = hashlib.sha256()
    for frame in model.frames:
        digest.update(f"{frame.name} {hashlib.sha256(frame.path.read_bytes()).hexdigest()}\n".encode())
        for values in (frame.camera_size, frame.intrinsics, frame.world_to_camera, frame.points, frame.xy):
            digest.update(b"none" if values is None else np.ascontiguousarray(values, "<f8").tobytes())
    return digest.hexdigest()


def frame_square(frame: ColmapFrame, size: int) -> Square:
    """The evaluated square in pixels of the frame's camera."""
    height, width = frame.camera_size
    return Square(height=height, width=width, size=size)


def track_pairs(path: Path, spec: str, config: PairConfig) -> PairSet:
    """Pairs of one COLMAP model; ProbeError where none fits."""
    model = read_model(path, spec)
    scene, frames = path.resolve().name, model.frames
    images, added, pairs, refused = SquareImages(config.size), {}, [], {}
    squares = [frame_square(frame, config.size) for frame in frames]

    def image(index: int) -> int:
        if index not in added:
            frame = frames[index]
            added[index] = images.add(frame.name, frame.path.read_bytes(), lambda: _photograph(frame))
        return added[index]

    for a, b in candidates(scene, [frame.name for frame in frames]):
        if len(pairs) == config.pairs:
            break
        reason, angle = None, None
        _, in_a, in_b = np.intersect1d(frames[a].points, frames[b].points, return_indices=True)
        xy_a, xy_b = frames[a].xy[in_a], frames[b].xy[in_b]
        queries, targets = squares[a].inward(xy_a), squares[b].inward(xy_b)
        kept = squares[a].contains(queries) & squares[b].contains(targets)
        queries, targets = queries[kept], targets[kept]
        if frames[a].intrinsics is None or frames[b].intrinsics is None:
            reason = "a camera that is no pinhole"
        elif len(queries):
            angle = viewing_angle(
                xy_a[kept],
                xy_b[kept],
                frames[a].intrinsics,
                frames[b].intrinsics,
                frames[a].world_to_camera[:, :3],
                frames[b].world_to_camera[:, :3],
            )
        reason = reason or refusal(queries, angle, config)
        if reason:
            refused[reason] = refused.get(reason, 0) + 1
            continue
        pairs.append(
            Pair(
                name=f"{scene}/{frames[a].name}/{frames[b].name}",
                scene=scene,
                a=image(a),
                b=image(b),
                angle=angle,
                queries=queries,
                targets=targets,
            )
        )
    refuse_empty(spec, pairs, refused)
    return PairSet(
        data=spec,
        truth="tracks",
        split="all",
        config=config,
        images=images,
        pairs=tuple(pairs),
        refused=refused,
        shortest_side=min(square.side for square in squares),
    )


def _photograph(frame: ColmapFrame) -> NDArray[np.uint8]:
    """The photograph (H, W, 3) in the pixels that its camera speaks of: as stored, or turned upright."""
    try:
        with Image.open(frame.path) as image:
            for turned in (image, ImageOps.exif_transpose(image)):
                height, width = frame.camera_size
                # Photographs may have been reduced since, but not cropped.
                if abs(turned.height * width / (turned.width * height) - 1) < 0.01:
                    return np.asarray(turned.convert("RGB"))
            size = image.size
    except OSError as error:
        raise ProbeError(f"{frame.path} cannot be read: {error}") from error
    raise ProbeError(
        f"{frame.path} is {size[0]} x {size[1]}, but its camera in the model is {width} x {height}: give the "
        "photographs that the model was made from"
    )
