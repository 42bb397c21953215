"""True correspondences from depth: a shard folder's views with depth maps, intrinsics and poses.

Queries are the centres of a regular grid in view A, warped into view B by A's depth and kept where B's own depth
agrees within 5 %, so that nothing stands in between. Warping happens in stored pixels; what leaves is in pixels
of the evaluated square.
"""

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

import shards
from mum import cameras
from probes.errors import ProbeError
from probes.metrics import patch_centres, viewing_angle
from probes.pairs import Pair, PairConfig, PairSet, candidates, refusal, refuse_empty, stable_order
from probes.square import Square, SquareImages


def open_shards(path: Path) -> shards.Dataset:
    """A shard folder; ProbeError where there is none that can be read."""
    try:
        return shards.open_dataset(path)
    except ValueError as error:
        raise ProbeError(str(error)) from error


def depth_pairs(path: Path, config: PairConfig, split: Literal["train", "val"]) -> PairSet:
    """Pairs of one split of a shard folder; ProbeError without such scenes, depth, or fitting pairs."""
    dataset = open_shards(path)
    chosen = dataset.select(split)
    if len(chosen) == 0:
        raise ProbeError(
            f"data {str(path)!r} has no scenes in its {split} split: build it with validation scenes"
        )
    by_scene: dict[int, list[int]] = {}
    for number in chosen:
        by_scene.setdefault(int(dataset.scene_hash[number]), []).append(int(number))
    scenes = sorted(by_scene, key=lambda scene: stable_order(str(scene)))[: config.scenes]
    per_scene = -(-config.pairs // len(scenes))

    images, pairs, refused = SquareImages(config.size), [], {}
    shortest, with_depth = 1 << 30, False
    for scene in scenes:
        taken = 0
        for number in by_scene[scene]:
            view = _ShardChunk(dataset, number, images, config)
            shortest = min(shortest, view.shortest_side)
            if not view.has_cameras:
                continue
            for a, b in candidates(view.name, view.frame_names):
                if taken == per_scene:
                    break
                found = view.correspond(a, b)
                with_depth |= found is not None
                queries, targets = found if found is not None else (np.empty((0, 2)), np.empty((0, 2)))
                angle = view.angle(a, b, queries, targets) if len(queries) else None
                reason = "no depth" if found is None else refusal(queries, angle, config)
                if reason:
                    refused[reason] = refused.get(reason, 0) + 1
                    continue
                name = f"{view.key}/{view.frame_names[a]}/{view.frame_names[b]}"
                pairs.append(
                    Pair(
                        name=name,
                        scene=view.name,
                        a=view.image(a),
                        b=view.image(b),
                        angle=angle,
                        queries=queries,
                        targets=targets,
                    )
                )
                taken += 1
    if not with_depth:
        raise ProbeError(
            f"data {str(path)!r} has no depth with cameras, so no true correspondences: build it from a "
            "source with depth, or give the COLMAP model itself as colmap:PATH"
        )
    refuse_empty(str(path), pairs, refused)
    return PairSet(
        data=str(path),
        truth="depth",
        split=split,
        config=config,
        images=images,
        pairs=tuple(pairs),
        refused=refused,
        shortest_side=shortest,
    )


class _ShardChunk:
    """One chunk while its pairs are searched: depth maps and images read once, when first needed."""

    def __init__(
        self, dataset: shards.Dataset, number: int, images: SquareImages, config: PairConfig
    ) -> None:
        self._dataset, self._number, self._images = dataset, number, images
        self._chunk = dataset.chunk(number)
        self._depths: dict[int, NDArray | None] = {}
        self._added: dict[int, int] = {}
        self.key, self.name = self._chunk.key, self._chunk.scene
        self.frame_names = [str(name) for name in self._chunk.frame_names]
        self.has_cameras = self._chunk.intrinsics is not None and self._chunk.world_to_camera is not None
        sizes = np.asarray(self._chunk.sizes)
        self.shortest_side = int(sizes.min())
        self._squares = [Square(height=int(h), width=int(w), size=config.size) for h, w in sizes]
        cells = max(1, config.size // config.query_step)
        self._grid = patch_centres(cells, cells, config.size)

    def image(self, frame: int) -> int:
        if frame not in self._added:
            dataset, number = self._dataset, self._number
            self._added[frame] = self._images.add(
                f"{self.key}/{self.frame_names[frame]}",
                bytes(dataset.read_jpeg(number, frame)),
                lambda: dataset.read_image(number, frame),
            )
        return self._added[frame]

    def _depth(self, frame: int) -> NDArray | None:
        if frame not in self._depths:
            self._depths[frame] = self._dataset.read_depth(self._number, frame)
        return self._depths[frame]

    def correspond(self, a: int, b: int) -> tuple[NDArray, NDArray] | None:
        """Visible queries of A and their targets in B, in px of the evaluated size; None without depth."""
        depth_a, depth_b = self._depth(a), self._depth(b)
        if depth_a is None or depth_b is None:
            return None
        k, pose = self._chunk.intrinsics, self._chunk.world_to_camera
        view_a = depth_a.astype(np.float64), k[a], pose[a]
        view_b = depth_b.astype(np.float64), k[b], pose[b]
        points = torch.from_numpy(self._squares[a].outward(self._grid))
        warped, valid = cameras.warp_by_depth(points, *map(torch.from_numpy, (*view_a, *view_b)))
        targets = self._squares[b].inward(warped.numpy())
        kept = valid.numpy() & self._squares[b].contains(targets)
        return self._grid[kept], targets[kept]

    def angle(self, a: int, b: int, queries: NDArray, targets: NDArray) -> float:
        """Viewpoint angle in degrees of the visible points."""
        k, pose = self._chunk.intrinsics, self._chunk.world_to_camera
        points = self._squares[a].outward(queries), self._squares[b].outward(targets)
        return viewing_angle(*points, k[a], k[b], pose[a][:, :3], pose[b][:, :3])
