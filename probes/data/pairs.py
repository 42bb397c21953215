"""The pairs that are scored: the benchmark's frozen list, or a deterministic choice; and the hash of the list.

Where a benchmark has no list, pairs are tried in the order of a hash of their names and taken if enough points
are visible and the viewpoint angle fits.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from probes.data.correspondences import Correspondences, Correspondent
from probes.data.frames import FrameList, FramePair
from probes.data.square import Fit, SquareFrames
from probes.errors import NoPairs


@dataclass(frozen=True, kw_only=True)
class PairConfig:
    """Which pairs are taken; part of the identity of a result."""

    size: int
    """Evaluated size: side in px of the square images and the unit of all errors."""
    fit: Fit = "crop"
    angles: tuple[float, float] = (10.0, 60.0)
    """Least and most viewpoint angle in degrees of pairs that are chosen; a frozen list is taken as it is."""
    min_queries: int = 16
    """Least visible query points of a pair that is chosen."""
    pairs: int = 384
    """Pairs in all, spread evenly over the scenes (rounded up per scene); of a frozen list, those with the
    smallest hashes of their names."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two frames, and query points of ``a`` with where they truly are in ``b``, both (n, 2) px of the square."""

    name: str
    scene: str
    a: int
    """Index into the frames of its `PairSet`."""
    b: int
    angle: float | None
    overlap: float | None
    queries: NDArray = field(repr=False)
    """(0, 2) where only cameras are known."""
    targets: NDArray = field(repr=False)
    relative_pose: NDArray | None = field(default=None, repr=False)
    """(3, 4): x_b = R x_a + t; None without poses."""
    homography: NDArray | None = field(default=None, repr=False)
    """(3, 3) in px of the original images."""


@dataclass(frozen=True, kw_only=True)
class PairSet:
    """The pairs of one split and the frames they show."""

    data: str
    """The spec the user gave."""
    config: PairConfig
    frames: SquareFrames = field(repr=False)
    pairs: tuple[Pair, ...] = field(repr=False)
    refused: dict[str, int]
    """Why candidate pairs were not taken, counted."""

    @property
    def scenes(self) -> list[str]:
        """Names of the scenes that have pairs."""
        return sorted({pair.scene for pair in self.pairs})

    def only(self, pairs: Sequence[Pair]) -> "PairSet":
        """Some of its pairs, without the frames that none of them shows, so that no feature is made in vain."""
        order = list(dict.fromkeys(index for pair in pairs for index in (pair.a, pair.b)))
        place = {index: at for at, index in enumerate(order)}
        frames = [self.frames.frames[index] for index in order]
        return replace(
            self,
            frames=SquareFrames(frames, self.frames.size, self.frames.fit),
            pairs=tuple(replace(pair, a=place[pair.a], b=place[pair.b]) for pair in pairs),
        )

    @cached_property
    def hash(self) -> str:
        """SHA-256 over names, image bytes, size, queries, targets (to 1/1000 px) and poses of all pairs."""
        digest = hashlib.sha256(f"{self.config.size} {self.frames.rule}\n".encode())
        for pair in self.pairs:
            images = self.frames.hashes[pair.a], self.frames.hashes[pair.b]
            digest.update(f"{pair.name} {pair.scene} {images} {len(pair.queries)}\n".encode())
            digest.update(
                np.round(np.concatenate([pair.queries, pair.targets]) * 1000).astype("<i8").tobytes()
            )
            if pair.relative_pose is not None:
                digest.update(np.round(pair.relative_pose * 1e6).astype("<i8").tobytes())
        return digest.hexdigest()


_KEPT: dict[tuple[str, str, PairConfig, bool], PairSet] = {}
_MOST_KEPT = 8


def choose_pairs(data: str, split: FrameList, config: PairConfig, *, points: bool = True) -> PairSet:
    """The pairs of a split.

    Args:
        data: the spec the user gave, for messages.
        split: its frames and, where it has one, its frozen list.
        config: which pairs are taken.
        points: whether pairs need true correspondences; with False a frozen list's pairs without them are kept
            (empty queries), which is enough to score poses.

    Several probes ask for the same list; the newest lists are kept.

    Raises:
        NoPairs: no pair fits, with the counted reasons.
    """
    key = data, split.hash, config, points
    if key in _KEPT:
        return _KEPT[key]
    chosen = _chosen(data, split, config, points)
    if len(_KEPT) >= _MOST_KEPT:
        _KEPT.pop(next(iter(_KEPT)))
    return _KEPT.setdefault(key, chosen)


