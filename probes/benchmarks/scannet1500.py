"""ScanNet-1500: pairs of indoor frames with measured relative pose, in LoFTR's form or SuperGlue's.

LoFTR's form is two arrays beside ScanNet's own folders: colour is brought to the depth maps' 640 x 480, whose
intrinsics the list holds; depth and poses of the folders give true correspondences. SuperGlue's form is a text
file beside plain pictures, each with the intrinsics of its file as it lies there, and has no depth. Frames and
pairs have the same names in both. Where both lists lie in a folder, the one whose pictures are there is read.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
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
from probes.benchmarks.reader import BenchmarkReader, found_in, refuse_missing, unlike
from probes.data.frames import Benchmark, Frame, FrameList, FramePair
from probes.errors import ProbeError
from shards.format import ShardsError
from shards.index_files import ScanNetPairs, read_scannet_arrays, read_scannet_lines
from shards.sources.depth_maps import read_millimetres

SIZE = (480, 640)
"""Height and width of ScanNet's depth maps, which the arrays' intrinsics speak of."""

_LISTS = (".", "scannet_test_1500", "assets/scannet_test_1500", "assets")
_PICTURES = (".", "test", "scans_test", "images")
_NAME = re.compile(r"(scene\d{4}_\d{2})(?:.*\D)?(\d+)\.jpg")


@dataclass(frozen=True, kw_only=True)
class _Form:
    pairs: ScanNetPairs
    pictures: Path
    """Where the list's names begin."""
    arrays: bool
    """LoFTR's form, with ScanNet's folders."""

    @property
    def names(self) -> list[str]:
        """The pictures, each once, in the list's order."""
        return list(dict.fromkeys(name for pair in self.pairs.names for name in pair))


def _open(root: Path, spec: str, allow_missing: bool) -> Benchmark:
    try:
        forms = _forms(root)
    except ShardsError as error:
        raise ProbeError(f"data {spec!r}: {error}") from error
    if not forms:
        raise unlike(
            spec, "test.npz with intrinsics.npz (LoFTR) or *pairs_with_gt.txt (SuperGlue)", found_in(root)
        )
    form = max(forms, key=lambda form: sum((form.pictures / name).is_file() for name in form.names))
    finite = np.isfinite(form.pairs.second_from_first).all((1, 2))
    names = form.names
    with_depth = form.arrays and any((form.pictures / _beside(name, "depth")).is_file() for name in names)
    needed = {
        name: [name] + [_beside(name, kind) for kind in ("depth", "pose") if with_depth] for name in names
    }
    missing = [file for files in needed.values() for file in files if not (form.pictures / file).is_file()]
    refuse_missing(spec, missing, sum(map(len, needed.values())), allow_missing=allow_missing)
    whole = {name for name, files in needed.items() if not set(files) & set(missing)}
    frames: list[Frame] = []
    places: dict[str, int] = {}
    pairs: list[FramePair] = []
    for number, both in enumerate(form.pairs.names):
        if not finite[number] or not whole >= set(both):
            continue
        for side, name in enumerate(both):
            camera = form.pairs.intrinsics[number, side]
            if name not in places:
                places[name] = len(frames)
                frames.append(_frame(form, name, camera, with_depth=with_depth))
            elif not np.array_equal(frames[places[name]].intrinsics, camera):
                raise ProbeError(
                    f"data {spec!r}: the list gives {name} two different cameras: fetch the list again"
                )
        a, b = (places[name] for name in both)
        pairs.append(
            FramePair(
                name=f"{frames[a].name}|{frames[b].name.rpartition('/')[2]}",
                scene=frames[a].scene,
                a=a,
                b=b,
                relative_pose=form.pairs.second_from_first[number],
            )
        )
    if not pairs:
        raise ProbeError(f"data {spec!r}: no pair has both its pictures and a measured pose")
    return Benchmark(
        name="scannet1500",
        spec=spec,
        test=FrameList(frames=tuple(frames), pairs=tuple(pairs)),
        truth="depth" if with_depth else "poses",
        fit="squash",
        unit="m",
        auc="trapezoid",
        missing=tuple(missing),
        notes=tuple(_notes(int((~finite).sum()), form.arrays, with_depth)),
    )


