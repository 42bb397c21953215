"""Features that know the answer, and features that know nothing: what every probe is checked against.

`true_maps` gives every patch the 3-D point that its centre shows, as waves whose cosine falls with the distance of
two points; so the nearest neighbour by cosine is the nearest point. Known only where frames have depth and cameras.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from probes.data.square import SquareFrames
from probes.encoders.features import FeatureMaps
from probes.metrics.correspondence import patch_centres

WAVES = 256


@dataclass(kw_only=True)
class NamedEncoder:
    """What a task asks of an encoder whose maps are given."""

    spec: str = "truth"
    patch_size: int = 8
    num_layers: int = 1
    run: Path | None = None
    identity: dict[str, Any] = field(default_factory=lambda: {"weights": "none"})

    def encode(self, images: torch.Tensor, layers: Sequence[int]) -> dict[int, torch.Tensor]:
        raise AssertionError("a probe that is given its feature maps must not encode")


def true_points(frames: SquareFrames, index: int, grid: tuple[int, int]) -> np.ndarray:
    """World points (h, w, 3) float64 that the patch centres of a frame show; nan where depth is unknown."""
    frame, square = frames.frames[index], frames.square(index)
    centres = square.outward(patch_centres(*grid, frames.size))
    depth = frame.depth()[centres[:, 1].astype(int), centres[:, 0].astype(int)].astype(np.float64)
    rays = np.column_stack([centres, np.ones(len(centres))]) @ np.linalg.inv(frame.intrinsics).T
    pose = frame.world_to_camera
    points = (rays * depth[:, None] - pose[:, 3]) @ pose[:, :3]
    return np.where(depth[:, None] > 0, points, np.nan).reshape(*grid, 3)


def true_maps(frames: SquareFrames, grid: tuple[int, int]) -> FeatureMaps:
    """Maps (h, w, 2 * WAVES) of unit vectors; lengths are measured in patches of the frame's own scene."""
    points = [true_points(frames, index, grid) for index in range(len(frames))]
    spacing: dict[str, list[np.ndarray]] = {}
    for frame, known in zip(frames.frames, points, strict=True):
        for gap in (np.diff(known, axis=0), np.diff(known, axis=1)):
            spacing.setdefault(frame.scene, []).append(np.linalg.norm(gap, axis=-1).ravel())
    unit = {scene: np.nanmedian(np.concatenate(gaps)) for scene, gaps in spacing.items()}
    rng = np.random.Generator(np.random.Philox(key=[7, 0]))
    waves = rng.normal(size=(3, WAVES))
    # The same wavelength in every direction, so that equal distances have equal cosines; a patch is half a radian.
    waves = 0.5 * np.linalg.solve(np.linalg.cholesky(waves @ waves.T / WAVES), waves)
    maps = []
    for index, (frame, known) in enumerate(zip(frames.frames, points, strict=True)):
        phase = known / unit[frame.scene] @ waves
        features = np.concatenate([np.cos(phase), np.sin(phase)], axis=-1) / np.sqrt(WAVES)
        noise = np.random.Generator(np.random.Philox(key=[8, index])).normal(size=features.shape)
        noise /= np.linalg.norm(noise, axis=-1, keepdims=True)
        maps.append(np.where(np.isnan(features), noise, features).astype(np.float32))
    return FeatureMaps(maps)


def noise_maps(count: int, grid: tuple[int, int], channels: int = 64, seed: int = 0) -> FeatureMaps:
    """Maps that know nothing: independent numbers for every image, patch and channel."""
    rng = np.random.Generator(np.random.Philox(key=[9, seed]))
    return FeatureMaps([rng.normal(size=(*grid, channels)).astype(np.float32) for _ in range(count)])


def constant_maps(count: int, grid: tuple[int, int]) -> FeatureMaps:
    """Maps with one and the same feature everywhere: collapse."""
    return FeatureMaps([np.ones((*grid, 64), np.float32)] * count)


def position_maps(count: int, grid: tuple[int, int]) -> FeatureMaps:
    """Maps that know the place on the grid and nothing of the image."""
    places = np.eye(grid[0] * grid[1], dtype=np.float32).reshape(*grid, -1)
    rng = np.random.Generator(np.random.Philox(key=[10, 0]))
    return FeatureMaps(
        [places + 0.01 * rng.normal(size=places.shape).astype(np.float32) for _ in range(count)]
    )
