"""Which data a spec names: the door to pairs with true correspondences, whatever the truth is made of."""

from pathlib import Path
from typing import Literal

from probes.depth_pairs import depth_pairs, open_shards
from probes.errors import ProbeError, nearest
from probes.pairs import PairConfig, PairSet
from probes.track_pairs import frame_square, model_hash, read_model, track_pairs


def open_pairs(spec: str, config: PairConfig, *, split: Literal["train", "val"] = "val") -> PairSet:
    """Find the pairs of ``spec``: a shard folder with depth and cameras, or ``colmap:PATH``.

    A COLMAP model has no splits: all of it is taken for either.

    Raises:
        ProbeError: no such data, no depth, no scenes in the split, or no pair that fits the config.
    """
    kind, path = _parse(spec)
    return track_pairs(path, spec, config) if kind == "colmap" else depth_pairs(path, config, split)


def content_hash(spec: str) -> str:
    """SHA-256 that changes with anything that the pairs or pixels of ``spec`` depend on. Raises ProbeError."""
    kind, path = _parse(spec)
    return model_hash(read_model(path, spec)) if kind == "colmap" else open_shards(path).hash


def shortest_side(spec: str) -> int:
    """Shortest side in px of the images of ``spec``; of a shard folder, of its first scored chunk."""
    kind, path = _parse(spec)
    if kind == "colmap":
        return min(frame_square(frame, 1).side for frame in read_model(path, spec).frames)
    dataset = open_shards(path)
    chosen = dataset.select("val")
    return int(dataset.chunk(chosen[0]).sizes.min()) if len(chosen) else 0


def _parse(spec: str) -> tuple[Literal["shards", "colmap"], Path]:
    kind, _, rest = spec.partition(":")
    if Path(spec).is_dir():
        return "shards", Path(spec)
    if kind == "colmap" and rest:
        return "colmap", Path(rest)
    if rest and "/" not in kind:
        raise ProbeError(
            f"unknown kind of data {spec!r}{nearest(kind, ['colmap'])} (data is a shard folder or colmap:PATH)"
        )
    raise ProbeError(f"data {spec!r}: no such folder (data is a shard folder or colmap:PATH)")
