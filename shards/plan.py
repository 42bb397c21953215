"""The plan: a pure function (seed, step, lane) -> scenes, views, crops and flips of one lane's step.

A *lane* is a virtual rank; their number is fixed when a run is created, so the global batch of a step is the
same for any number of real ranks and workers. A lane-step always holds `images_per_lane` images in
`scenes_per_lane` scenes: fixed shapes, equal work, no rank that ends early.

Order. View counts come from a schedule of steps (`shards/view_counts.py`). Each pass over a source cuts every
chunk into pieces of just these sizes and deals the pieces to the slots in a shuffled order
(`shards/coverage.py`), so every frame is used once in a pass, and what is used twice is the few views by which
pieces and slots do not match: Plan.summary says how many. Passes and epochs are looked up, not stored:
the last step of an epoch costs as much as its first.

Frames. The pieces of a chunk are drawn one after the other from the frames that the pieces before left, all
by the same rule (`shards/draw.py`), with a key that belongs to (seed, pass, chunk): the visits of a pass
agree on who shows which frame without knowing of one another. For that the band of overlap, where it moves
with the steps, moves from pass to pass.

All randomness is a function of the integers it belongs to (`shards/streams.py`): NumPy's Philox with (seed,
purpose) as key and they as counter, or SplitMix64 of them where many small draws are asked for. This file
knows nothing of files, pixels, ranks or workers. It reads only the dataset's mapped tables and overlap.
"""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np

from shards.coverage import Coverage, Pool, Slots, UnfitError
from shards.data_config import DataConfig, PlanError
from shards.draw import grow, overlap_of
from shards.format import UNKNOWN, CorruptFrame
from shards.streams import mix, stream
from shards.view_counts import CYCLE, Schedule, chances_for, in_even_order, view_counts

__all__ = ["FIXED", "DataConfig", "LaneStep", "Part", "Plan", "PlanError", "Tables", "stream"]

_COUNTS, _ORDER, _FRAMES, _LANE, FIXED = range(5)
"""Purposes: the second word of a stream's key. Appending is safe, renumbering changes every run."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """A source of the data with its weight: chunks `first` .. `end - 1`."""

    name: str
    weight: float
    first: int
    end: int


class Tables(Protocol):
    """What the plan needs of a dataset; `shards.open_dataset` gives it."""

    hash: str
    frames_per_chunk: np.ndarray

    def select(self, split: str | None) -> np.ndarray:
        """(k,) chunk numbers of a split."""

    def covisibility(self, chunk: int) -> np.ndarray:
        """(N, N) uint8 overlap of a chunk, 255 = unknown."""


@dataclass(frozen=True, kw_only=True)
class LaneStep:
    """One lane's share of one step: B scenes, I images in their order, scene after scene."""

    step: int
    lane: int
    epoch: int
    """Which epoch the step belongs to."""
    views: np.ndarray
    """(B,) int64 views of each scene, summing to I."""
    chunks: np.ndarray
    """(B,) int64 chunk numbers."""
    frames: np.ndarray
    """(I,) int64 frame numbers within their chunks."""
    crops: np.ndarray
    """(I, 4) float64: share of area, width by height, and where the crop lies (down, right) from 0 to 1;
    `shards.augment.crop_box` turns a row into pixels once the picture's size is known."""
    flips: np.ndarray
    """(I,) bool."""
    overlap: float
    """Mean known overlap over the pairs drawn together; nan where none is known."""
    outside: float
    """Share of the views drawn where the band had to be widened; nan where no overlap is known."""
    damaged: tuple[CorruptFrame, ...] = ()
    """Overlap matrices that could not be read; their chunks were drawn as if nothing were known."""

    def digest(self) -> bytes:
        """32 bytes that name the content."""
        sha = hashlib.sha256(repr((self.step, self.lane)).encode())
        for array in (self.views, self.chunks, self.frames, self.crops, self.flips):
            sha.update(array.tobytes())
        return sha.digest()


