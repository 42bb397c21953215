"""Glue-factory's form of a two-view benchmark: pictures, depth maps, a text file of views and one of pairs.

A line of ``views.txt`` is a picture's name, its world-to-camera as nine and three numbers, and its camera in COLMAP's
words; a line of ``pairs.txt`` is two names. Depth maps are HDF5, named as the pictures up to their first dot. Pixel
centres are at +0.5, as COLMAP's. Knows no benchmark.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from probes.benchmarks.picture_files import (
    check_camera,
    digest_of,
    picture_size,
    read_picture,
    stamp_of,
    truth_of,
)
from probes.data.frames import Frame, FrameList, FramePair
from probes.errors import ProbeError
from shards.sources.colmap_files import Camera

VIEWS, PAIRS = "views.txt", "pairs.txt"
_PINHOLES = {"PINHOLE": 4, "SIMPLE_PINHOLE": 3}


@dataclass(frozen=True, kw_only=True)
class PosedImages:
    """The lists of such a folder."""

    root: Path
    cameras: dict[str, tuple[NDArray, NDArray]] = field(repr=False)
    """Intrinsics (3, 3) and world-to-camera (3, 4) by picture's name."""
    pairs: list[tuple[str, str]]

    @property
    def files(self) -> dict[str, tuple[str, str]]:
        """Picture and depth map of each name in a pair, relative to the root."""
        names = dict.fromkeys(name for pair in self.pairs for name in pair)
        return {name: (f"images/{name}", f"depths/{name.partition('.')[0]}.h5") for name in names}

    def frames(
        self, absent: set[str], read_depth: Callable[[Path, tuple[int, int]], NDArray | None]
    ) -> FrameList:
        """Pairs whose files are not among those absent, and the pictures they show, in the order of the pairs."""
        files = self.files
        frames: list[Frame] = []
        places: dict[str, int] = {}
        pairs: list[FramePair] = []
        for both in self.pairs:
            if any(file in absent for name in both for file in files[name]):
                continue
            for name in both:
                if name not in places:
                    places[name] = len(frames)
                    frames.append(self._frame(name, *files[name], read_depth))
            a, b = (places[name] for name in both)
            pairs.append(FramePair(name="|".join(both), scene=frames[a].scene, a=a, b=b))
        return FrameList(frames=tuple(frames), pairs=tuple(pairs))

    def _frame(
        self, name: str, image: str, depth: str, read: Callable[[Path, tuple[int, int]], NDArray | None]
    ) -> Frame:
        path, truth = self.root / image, self.root / depth
        size = picture_size(path)
        intrinsics, world_to_camera = self.cameras[name]
        check_camera(path, size, intrinsics)
        return Frame(
            name=name,
            scene=name.split("/", maxsplit=1)[0] if "/" in name else self.root.name,
            height=size[0],
            width=size[1],
            image=partial(read_picture, path, upright=False),
            digest=digest_of(path),
            intrinsics=intrinsics,
            world_to_camera=world_to_camera,
            depth=truth_of(read, truth, size),
            stamp=stamp_of(self.root, [truth]),
        )


def read_posed_images(root: Path) -> PosedImages:
    """Read both lists. ProbeError names the line that cannot be read."""
    cameras = {}
    for number, words in _lines(root / VIEWS):
        try:
            if len(words) < 17:
                raise ValueError(f"{len(words)} words are no name, pose and camera")
            model, size = words[13], (int(words[15]), int(words[14]))
            if _PINHOLES.get(model) != len(words) - 16:
                raise ValueError(f"{model} with {len(words) - 16} parameters is no pinhole")
            camera = Camera(model=model, size=size, parameters=tuple(map(float, words[16:])))
            pose = np.array(words[1:13], np.float64)
            cameras[words[0]] = camera.intrinsics, np.column_stack([pose[:9].reshape(3, 3), pose[9:]])
        except ValueError as error:
            raise ProbeError(f"{root / VIEWS}, line {number}: {error}") from error
    pairs = []
    for number, words in _lines(root / PAIRS):
        if len(words) != 2 or not cameras.keys() >= set(words):
            raise ProbeError(f"{root / PAIRS}, line {number}: must name two pictures of {VIEWS}")
        pairs.append((words[0], words[1]))
    return PosedImages(root=root, cameras=cameras, pairs=pairs)


def _lines(path: Path) -> list[tuple[int, list[str]]]:
    """Numbers and words of the lines that hold any."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ProbeError(f"{path} cannot be read: {error}") from error
    return [(number, line.split()) for number, line in enumerate(lines, 1) if line.split()]
