"""MegaDepth-1500: LoFTR's five lists of 300 pairs of photographs of two landmarks, with dense depth.

The lists are bare pickles named .npz, read without running anything in them; all paths in them are relative to
MegaDepth's root. Pairs, cameras and overlaps are the lists' own. Published scores squash photographs or resize
their longer side; here they become squares like all data.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from probes.benchmarks.megadepth import pictures_root, posed_photograph
from probes.benchmarks.reader import BenchmarkReader, found_in, refuse_missing, unlike
from probes.errors import ProbeError
from probes.frames import Benchmark, Frame, FrameList, FramePair
from shards.format import ShardsError
from shards.index_files import MegaDepthIndex, read_megadepth_index

LISTS = ("0015_0.1_0.3", "0015_0.3_0.5", "0022_0.1_0.3", "0022_0.3_0.5", "0022_0.5_0.7")
"""Names of the five lists: the scene and the span of overlaps."""

_FOLDERS = (".", "megadepth_test_1500_scene_info", "index/scene_info_val_1500", "scene_info_val_1500")


def _open(root: Path, spec: str, allow_missing: bool) -> Benchmark:
    folder = next(
        (root / f for f in _FOLDERS if any((root / f / f"{name}.npz").is_file() for name in LISTS)), None
    )
    if folder is None:
        raise unlike(spec, f"a list such as {LISTS[0]}.npz in {' or '.join(_FOLDERS[:3])}", found_in(root))
    indices: dict[str, MegaDepthIndex] = {}
    missing, total = [], len(LISTS)
    for name in LISTS:
        path = folder / f"{name}.npz"
        if not path.is_file():
            missing.append(str(path.relative_to(root)))
            continue
        try:
            indices[name] = read_megadepth_index(path)
        except ShardsError as error:
            raise ProbeError(f"data {spec!r}: {error}") from error
    pictures = pictures_root(root)
    named = {path for index in indices.values() for path in _files(index)}
    absent = {path for path in sorted(named) if not (pictures / path).is_file()}
    refuse_missing(spec, [*missing, *sorted(absent)], total + len(named), allow_missing=allow_missing)
    frames, pairs = _lists(pictures, indices, absent)
    if not pairs:
        raise ProbeError(
            f"data {spec!r}: the photographs and depth maps of no pair are complete below {pictures}"
        )
    return Benchmark(
        name="megadepth1500",
        spec=spec,
        test=FrameList(frames=tuple(frames), pairs=tuple(pairs)),
        truth="depth",
        fit="squash",
        auc="trapezoid",
        missing=(*missing, *sorted(absent)),
        notes=("MegaDepth-1500 shows two scenes, 0015 and 0022: intervals over scenes say little.",),
    )


def _files(index: MegaDepthIndex) -> set[str]:
    """Photographs and depth maps that its pairs need, relative to MegaDepth's root."""
    rows = set(index.pairs.ravel().tolist())
    named = {paths[row] for row in rows for paths in (index.image_paths, index.depth_paths)}
    if None in named:
        raise ProbeError(
            "a list of MegaDepth-1500 names a pair of which it has no photograph: fetch the list again"
        )
    return {path for path in named if path is not None}


def _lists(
    pictures: Path, indices: dict[str, MegaDepthIndex], absent: Sequence[str] | set[str]
) -> tuple[list[Frame], list[FramePair]]:
    """Each photograph once, and the pairs whose files are all there."""
    frames: list[Frame] = []
    places: dict[str, int] = {}
    pairs: list[FramePair] = []
    for name, index in indices.items():
        for (first, second), overlap in zip(index.pairs.tolist(), index.overlaps.tolist(), strict=True):
            needed = [paths[i] for i in (first, second) for paths in (index.image_paths, index.depth_paths)]
            if any(path in absent for path in needed):
                continue
            for i in (first, second):
                image, depth = str(index.image_paths[i]), str(index.depth_paths[i])
                if image not in places:
                    places[image] = len(frames)
                    frames.append(
                        posed_photograph(
                            pictures, image, depth, index.intrinsics[i], index.world_to_camera[i]
                        )
                    )
            a, b = (places[str(index.image_paths[i])] for i in (first, second))
            stems = [Path(frames[i].name).stem for i in (a, b)]
            pairs.append(
                FramePair(
                    name=f"{name}/{'|'.join(stems)}",
                    scene=frames[a].scene,
                    a=a,
                    b=b,
                    overlap=float(np.float64(overlap)),
                )
            )
    return frames, pairs


READER = BenchmarkReader(
    title="MegaDepth-1500",
    where="github.com/zju3dv/LoFTR (assets/megadepth_test_1500_scene_info) for the lists, D2-Net's undistorted"
    " photographs and MegaDepth v1's depth maps of the scenes 0015 and 0022",
    layout=f"{{{','.join(LISTS)}}}.npz (or in megadepth_test_1500_scene_info/)\n"
    "Undistorted_SfM/{0015,0022}/images/*.jpg\n"
    "phoenix/S6/zl548/MegaDepth_v1/{0015,0022}/dense0/depths/*.h5",
    open=_open,
)
