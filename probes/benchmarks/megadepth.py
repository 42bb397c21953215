"""MegaDepth as training data: pairs of photographs of many landmarks with dense depth, none of a tested one.

Pairs come from LoFTR's training lists where they are there, else from RoMa's, else from the COLMAP models' tracks,
whose overlap is that of D2-Net's scene files. Of each scene a fixed number is taken, in the order of a hash of their
names, so that everyone who names the same folder trains on the same pairs. Scenes of MegaDepth-1500, of the Image
Matching Challenge 2021, of DKM's validation, and those that LoFTR leaves out are never read.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from probes.benchmarks.picture_files import (
    at_size,
    check_camera,
    digest_of,
    picture_size,
    read_picture,
    stamp_of,
    truth_of,
)
from probes.benchmarks.reader import BenchmarkReader, found_in, refuse_missing, unlike
from probes.data.frames import Benchmark, Frame, FrameList, FramePair
from probes.errors import ProbeError
from shards.covisibility import overlap_from_tracks
from shards.format import ShardsError
from shards.index_files import MegaDepthIndex, read_megadepth_index, read_roma_index
from shards.sources import megadepth

HELD_OUT = frozenset(
    {
        *("0015", "0022"),  # MegaDepth-1500
        *("0008", "0019", "0021", "0024", "0025", "0032", "0063", "1589"),  # Image Matching Challenge 2021
        *("0004", "0013", "0017", "0048"),  # DKM's validation
        *("0121", "0133", "0168", "0178", "0229", "0349", "0412", "0430", "0443"),  # left out by LoFTR
        *("1001", "5014", "5015", "5016"),
    }
)
"""Scenes that heads are not trained on, as in RoMa."""

OVERLAPS = (0.1, 0.7)
"""Least and most overlap of a pair, in both directions where both are known: LoFTR's span."""

SCENES = 64
"""Most scenes, those whose names have the smallest hashes."""

PAIRS_A_SCENE = 64

_LISTS = {
    "index/scene_info_0.1_0.7": ("LoFTR", "*.npz", read_megadepth_index),
    "scene_info_0.1_0.7": ("LoFTR", "*.npz", read_megadepth_index),
    "prep_scene_info": ("RoMa", "*.npy", read_roma_index),
}
"""Folder -> whose training lists it holds, their files, and who reads one."""


@dataclass(frozen=True, kw_only=True)
class _Photograph:
    image: str
    """Relative to MegaDepth's root."""
    depth: str
    intrinsics: NDArray = field(repr=False)
    world_to_camera: NDArray = field(repr=False)


_Candidate = tuple[float, _Photograph, _Photograph]
"""Overlap, and the two photographs."""


def pictures_root(root: Path) -> Path:
    """Where `Undistorted_SfM` lies: the root, or its `train` or `test` as LoFTR's links have it."""
    return next(
        (place for place in (root, root / "train", root / "test") if (place / "Undistorted_SfM").is_dir()),
        root,
    )


def posed_photograph(
    root: Path, image: str, depth: str, intrinsics: NDArray, world_to_camera: NDArray
) -> Frame:
    """A photograph with its camera (3, 3), (3, 4) and dense depth; paths relative to MegaDepth's root.

    Raises:
        ProbeError: the photograph cannot be read or is of another size than its camera's.
    """
    path = root / image
    size = picture_size(path)
    check_camera(path, size, intrinsics)
    return Frame(
        name=image,
        scene=path.parent.parent.name,
        height=size[0],
        width=size[1],
        image=partial(read_picture, path, upright=False),
        digest=digest_of(path),
        intrinsics=intrinsics,
        world_to_camera=world_to_camera,
        depth=truth_of(read_dense_depth, root / depth, size),
        stamp=stamp_of(root, [root / depth]),
    )


def read_dense_depth(path: Path, size: tuple[int, int]) -> NDArray[np.float32] | None:
    """(H, W) of an HDF5 file at its photograph's size, 0 = unknown; None without a file."""
    depth = megadepth.read_depth(path, size)
    if depth is None:
        return None
    depth = at_size(depth, size)
    return np.where(np.isfinite(depth) & (depth > 0), depth, np.float32(0))


def _open(root: Path, spec: str, allow_missing: bool) -> Benchmark:
    pictures = pictures_root(root)
    place = next((place for place in _LISTS if (root / place).is_dir()), None)
    missing: list[str] = []
    try:
        chosen = _from_lists(root, place) if place else _from_models(pictures, missing)
    except ShardsError as error:
        if not (pictures / "Undistorted_SfM").is_dir():
            raise unlike(spec, "Undistorted_SfM/<scene>/{images,sparse-txt}", found_in(root)) from error
        raise ProbeError(f"data {spec!r}: {error}") from error
    named = {
        p for pairs in chosen.values() for _, a, b in pairs for one in (a, b) for p in (one.image, one.depth)
    }
    missing += sorted(path for path in named if not (pictures / path).is_file())
    if not named and not missing:
        raise ProbeError(
            f"data {spec!r} has no pair of photographs with overlap {OVERLAPS[0]:g} to {OVERLAPS[1]:g} in a scene"
            " that may be trained on"
        )
    source = f"{_LISTS[place][0]}'s lists" if place else "the tracks of their models"
    refuse_missing(spec, missing, len(named | set(missing)), allow_missing=allow_missing)
    return Benchmark(
        name="megadepth",
        spec=spec,
        test=None,
        train=_frame_list(pictures, chosen, set(missing)),
        split="train",
        truth="depth",
        fit="squash",
        missing=tuple(missing),
        notes=(f"Training pairs of {sum(map(bool, chosen.values()))} scenes by {source}.",),
    )


