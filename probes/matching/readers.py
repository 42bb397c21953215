"""Ways to read matches off frozen features, each of one layer, of features with or without their position.

A reader projects tokens, compares them by cosine and takes the best patch's centre, or the expectation over all
centres. Heads that are trained are trained here, all layers side by side. Knows no benchmark and no score.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from probes.data.pairs import Pair
from probes.encoders.features import FeatureMaps
from probes.matching.linear import LinearConfig, train_linear_heads
from probes.matching.patch_matches import nearest_neighbours, soft_matches
from probes.metrics.correspondence import patch_centres

Position = Literal["kept", "removed"]
POSITIONS: tuple[Position, ...] = ("kept", "removed")
Variants = Mapping[tuple[int, Position], FeatureMaps]
"""Features of some images by layer, with the mean feature of every grid position kept or removed."""
TRAINED: Mapping[str, tuple[dict[str, Any], bool]] = {
    "linear": ({}, False),
    "linear-soft": ({}, True),
    "linear-learned-t": ({"learn_temperature": True}, True),
    "linear-layer-norm": ({"norm": "layer"}, False),
    "linear-no-norm": ({"norm": "none"}, False),
}
"""How the head of a reading departs from the recipe, and whether the expectation is read."""


@dataclass(frozen=True, kw_only=True)
class Reader:
    """A way to read matches of one layer: project tokens, compare by cosine, take the best patch or the expectation."""

    reading: str
    position: Position
    seed: int | None
    project: Callable[[Tensor], Tensor]
    temperature: float | None = None
    """None: the best patch."""

    def match(self, asked: Tensor, places: Tensor, grid: tuple[int, int], size: int) -> NDArray:
        """Points (n, 2) px float64 in B, of the queries' tokens (n, C) of A and all tokens (h * w, C) of B."""
        a, b = self.project(asked), self.project(places)
        if self.temperature is not None:
            return soft_matches(a, b, grid, size, temperature=self.temperature)[0].double().cpu().numpy()
        return patch_centres(*grid, size)[nearest_neighbours(a, b)[0].cpu().numpy()]


def variants(maps: Mapping[int, FeatureMaps], layers: Iterable[int], images: Sequence[int]) -> Variants:
    """Features of ``images`` by layer and position; means are taken over these images alone."""
    found: dict[tuple[int, Position], FeatureMaps] = {}
    for layer in layers:
        found[layer, "kept"] = maps[layer].part(images)
        found[layer, "removed"] = found[layer, "kept"].without_position()
    return found


def make_readers(
    readings: Sequence[str],
    layers: Sequence[int],
    training: Variants,
    pairs: Sequence[Pair],
    *,
    size: int,
    seeds: Sequence[int],
    recipe: LinearConfig,
    device: torch.device,
    progress: bool = False,
) -> dict[int, list[Reader]]:
    """Every way to read, by layer.

    Args:
        readings: ``knn`` and names of `TRAINED`.
        layers: those that are read.
        training: features of the training images; empty if nothing is trained.
        pairs: training pairs; indices into the maps of ``training``.
        size: evaluated size in px.
        seeds: each trains heads of its own.
        recipe: of the heads, before a reading's own changes.
        device: where they are trained.
        progress: show a bar on stderr.
    """
    readers: dict[int, list[Reader]] = {layer: [] for layer in layers}
    if "knn" in readings:
        nothing = partial(F.normalize, dim=-1)
        for found in readers.values():
            found += [Reader(reading="knn", position=p, seed=None, project=nothing) for p in POSITIONS]
    recipes: dict[LinearConfig, list[str]] = {}
    for reading in readings:
        if reading in TRAINED:
            recipes.setdefault(replace(recipe, **TRAINED[reading][0]), []).append(reading)
    for own, served in recipes.items():
        for seed in seeds:
            heads = train_linear_heads(
                list(training.values()),
                pairs,
                size=size,
                seed=seed,
                config=own,
                device=device,
                progress=progress,
            )
            for (layer, position), head in zip(training, heads, strict=True):
                readers[layer] += [
                    Reader(
                        reading=reading,
                        position=position,
                        seed=seed,
                        project=head,
                        temperature=head.temperature if TRAINED[reading][1] else None,
                    )
                    for reading in served
                ]
    return readers
