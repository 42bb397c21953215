"""Micro-batch number -> a packed batch: the half of the loader that runs in the workers.

plan + reader + decode + augment + pack, for `lanes_at_once` lanes of one step. Layout: images uint8 (I, 3,
size, size) with channels innermost in memory, packed scene after scene and lane after lane; cameras are
OpenCV, in pixels of the crops. Normalisation belongs to the model.
"""

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils import data

from shards.augment import crop_box, follow_crop, mirror_intrinsics, mirror_pose
from shards.crc import crc32
from shards.cut import Crop
from shards.decode import Decoder, empty_batch
from shards.format import CorruptFrame, ShardsError
from shards.plan import LaneStep, Plan
from shards.ring import Ring, Sent, pictures
from shards.substitution import NothingReadable, event, read_views

_CHUNK_TRIES = 8

_Cameras = tuple[np.ndarray | None, np.ndarray | None]
"""Intrinsics (n, 3, 3) and poses (n, 3, 4) of a scene's views."""


@dataclass(kw_only=True)
class Batch:
    """A micro-batch: n lanes of one step, concatenated."""

    step: int
    lanes: tuple[int, ...]
    images: torch.Tensor
    """(n*I, 3, size, size) uint8, channels innermost in memory; pinned where there is CUDA."""
    views: torch.Tensor
    """(n*B,) int64 views of each scene, summing to n*I."""
    intrinsics: torch.Tensor | None
    """(n*I, 3, 3) float32 in pixels of `images`; None unless every scene has them."""
    world_to_camera: torch.Tensor | None
    """(n*I, 3, 4) float32; None unless every scene has them."""
    crcs: np.ndarray
    """(n,) uint32: crc32 of each lane's image bytes, crops, flips and views."""
    overlap: float
    """Mean known overlap of the views drawn together; nan where none is known."""
    outside: float = float("nan")
    """Share of views for which the band of overlap had to be widened; nan where no overlap is known."""
    substituted: list[dict[str, Any]] = field(default_factory=list)
    """Damaged members met, ready for JSON: step, lane, shard, key, offset, reason, chunk, frame, and the
    frame `by` which it was replaced (None for a chunk's overlap, and for frames of a chunk that was given up
    whole)."""

    def pin_memory(self) -> "Batch":
        """Page-lock the images, for copies that run beside the computation; torch's DataLoader calls it."""
        self.images = self.images.pin_memory()
        return self


