"""Features of every image once: one forward pass for all layers, kept on disk or in memory, read back by number.

`extract` is all that probes need: it makes what is missing and returns maps. `fill` and `fill_in_processes` only make
it, a part each, so that several devices share the work of one cache (`probes.encoders.feature_cache`). While a batch
is encoded the next is decoded and the last is written, by threads. This file knows no benchmark and no probe.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from probes.encoders.encoder import Encoder, open_encoder
from probes.encoders.feature_cache import MapFolder, map_shape, read_map
from probes.errors import ProbeError

KEEP_IN_MEMORY = 2 << 30  # bytes of one layer's features; more are read from the cache as they are asked for
THREADS = min(8, os.cpu_count() or 1)  # that decode images and write maps
Store = Callable[[int, str, NDArray], object]


class Images(Protocol):
    """Square images of one size, each with the hash of the bytes it is made from."""

    size: int
    rule: str
    """Names the code that makes an image square."""
    hashes: Sequence[str]

    def __len__(self) -> int: ...

    def load(self, index: int) -> NDArray[np.uint8]:
        """Image (3, size, size); several threads may ask at once."""
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
        return read_map(found) if isinstance(found, Path) else found


def extract(
    encoder: Encoder,
    images: Images,
    layers: Sequence[int],
    *,
    cache: Path | None = None,
    batch: int = 32,
) -> dict[int, FeatureMaps]:
    """Features of all images for the given layers: one forward pass an image, none for those in the cache.

    Args:
        encoder: see `probes.encoders.encoder`.
        images: square uint8 images with their hashes.
        layers: block numbers from 1.
        cache: folder of the cache; None keeps everything in memory.
        batch: images a forward pass.

    Raises:
        ProbeError: the cache cannot be written or holds other features under this name, or features are not finite.
    """
    if cache is not None:
        fill(encoder, images, layers, cache=cache, batch=batch)
        folders = _folders(cache, encoder, images, layers)
        return {layer: _maps([f.file(name) for name in images.hashes]) for layer, f in folders.items()}
    kept: dict[int, dict[str, NDArray]] = {layer: {} for layer in layers}

    def keep(layer: int, name: str, value: NDArray) -> None:
        kept[layer][name] = value

    _encode(encoder, images, _first_indices(images), layers, keep, batch, progress=False)
    return {layer: FeatureMaps([found[name] for name in images.hashes]) for layer, found in kept.items()}


def fill(
    encoder: Encoder,
    images: Images,
    layers: Sequence[int],
    *,
    cache: Path,
    part: tuple[int, int] = (0, 1),
    batch: int = 32,
    progress: bool = False,
) -> int:
    """Make the features that the cache lacks.

    Args:
        encoder: with all further arguments as of `extract`.
        images: all of them, the same in every part.
        layers: block numbers from 1.
        cache: folder of the cache.
        part: (i, n) makes the i-th of n equal shares of the images.
        batch: images a forward pass.
        progress: show a bar on stderr.

    Returns:
        How many images were encoded.

    Raises:
        ProbeError: as of `extract`.
    """
    folders = _folders(cache, encoder, images, layers)
    mine = list(_first_indices(images).items())[part[0] :: part[1]]
    todo = {name: index for name, index in mine if not all(f.holds(name) for f in folders.values())}
    store = lambda layer, name, value: folders[layer].write(name, value)  # noqa: E731
    _encode(encoder, images, todo, layers, store, batch, progress=progress)
    return len(todo)


def fill_in_processes(
    spec: str,
    images: Images,
    layers: Sequence[int],
    *,
    cache: Path,
    devices: Sequence[str],
    seed: int = 0,
    batch: int = 32,
) -> int:
    """Make the features that the cache lacks in as many processes as there are ``devices``, an equal share each.

    Args:
        spec: of the encoder, as of `probes.encoders.encoder.open_encoder`: every process opens it for itself.
        images: as of `extract`; they are pickled on their way to the processes.
        layers: block numbers from 1.
        cache: folder of the cache.
        devices: names such as ``cuda:1``; the same may occur several times.
        seed: of random weights without their own.
        batch: images a forward pass.

    Returns:
        How many images were encoded.

    Raises:
        ProbeError: as of `extract`, or a process died.
    """
    # Forked copies of a process with threads may hang, and CUDA cannot be forked.
    with ProcessPoolExecutor(len(devices), mp_context=get_context("spawn")) as pool:
        share = partial(_fill_share, spec, seed, images, tuple(layers), cache, batch, len(devices))
        try:
            return sum(pool.map(share, range(len(devices)), devices))
        except BrokenProcessPool as error:
            raise ProbeError(
                "a process that makes features died, most likely for want of memory: a smaller --batch"
            ) from error


def _fill_share(
    spec: str,
    seed: int,
    images: Images,
    layers: Sequence[int],
    cache: Path,
    batch: int,
    shares: int,
    share: int,
    device: str,
) -> int:
    if device == "cpu":
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // shares))
    encoder = open_encoder(spec, size=images.size, seed=seed, device=device)
    return fill(encoder, images, layers, cache=cache, part=(share, shares), batch=batch)


def _folders(cache: Path, encoder: Encoder, images: Images, layers: Sequence[int]) -> Mapping[int, MapFolder]:
    key = {"encoder": encoder.identity, "size": images.size, "square": images.rule}
    return {layer: MapFolder(cache, {**key, "layer": layer}) for layer in layers}


def _first_indices(images: Images) -> dict[str, int]:
    """The first index of every image that differs from those before it, by hash."""
    found: dict[str, int] = {}
    for index, name in enumerate(images.hashes):
        found.setdefault(name, index)
    return found


def _encode(
    encoder: Encoder,
    images: Images,
    todo: Mapping[str, int],
    layers: Sequence[int],
    store: Store,
    batch: int,
    *,
    progress: bool,
) -> None:
    """Encode images in batches and store their maps; decoding runs two batches ahead, storing one behind."""
    names = list(todo)
    parts = [names[start : start + batch] for start in range(0, len(names), batch)]
    bar = tqdm(total=len(names), desc=f"encode {encoder.spec}", unit="img", leave=False, disable=not progress)
    with ThreadPoolExecutor(THREADS) as pool, bar:
        stored: list[Future] = []
        for part, pixels in _ahead(parts, lambda name: pool.submit(images.load, todo[name])):
            maps = encoder.encode(pixels, layers)
            for done in stored:
                done.result()
            stored = [
                pool.submit(store, layer, name, value)
                for layer in layers
                for name, value in zip(part, _halves(maps[layer], part, encoder), strict=True)
            ]
            bar.update(len(part))
        for done in stored:
            done.result()


def _ahead(
    parts: Sequence[Sequence[str]], load: Callable[[str], Future]
) -> Iterator[tuple[Sequence[str], Tensor]]:
    """Each part with its images (n, 3, S, S), those of the next two being loaded meanwhile."""
    waiting: deque[tuple[Sequence[str], list[Future]]] = deque()
    for part in [*parts, None, None]:
        if part is not None:
            waiting.append((part, [load(name) for name in part]))
        if waiting and (len(waiting) > 2 or part is None):
            ready, loading = waiting.popleft()
            yield ready, torch.from_numpy(np.stack([found.result() for found in loading]))


def _halves(features: Tensor, names: Sequence[str], encoder: Encoder) -> list[NDArray]:
    """Maps (n, h, w, C) as they are kept, one by one.

    Cached and fresh features must be the same numbers, so the rounding happens with and without a cache. So must
    their memory layout be: sums over other strides round otherwise.
    """
    half = features.half()
    if bool(torch.isfinite(half).all()):
        return list(half.contiguous().cpu().numpy())
    found = []
    for name, own, rounded in zip(names, features, half, strict=True):
        if not bool(torch.isfinite(own).all()):
            raise ProbeError(f"encoder {encoder.spec!r} gives features that are not finite (image {name})")
        kept = rounded if bool(torch.isfinite(rounded).all()) else own
        found.append(kept.contiguous().cpu().numpy())
    return found


def _maps(files: list[Path]) -> FeatureMaps:
    count = int(np.prod(map_shape(files[0])))
    small = 2 * count * len(files) <= KEEP_IN_MEMORY
    return FeatureMaps([read_map(file) for file in files] if small else files)
