"""The loader: plan + reader + decode + augment + pack, prefetched by worker processes.

It has no state. A micro-batch is a function of its number: step = number // micro_batches_per_step, lanes =
the rank's, `lanes_at_once` of them concatenated. Workers compute the same plan and read only their own
frames, so neither their number nor the ranks' changes what is in a batch or the order of batches, and
resuming is starting at another number. A frame that turns out damaged is replaced by another of its chunk:
counts never change, the bad frame is never used, and the batch tells.

Layout: images uint8 (I, 3, size, size) with channels innermost in memory, packed scene after scene and lane
after lane; cameras are OpenCV, in pixels of the crops. Normalisation belongs to the model.
"""

import dataclasses
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.utils import data

from shards.augment import crop_box, follow_crop, mirror_intrinsics, mirror_pose
from shards.decode import Decoder, empty_batch
from shards.draw import stand_ins
from shards.format import CorruptFrame, ShardsError
from shards.plan import DataConfig, LaneStep, Plan
from shards.reader import Dataset

STATE_VERSION = 1
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
    substituted: list[dict[str, Any]] = field(default_factory=list)
    """Damaged members met, ready for JSON: step, lane, shard, key, offset, reason, chunk, frame, and the
    frame `by` which it was replaced (None for a chunk's overlap, and for frames of a chunk that was given up
    whole)."""

    def pin_memory(self) -> "Batch":
        """Page-lock the images, for copies that run beside the computation; torch's DataLoader calls it."""
        self.images = self.images.pin_memory()
        return self


class Loader:
    """Iterate over one rank's micro-batches, from `start_step` on, without end.

    Rank r of `world` serves the lanes v with v mod world = r in ascending order, `lanes_at_once` of them to a
    micro-batch (all that it has, if it has fewer), `micro_batches_per_step` to a step. `cameras=False` leaves
    the chunks' meta unread. Raises ShardsError, with the mend, where the data, the ranks or the lanes do not
    fit.
    """

    def __init__(
        self,
        dataset: Dataset,
        config: DataConfig,
        *,
        rank: int = 0,
        world: int = 1,
        lanes_at_once: int = 1,
        workers: int = 0,
        start_step: int = 0,
        split: str | None = "train",
        cameras: bool = True,
        prefetch: int = 2,
    ) -> None:
        if world < 1 or config.lanes % world:
            legal = ", ".join(str(n) for n in range(1, config.lanes + 1) if config.lanes % n == 0)
            raise ShardsError(
                f"{world} ranks cannot share {config.lanes} lanes evenly: use one of {legal} ranks"
            )
        if not 0 <= rank < world:
            raise ShardsError(f"rank {rank} is not one of {world}")
        own = range(rank, config.lanes, world)
        at_once = min(lanes_at_once, len(own))
        if at_once < 1 or len(own) % at_once:
            raise ShardsError(
                f"{lanes_at_once} lanes at once do not divide the {len(own)} lanes"
                f" that each of {world} ranks serves"
            )
        self.plan = Plan(dataset, config, split)
        self.start_step, self.workers, self.prefetch = start_step, workers, prefetch
        groups = [tuple(own[i : i + at_once]) for i in range(0, len(own), at_once)]
        self.micro_batches_per_step = len(groups)
        self._batches = MicroBatches(self.plan, groups, cameras=cameras)

    def __iter__(self) -> Iterator[Batch]:
        source = data.DataLoader(
            self._batches,
            sampler=_From(self.start_step * self.micro_batches_per_step),
            batch_size=None,
            num_workers=self.workers,
            prefetch_factor=self.prefetch if self.workers else None,
            pin_memory=torch.cuda.is_available(),
            # Its own, or torch would draw the workers' seed from the trainer's generator.
            generator=torch.Generator(),
        )
        for batch in source:
            if isinstance(batch, Exception):
                raise batch
            yield batch

    def state(self, step: int) -> dict[str, Any]:
        """What must be equal for a run to go on at `step`, as JSON: integers and hashes, the same on every
        rank."""
        config = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in dataclasses.asdict(self.plan.config).items()
        }
        return {
            "version": STATE_VERSION,
            "step": step,
            "data": self.plan.dataset.hash,
            "config": config,
            "plan": self.plan.hash(step),
        }

    def check(self, state: dict[str, Any]) -> None:
        """Refuse to go on from a state that is not this loader's: ShardsError says what differs."""
        if state.get("version") != STATE_VERSION:
            raise ShardsError(
                f"the loader's state has version {state.get('version')}, this one is {STATE_VERSION}"
            )
        ours = self.state(int(state["step"]))
        differ = []
        if state["data"] != ours["data"]:
            differ.append(f"data had hash {state['data'][:12]} and has {ours['data'][:12]}")
        for name in dict.fromkeys([*state["config"], *ours["config"]]):
            was, now = state["config"].get(name), ours["config"].get(name)
            if was != now:
                differ.append(f"{name} was {was} and is {now}")
        if not differ and state["plan"] != ours["plan"]:
            differ.append(
                "the plan of its next steps is another (a damaged overlap matrix, or another version)"
            )
        if differ:
            raise ShardsError(
                f"the batches from step {state['step']} on would not be those of the interrupted run:"
                f" {'; '.join(differ)}; go on with what it began with, or begin a new run"
            )


