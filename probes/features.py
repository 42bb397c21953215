"""Features of every image once: computed in batches, kept on disk under a hash of all they depend on.

The key of a map is the encoder's identity (weights, preprocessing, code), the layer, the evaluated size,
the rule that makes the image square, and the image's own bytes; so nothing stale can be read and encoders
may share a folder. Files are plain ``.npy`` in float16 (float32 where that would overflow), written under a
temporary name.
"""

import hashlib
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from probes.encoders import Encoder
from probes.errors import ProbeError
from probes.files import write_whole

KEEP_IN_MEMORY = 2 << 30  # bytes of one layer's features; more are read from the cache as they are asked for


class Images(Protocol):
    """Square images of one size, each with the hash of the bytes it is made from."""

    size: int
    rule: str
    """Names the code that makes an image square."""
    hashes: Sequence[str]

    def __len__(self) -> int: ...

    def load(self, index: int) -> NDArray[np.uint8]:
        """Image (3, size, size)."""
        ...


class FeatureMaps:
    """Maps (h, w, C) of one layer for all images of a set, in memory or read from the cache when needed."""

    def __init__(self, maps: Sequence[NDArray | Path], minus: Tensor | None = None) -> None:
        self._maps = maps
        self._minus = minus
        self.grid: tuple[int, int] = self._read(0).shape[:2]

    def __len__(self) -> int:
        return len(self._maps)

    def tokens(self, indices: Sequence[int]) -> Tensor:
        """Features (n, h * w, C) float32 of the images at ``indices``."""
        maps = np.stack([self._read(i) for i in indices]).astype(np.float32)
        tokens = torch.from_numpy(maps).flatten(1, 2)
        return tokens if self._minus is None else tokens - self._minus

    def part(self, indices: Sequence[int]) -> "FeatureMaps":
        """The maps of the images at ``indices``, at least one, in that order."""
        return FeatureMaps([self._maps[i] for i in indices], self._minus)

    def without_position(self) -> "FeatureMaps":
        """The same maps minus, at each grid position, the mean feature there over all these images."""
        total = np.zeros(self._read(0).shape, np.float64)
        for index in range(len(self)):
            total += self._read(index)
        mean = torch.from_numpy((total / len(self)).astype(np.float32)).flatten(0, 1)
        return FeatureMaps(self._maps, mean)

    @staticmethod
    def joined(parts: Sequence["FeatureMaps"]) -> "FeatureMaps":
        """Maps of several sets of images, one after the other."""
        return FeatureMaps([found for part in parts for found in part._maps])

    def _read(self, index: int) -> NDArray:
        found = self._maps[index]
        return np.load(found, allow_pickle=False) if isinstance(found, Path) else found


def default_cache() -> Path:
    """The user's cache folder: $XDG_CACHE_HOME/mumkit/features, by default below ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mumkit" / "features"


def extract(
    encoder: Encoder,
    images: Images,
    layers: Sequence[int],
    *,
    cache: Path | None = None,
    batch: int = 32,
    progress: bool = False,
) -> dict[int, FeatureMaps]:
    """Features of all images for the given layers: one forward pass an image, none for those in the cache.

    Args:
        encoder: see `probes.encoders`.
        images: square uint8 images with their hashes.
        layers: block numbers from 1.
        cache: folder of the cache; None keeps everything in memory.
        batch: images a forward pass.
        progress: show a bar on stderr.

    Raises:
        ProbeError: the cache folder cannot be written.
    """
    folders = {layer: _folder(cache, encoder, images, layer) for layer in layers} if cache else {}
    kept: dict[int, dict[str, NDArray | Path]] = {layer: {} for layer in layers}
    todo: dict[str, int] = {}  # hash of an image -> its first index
    for index, name in enumerate(images.hashes):
        if name in todo or all(name in kept[layer] for layer in layers):
            continue
        paths = {layer: folders[layer] / f"{name}.npy" for layer in folders}
        if paths and all(path.is_file() for path in paths.values()):
            for layer, path in paths.items():
                kept[layer][name] = path
        else:
            todo[name] = index
    names = list(todo)
    bar = tqdm(total=len(names), desc=f"encode {encoder.spec}", unit="img", leave=False, disable=not progress)
    for start in range(0, len(names), batch):
        part = names[start : start + batch]
        pixels = torch.from_numpy(np.stack([images.load(todo[name]) for name in part]))
        for layer, maps in encoder.encode(pixels, layers).items():
            for name, value in zip(part, map(_half, maps), strict=True):
                kept[layer][name] = _write(folders[layer] / f"{name}.npy", value) if cache else value
        bar.update(len(part))
    bar.close()
    return {layer: _maps([found[name] for name in images.hashes]) for layer, found in kept.items()}


def _folder(cache: Path, encoder: Encoder, images: Images, layer: int) -> Path:
    key = {"encoder": encoder.identity, "layer": layer, "size": images.size, "square": images.rule}
    text = json.dumps(key, sort_keys=True)
    folder = cache / hashlib.sha256(text.encode()).hexdigest()[:24]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "key.json").exists():
            write_whole(folder / "key.json", text)
    except OSError as error:
        raise ProbeError(f"the feature cache {cache} cannot be written ({error}): choose another") from error
    return folder


def _half(features: Tensor) -> NDArray:
    # Cached and fresh features must be the same numbers, so the rounding happens with and without a cache.
    # So must their memory layout be: sums over other strides round otherwise.
    half = features.half()
    return (half if torch.isfinite(half).all() else features).contiguous().cpu().numpy()


def _write(path: Path, value: NDArray) -> Path:
    buffer = io.BytesIO()
    np.save(buffer, value, allow_pickle=False)
    try:
        write_whole(path, buffer.getvalue())
    except OSError as error:
        raise ProbeError(f"the feature cache cannot be written ({error}): choose another") from error
    return path


def _maps(found: list[NDArray | Path]) -> FeatureMaps:
    first = FeatureMaps(found[:1]).tokens([0])
    if first.nbytes // 2 * len(found) <= KEEP_IN_MEMORY:
        found = [np.load(item, allow_pickle=False) if isinstance(item, Path) else item for item in found]
    return FeatureMaps(found)
