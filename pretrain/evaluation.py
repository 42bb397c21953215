"""Evaluation inside a run: held-out masked loss, the cross-view gain, and reconstructions of fixed scenes.

The same val views and masks every time, whole on every rank, so the figures depend neither on the number of
ranks nor on the training batches. The gain is the held-out loss with strangers' views in the place of a
scene's own, minus the loss with its own: it says how much the model takes from other views.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import mum
import shards
from mum.pictures import reconstruction_picture


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """What is evaluated, and how often."""

    every: int = 5000
    """steps between evaluations; 0: never"""
    scenes: int = 32
    """val scenes at most; fewer than views are filled up with train scenes, which are not scored"""
    views: int = 6
    """views of each scene"""
    pictures: int = 4
    """scenes whose reconstruction is drawn"""


_LANE = 1 << 30
"""A lane number that no run has: evaluation's masks are none of training's."""


class Evaluation:
    """Fixed scenes and masks, gathered once; `__call__` scores a model on them."""

    def __init__(
        self,
        dataset: shards.Dataset,
        config: EvaluationConfig,
        *,
        size: int,
        mask_ratio: float,
        reference_view: bool = False,
        noise: Callable[[int, int, int], torch.Tensor],
        seed: int,
        device: torch.device,
    ) -> None:
        # All masked patches are decoded, whatever share training decodes: figures stay comparable.
        self._masking = {"mask_ratio": mask_ratio, "reference_view": reference_view}
        self.images: torch.Tensor | None = None
        self.missing = ""
        """why there is nothing to evaluate on, or empty"""
        if config.every == 0:
            self.missing = "evaluation is switched off"
            return
        chosen = _choose(dataset, config, size=size, seed=seed)
        if chosen is None:
            self.missing = (
                "no val loss, no cross-view gain and no pictures: they take a val scene of two views and one "
                "scene more, which the data do not have (shards build --val-fraction makes a val split)"
            )
            return
        images, held_out = chosen
        self.images = images.to(device)
        self.scored = torch.arange(len(images)) < held_out
        self.noise = noise(0, _LANE, len(images) * images.shape[1]).to(device)
        self._pictures = min(config.pictures, held_out)

    def describe(self) -> dict[str, Any]:
        """What the figures are of, for config.json."""
        if self.images is None:
            return {"missing": self.missing}
        scenes, views = self.images.shape[:2]
        held_out = int(self.scored.sum())
        return {"scenes": held_out, "fillers": scenes - held_out, "views": views}

    @torch.no_grad()
    def __call__(self, model: mum.MuM, go_on: Callable[[], None] = lambda: None) -> dict[str, Any]:
        """The figures of one evaluation; `go_on` is called between its passes, and may raise to end it."""
        own, strangers = mum.cross_view_gain(
            model, self.images, self.noise, scored=self.scored, between=go_on, **self._masking
        )
        return {
            "val_loss": own,
            "val_loss_strangers": strangers,
            "cross_view_gain": strangers - own,
        }

    @torch.no_grad()
    def picture(self, model: mum.MuM) -> np.ndarray | None:
        """Reconstructions of the first val scenes, one below the other: uint8 (H, W, 3)."""
        if not self._pictures:
            return None
        images = self.images[: self._pictures]
        views = images.shape[1]
        noise = self.noise[: self._pictures * views]
        out = model(images, noise=noise, **self._masking)
        patch = model.config.encoder.patch_size
        parts = [
            reconstruction_picture(
                scene.cpu(),
                out.pred[k * views : (k + 1) * views].float().cpu(),
                out.mask[k * views : (k + 1) * views].cpu(),
                patch,
                norm_pix_loss=model.config.norm_pix_loss,
            )
            for k, scene in enumerate(images)
        ]
        gap = np.full((8, *parts[0].shape[1:]), 255, np.uint8)
        return np.concatenate([row for part in parts for row in (part, gap)][:-1])


def _choose(
    dataset: shards.Dataset, config: EvaluationConfig, *, size: int, seed: int
) -> tuple[torch.Tensor, int] | None:
    """Images (B, S, 3, size, size) of which the first k scenes are held out, and k; None where it cannot be.

    The gain wants B >= S scenes, so few val scenes are filled up with train scenes, and with few scenes at
    all the views are fewer than configured.
    """
    for views in range(config.views, 1, -1):
        take = partial(shards.fixed_views, dataset, views=views, size=size, seed=seed)
        if not _holds(dataset, "val", views):
            continue
        images, _ = take(split="val", scenes=max(config.scenes, views))
        held_out = len(images)
        if held_out < views and _holds(dataset, "train", views):
            images = torch.cat((images, take(split="train", scenes=views - held_out)[0]))
        if len(images) >= views:
            return images, held_out
    return None


def _holds(dataset: shards.Dataset, split: str, views: int) -> bool:
    """Whether some scene of the split has so many views."""
    return bool((dataset.frames_per_chunk[dataset.select(split)] >= views).any())


def save_picture(picture: np.ndarray, path: Path) -> None:
    """Write a PNG, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    Image.fromarray(picture).save(temporary, format="PNG")
    temporary.replace(path)
