"""A fixed set of sequences, whole centre squares without augmentation: for validation and for pictures."""

import numpy as np
import torch

from shards.decode import load_square
from shards.draw import Rule, grow
from shards.format import ShardsError
from shards.plan import FIXED, stream
from shards.reader import Dataset


def fixed_views(
    dataset: Dataset, *, split: str | None = "val", scenes: int, views: int, size: int, seed: int = 0
) -> tuple[torch.Tensor, np.ndarray]:
    """The same sequences whenever they are asked for: one of each of `scenes` different scenes.

    Each is drawn as a connected set (`shards/draw.py`) from the scene's largest chunk. Scenes with fewer than
    `views` frames are passed over, and fewer rows come back where there are fewer scenes.

    Returns:
        uint8 (B, views, 3, size, size) with B <= scenes, and the (B,) int64 chunks they come from.

    Raises:
        ShardsError: no scene of the split has enough frames.
    """
    chunks = np.asarray(dataset.select(split))
    frames = np.asarray(dataset.frames_per_chunk)[chunks]
    large = frames >= views
    if not large.any():
        raise ShardsError(
            f"no scene of the {split or 'whole'} split of {dataset.root} has {views} frames"
            f" (it holds {len(chunks)} chunks, the largest of {max(frames, default=0)}):"
            f" build it with scenes of at least {views} photographs there"
        )
    chunks = chunks[large][np.argsort(-frames[large], kind="stable")]
    hashes, first = np.unique(np.asarray(dataset.scene_hash)[chunks], return_index=True)
    order = stream(seed, FIXED).permutation(len(hashes))[:scenes]
    chosen = chunks[first[order]].astype(np.int64)
    rows = []
    for chunk in chosen.tolist():
        key = stream(seed, FIXED, 1, chunk).integers(2**63, size=1, dtype=np.uint64)
        (picked,) = grow([dataset.covisibility(chunk)], [(views,)], key, Rule())
        rows.append(
            torch.stack([load_square(dataset.read_jpeg(chunk, frame), size)[0] for frame in picked.tolist()])
        )
    return torch.stack(rows), chosen