def _from_lists(root: Path, place: str) -> dict[str, list[_Candidate]]:
    """The chosen pairs of each scene that published lists have, a file or several a scene."""
    _, pattern, read = _LISTS[place]
    files: dict[str, list[Path]] = {}
    for path in sorted((root / place).glob(pattern)):
        files.setdefault(path.stem.split("_")[0], []).append(path)
    return {
        scene: _choose(scene, [pair for path in files[scene] for pair in _listed(read(path))])
        for scene in _scenes(files)
    }


def _listed(index: MegaDepthIndex) -> list[_Candidate]:
    found: list[_Candidate] = []
    for (a, b), overlap in zip(index.pairs.tolist(), index.overlaps.tolist(), strict=True):
        known = all(paths[i] is not None for i in (a, b) for paths in (index.image_paths, index.depth_paths))
        if not known or not OVERLAPS[0] <= overlap <= OVERLAPS[1]:
            continue
        one, two = (
            _Photograph(
                image=str(index.image_paths[i]),
                depth=str(index.depth_paths[i]),
                intrinsics=index.intrinsics[i],
                world_to_camera=index.world_to_camera[i],
            )
            for i in (a, b)
        )
        found.append((overlap, one, two))
    return found


def _from_models(root: Path, missing: list[str]) -> dict[str, list[_Candidate]]:
    """The chosen pairs of each scene with a COLMAP model; scenes without any depth map go to `missing`."""
    tasks = {task.name: task for task in megadepth.find([root], megadepth.Options())}
    chosen = {}
    for name in _scenes(tasks):
        task = tasks[name]
        if task.depths is not None and not task.depths.is_dir():
            missing.append(str(task.depths.relative_to(root)))
            continue
        scene = megadepth.read(task)
        photographs = [
            _Photograph(
                image=str(Path(frame.image).relative_to(root)),
                depth=str((task.depths / f"{Path(frame.name).stem}.h5").relative_to(root)),
                intrinsics=frame.intrinsics,
                world_to_camera=frame.world_to_camera,
            )
            for frame in scene.frames
        ]
        overlap = overlap_from_tracks([frame.points for frame in scene.frames])
        fits = (overlap >= OVERLAPS[0]) & (overlap <= OVERLAPS[1])
        first, second = np.nonzero(np.triu(fits & fits.T, 1))
        chosen[name] = _choose(
            name,
            [
                (float(overlap[i, j]), photographs[i], photographs[j])
                for i, j in zip(first, second, strict=True)
            ],
        )
    return chosen


def _scenes(known: Mapping[str, object]) -> list[str]:
    return sorted(known.keys() - HELD_OUT, key=_order)[:SCENES]


def _choose(scene: str, pairs: Sequence[_Candidate]) -> list[_Candidate]:
    return sorted(pairs, key=lambda pair: _order(_pair_name(scene, pair)))[:PAIRS_A_SCENE]


def _pair_name(scene: str, pair: _Candidate) -> str:
    return f"{scene}/{Path(pair[1].image).stem}|{Path(pair[2].image).stem}"


def _order(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def _frame_list(root: Path, chosen: Mapping[str, Sequence[_Candidate]], absent: set[str]) -> FrameList:
    """The pairs whose files are all there, and the photographs they show."""
    frames: list[Frame] = []
    places: dict[str, int] = {}
    pairs: list[FramePair] = []
    for scene, candidates in chosen.items():
        for candidate in candidates:
            overlap, *both = candidate
            if any(path in absent for one in both for path in (one.image, one.depth)):
                continue
            for one in both:
                if one.image not in places:
                    places[one.image] = len(frames)
                    frames.append(
                        posed_photograph(root, one.image, one.depth, one.intrinsics, one.world_to_camera)
                    )
            a, b = (places[one.image] for one in both)
            pairs.append(FramePair(name=_pair_name(scene, candidate), scene=scene, a=a, b=b, overlap=overlap))
    return FrameList(frames=tuple(frames), pairs=tuple(pairs))


READER = BenchmarkReader(
    title="MegaDepth (training)",
    where="D2-Net's undistorted photographs (github.com/mihaidusmanu/d2-net) and MegaDepth v1's depth maps"
    " (cs.cornell.edu/projects/megadepth); LoFTR's or RoMa's lists are optional",
    layout="Undistorted_SfM/<scene>/{images,sparse-txt}/\n"
    "phoenix/S6/zl548/MegaDepth_v1/<scene>/dense0/depths/*.h5\n"
    "index/scene_info_0.1_0.7/*.npz or prep_scene_info/*.npy (optional)",
    open=_open,
)