class Plan:
    """What every lane reads at every step. Cheap to make, safe to copy into workers, without state.

    A dataset with `parts` (`shards/mixture.py`) is drawn from by their weights. Raises PlanError where the
    split holds too little for a single lane-step.
    """

    def __init__(self, dataset: Tables, config: DataConfig, split: str | None = "train") -> None:
        self.dataset, self.config, self.split = dataset, config, split
        chosen = np.asarray(dataset.select(split), np.int64)
        frames = np.asarray(dataset.frames_per_chunk)[chosen].astype(np.int32)
        views = self._views(frames)
        usable = frames >= views[0]
        if config.single_images:
            usable |= frames == 1
        self.skipped = int((~usable).sum())
        """Chunks with fewer frames than any step shows of a scene."""
        self.chunks, self.frames = chosen[usable], frames[usable]
        scenes, images = config.multi_view_scenes, config.scene_images
        uniform = stream(config.seed, _COUNTS).random((CYCLE, scenes))
        counts = view_counts(
            images, scenes, views, uniform, chances_for(images, scenes, views, self._held(views[1]))
        )
        counts = in_even_order(counts)
        counts = np.pad(counts, ((0, 0), (0, config.single_images)), constant_values=1)
        try:
            self.coverage = Coverage(
                self._pools(views[0]), Schedule(counts), lanes=config.lanes, seed=_order_seed(config.seed)
            )
        except UnfitError as error:
            pool = error.pool
            raise PlanError(
                f"source {pool.name or self._where()!r} cannot give its share of weight {pool.weight:g}: its"
                f" {len(pool.rows)} chunks have at most {int(pool.frames.max(initial=0))} frames, and a step"
                f" shows {views[0]} to {views[1]} of a scene; give it less weight, or set views lower"
            ) from None
        self.steps_per_epoch = self.coverage.steps_per_epoch
        """Steps after which every frame of the source that is passed first was shown."""

    def _where(self) -> str:
        return f"the {self.split} split" if self.split else "the dataset"

    def _views(self, frames: np.ndarray) -> tuple[int, int]:
        """Fewest and most views that scenes of these lengths can have in a lane-step."""
        config, largest = self.config, int(frames.max(initial=0))
        images, scenes = config.scene_images, config.multi_view_scenes
        low, high = config.views
        if largest < low:
            raise PlanError(
                f"the largest scene of {self._where()} has {largest} frames, and a step shows {low} or more"
                " of a scene: set views lower, or build from scenes with more photographs"
            )
        if scenes * largest < images:
            raise PlanError(
                f"the largest scene of {self._where()} has {largest} frames, so {scenes} scenes give"
                f" {scenes * largest} of the {images} images a lane needs: set views to at most {largest},"
                " or build from scenes with more photographs"
            )
        high = min(high, largest)
        return max(low, images - (scenes - 1) * high), min(high, images - (scenes - 1) * low)

    def _held(self, most: int) -> np.ndarray:
        """(most + 1,) share of the frames, by the sources' weights, in scenes of at most so many frames."""
        held, total = np.zeros(most + 1), 0.0
        for part in self._parts():
            inside = slice(*np.searchsorted(self.chunks, [part.first, part.end]))
            frames = self.frames[inside]
            if self.config.single_images:
                frames = frames[frames > 1]
            if len(frames):
                counted = np.bincount(np.minimum(frames, most + 1), weights=frames, minlength=most + 2)
                held += part.weight * (counted.cumsum() / counted.sum())[:-1]
                total += part.weight
        return held / total

    def _parts(self) -> tuple[Part, ...]:
        whole = Part(name="", weight=1.0, first=0, end=len(self.dataset.frames_per_chunk))
        return getattr(self.dataset, "parts", (whole,))

    def _pools(self, low: int) -> list[Pool]:
        """The sources' chunks, those of one frame apart where they have slots of their own."""
        pools = []
        for part in self._parts():
            inside = slice(*np.searchsorted(self.chunks, [part.first, part.end]))
            rows, frames = np.arange(inside.start, inside.stop), self.frames[inside]
            single = (frames == 1) & bool(self.config.single_images)
            for kind, mine in ((False, ~single), (True, single)):
                if mine.any():
                    pools.append(
                        Pool(
                            name=part.name,
                            weight=part.weight,
                            rows=rows[mine],
                            frames=frames[mine],
                            single=kind,
                        )
                    )
            if not len(rows):
                raise PlanError(
                    f"source {part.name!r} has no scene of {low} frames or more in {self._where()}: leave it out,"
                    " or set views lower"
                )
        if self.config.single_images and not any(pool.single for pool in pools):
            raise PlanError(
                f"single_share {self.config.single_share:g} asks for photographs by themselves, and"
                f" {self._where()} has no scene of one frame: add a source of single images, or set it to 0"
            )
        return pools

    def lane_step(self, step: int, lane: int) -> LaneStep:
        """The lane's share of the step; a pure function of (seed, data, config, step, lane)."""
        slots, rng = self._slots(step, lane)
        chunks = self.chunks[slots.rows]
        matrices, damaged = [], []
        for chunk, row in zip(chunks.tolist(), slots.rows.tolist(), strict=True):
            try:
                matrices.append(self.dataset.covisibility(chunk))
            except CorruptFrame as error:
                matrices.append(np.full((self.frames[row],) * 2, UNKNOWN, np.uint8))
                damaged.append(error)
        frames, bands = self._draw(slots, chunks, matrices)
        measured = np.array([overlap_of(m, f, b) for m, f, b in zip(matrices, frames, bands, strict=True)])
        known = np.isfinite(measured[:, 0])
        overlap, outside = measured[known].mean(0) if known.any() else (float("nan"),) * 2
        return LaneStep(
            step=step,
            lane=lane,
            epoch=step // self.steps_per_epoch,
            views=slots.sizes,
            chunks=chunks,
            frames=np.concatenate(frames),
            crops=self._crops(rng),
            flips=self._flips(rng, slots.sizes),
            overlap=float(overlap),
            outside=float(outside),
            damaged=tuple(damaged),
        )

    def chunks_of(self, step: int, lane: int) -> np.ndarray:
        """(B,) int64 chunks of the lane's step, as `lane_step` names them; reads no overlap."""
        return self.chunks[self._slots(step, lane)[0].rows]

    def _slots(self, step: int, lane: int) -> tuple[Slots, np.random.Generator]:
        """What the lane-step shows, in the order in which it does, and the lane-step's generator."""
        if not 0 <= lane < self.config.lanes or step < 0:
            raise ValueError(f"lane {lane} of {self.config.lanes}, step {step}: out of range")
        rng = stream(self.config.seed, _LANE, step, lane)
        slots = self.coverage.at(step, lane)
        return slots.take(rng.permutation(len(slots.rows))), rng

    def _draw(
        self, slots: Slots, chunks: np.ndarray, matrices: list[np.ndarray]
    ) -> tuple[list[np.ndarray], list[tuple[float, float]]]:
        """Frames of each slot, and the band they were drawn by."""
        frames: list[np.ndarray] = [np.empty(0, np.int64)] * len(chunks)
        # All visits of a pass share the chunk's key; an extra visit has one of its own.
        keys = mix(
            chunks.astype(np.uint64), mix(slots.passes.astype(np.uint64), _draw_seed(self.config.seed))
        )
        own = (slots.extras + 1) * 1000 + slots.sizes
        keys = np.where(slots.extras >= 0, mix(keys, own.astype(np.uint64)), keys)
        steps = np.array(self.coverage.steps_per_pass)[slots.pools] * slots.passes
        rules = [self.config.rule(int(step)) for step in steps]
        for rule in dict.fromkeys(rules):
            mine = [slot for slot, other in enumerate(rules) if other == rule]
            # An extra visit draws from the whole chunk, as if it were the chunk's first.
            cuts = [slots.cuts[slot] or (int(slots.sizes[slot]),) for slot in mine]
            drawn = grow(
                [matrices[slot] for slot in mine],
                cuts,
                keys[mine],
                rule,
            )
            for slot, sizes, found in zip(mine, cuts, drawn, strict=True):
                frames[slot] = found[len(found) - sizes[-1] :]
            short = [slot for slot in mine if len(frames[slot]) < slots.sizes[slot]]
            if short:
                more = grow(
                    [matrices[slot] for slot in short],
                    [(int(slots.sizes[slot]) - len(frames[slot]),) for slot in short],
                    keys[short] + np.array([len(slots.cuts[slot]) for slot in short], np.uint64),
                    rule,
                    begun=[frames[slot] for slot in short],
                )
                for slot, found in zip(short, more, strict=True):
                    frames[slot] = np.concatenate([frames[slot], found])
        return frames, [rule.band for rule in rules]

    def summary(self) -> dict[str, Any]:
        """What an epoch holds, in figures: steps, views, and for each source its share, passes and repeats."""
        coverage, config = self.coverage, self.config
        schedule = coverage.schedule
        views = schedule.before(self.steps_per_epoch) * config.lanes
        rows = [
            {
                "source": pool.name,
                "single_images": pool.single,
                "weight": pool.weight,
                "chunks": len(pool.rows),
                "frames": int(pool.frames.sum(dtype=np.int64)),
                "share_of_scenes": share,
                "share_of_images": images,
                "passes_per_epoch": self.steps_per_epoch / steps,
                "steps_per_pass": steps,
                "repeat_rate": repeats,
            }
            for pool, share, images, steps, repeats in zip(
                coverage.pools,
                coverage.share,
                coverage.share_of_views,
                coverage.steps_per_pass,
                coverage.repeats,
                strict=True,
            )
        ]
        return {
            "steps_per_epoch": self.steps_per_epoch,
            "lanes": config.lanes,
            "scenes_per_lane": config.scenes_per_lane,
            "images_per_lane": config.images_per_lane,
            "scenes_per_epoch": int(views.sum()),
            "images_per_epoch": int((views * schedule.sizes).sum()),
            "skipped_chunks": self.skipped,
            "views": dict(zip(schedule.sizes.tolist(), views.tolist(), strict=True)),
            "sources": rows,
        }

    def stand_in(self, chunk: int, count: int) -> int:
        """The next chunk after `chunk`, in the dataset's order and around its end, that holds `count`
        frames."""
        enough = self.chunks[self.frames >= count]
        return int(enough[np.searchsorted(enough, chunk, side="right") % len(enough)])

    def hash(self, step: int, count: int = 3) -> str:
        """Hex digest of the planned batches `step` .. `step + count - 1` over all lanes."""
        sha = hashlib.sha256()
        for number in range(step, step + count):
            for lane in range(self.config.lanes):
                sha.update(self.lane_step(number, lane).digest())
        return sha.hexdigest()[:32]

    def _crops(self, rng: np.random.Generator) -> np.ndarray:
        images = self.config.images_per_lane
        area = rng.uniform(*self.config.crop_area, images)
        aspect = np.exp(rng.uniform(*np.log(self.config.crop_aspect), images))
        # On a grid of 2**-20: exp may differ in its last bit from one processor to the next.
        return np.round(np.column_stack([area, aspect, rng.random((images, 2))]) * 2**20) / 2**20

    def _flips(self, rng: np.random.Generator, views: np.ndarray) -> np.ndarray:
        if self.config.flip == "none":
            return np.zeros(self.config.images_per_lane, bool)
        if self.config.flip == "view":
            return rng.random(self.config.images_per_lane) < 0.5
        return np.repeat(rng.random(len(views)) < 0.5, views)


@lru_cache(maxsize=16)
def _order_seed(seed: int) -> np.ndarray:
    """(1,) the seed of the order, apart from all other uses of `seed`."""
    return stream(seed, _ORDER).integers(2**63, size=1, dtype=np.uint64)


@lru_cache(maxsize=16)
def _draw_seed(seed: int) -> np.ndarray:
    """(1,) the seed of the drawing of views, likewise."""
    return stream(seed, _FRAMES).integers(2**63, size=1, dtype=np.uint64)
