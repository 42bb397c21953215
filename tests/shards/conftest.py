"""A small dataset with pictures whose colours say where a pixel comes from, written by the real writer."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import simplejpeg

from shards import format as fmt
from shards.reader import Dataset
from shards.writer import DatasetWriter, EncodedChunk


def ramp(height: int, width: int, blue: int) -> np.ndarray:
    """Red grows to the right, green downwards, blue is one value: a pixel tells its place and its frame."""
    x = (np.arange(width) + 0.5) / width * 255
    y = (np.arange(height) + 0.5) / height * 255
    return np.stack(np.broadcast_arrays(x[None], y[:, None], float(blue)), -1).round().astype(np.uint8)


def ring_overlap(count: int) -> np.ndarray:
    """Frames stand in a ring and overlap less the further apart they are."""
    apart = np.abs(np.subtract.outer(np.arange(count), np.arange(count)))
    return (254 * np.clip(1 - 0.2 * np.minimum(apart, count - apart), 0, 1)).round().astype(np.uint8)


def encoded_chunk(
    number: int, frames: int, *, size: tuple[int, int], known: bool, split: str
) -> EncodedChunk:
    height, width = size
    intrinsics = [[width * 0.9, 0.0, width * 0.5], [0.0, width * 0.9, height * 0.45], [0.0, 0.0, 1.0]]
    poses = [np.eye(3, 4) + np.array([[0, 0, 0, 0.1 * f]] * 3) for f in range(frames)]
    key = fmt.chunk_key("ramps", f"scene{number}", 0)
    meta = {
        "schema": fmt.VERSION,
        "key": key,
        "source": "ramps",
        "scene": f"scene{number}",
        "split": split,
        "licence": "none",
        "classes": [],
        "frames": [f"{f}.jpg" for f in range(frames)],
        "sizes": [list(size)] * frames,
        "original_sizes": [list(size)] * frames,
        "transforms": [[[1, 0, 0], [0, 1, 0]]] * frames,
        "encodings": ["jpeg90"] * frames,
        "intrinsics": [intrinsics] * frames,
        "world_to_camera": [pose.tolist() for pose in poses],
        "distortions": None,
        "depth_scales": None,
        "timestamps": None,
        "overlap_from": "source",
    }
    overlap = ring_overlap(frames) if known else np.full((frames, frames), fmt.UNKNOWN, np.uint8)
    return EncodedChunk(
        key=key,
        scene=fmt.scene_hash("ramps", f"scene{number}"),
        split=split,
        kinds=fmt.HAS_INTRINSICS | fmt.HAS_POSES,
        overlap=float("nan"),
        meta=fmt.dump_meta(meta),
        covisibility=_npy(overlap),
        jpegs=[
            simplejpeg.encode_jpeg(ramp(*size, (37 * number + 9 * f) % 256), quality=90)
            for f in range(frames)
        ],
    )


def _npy(array: np.ndarray) -> bytes:
    import io

    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


@pytest.fixture
def ramps(tmp_path: Path) -> Callable[..., Dataset]:
    """Make a dataset: `ramps([11, 25])` has two training scenes of so many frames; a name for more than one."""

    def make(
        frames: Sequence[int],
        *,
        val: Sequence[int] = (),
        size: tuple[int, int] = (48, 64),
        known: bool = True,
        name: str = "ramps",
    ) -> Dataset:
        with DatasetWriter(tmp_path / name, source="ramps", shard_bytes=1 << 20) as writer:
            for number, count in enumerate([*frames, *val]):
                split = "train" if number < len(frames) else "val"
                writer.add(encoded_chunk(number, count, size=size, known=known, split=split))
            writer.finish({})
        return Dataset(tmp_path / name)

    return make
