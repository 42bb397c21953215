"""The plan: a pure function (seed, step, lane) -> scenes, views, crops and flips of one lane's step.

A *lane* is a virtual rank; their number is fixed when a run is created, so the global batch of a step is the
same for any number of real ranks and workers. A lane-step always holds `images_per_lane` images in
`scenes_per_lane` scenes: fixed shapes, equal work, no rank that ends early.

Order. Every chunk of N frames is visited ceil(N * B / I) times an epoch (B scenes share I images, so a visit
uses I / B frames on average). The visits of all epochs form one endless stream: place p is visit `p mod T` of
epoch `p div T`, sent through a permutation keyed by (seed, epoch), and slot b of lane v at step s holds place
`(s * B + b) * V + v`. Epochs need not end at a step's border, nothing is left over, nothing is materialised:
the permutation is a small Feistel network, and a step of a large run is computed as fast as step 0.

Frames. Each chunk's frames are permuted once an epoch and cut into as many groups as it has visits; visit k
begins with group k (see `shards/draw.py`), so the frames of a chunk are used about evenly.

All randomness comes from NumPy's Philox with (seed, purpose) as key and the integers it belongs to as
counter. This file knows nothing of files, pixels, ranks or workers. It reads only the dataset's mapped tables
and overlap.
"""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, Protocol

import numpy as np

from shards.draw import DRAWINGS, draw
from shards.format import UNKNOWN, CorruptFrame, ShardsError

_COUNTS, _VISITS, _FRAMES, _LANE, FIXED = range(5)
"""Purposes: the second word of a stream's key. Appending is safe, renumbering changes every run."""


