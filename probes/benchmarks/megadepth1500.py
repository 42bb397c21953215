"""MegaDepth-1500: 1,500 pairs of photographs of two landmarks with dense depth, in LoFTR's form or glue-factory's.

LoFTR's five lists of 300 pairs are bare pickles named .npz, read without running anything in them; all paths in
them are relative to MegaDepth's root. Glue-factory's archive holds the same photographs with lists as text, without
overlaps. Published scores squash photographs or resize their longer side; here they become squares like all data.
"""

from collections.abc import Sequence
from pathlib import Path

from probes.benchmarks.megadepth import pictures_root, posed_photograph, read_dense_depth
from probes.benchmarks.posed_images import VIEWS, read_posed_images
from probes.benchmarks.reader import BenchmarkReader, found_in, refuse_missing, unlike
from probes.data.frames import Benchmark, Frame, FrameList, FramePair
from probes.errors import ProbeError
from shards.format import ShardsError
from shards.index_files import MegaDepthIndex, read_megadepth_index

LISTS = ("0015_0.1_0.3", "0015_0.3_0.5", "0022_0.1_0.3", "0022_0.3_0.5", "0022_0.5_0.7")
"""Names of the five lists: the scene and the span of overlaps."""

_FOLDERS = (".", "megadepth_test_1500_scene_info", "index/scene_info_val_1500", "scene_info_val_1500")
_NOTE = "MegaDepth-1500 shows two scenes, 0015 and 0022: intervals over scenes say little."


def _open(root: Path, spec: str, allow_missing: bool) -> Benchmark:
    views = next((place for place in (root, root / "megadepth1500") if (place / VIEWS).is_file()), None)
    return _open_views(views, spec, allow_missing) if views else _open_lists(root, spec, allow_missing)


def _open_views(root: Path, spec: str, allow_missing: bool) -> Benchmark:
    """Glue-factory's form."""
    listed = read_posed_images(root)
    named = [file for files in listed.files.values() for file in files]
    missing = [file for file in named if not (root / file).is_file()]
    refuse_missing(spec, missing, len(named), allow_missing=allow_missing)
    return _benchmark(spec, listed.frames(set(missing), read_dense_depth), missing, root)


def _open_lists(root: Path, spec: str, allow_missing: bool) -> Benchmark:
    """LoFTR's form."""
    folder = next(
        (root / f for f in _FOLDERS if any((root / f / f"{name}.npz").is_file() for name in LISTS)), None
    )
    if folder is None:
        raise unlike(
            spec,
            f"a list such as {LISTS[0]}.npz (or in {' or '.join(_FOLDERS[1:3])}/), or {VIEWS}",
            found_in(root),
        )
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
    named = {path for name, index in indices.items() for path in _files(folder / f"{name}.npz", index)}
    absent = {path for path in sorted(named) if not (pictures / path).is_file()}
    refuse_missing(spec, [*missing, *sorted(absent)], total + len(named), allow_missing=allow_missing)
    return _benchmark(spec, _lists(pictures, indices, absent), [*missing, *sorted(absent)], pictures)


def _benchmark(spec: str, split: FrameList, missing: Sequence[str], pictures: Path) -> Benchmark:
    if not split.pairs:
        raise ProbeError(
            f"data {spec!r}: the photographs and depth maps of no pair are complete below {pictures} "
            f"({len(missing):,} files are missing, {missing[-1] if missing else 'none'} among them)"
        )
    return Benchmark(
        name="megadepth1500",
        spec=spec,
        test=split,
        truth="depth",
        fit="squash",
        auc="trapezoid",
        missing=tuple(missing),
        notes=(_NOTE,),
    )


def _files(path: Path, index: MegaDepthIndex) -> set[str]:
    """Photographs and depth maps that the pairs of a list need, relative to MegaDepth's root."""
    rows = set(index.pairs.ravel().tolist())
    named = {paths[row] for row in rows for paths in (index.image_paths, index.depth_paths)}
    if None in named:
        raise ProbeError(
            f"{path} names a pair of which it has no photograph or depth map: fetch the list again"
        )
    return {file for file in named if file is not None}


def _lists(pictures: Path, indices: dict[str, MegaDepthIndex], absent: set[str]) -> FrameList:
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
                    overlap=overlap,
                )
            )
    return FrameList(frames=tuple(frames), pairs=tuple(pairs))


READER = BenchmarkReader(
    title="MegaDepth-1500",
    where="github.com/zju3dv/LoFTR (assets/megadepth_test_1500_scene_info) for the lists, D2-Net's undistorted"
    " photographs and MegaDepth v1's depth maps of the scenes 0015 and 0022; or glue-factory's"
    " cvg-data.inf.ethz.ch/megadepth/megadepth1500.zip",
    layout=f"{{{','.join(LISTS)}}}.npz (or in megadepth_test_1500_scene_info/)\n"
    "Undistorted_SfM/{0015,0022}/images/*.jpg\n"
    "phoenix/S6/zl548/MegaDepth_v1/{0015,0022}/dense0/depths/*.h5\n"
    "or: images/, depths/*.h5, views.txt and pairs.txt",
    open=_open,
)
