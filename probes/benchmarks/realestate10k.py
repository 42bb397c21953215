"""RealEstate10K for poses of many views: ten frames of every test clip, as PoseDiffusion and VGGT score them.

Which ten is drawn from the clip's id among all frames its text file names, so lost videos change nothing for the
others; a clip whose video is gone is missing. Published evaluations use lists of ids (1,832 of PoseDiffusion, of
which fewer can still be fetched): put one as `test_ids.txt` beside `test/`, and only its clips are scored. Trained
on are up to `TRAIN_CLIPS` clips of `train/` that have frames. Scale differs from clip to clip; there is no depth.
The files are those of `shards.sources.realestate10k`, which reads them.
"""

from collections.abc import Iterable
from functools import partial
from pathlib import Path

import numpy as np

from probes.benchmarks.draws import FRAMES, by_hash, draw_frames
from probes.benchmarks.picture_files import digest_of, picture_size, read_picture
from probes.benchmarks.reader import BenchmarkReader, found_in, refuse_missing, unlike
from probes.data.frames import Benchmark, Frame, FrameList, FrameSequence
from probes.errors import ProbeError
from shards.sources import realestate10k
from shards.sources.realestate10k import ClipTask

TRAIN_CLIPS = 400
IDS = "test_ids.txt"
_SUFFIXES = (".png", ".jpg")


def _open(root: Path, spec: str, allow_missing: bool) -> Benchmark:
    clips = _clips(root, spec)
    test = [clip for clip in clips if clip.name.startswith("test/")]
    if not test:
        raise unlike(spec, "clips in test/<id>.txt", found_in(root))
    test, unknown = _listed_clips(root, test)
    train = {clip.name: clip for clip in clips if clip.name.startswith("train/") and clip.frames}
    try:
        scored, missing, named = _read(test)
        trained, absent, _ = _read([train[name] for name in by_hash(sorted(train))[:TRAIN_CLIPS]])
    except ProbeError:
        raise
    except ValueError as error:
        raise ProbeError(f"data {spec!r}: {error}") from error
    missing = [*unknown, *missing]
    refuse_missing(spec, missing, named + len(unknown), allow_missing=allow_missing)
    if not scored.frames:
        raise ProbeError(f"data {spec!r} has no clip of {FRAMES} frames in test/")
    notes = []
    short = len(test) - len(scored.sequences or ()) - sum(clip.frames is None for clip in test)
    if short:
        notes.append(
            f"Test clips left out for fewer than {FRAMES} frames, or fewer than two on disk: {short}."
        )
    if absent:
        notes.append(f"Training frames left out because they are not on disk: {len(absent)}.")
    return Benchmark(
        name="realestate10k",
        spec=spec,
        test=scored,
        train=trained if trained.frames else None,
        split=f"test, ids of {IDS}" if (root / IDS).is_file() else "test",
        truth="poses",
        fit="squash",
        auc="histogram",
        missing=tuple(missing),
        notes=tuple(notes),
    )


def _clips(root: Path, spec: str) -> list[ClipTask]:
    """Every clip, with its frames' folder beside its text file or else below `frames/`."""
    places = [None, root / "frames"] if (root / "frames").is_dir() else [None]
    try:
        options = [realestate10k.Options(frames=place, stride=1) for place in places]
        beside, *apart = [list(realestate10k.find([root], option)) for option in options]
    except ValueError:
        raise unlike(spec, "clips in test/<id>.txt", found_in(root)) from None
    return [
        next((clip for clip in found if clip.frames), found[0]) for found in zip(beside, *apart, strict=True)
    ]


def _listed_clips(root: Path, clips: list[ClipTask]) -> tuple[list[ClipTask], list[str]]:
    """The clips to score, and the text files that the list of ids names and that are not there."""
    if not (root / IDS).is_file():
        return clips, []
    try:
        ids = (root / IDS).read_text(encoding="ascii").split()
    except (OSError, ValueError) as error:
        raise ProbeError(f"{root / IDS} is no list of ids, one a line: {error}") from error
    known = {clip.clip.stem: clip for clip in clips}
    wanted = [name.removesuffix(".txt") for name in dict.fromkeys(ids)]
    return (
        [known[name] for name in wanted if name in known],
        [f"test/{name}.txt" for name in wanted if name not in known],
    )


def _read(clips: Iterable[ClipTask]) -> tuple[FrameList, list[str], int]:
    """The drawn frames of clips, what is missing of them, and how many files were asked for."""
    frames: list[Frame] = []
    sequences: list[FrameSequence] = []
    missing: list[str] = []
    named = 0
    for clip in clips:
        if clip.frames is None:
            missing.append(f"{clip.name}/")
            named += 1
            continue
        rows = realestate10k.read_clip(clip.clip)
        if len(rows) < FRAMES:
            continue
        if rows[:, 5:7].any():
            raise ProbeError(
                f"{clip.clip} has lens distortion, which is not expected here: undistort its frames"
            )
        drawn = [(f"{row[0]:.0f}", row) for row in rows[draw_frames(clip.name, len(rows))]]
        pictures = {time: _picture(clip.frames, time) for time, _ in drawn}
        missing += [f"{clip.name}/{time}" for time, path in pictures.items() if path is None]
        named += len(drawn)
        kept = _clip_frames(clip, [(pictures[time], row) for time, row in drawn])
        if len(kept) >= 2:
            places = tuple(range(len(frames), len(frames) + len(kept)))
            sequences.append(FrameSequence(name=clip.name, scene=clip.name, frames=places))
            frames += kept
    return FrameList(frames=tuple(frames), sequences=tuple(sequences)), missing, named


def _picture(folder: Path, time: str) -> Path | None:
    return next((path for s in _SUFFIXES if (path := folder / f"{time}{s}").is_file()), None)


def _clip_frames(clip: ClipTask, drawn: list[tuple[Path | None, np.ndarray]]) -> list[Frame]:
    present = [(path, row) for path, row in drawn if path is not None]
    if not present:
        return []
    height, width = picture_size(present[0][0])
    return [
        Frame(
            name=f"{clip.name}/{path.name}",
            scene=clip.name,
            height=height,
            width=width,
            image=partial(read_picture, path, upright=False),
            digest=digest_of(path),
            intrinsics=np.diag([width, height, 1.0]) @ [[row[1], 0, row[3]], [0, row[2], row[4]], [0, 0, 1]],
            world_to_camera=row[7:].reshape(3, 4),
        )
        for path, row in present
    ]


READER = BenchmarkReader(
    title="RealEstate10K, ten frames a test clip (PoseDiffusion's protocol)",
    where="https://google.github.io/realestate10k (cameras; the frames are cut from the YouTube videos they name)",
    layout=(
        "test/<id>.txt and train/<id>.txt\n"
        "test/<id>/<microseconds>.png or .jpg (or frames/<id>/, frames/test/<id>/)\n"
        f"{IDS} (optional: the ids to score, one a line)"
    ),
    open=_open,
)