class PlanError(ShardsError):
    """The plan cannot be made from these data and this configuration; one sentence with numbers and the
    mend."""


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What decides the content of every batch. Nothing here may change within a run."""

    size: int = 256
    """Side of the square crops, px."""
    images_per_lane: int = 96
    """Images a lane gives to a step (I)."""
    views: tuple[int, int] = (2, 24)
    """Fewest and most views of a scene in a batch (S); (1, 1) is single-view training."""
    lanes: int = 8
    """Virtual ranks (V); a step holds lanes * images_per_lane images, whatever the number of real ranks."""
    seed: int = 0
    """Seed of everything on the data path."""
    crop_area: tuple[float, float] = (0.2, 1.0)
    """Share of the stored picture's area that a crop covers, drawn uniformly per view."""
    crop_aspect: tuple[float, float] = (3 / 4, 4 / 3)
    """Width by height of a crop, drawn log-uniformly per view."""
    flip: Literal["scene", "none", "view"] = "scene"
    """Mirror all views of a scene together (cameras follow), none, or each view by itself (cameras are
    dropped)."""
    drawing: Literal["connected", "uniform"] = "connected"
    """How the views of a scene are chosen: a connected set by overlap, or any."""
    band: tuple[float, float] = (0.1, 0.8)
    """Overlap that a view must have with its best partner among those drawn before it (`connected`)."""

    def __post_init__(self) -> None:
        low, high = self.views
        if not 1 <= low <= high:
            raise PlanError(f"views must be (fewest, most) with 1 <= fewest <= most, not {self.views}")
        for field in ("size", "images_per_lane", "lanes"):
            if getattr(self, field) < 1:
                raise PlanError(f"{field} must be at least 1, not {getattr(self, field)}")
        if not 0 <= self.seed < 2**63:
            raise PlanError(f"seed must lie in [0, 2**63), not {self.seed}")
        if not 0 < self.crop_area[0] <= self.crop_area[1] <= 1:
            raise PlanError(f"crop_area must be shares 0 < least <= most <= 1, not {self.crop_area}")
        if not 0 < self.crop_aspect[0] <= self.crop_aspect[1]:
            raise PlanError(f"crop_aspect must be 0 < least <= most, not {self.crop_aspect}")
        if not 0 <= self.band[0] < self.band[1] <= 1:
            raise PlanError(f"band must be overlaps 0 <= least < most <= 1, not {self.band}")
        for field, known in (("flip", ("scene", "none", "view")), ("drawing", DRAWINGS)):
            if getattr(self, field) not in known:
                raise PlanError(f"{field} must be one of {', '.join(known)}, not {getattr(self, field)!r}")
        if self._scene_range() is None:
            raise PlanError(
                f"{self.images_per_lane} images a lane cannot be cut into scenes of {low} to {high} views:"
                f" take a multiple of {high}, or a wider range of views"
            )

    def _scene_range(self) -> tuple[int, int] | None:
        low, high = self.views
        fewest, most = -(-self.images_per_lane // high), self.images_per_lane // low
        return (fewest, most) if fewest <= most else None

    @property
    def scenes_per_lane(self) -> int:
        """B: scenes that share a lane's images, images_per_lane / mean of `views`, rounded to what is
        possible."""
        fewest, most = self._scene_range() or (1, 1)
        return min(max(round(2 * self.images_per_lane / sum(self.views)), fewest), most)

    @property
    def hash(self) -> str:
        """Hex digest of every field."""
        return hashlib.sha256(json.dumps(dataclasses.asdict(self), sort_keys=True).encode()).hexdigest()[:16]


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
    """Epoch of the first slot; a step may reach over the border of two."""
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
    damaged: tuple[CorruptFrame, ...] = ()
    """Overlap matrices that could not be read; their chunks were drawn as if nothing were known."""

    def digest(self) -> bytes:
        """32 bytes that name the content."""
        sha = hashlib.sha256(repr((self.step, self.lane)).encode())
        for array in (self.views, self.chunks, self.frames, self.crops, self.flips):
            sha.update(array.tobytes())
        return sha.digest()


def stream(seed: int, purpose: int, *numbers: int) -> np.random.Generator:
    """The generator that belongs to (seed, purpose, up to 3 numbers): equal everywhere, independent of all
    others."""
    # The lowest counter word stays free: it is what the generator itself counts.
    counter = np.array([0, *numbers, *(0,) * (3 - len(numbers))], np.uint64)
    return np.random.Generator(np.random.Philox(key=np.array([seed, purpose], np.uint64), counter=counter))


def view_counts(images: int, scenes: int, views: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """(scenes,) int64 counts within `views`, independent and uniform but for their sum, which is `images`."""
    low, high = views
    ways = _ways(images - scenes * low, scenes, high - low)
    counts = np.empty(scenes, np.int64)
    left = images - scenes * low
    for i, u in enumerate(rng.random(scenes)):
        # P(this count = x) is proportional to the ways in which the rest can make up the remainder.
        most = min(high - low, left)
        weight = ways[scenes - 1 - i, left - most : left + 1][::-1].cumsum()
        counts[i] = np.searchsorted(weight, u * weight[-1], side="right")
        left -= counts[i]
    return counts + low


@lru_cache(maxsize=64)
def _ways(total: int, scenes: int, most: int) -> np.ndarray:
    """ways[n, t]: the share of draws of n numbers in 0..most that sum to t."""
    ways = np.zeros((scenes, total + 1))
    ways[0, 0] = 1
    for n in range(1, scenes):
        ways[n] = np.convolve(ways[n - 1], np.full(most + 1, 1 / (most + 1)))[: total + 1]
    return ways


def permute(index: np.ndarray, length: int, keys: np.ndarray) -> np.ndarray:
    """Images of `index` (any shape, in 0..length-1) under the permutation of 0..length-1 that `keys` name.

    A Feistel network on the next power of two, walked until it lands inside (Black and Rogaway, 2002).
    """
    if length == 1:
        return np.zeros_like(index)
    bits = max(2, (length - 1).bit_length())
    shift = np.uint64(bits // 2)
    right_mask, left_mask = np.uint64((1 << (bits // 2)) - 1), np.uint64((1 << (bits - bits // 2)) - 1)
    result = index.astype(np.uint64)
    outside = np.ones(result.shape, bool)
    while outside.any():
        value = result[outside]
        left, right = value >> shift, value & right_mask
        for even, odd in keys.reshape(-1, 2):
            left = left ^ (_mix(right, even) & left_mask)
            right = right ^ (_mix(left, odd) & right_mask)
        result[outside] = left << shift | right
        outside = result >= length
    return result.astype(np.int64)


def _mix(value: np.ndarray, key: np.uint64) -> np.ndarray:
    """SplitMix64's finaliser (Steele, Lea and Flood, 2014) on value and key."""
    value = (value + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) ^ key
    value = (value ^ value >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ value >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return value ^ value >> np.uint64(31)


def fit_counts(counts: np.ndarray, capacity: np.ndarray, most: int) -> np.ndarray | None:
    """Deal view counts to scenes that hold `capacity` frames each; None where they cannot give the sum.

    The multiset stays as it is where some dealing fits. Otherwise the smallest scenes lend all they have and
    the others make up for it, evenly: within `most` if that is enough, else up to what they hold.
    """
    if (counts <= capacity).all():
        return counts
    if capacity.sum() < counts.sum():
        return None
    dealt, left = np.empty_like(counts), list(counts)
    for scene in np.argsort(capacity, kind="stable"):
        # The smallest scene takes any count it can hold; larger ones can still hold whatever it leaves.
        fitting = next((i for i, count in enumerate(left) if count <= capacity[scene]), None)
        dealt[scene] = left.pop(int(np.argmin(left)) if fitting is None else fitting)
    deficit = int((dealt - np.minimum(dealt, capacity)).sum())
    dealt = np.minimum(dealt, capacity)
    for limit in (np.minimum(capacity, most), capacity):
        while deficit and (dealt < limit).any():
            open_scenes = np.flatnonzero(dealt < limit)
            dealt[open_scenes[np.argmin(dealt[open_scenes])]] += 1
            deficit -= 1
    return dealt


class Plan:
    """What every lane reads at every step. Cheap to make, safe to copy into workers, without state.

    Raises PlanError where the split holds too little for a single lane-step.
    """

    def __init__(self, dataset: Tables, config: DataConfig, split: str | None = "train") -> None:
        self.dataset, self.config, self.split = dataset, config, split
        images, scenes = config.images_per_lane, config.scenes_per_lane
        chosen = np.asarray(dataset.select(split), np.int64)
        frames = np.asarray(dataset.frames_per_chunk)[chosen].astype(np.int64)
        # A single photograph is of use only where single views are asked for.
        usable = frames >= min(2, config.views[0])
        self.skipped = int((~usable).sum())
        """Chunks with too few frames to be visited at all."""
        self.chunks, self.frames = chosen[usable], frames[usable]
        where = f"the {split} split" if split else "the dataset"
        if not len(self.chunks):
            raise PlanError(
                f"{where} holds {len(chosen)} scenes, none with at least {min(2, config.views[0])} frames:"
                " build it from more photographs"
            )
        largest = int(self.frames.max())
        if scenes * largest < images:
            raise PlanError(
                f"the largest scene of {where} has {largest} frames, so {scenes} scenes give"
                f" {scenes * largest} of the {images} images a lane needs: set views to at most {largest},"
                " or build from scenes with more photographs"
            )
        visits = -(-self.frames * scenes // images)
        self._end = np.cumsum(visits)
        self.visits_per_epoch = int(self._end[-1])
        self.steps_per_epoch = -(-self.visits_per_epoch // (scenes * config.lanes))
        """Steps after which every chunk has had its visits of the first epoch."""

    def lane_step(self, step: int, lane: int) -> LaneStep:
        """The lane's share of the step; a pure function of (seed, data, config, step, lane)."""
        config = self.config
        epochs, rows, visit, dealt, rng = self._deal(step, lane)
        frames, overlaps, damaged = [], [], []
        for epoch, row, number, count in zip(epochs, rows, visit, dealt, strict=True):
            order, group = self._group(int(epoch), int(row), int(number))
            try:
                matrix = self.dataset.covisibility(int(self.chunks[row]))
            except CorruptFrame as error:
                matrix = np.full((len(order), len(order)), UNKNOWN, np.uint8)
                damaged.append(error)
            chosen, overlap = draw(
                matrix,
                int(count),
                rng,
                order=order,
                group=group,
                drawing=config.drawing,
                band=config.band,
            )
            frames.append(chosen)
            overlaps.append(overlap)
        return LaneStep(
            step=step,
            lane=lane,
            epoch=int(epochs[0]),
            views=dealt,
            chunks=self.chunks[rows],
            frames=np.concatenate(frames),
            crops=self._crops(rng),
            flips=self._flips(rng, dealt),
            overlap=float(np.nanmean(overlaps)) if np.isfinite(overlaps).any() else float("nan"),
            damaged=tuple(damaged),
        )

    def chunks_of(self, step: int, lane: int) -> np.ndarray:
        """(B,) int64 chunks of the lane's step, as `lane_step` names them; reads no overlap."""
        return self.chunks[self._deal(step, lane)[1]]

    def _deal(
        self, step: int, lane: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.random.Generator]:
        """Epoch, row of `chunks`, number of the visit and view count of each scene, and the lane's generator."""
        config = self.config
        if not 0 <= lane < config.lanes or step < 0:
            raise ValueError(f"lane {lane} of {config.lanes}, step {step}: out of range")
        images, scenes = config.images_per_lane, config.scenes_per_lane
        place = (step * scenes + np.arange(scenes, dtype=np.int64)) * config.lanes + lane
        epochs, rows, visit = self._visits(place)

        rng = stream(config.seed, _LANE, step, lane)
        counts = rng.permutation(_step_counts(images, scenes, config.views, config.seed, step))
        dealt = fit_counts(counts, self.frames[rows], config.views[1])
        while dealt is None:
            # The scenes that came up are too small together: the smallest gives its place to a larger one.
            smallest = int(np.argmin(self.frames[rows]))
            larger = np.flatnonzero(self.frames > self.frames[rows[smallest]])
            rows[smallest] = rng.choice(larger)
            visit[smallest] = rng.integers(self._visits_of(rows[smallest]))
            dealt = fit_counts(counts, self.frames[rows], config.views[1])
        return epochs, rows, visit, dealt, rng

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

    def _visits(self, place: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Epoch, row of `chunks`, and number of the visit to that chunk, for places in the endless stream."""
        epochs, index = np.divmod(place, self.visits_per_epoch)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            keys = _visit_keys(self.config.seed, int(epoch))
            index[here] = permute(index[here], self.visits_per_epoch, keys)
        rows = np.searchsorted(self._end, index, side="right")
        return epochs, rows, index - np.where(rows > 0, self._end[rows - 1], 0)

    def _visits_of(self, row: int) -> int:
        return int(self._end[row] - (self._end[row - 1] if row else 0))

    def _group(self, epoch: int, row: int, visit: int) -> tuple[np.ndarray, int]:
        """The epoch's order of the chunk's frames, rotated so that the visit's group leads, and the group's
        size."""
        count, visits = int(self.frames[row]), self._visits_of(row)
        order = stream(self.config.seed, _FRAMES, epoch, int(self.chunks[row])).permutation(count)
        first, end = visit * count // visits, (visit + 1) * count // visits
        return np.concatenate([order[first:], order[:first]]), max(1, end - first)

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
def _step_counts(images: int, scenes: int, views: tuple[int, int], seed: int, step: int) -> np.ndarray:
    """The view counts of a step: keyed without the lane, so that all lanes do equal work."""
    return view_counts(images, scenes, views, stream(seed, _COUNTS, step))


@lru_cache(maxsize=16)
def _visit_keys(seed: int, epoch: int) -> np.ndarray:
    return stream(seed, _VISITS, epoch).integers(0, 2**64, 8, np.uint64)
