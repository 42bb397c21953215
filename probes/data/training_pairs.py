"""Pairs that a reading is trained on, apart from everything that is scored, and a part held out for choices.

Images are told apart by their bytes, not by their names. The held-out part is whole scenes of the training list: a
layer or a rate is chosen on it, never on what is scored, and nothing is trained on it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from probes.data.frames import Benchmark
from probes.data.pairs import Pair, PairConfig, PairSet, choose_pairs, stable_order
from probes.errors import Unfed

HELD_OUT = 0.1
"""Share of the training scenes that are held out, of five scenes or more."""


@dataclass(frozen=True, kw_only=True)
class TrainingPairs:
    """Training pairs and held-out pairs of one training list; indices into `frames` of its `PairSet`."""

    chosen: PairSet = field(repr=False)
    """Both parts, and the frames they show."""
    fitted: tuple[Pair, ...] = field(repr=False)
    """What is trained on."""
    held_out: tuple[Pair, ...] = field(repr=False)
    """What choices are made on; empty where the scenes are too few."""
    dropped: int
    """Pairs left out because they show an image that is scored."""


def training_pairs(train: Benchmark, scored: PairSet, config: PairConfig) -> TrainingPairs:
    """Training pairs that show no image of the scored ones.

    Args:
        train: its train part is used.
        scored: the pairs that are scored.
        config: how training pairs are chosen; `pairs` is how many at most.

    Raises:
        ProbeError: no training part, no pair in it, or none without scored images.
    """
    if train.train is None:
        raise Unfed(
            f"data {train.spec!r} has nothing to train on: name other scenes with --train-data, or take "
            "readings that need no training"
        )
    chosen = choose_pairs(train.spec, train.train, config)
    taken = set(scored.frames.hashes)
    hashes = chosen.frames.hashes
    kept = [pair for pair in chosen.pairs if not taken & {hashes[pair.a], hashes[pair.b]}]
    if not kept:
        raise Unfed(
            f"all images of the training data {train.spec!r} are also scored: name other scenes with --train-data"
        )
    used = chosen.only(kept)
    held = held_out_scenes(used.scenes)
    return TrainingPairs(
        chosen=used,
        fitted=tuple(pair for pair in used.pairs if pair.scene not in held),
        held_out=tuple(pair for pair in used.pairs if pair.scene in held),
        dropped=len(chosen.pairs) - len(kept),
    )


def held_out_scenes(scenes: Sequence[str]) -> set[str]:
    """Scenes on which choices are made: `HELD_OUT` of them by a hash of their names, none of fewer than five."""
    if len(scenes) < 5:
        return set()
    return set(sorted(scenes, key=stable_order)[: max(1, round(HELD_OUT * len(scenes)))])
