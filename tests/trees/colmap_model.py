"""A COLMAP model of a rendered world, as text or binary files, byte by byte after COLMAP's own description."""

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tests.trees.world import View

_MODELS = {"PINHOLE": 1, "OPENCV": 4, "OPENCV_FISHEYE": 5}
_NOTHING = 2**64 - 1


def quaternion(rotation: np.ndarray) -> np.ndarray:
    """(4,) w first, of a rotation matrix (3, 3), by the eigenvector of its quaternion matrix."""
    (a, b, c), (d, e, f), (g, h, i) = rotation
    matrix = np.array(
        [
            [a + e + i, h - f, c - g, d - b],
            [h - f, a - e - i, b + d, c + g],
            [c - g, b + d, e - a - i, f + h],
            [d - b, c + g, f + h, i - a - e],
        ]
    )
    return np.linalg.eigh(matrix)[1][:, -1]


def write_text(
    folder: Path,
    views: Mapping[str, View],
    points: np.ndarray,
    *,
    model: str = "PINHOLE",
    lens: Sequence[float] = (),
    pointless: Sequence[str] = (),
    header: int = 4,
) -> None:
    """cameras.txt, images.txt and points3D.txt; a camera a picture, as after undistortion.

    The pictures named in `pointless` observe nothing: their second line is empty. `header` comment lines come first,
    whose number differs between COLMAP's versions.
    """
    folder.mkdir(parents=True)
    comments = "".join(f"# comment {line}\n" for line in range(header))
    cameras, images, tracks = comments, comments, {p: [] for p in range(len(points))}
    for number, (name, view) in enumerate(views.items(), 1):
        height, width = view.image.shape[:2]
        parameters = " ".join(map(repr, _parameters(view, lens)))
        cameras += f"{number} {model} {width} {height} {parameters}\n"
        pose = " ".join(
            map(
                repr,
                [*quaternion(view.world_to_camera[:, :3]).tolist(), *view.world_to_camera[:, 3].tolist()],
            )
        )
        seen = [] if name in pointless else list(zip(view.points.tolist(), view.xy.tolist(), strict=True))
        spots = [f"{x!r} {y!r} {point + 1}" for point, (x, y) in seen]
        if spots:
            spots.insert(1, "3.5 4.5 -1")  # a key point that became no 3-D point
        images += f"{number} {pose} {number} {name}\n{' '.join(spots)}\n"
        for row, (point, _) in enumerate(seen):
            tracks[point].append(f"{number} {row + (row > 0)}")
    lines = [
        f"{p + 1} {' '.join(map(repr, xyz))} 128 128 128 0.5 {' '.join(tracks[p])}\n"
        for p, xyz in enumerate(points.tolist())
        if tracks[p]
    ]
    (folder / "cameras.txt").write_text(cameras)
    (folder / "images.txt").write_text(images)
    (folder / "points3D.txt").write_text(comments + "".join(lines))


def write_binary(
    folder: Path,
    views: Mapping[str, View],
    points: np.ndarray,
    *,
    model: str = "PINHOLE",
    lens: Sequence[float] = (),
) -> None:
    """cameras.bin, images.bin and points3D.bin, with one camera a picture."""
    folder.mkdir(parents=True)
    cameras, images = [struct.pack("<Q", len(views))], [struct.pack("<Q", len(views))]
    tracks: dict[int, list[bytes]] = {p: [] for p in range(len(points))}
    for number, (name, view) in enumerate(views.items(), 1):
        height, width = view.image.shape[:2]
        parameters = _parameters(view, lens)
        cameras.append(struct.pack("<IiQQ", number, _MODELS[model], width, height))
        cameras.append(struct.pack(f"<{len(parameters)}d", *parameters))
        images.append(struct.pack("<I4d", number, *quaternion(view.world_to_camera[:, :3])))
        images.append(struct.pack("<3dI", *view.world_to_camera[:, 3], number) + name.encode() + b"\0")
        images.append(struct.pack("<Q2dQ", len(view.points) + 1, 3.5, 4.5, _NOTHING))
        for row, (point, (x, y)) in enumerate(zip(view.points.tolist(), view.xy, strict=True), 1):
            images.append(struct.pack("<2dQ", x, y, point + 1))
            tracks[point].append(struct.pack("<II", number, row))
    seen = [p for p in tracks if tracks[p]]
    listed = [struct.pack("<Q", len(seen))]
    for p in seen:
        listed.append(struct.pack("<Q3d3Bd", p + 1, *points[p], 128, 128, 128, 0.5))
        listed.append(struct.pack("<Q", len(tracks[p])) + b"".join(tracks[p]))
    for name, parts in (("cameras", cameras), ("images", images), ("points3D", listed)):
        (folder / f"{name}.bin").write_bytes(b"".join(parts))


def _parameters(view: View, lens: Sequence[float]) -> list[float]:
    k = view.intrinsics.tolist()
    return [k[0][0], k[1][1], k[0][2], k[1][2], *lens]