def _notes(lost: int, arrays: bool, with_depth: bool) -> Iterable[str]:
    if lost:
        yield f"{lost} listed pairs have no measured pose (ScanNet's tracking failed) and are left out."
    if not arrays:
        yield "Pictures and cameras of SuperGlue's list: there is no depth, so that only poses are scored."
    elif not with_depth:
        yield "There are no depth maps beside the pictures, so that only poses are scored."


def _forms(root: Path) -> list[_Form]:
    """The lists below the root, LoFTR's first, each with the place where most of its pictures may be."""
    forms = []
    for place in _LISTS:
        pairs, cameras = root / place / "test.npz", root / place / "intrinsics.npz"
        if pairs.is_file() and cameras.is_file():
            forms.append((read_scannet_arrays(pairs, cameras), True))
        forms += [
            (read_scannet_lines(path), False) for path in sorted((root / place).glob("*pairs_with_gt.txt"))
        ]
    return [_Form(pairs=pairs, pictures=_pictures(root, pairs), arrays=arrays) for pairs, arrays in forms]


def _pictures(root: Path, pairs: ScanNetPairs) -> Path:
    first = {name for pair in pairs.names[:50] for name in pair}
    return max(
        (root / place for place in _PICTURES), key=lambda p: sum((p / name).is_file() for name in first)
    )


def _beside(name: str, kind: str) -> str:
    """The depth map or pose of `scene/color/N.jpg`."""
    scene, _, file = name.split("/")
    return f"{scene}/{kind}/{Path(file).stem}.{'png' if kind == 'depth' else 'txt'}"


def _frame(form: _Form, name: str, intrinsics: NDArray, *, with_depth: bool) -> Frame:
    path = form.pictures / name
    known = _NAME.fullmatch(name)
    scene, number = known.groups() if known else (Path(name).parts[0], name)
    # LoFTR's rule: the whole colour picture is squashed to the size of the depth map.
    size = SIZE if form.arrays else picture_size(path)
    check_camera(path, size, intrinsics)
    depth, pose = (form.pictures / _beside(name, kind) if with_depth else path for kind in ("depth", "pose"))
    return Frame(
        name=f"{scene}/{int(number)}" if known else name,
        scene=scene,
        height=size[0],
        width=size[1],
        image=partial(read_picture, path, upright=False, size=size),
        digest=digest_of(path),
        intrinsics=intrinsics,
        world_to_camera=_read_pose(pose) if with_depth else None,
        depth=truth_of(read_millimetres, depth) if with_depth else None,
        stamp=stamp_of(form.pictures, [depth]) if with_depth else "",
    )


def _read_pose(path: Path) -> NDArray | None:
    """(3, 4) world to camera of a file with camera to world; None where tracking failed."""
    try:
        pose = np.array(path.read_text(encoding="ascii").split(), np.float64).reshape(4, 4)
        return np.linalg.inv(pose)[:3] if np.isfinite(pose).all() else None
    except (OSError, ValueError, np.linalg.LinAlgError) as error:
        raise ProbeError(f"{path} holds no pose of 4 x 4 numbers: {' '.join(str(error).split())}") from error


READER = BenchmarkReader(
    title="ScanNet-1500",
    where="github.com/zju3dv/LoFTR (assets/scannet_test_1500, with the pictures of its test data) or SuperGlue's"
    " scannet_test_pairs_with_gt.txt with ScanNet's frames (scan-net.org)",
    layout="test.npz and intrinsics.npz (or in scannet_test_1500/)\n"
    "sceneXXXX_YY/{color/N.jpg,depth/N.png,pose/N.txt} (or in test/)\n"
    "or: *pairs_with_gt.txt with its pictures (or in images/)",
    open=_open,
)
