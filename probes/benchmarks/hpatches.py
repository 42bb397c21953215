"""HPatches' full sequences: a flat scene and five homographies of it, under changed light or viewpoint.

Of the 116 sequences eight are left out, as everyone has since D2-Net: their pictures are too large for the first
learned features. Homographies on disk take the centre of the first pixel for (0, 0); here it is (0.5, 0.5), so
they are shifted on entry.
"""

from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from probes.benchmarks.picture_files import digest_of, picture_size, read_picture
from probes.benchmarks.reader import BenchmarkReader, found_in, refuse_missing, unlike
from probes.data.frames import Benchmark, Frame, FrameList, FramePair
from probes.errors import ProbeError

ILLUMINATION = (
    *("ajuntament", "autannes", "bologna", "books", "boutique", "bridger", "brooklyn", "castle", "chestnuts"),
    *(
        "crownday",
        "dome",
        "duda",
        "fenis",
        "fog",
        "fruits",
        "gonnenberg",
        "greenhouse",
        "greentea",
        "indiana",
    ),
    *("kions", "ktirio", "kurhaus", "leuven", "lionday", "lionnight", "londonbridge", "melon", "miniature"),
    *("nescafe", "nijmegen", "nuts", "objects", "parking", "partyfood", "pinard", "pool", "porta", "resort"),
    *("salon", "santuario", "school", "ski", "smurf", "steps", "table", "tools", "toy", "troulos", "veggies"),
    *("village", "yellowtent", "zion"),
)
"""Sequences whose light changes, without their ``i_``."""

VIEWPOINT = (
    *("abstract", "adam", "apprentices", "azzola", "bark", "bees", "beyus", "bip", "bird", "birdwoman"),
    *("blueprint", "boat", "bricks", "busstop", "calder", "cartooncity", "charing", "churchill", "circus"),
    *("coffeehouse", "colors", "courses", "dirtywall", "dogman", "eastsouth", "feast", "fest", "gardens"),
    *(
        "grace",
        "graffiti",
        "home",
        "laptop",
        "london",
        "machines",
        "man",
        "maskedman",
        "pomegranate",
        "posters",
    ),
    *("samples", "soldiers", "strand", "sunseason", "tabletop", "tempera", "there", "underground", "vitro"),
    *("wall", "wapping", "war", "weapons", "woman", "wormhole", "wounded", "yard", "yuri"),
)
"""Sequences whose viewpoint changes, without their ``v_``."""

SEQUENCES = (*(f"i_{name}" for name in ILLUMINATION), *(f"v_{name}" for name in VIEWPOINT))

_TARGETS = range(2, 7)
_TO_CORNER = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
"""Pixels whose centres are whole numbers to pixels whose centres are at +0.5."""


def _open(root: Path, spec: str, allow_missing: bool) -> Benchmark:
    folder = next((p for p in (root, root / "hpatches-sequences-release") if _known(p)), None)
    if folder is None:
        raise unlike(spec, "folders such as i_ajuntament and v_abstract with 1.ppm and H_1_2", found_in(root))
    files = {
        name: [f"{name}/{k}.ppm" for k in (1, *_TARGETS)] + [f"{name}/H_1_{k}" for k in _TARGETS]
        for name in SEQUENCES
    }
    missing = [file for listed in files.values() for file in listed if not (folder / file).is_file()]
    refuse_missing(spec, missing, sum(map(len, files.values())), allow_missing=allow_missing)
    absent = set(missing)
    frames: list[Frame] = []
    pairs: list[FramePair] = []
    for sequence in SEQUENCES:
        whole = [
            k
            for k in _TARGETS
            if not {f"{sequence}/1.ppm", f"{sequence}/{k}.ppm", f"{sequence}/H_1_{k}"} & absent
        ]
        first = len(frames)
        frames += [_frame(folder, sequence, k) for k in ((1, *whole) if whole else ())]
        pairs += [
            FramePair(
                name=f"{sequence}/1|{k}",
                scene=sequence,
                a=first,
                b=first + place,
                homography=read_homography(folder / sequence / f"H_1_{k}"),
            )
            for place, k in enumerate(whole, 1)
        ]
    if not pairs:
        raise ProbeError(f"data {spec!r}: no sequence has two pictures and their homography")
    return Benchmark(
        name="hpatches",
        spec=spec,
        test=FrameList(frames=tuple(frames), pairs=tuple(pairs)),
        truth="homography",
        fit="squash",
        auc="trapezoid",
        missing=tuple(missing),
    )


def _known(folder: Path) -> bool:
    return any((folder / name).is_dir() for name in SEQUENCES)


def _frame(folder: Path, sequence: str, number: int) -> Frame:
    path = folder / sequence / f"{number}.ppm"
    height, width = picture_size(path)
    return Frame(
        name=f"{sequence}/{number}",
        scene=sequence,
        height=height,
        width=width,
        image=partial(read_picture, path, upright=False),
        digest=digest_of(path),
    )


def read_homography(path: Path) -> NDArray:
    """(3, 3) from pixels of the first picture to those of another, pixel centres at +0.5.

    Raises:
        ProbeError: the file does not hold an invertible matrix of 3 x 3 numbers.
    """
    try:
        stored = np.array(path.read_text(encoding="ascii").split(), np.float64).reshape(3, 3)
    except (OSError, ValueError) as error:
        raise ProbeError(f"{path} holds no 3 x 3 numbers: {' '.join(str(error).split())}") from error
    if not np.isfinite(stored).all() or np.linalg.matrix_rank(stored) < 3:
        raise ProbeError(f"{path} holds no homography: its matrix cannot be inverted")
    moved = _TO_CORNER @ stored @ np.linalg.inv(_TO_CORNER)
    # The sign by which points in front have a positive third coordinate.
    return moved / moved[2, 2]


READER = BenchmarkReader(
    title="HPatches (full sequences)",
    where="github.com/hpatches/hpatches-dataset (hpatches-sequences-release)",
    layout="{i_*,v_*}/{1..6}.ppm\n{i_*,v_*}/H_1_{2..6}",
    open=_open,
)