class MicroBatches(data.Dataset):
    """Micro-batch number -> Batch; this is what runs in the workers.

    Errors that a person can mend are returned, not raised: torch would wrap them in the worker's traceback.
    """

    def __init__(self, plan: Plan, groups: list[tuple[int, ...]], *, cameras: bool) -> None:
        self.plan, self.groups = plan, groups
        # Views mirrored one by one share no world.
        self.cameras = cameras and plan.config.flip != "view"
        self._decoder = Decoder()

    def __getitem__(self, number: int) -> Batch | Exception:
        step, group = divmod(number, len(self.groups))
        try:
            return self.load(step, self.groups[group])
        except ShardsError as error:
            return error

    def load(self, step: int, lanes: tuple[int, ...]) -> Batch:
        """The batch of these lanes at this step."""
        count, size = self.plan.config.images_per_lane, self.plan.config.size
        images = empty_batch(len(lanes) * count, size, size, shared=data.get_worker_info() is not None)
        crcs, overlaps, views, cameras, events = [], [], [], [], []
        for lane, out in zip(lanes, images.split(count), strict=True):
            part = self.plan.lane_step(step, lane)
            shown, crc = self._load_lane(part, out, events)
            cameras += shown
            for array in (part.crops, part.flips, part.views):
                crc = zlib.crc32(array.tobytes(), crc)
            crcs.append(crc)
            overlaps.append(part.overlap)
            views.append(part.views)
        known = np.isfinite(overlaps)
        return Batch(
            step=step,
            lanes=lanes,
            images=images,
            views=torch.from_numpy(np.concatenate(views)),
            intrinsics=_concatenate([intrinsics for intrinsics, _ in cameras]),
            world_to_camera=_concatenate([poses for _, poses in cameras]),
            crcs=np.array(crcs, np.uint32),
            overlap=float(np.mean(overlaps, where=known)) if known.any() else float("nan"),
            substituted=events,
        )

    def _load_lane(self, part: LaneStep, out: torch.Tensor, events: list[dict]) -> tuple[list[_Cameras], int]:
        """Fill `out` (I, 3, size, size); return each scene's cameras and the crc32 of all pixels."""
        where = {"step": part.step, "lane": part.lane}
        events += [{**where, **_event(error, chunk=None, frame=None, by=None)} for error in part.damaged]
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
                    events += [{**where, **event} for event in damage]
            else:
                raise ShardsError(
                    f"{_CHUNK_TRIES} chunks in a row hold no readable frame, the last because {last};"
                    f" see the damage with: python -m shards verify {self.plan.dataset.root}"
                )
            cameras.append(shown)
            # Scene by scene, while the pixels are still in the processor's cache.
            crc = zlib.crc32(out[rows].permute(0, 2, 3, 1).numpy(), crc)
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
        used, boxes = [], []
        views = read_views(self.plan.dataset, self._decoder, chunk, frames, damage)
        for (frame, image), crop, flip, target in zip(views, crops, flips.tolist(), out, strict=True):
            box = crop_box(crop, *image.shape[:2])
            self._decoder.resize_crop(image, box, target, flip=flip)
            used.append(frame)
            boxes.append(box)
        if not self.cameras:
            return None, None
        try:
            described = self.plan.dataset.chunk(chunk)
        except CorruptFrame as error:
            damage.append(_event(error, chunk=chunk, frame=None, by=None))
            return None, None
        intrinsics, poses = described.intrinsics, described.world_to_camera
        size = self.plan.config.size
        if intrinsics is not None:
            followed = [
                follow_crop(intrinsics[f], box, (size, size)) for f, box in zip(used, boxes, strict=True)
            ]
            intrinsics = np.stack(
                [mirror_intrinsics(k, size) if flip else k for k, flip in zip(followed, flips, strict=True)]
            )
        if poses is not None:
            poses = np.where(flips[:, None, None], mirror_pose(poses[used]), poses[used])
        return intrinsics, poses