class MicroBatches(data.Dataset):
    """Micro-batch number -> Batch; this is what runs in the workers.

    Errors that a person can mend are returned, not raised: torch would wrap them in the worker's traceback.
    """

    def __init__(
        self, plan: Plan, groups: list[tuple[int, ...]], *, cameras: bool, ring: Ring | None = None
    ) -> None:
        self.plan, self.groups, self.ring = plan, groups, ring
        # Views mirrored one by one share no world.
        self.cameras = cameras and plan.config.flip != "view"
        self._decoder = Decoder()

    def with_ring(self, workers: int, prefetch: int) -> "MicroBatches":
        """The same, its batches in a ring: of `workers` forked processes, each up to `prefetch` ahead, or of this
        one if 0."""
        size = self.plan.config.size
        shape = (len(self.groups[0]) * self.plan.config.images_per_lane, size, size)
        # The trainer holds one batch while it asks for the next.
        ring = Ring(owners=max(workers, 1), each=(prefetch if workers else 0) + 2, shape=shape)
        return MicroBatches(self.plan, self.groups, cameras=self.cameras, ring=ring)

    def __getitem__(self, number: int) -> Batch | Sent | Exception:
        step, group = divmod(number, len(self.groups))
        try:
            return self._load_in_ring(step, self.groups[group])
        except ShardsError as error:
            return error

    def _load_in_ring(self, step: int, lanes: tuple[int, ...]) -> Batch | Sent:
        worker = data.get_worker_info()
        slot = self.ring.take(worker.id if worker else 0) if self.ring else None
        if self.ring is None or slot is None:
            return self.load(step, lanes)
        if worker is None:
            return self.load(step, lanes, self.ring.lease(slot))
        try:
            batch = self.load(step, lanes, pictures(self.ring.array(slot)))
        except BaseException:
            self.ring.release(slot)
            raise
        return Sent(batch, "images", self.ring, slot)

    def load(self, step: int, lanes: tuple[int, ...], images: torch.Tensor | None = None) -> Batch:
        """The batch of these lanes at this step; its pixels in `images` if given."""
        count, size = self.plan.config.images_per_lane, self.plan.config.size
        if images is None:
            images = empty_batch(len(lanes) * count, size, size)
        crcs, measured, views, cameras, events = [], [], [], [], []
        for lane, out in zip(lanes, images.split(count), strict=True):
            part = self.plan.lane_step(step, lane)
            shown, crc = self._load_lane(part, out, events)
            cameras += shown
            for array in (part.crops, part.flips, part.views):
                crc = crc32(array.tobytes(), crc)
            crcs.append(crc)
            measured.append((part.overlap, part.outside))
            views.append(part.views)
        known = [figures for figures in measured if np.isfinite(figures[0])]
        overlap, outside = np.mean(known, axis=0).tolist() if known else (float("nan"),) * 2
        return Batch(
            step=step,
            lanes=lanes,
            images=images,
            views=torch.from_numpy(np.concatenate(views)),
            intrinsics=_concatenate([intrinsics for intrinsics, _ in cameras]),
            world_to_camera=_concatenate([poses for _, poses in cameras]),
            crcs=np.array(crcs, np.uint32),
            overlap=overlap,
            outside=outside,
            substituted=events,
        )

    def _load_lane(self, part: LaneStep, out: torch.Tensor, events: list[dict]) -> tuple[list[_Cameras], int]:
        """Fill `out` (I, 3, size, size); return each scene's cameras and the crc32 of all pixels."""
        where = {"step": part.step, "lane": part.lane}
        events += [{**where, **event(error, chunk=None, frame=None, by=None)} for error in part.damaged]
        cameras, crc, end = [], 0, 0
        for planned, count in zip(part.chunks.tolist(), part.views.tolist(), strict=True):
            rows, chunk, frames = slice(end, end + count), planned, part.frames[end : end + count]
            end += count
            for _ in range(_CHUNK_TRIES):
                damage: list[dict] = []
                try:
                    shown = self._load_scene(
                        chunk, frames, part.crops[rows], part.flips[rows], out[rows], damage
                    )
                    break
                except NothingReadable as error:
                    last = error
                    chunk, frames = self.plan.stand_in(chunk, count), np.arange(count)
                finally:
                    events += [{**where, **found} for found in damage]
            else:
                raise ShardsError(
                    f"{_CHUNK_TRIES} chunks in a row hold no readable frame, the last because {last};"
                    f" see the damage with: python -m shards verify {self.plan.dataset.root}"
                )
            cameras.append(shown)
            # Scene by scene, while the pixels are still in the processor's cache.
            crc = crc32(out[rows].permute(0, 2, 3, 1).numpy(), crc)
        return cameras, crc

    def _load_scene(
        self,
        chunk: int,
        frames: np.ndarray,
        crops: np.ndarray,
        flips: np.ndarray,
        out: torch.Tensor,
        damage: list[dict],
    ) -> _Cameras:
        """Fill `out` (S, 3, size, size) with a scene's views; return their cameras. NothingReadable."""
        mirrored, targets = flips.tolist(), out.unbind()

        def show(jpeg: bytes, view: int) -> Crop:
            return self._decoder.decode_crop(
                jpeg, partial(crop_box, crops[view]), targets[view], flip=mirrored[view]
            )

        shown = read_views(self.plan.dataset, show, chunk, frames, damage)
        used, boxes = map(list, zip(*shown, strict=True))
        if not self.cameras:
            return None, None
        try:
            described = self.plan.dataset.chunk(chunk)
        except CorruptFrame as error:
            damage.append(event(error, chunk=chunk, frame=None, by=None))
            return None, None
        intrinsics, poses = described.intrinsics, described.world_to_camera
        size = self.plan.config.size
        if intrinsics is not None:
            followed = [
                follow_crop(intrinsics[f], box, (size, size)) for f, box in zip(used, boxes, strict=True)
            ]
            intrinsics = np.stack(
                [
                    mirror_intrinsics(k, size) if flip else k
                    for k, flip in zip(followed, mirrored, strict=True)
                ]
            )
        if poses is not None:
            poses = np.where(flips[:, None, None], mirror_pose(poses[used]), poses[used])
        return intrinsics, poses


def _concatenate(parts: list[np.ndarray | None]) -> torch.Tensor | None:
    if any(part is None for part in parts):
        return None
    return torch.from_numpy(np.concatenate(parts).astype(np.float32))
