"""A shard folder as a benchmark: its val split is scored, heads train on its train split.

Whatever the chunks hold is offered: depth, labels, cameras. Scenes are taken in the order of a hash of their
names, so that a part of a large folder is the same part everywhere.
"""

import hashlib
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

import shards
from probes.benchmarks.reader import BenchmarkReader, found_in, unlike
from probes.data.frames import Benchmark, Frame, FrameList
from probes.errors import ProbeError
from shards import format as fmt

TRAIN_SCENES = 160
TEST_SCENES = 1024


def _open(root: Path, spec: str, allow_missing: bool) -> Benchmark:
    if not (root / "manifest.jsonl").is_file():
        expected = "a shard folder (manifest.jsonl and shards/; other data are written BENCHMARK:PATH)"
        raise unlike(spec, expected, found_in(root))
    try:
        dataset = shards.open_dataset(root)
    except ValueError as error:
        raise ProbeError(f"data {spec!r}: {error}") from error
    if len(dataset.select("val")) == 0:
        raise ProbeError(f"data {spec!r} has no scenes in its val split: build it with validation scenes")
    classes = dataset.chunk(int(dataset.select("val")[0])).classes
    train = _frames(dataset, "train", TRAIN_SCENES)
    return Benchmark(
        name="shards",
        spec=spec,
        test=FrameList(frames=_frames(dataset, "val", TEST_SCENES)),
        train=FrameList(frames=train) if train else None,
        split="val",
        fit="crop",
        auc="exact",
        classes=classes,
    )


def _frames(dataset: shards.Dataset, split: Literal["train", "val"], most: int) -> tuple[Frame, ...]:
    by_scene: dict[int, list[int]] = {}
    for number in dataset.select(split):
        by_scene.setdefault(int(dataset.scene_hash[number]), []).append(int(number))
    scenes = sorted(by_scene, key=lambda scene: hashlib.sha256(str(scene).encode()).digest())[:most]
    return tuple(
        frame for scene in scenes for number in by_scene[scene] for frame in _chunk_frames(dataset, number)
    )


def _chunk_frames(dataset: shards.Dataset, number: int) -> list[Frame]:
    chunk = dataset.chunk(number)
    with_depth = bool(dataset.has(fmt.HAS_DEPTH)[number])
    with_labels = bool(dataset.has(fmt.HAS_LABELS)[number])
    frames = []
    for index, (name, (height, width)) in enumerate(zip(chunk.frame_names, chunk.sizes, strict=True)):
        frames.append(
            Frame(
                name=f"{chunk.key}/{name}",
                scene=chunk.scene,
                group=chunk.key,
                height=int(height),
                width=int(width),
                image=partial(dataset.read_image, number, index),
                digest=partial(_digest, dataset, number, index),
                intrinsics=None if chunk.intrinsics is None else np.asarray(chunk.intrinsics[index]),
                world_to_camera=None
                if chunk.world_to_camera is None
                else np.asarray(chunk.world_to_camera[index])[:3],
                depth=partial(dataset.read_depth, number, index) if with_depth else None,
                labels=partial(dataset.read_labels, number, index) if with_labels else None,
                stamp=dataset.hash if with_depth or with_labels else "",
            )
        )
    return frames


def _digest(dataset: shards.Dataset, number: int, index: int) -> str:
    return hashlib.sha256(dataset.read_jpeg(number, index)).hexdigest()


READER = BenchmarkReader(
    title="a shard folder",
    where="python -m shards build",
    layout="manifest.jsonl\nshards/",
    open=_open,
)
