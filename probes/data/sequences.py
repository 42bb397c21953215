"""Frames of one scene that are read together: the benchmark's frozen list, or a fixed draw; and the hash of the list.

Where a benchmark has no sequences, they are made: along its list of pairs where it has one, so that frames overlap,
else by drawing from every group of frames. A draw depends on names alone and is the same everywhere. Frames without
a camera belong to none. This file knows no encoder and no score.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from probes.data.frames import Frame, FrameList, FrameSequence
from probes.data.pairs import stable_order
from probes.data.square import Fit, SquareFrames
from probes.errors import NoPairs


@dataclass(frozen=True, kw_only=True)
class SequenceConfig:
    """Which sequences are taken; part of the identity of a result."""

    size: int
    """Evaluated size: side in px of the square images."""
    fit: Fit = "crop"
    frames: int = 10
    """Frames of a sequence that is made, or as many as there are; a frozen list is taken as it is."""
    least: int = 3
    """Fewer frames make no sequence."""
    sequences: int = 256
    """Sequences at most: those with the smallest hashes of their names."""
    depth: bool = False
    """Whether all frames must have depth."""


@dataclass(frozen=True, kw_only=True)
class SequenceSet:
    """The sequences of one split and the frames they show."""

    data: str
    """The spec the user gave."""
    config: SequenceConfig
    frames: SquareFrames = field(repr=False)
    sequences: tuple[FrameSequence, ...] = field(repr=False)
    """Indices into `frames`."""
    refused: dict[str, int]
    """Why frames or sequences were not taken, counted."""

    @property
    def scenes(self) -> list[str]:
        """Names of the scenes that have sequences."""
        return sorted({sequence.scene for sequence in self.sequences})

    @cached_property
    def hash(self) -> str:
        """SHA-256 over names, image bytes, size and cameras of all sequences."""
        digest = hashlib.sha256(f"{self.config.size} {self.frames.rule}\n".encode())
        for sequence in self.sequences:
            digest.update(f"{sequence.name} {sequence.scene} {sequence.group}\n".encode())
            for index in sequence.frames:
                frame = self.frames.frames[index]
                digest.update(f"{frame.name} {self.frames.hashes[index]} {frame.stamp}\n".encode())
                for known in (self.frames.intrinsics(index), frame.world_to_camera):
                    digest.update(np.round(known * 1e6).astype("<i8").tobytes())
        return digest.hexdigest()


def choose_sequences(
    data: str, split: FrameList, config: SequenceConfig, *, without: frozenset[str] = frozenset()
) -> SequenceSet:
    """The sequences of a split.

    Args:
        data: the spec the user gave, for messages.
        split: its frames and, where it has them, its frozen sequences or pairs.
        config: which sequences are taken.
        without: digests (`SquareFrames.hashes`) of images that must not occur.

    Raises:
        NoPairs: no sequence fits, with the counted reasons.
    """
    refused: dict[str, int] = {}
    usable = [_reason(frame, config) for frame in split.frames]
    for reason in usable:
        if reason:
            refused[reason] = refused.get(reason, 0) + 1
    listed = split.sequences if split.sequences is not None else _made(split, config, usable)
    taken = []
    for sequence in listed:
        if any(usable[index] for index in sequence.frames):
            reason = "a frame without camera or depth"
        elif len(sequence.frames) < config.least:
            reason = f"fewer than {config.least} frames"
        else:
            taken.append(sequence)
            continue
        refused[f"sequences with {reason}"] = refused.get(f"sequences with {reason}", 0) + 1
    smallest = {s.name for s in sorted(taken, key=lambda s: stable_order(s.name))[: config.sequences]}
    taken = [sequence for sequence in taken if sequence.name in smallest]
    if without:
        taken, dropped = _without(split, taken, config, without)
        refused |= {"images that are scored": dropped} if dropped else {}
    if not taken:
        why = ", ".join(f"{count} with {reason}" for reason, count in refused.items()) or "scenes of one view"
        raise NoPairs(f"data {data!r} has no sequence of {config.least} views to read together: {why}")
    return _only_used(data, split, config, taken, refused)


def _reason(frame: Frame, config: SequenceConfig) -> str | None:
    if not frame.posed or not np.isfinite(frame.world_to_camera).all():
        return "frames without a camera"
    return "frames without depth" if config.depth and frame.depth is None else None


def _made(split: FrameList, config: SequenceConfig, usable: Sequence[str | None]) -> list[FrameSequence]:
    """A draw from every group of frames, or along the list of pairs."""
    groups: dict[tuple[str, str], list[int]] = {}
    for index, frame in enumerate(split.frames):
        if usable[index] is None:
            groups.setdefault((frame.scene, frame.group), []).append(index)
    neighbours: dict[int, list[int]] = {}
    for pair in split.pairs or ():
        if usable[pair.a] is None and usable[pair.b] is None:
            neighbours.setdefault(pair.a, []).append(pair.b)
            neighbours.setdefault(pair.b, []).append(pair.a)
    made, short = [], Counter(group or scene for scene, group in groups)
    for (scene, group), members in groups.items():
        name = group or scene
        name = name if short[name] == 1 else f"{scene}/{name}"
        rng = np.random.Generator(np.random.Philox(int.from_bytes(stable_order(name)[:8], "big")))
        order = sorted(members, key=lambda index: split.frames[index].name)
        order = [order[place] for place in rng.permutation(len(order))]
        if split.pairs is None:
            made.append(_sequence(name, scene, order[: config.frames]))
            continue
        left = [index for index in order if index in neighbours]
        while left:
            walk = _walk(left, neighbours, config.frames)
            made.append(_sequence(f"{name}#{len(made)}", scene, walk))
            left = [index for index in left if index not in set(walk)]
    return made


def _sequence(name: str, scene: str, frames: Sequence[int]) -> FrameSequence:
    return FrameSequence(name=name, scene=scene, frames=tuple(sorted(frames)))


def _walk(left: Sequence[int], neighbours: dict[int, list[int]], most: int) -> list[int]:
    """The first frame that is left, then always the first one that is paired with any taken."""
    walk, place = [left[0]], {index: at for at, index in enumerate(left)}
    open_ = set(neighbours[left[0]]) & place.keys()
    while len(walk) < most and open_:
        found = min(open_, key=place.__getitem__)
        walk.append(found)
        open_ = (open_ | (set(neighbours[found]) & place.keys())) - set(walk)
    return walk


def _without(
    split: FrameList, taken: Sequence[FrameSequence], config: SequenceConfig, digests: frozenset[str]
) -> tuple[list[FrameSequence], int]:
    """Sequences that lack the images of these digests, and how many images that were."""
    seen = {index for sequence in taken for index in sequence.frames}
    scored = {index for index in seen if split.frames[index].digest()[:32] in digests}
    kept = [replace(s, frames=tuple(index for index in s.frames if index not in scored)) for s in taken]
    return [sequence for sequence in kept if len(sequence.frames) >= config.least], len(scored)


def _only_used(
    data: str,
    split: FrameList,
    config: SequenceConfig,
    taken: Sequence[FrameSequence],
    refused: dict[str, int],
) -> SequenceSet:
    """The set without the frames that no sequence shows, so that no feature is made in vain."""
    order = list(dict.fromkeys(index for sequence in taken for index in sequence.frames))
    place = {index: at for at, index in enumerate(order)}
    return SequenceSet(
        data=data,
        config=config,
        frames=SquareFrames([split.frames[index] for index in order], config.size, config.fit),
        sequences=tuple(replace(s, frames=tuple(place[index] for index in s.frames)) for s in taken),
        refused=refused,
    )