class NothingReadable(ShardsError):
    """A chunk without a single readable frame."""


def read_views(
    dataset: Dataset, decoder: Decoder, chunk: int, frames: np.ndarray, damage: list[dict]
) -> Iterator[tuple[int, np.ndarray]]:
    """Read and decode frames of a chunk; for a damaged one, the frame that best takes its place.

    Yields:
        For each of `frames` the frame used and its picture (H, W, 3) uint8, valid until the next. What was
        damaged is added to `damage`, once. Raises NothingReadable where no frame of the chunk can be read.
    """
    frames, bad = frames.copy(), set()
    for i, planned in enumerate(frames.tolist()):
        failures: list[tuple[CorruptFrame, int]] = []
        picture, used = None, None
        for frame in _choices(dataset, chunk, frames, planned):
            if frame in bad:
                continue
            try:
                picture, used = _read(dataset, decoder, chunk, frame), frame
                break
            except CorruptFrame as error:
                bad.add(frame)
                failures.append((error, frame))
        damage += [_event(error, chunk=chunk, frame=frame, by=used) for error, frame in failures]
        if picture is None or used is None:
            raise NothingReadable(str(failures[-1][0]))
        frames[i] = used
        yield used, picture


def _choices(dataset: Dataset, chunk: int, frames: np.ndarray, planned: int) -> Iterator[int]:
    yield planned
    try:
        overlap = dataset.covisibility(chunk)
    except CorruptFrame:
        overlap = np.zeros((dataset.frames_per_chunk[chunk],) * 2, np.uint8)
    yield from stand_ins(overlap, frames, planned).tolist()


def _read(dataset: Dataset, decoder: Decoder, chunk: int, frame: int) -> np.ndarray:
    jpeg = dataset.read_jpeg(chunk, frame)
    try:
        return decoder.decode(jpeg)
    except ValueError as error:
        raise dataset.damaged(chunk, frame, str(error)) from None


def _event(error: CorruptFrame, *, chunk: int | None, frame: int | None, by: int | None) -> dict[str, Any]:
    return {
        "shard": error.shard,
        "key": error.key,
        "offset": error.offset,
        "reason": error.reason,
        "chunk": chunk,
        "frame": frame,
        "by": by,
    }


def _concatenate(parts: list[np.ndarray | None]) -> torch.Tensor | None:
    if any(part is None for part in parts):
        return None
    return torch.from_numpy(np.concatenate(parts).astype(np.float32))


class _From(data.Sampler[int]):
    """The numbers from `first` on."""

    def __init__(self, first: int) -> None:
        self.first = first

    def __iter__(self) -> Iterator[int]:
        number = self.first
        while True:
            yield number
            number += 1