def _chosen(data: str, split: FrameList, config: PairConfig, points: bool) -> PairSet:
    used = SquareFrames(split.frames, config.size, config.fit)
    correspondent = Correspondent(used)
    refused: dict[str, int] = {}
    pairs: list[Pair] = []
    for listed, reason in _listed(split, used, correspondent, config, points):
        if reason:
            refused[reason] = refused.get(reason, 0) + 1
        else:
            pairs.append(listed)
    if not pairs:
        why = ", ".join(f"{count} with {reason}" for reason, count in refused.items()) or "scenes of one view"
        raise NoPairs(f"data {data!r} has no pair of views to score: {why}")
    return PairSet(data=data, config=config, frames=used, pairs=tuple(pairs), refused=refused).only(pairs)


def _listed(
    split: FrameList, used: SquareFrames, correspondent: Correspondent, config: PairConfig, points: bool
) -> Iterator[tuple[Pair | None, str | None]]:
    """Pairs taken, and reasons for those that were not."""
    if split.pairs is not None:
        names = sorted(split.pairs, key=lambda pair: stable_order(pair.name))[: config.pairs]
        taken = {pair.name for pair in names}
        for listed in split.pairs:
            if listed.name in taken:
                found = correspondent.between(listed.a, listed.b, listed.homography)
                if points and (found is None or len(found.queries) == 0):
                    yield None, "no point that both views see"
                else:
                    yield _pair(used, listed, found), None
        return
    groups: dict[tuple[str, str], list[int]] = {}
    for index, frame in enumerate(split.frames):
        groups.setdefault((frame.scene, frame.group), []).append(index)
    scenes = list(dict.fromkeys(scene for scene, _ in groups))
    per_scene = -(-config.pairs // max(1, len(scenes)))
    counts: dict[str, int] = {}
    for (scene, group), members in groups.items():
        for i, j in candidates(group or scene, [split.frames[i].name for i in members]):
            if counts.get(scene, 0) == per_scene:
                break
            a, b = members[i], members[j]
            found = correspondent.between(a, b)
            reason = refusal(found, config)
            if reason:
                yield None, reason
                continue
            counts[scene] = counts.get(scene, 0) + 1
            name = f"{split.frames[a].name}|{split.frames[b].name}"
            yield _pair(used, FramePair(name=name, scene=scene, a=a, b=b), found), None


def _pair(used: SquareFrames, listed: FramePair, found: Correspondences | None) -> Pair:
    nothing = np.empty((0, 2))
    stated = listed.overlap
    return Pair(
        name=listed.name,
        scene=listed.scene,
        a=listed.a,
        b=listed.b,
        angle=found.angle if found else None,
        overlap=stated if stated is not None else found.overlap if found else None,
        queries=found.queries if found else nothing,
        targets=found.targets if found else nothing,
        relative_pose=_relative(used.pose(listed.a), used.pose(listed.b), listed.relative_pose),
        homography=listed.homography,
    )


def _relative(pose_a: NDArray | None, pose_b: NDArray | None, own: NDArray | None) -> NDArray | None:
    if own is not None or pose_a is None or pose_b is None:
        return own
    rotation = pose_b[:, :3] @ pose_a[:, :3].T
    return np.column_stack([rotation, pose_b[:, 3] - rotation @ pose_a[:, 3]])


def refusal(found: Correspondences | None, config: PairConfig) -> str | None:
    """Why a candidate pair is not taken; None if it is."""
    if found is None:
        return "no depth or tracks with cameras"
    if len(found.queries) < config.min_queries:
        return f"fewer than {config.min_queries} visible queries"
    if found.angle is not None and not config.angles[0] <= found.angle <= config.angles[1]:
        return f"viewpoint angle outside {config.angles[0]:g} to {config.angles[1]:g} degrees"
    return None


def stable_order(name: str) -> bytes:
    """A sorting key that looks random but is the same everywhere."""
    return hashlib.sha256(name.encode()).digest()


def candidates(scene: str, names: Sequence[str]) -> Iterator[tuple[int, int]]:
    """All pairs of views in the order of a hash of their names; the hash also says which one is asked."""
    keyed = []
    for i in range(len(names)):
        for j in range(i + 1, len(names)):
            key = stable_order(f"{scene}\0{names[i]}\0{names[j]}")
            keyed.append((key, (i, j) if key[-1] % 2 else (j, i)))
    return (pair for _, pair in sorted(keyed))
