"""Point clouds of several views: predicted depths and poses together, against the true cloud.

The head that `probes.multiview.multiview_pose` reads too gives every frame a depth map and a pose; with the known
intrinsics these are points of one world. Predicted and true points of the same pixels are aligned by Sim(3), then
ICP, and compared both ways: the protocol of Pi3's evaluator, which MuM's figures follow
(`probes.metrics.point_clouds.PI3_STYLE`). A row is a sequence. Lengths are in the benchmark's unit, or in the
cloud's radius where it has none.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from probes.data.frames import Benchmark, FrameSequence
from probes.data.square import SquareFrames
from probes.exhibits import Exhibit
from probes.metrics.correspondence import patch_centres
from probes.metrics.point_clouds import PI3_STYLE, CloudScore, align, cloud_normals, compare_clouds
from probes.multiview.pictures import cloud_exhibits
from probes.multiview.task import (
    READINGS,
    MultiviewConfig,
    MultiviewTask,
    Prediction,
    shared_config,
    why_no_sequences,
)
from probes.multiview.training import counted, read_cameras, read_truth
from probes.probe import BASELINE, Metric, Probe, Row, Settings, Unit

_LEARNED_FROM = 512  # training frames that the mean depth is taken from
_ICP_DISTANCE = {"mm": 100.0, "m": 0.1, "": 0.05}


@dataclass(frozen=True, kw_only=True)
class PointmapConfig(MultiviewConfig):
    """What is read and how; part of the identity of a result."""

    protocol: str = PI3_STYLE
    resolution: int
    """Points a side of every frame, on a regular grid."""
    icp_distance: float
    """Points farther apart are not paired: 100 mm or 0.1 m, as Pi3's evaluator has it; 0.05 radii."""
    icp_points: int
    """That ICP looks at, at most."""
    neighbours: int = 30
    """That a normal is fitted to."""
    depth_range: tuple[float, float] | None
    """Depths that count."""


@dataclass(frozen=True, kw_only=True)
class Cloud:
    """The truth of one sequence, and how pixels become points."""

    rays: NDArray
    """(n, P, 3) through the grid's points of all frames, z = 1."""
    depth: NDArray
    """(n, P), 0 where nothing counts."""
    points: NDArray
    """(m, 3) of the pixels that count, divided by `scale`."""
    normals: NDArray
    """(m, 3)."""
    scale: float
    """1, or the median distance of the points from their middle, in data without a unit."""


class PointmapTask(MultiviewTask):
    """Sequences of one data set."""

    config: PointmapConfig

    def __init__(self, benchmark: Benchmark, train: Benchmark | None, config: PointmapConfig) -> None:
        super().__init__("pointmap", benchmark, train, config, depth=True)
        self._unit = benchmark.unit
        # Pixels of a few sequences are used by one encoder after the other.
        self.cloud = lru_cache(maxsize=64)(self._cloud)
        self.facts["length_unit"] = (
            benchmark.unit or "the median distance of a cloud's points from their middle"
        )
        self.facts["protocol"] = config.protocol
        self.notes.append(
            f"Point clouds of {benchmark.spec} are scored {config.protocol}; not as DTU and ETH3D officially are."
        )

    def baselines(self, grids: Sequence[tuple[int, int]]) -> list[Row]:
        """A cloud that looks at no feature, and the best that a head's depth cells allow on each grid."""
        head = self.config.training.head
        inner = dict.fromkeys((min(h, head.grid), min(w, head.grid)) for h, w in grids)
        rows = []
        for sequence in self.scored.sequences:
            count = len(sequence.frames)
            true = np.stack([self.scored.frames.pose(index) for index in sequence.frames])
            flat = np.broadcast_to(np.eye(3, 4), (count, 3, 4))
            mean = np.broadcast_to(self._mean_depth, (count, *self._mean_depth.shape))
            told = {"mean depth, one camera": Prediction(world_to_camera=flat, depth=mean)}
            for h, w in inner:
                depth = self._averaged(sequence, (h * head.cells, w * head.cells))
                told[f"oracle ({h} x {w})"] = Prediction(world_to_camera=true, depth=depth)
            way = {"layer": None, "reading": BASELINE, "position": "kept", "seed": None}
            rows += [{"encoder": n} | way | row for n, p in told.items() for row in self.rows_of(sequence, p)]
        return rows

    def exhibits(self, units: Mapping[str, Unit]) -> list[Exhibit]:
        """Clouds from a side: best, median and worst sequence."""
        return cloud_exhibits(self, units)

    def rows_of(self, sequence: FrameSequence, prediction: Prediction) -> list[Row]:
        """See `MultiviewTask.rows_of`; a sequence without a known pixel has no row."""
        cloud = self.cloud(sequence)
        if not len(cloud.points):
            return []
        row = {
            "item": sequence.name,
            "scene": sequence.scene,
            "sequence": sequence.name,
            "group": sequence.group or sequence.scene,
            "frames": len(sequence.frames),
            "points": len(cloud.points),
        }
        moved = self.aligned(sequence, prediction)
        if moved is None:
            failure = CloudScore(*(0.0 if "normal" in name else np.inf for name in CloudScore._fields))
            return [row | {"failed": True} | failure._asdict()]
        normals = cloud_normals(moved, self.config.neighbours)
        score = compare_clouds(moved, cloud.points, normals, cloud.normals)
        return [row | {"failed": False} | score._asdict()]

    def kept(self, sequence: FrameSequence, prediction: Prediction) -> dict[str, NDArray]:
        """See `MultiviewTask.kept`."""
        return {
            f"{sequence.name}:poses": prediction.world_to_camera.astype(np.float32),
            f"{sequence.name}:depth": prediction.depth.astype(np.float16),
        }

    def aligned(self, sequence: FrameSequence, prediction: Prediction) -> NDArray | None:
        """Predicted points (m, 3) of the pixels that count, aligned with the true ones; None if not finite."""
        cloud = self.cloud(sequence)
        logs = torch.from_numpy(np.log(np.maximum(prediction.depth, 1e-9)).astype(np.float32))
        side = self.config.resolution
        fine = F.interpolate(logs[:, None], (side, side), mode="bilinear", align_corners=False)
        depth = fine.exp().flatten(1).double().numpy()
        points = _points(cloud.rays, depth, prediction.world_to_camera)[cloud.depth > 0]
        if not np.isfinite(points).all():
            return None
        return align(points, cloud.points, distance=self.config.icp_distance, most=self.config.icp_points)

    def true_points(self, sequence: FrameSequence) -> NDArray:
        """(m, 3) of the pixels that count."""
        return self.cloud(sequence).points

    def kept_points(self, sequence: FrameSequence, unit: Unit) -> NDArray:
        """Aligned points (m, 3) of what a unit keeps; (0, 3) where they are not finite."""
        poses, depth = (unit.arrays[f"{sequence.name}:{part}"] for part in ("poses", "depth"))
        prediction = Prediction(world_to_camera=poses.astype(np.float64), depth=depth.astype(np.float32))
        moved = self.aligned(sequence, prediction)
        return np.empty((0, 3)) if moved is None else moved

    def colours(self, sequence: FrameSequence) -> NDArray[np.uint8]:
        """(m, 3) of the pixels that count."""
        frames, side = self.scored.frames, self.config.resolution
        column, row = patch_centres(side, side, frames.size).astype(int).T
        found = np.stack([frames.load(index)[:, row, column].T for index in sequence.frames])
        return found[self.cloud(sequence).depth > 0]

    def _cloud(self, sequence: FrameSequence) -> Cloud:
        frames, side = self.scored.frames, self.config.resolution
        grid = patch_centres(side, side, 1)
        shrunk = np.linalg.inv(read_cameras(frames, sequence.frames).double().numpy())
        rays = np.column_stack([grid, np.ones(len(grid))]) @ shrunk.transpose(0, 2, 1)
        depth = np.stack([self._depth(index) for index in sequence.frames])
        poses = np.stack([frames.pose(index) for index in sequence.frames])
        points = _points(rays, depth, poses)[depth > 0]
        scale = 1.0
        if not self._unit and len(points):
            scale = float(np.median(np.linalg.norm(points - points.mean(axis=0), axis=1))) or 1.0
        points = points / scale
        return Cloud(
            rays=rays,
            depth=depth,
            points=points,
            normals=cloud_normals(points, self.config.neighbours),
            scale=scale,
        )

    def _depth(self, index: int) -> NDArray:
        """True depth (P,) at the grid's points, 0 where nothing counts."""
        frame, square = self.scored.frames.frames[index], self.scored.frames.square(index)
        side = self.config.resolution
        column, row = square.outward(patch_centres(side, side, square.size)).astype(int).T
        depth = frame.depth()[row, column].astype(np.float64)
        known = counted(depth, self.config.depth_range)
        if frame.mask is not None:
            known &= frame.mask()[row, column]
        return np.where(known, depth, 0)

    @cached_property
    def _mean_depth(self) -> NDArray:
        """The training frames' mean depth map, of the logarithm, each about its own mean."""
        side = self.config.resolution
        used = self._train.frames.frames[:_LEARNED_FROM]
        frames = SquareFrames(used, self.config.size, self.config.fit)
        depth = read_truth(frames, (side, side), self._train_range).depth.double()
        known = depth > 0
        logs = torch.where(known, depth, 1.0).log()
        count = known.sum(dim=(1, 2), keepdim=True).clamp_min(1)
        about = torch.where(known, logs - (logs * known).sum(dim=(1, 2), keepdim=True) / count, 0.0)
        return (about.sum(dim=0) / known.sum(dim=0).clamp_min(1)).exp().numpy()

    def _averaged(self, sequence: FrameSequence, cells: tuple[int, int]) -> NDArray:
        """True depth (n, *cells), the geometric mean of what is known of every cell."""
        side = self.config.resolution
        depth = torch.from_numpy(self.cloud(sequence).depth).unflatten(1, (side, side))[:, None]
        known = (depth > 0).double()
        logs = torch.where(depth > 0, depth, 1.0).log()
        total, share = (F.adaptive_avg_pool2d(x, cells) for x in (logs * known, known))
        overall = (logs * known).sum() / known.sum().clamp_min(1)
        return torch.where(share > 0, total / share.clamp_min(1e-12), overall).exp()[:, 0].numpy()


def _points(rays: NDArray, depth: NDArray, world_to_camera: NDArray) -> NDArray:
    """World points (n, P, 3) of rays (n, P, 3), depths (n, P) and poses (n, 3, 4)."""
    return (rays * depth[..., None] - world_to_camera[:, None, :, 3]) @ world_to_camera[:, :, :3]


class PointmapProbe(Probe):
    """See the file's opening."""

    name = "pointmap"
    title = "Point clouds of several views"
    question = "How near to the true surfaces are the points that a small head reads off frozen features?"
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric(name="overall_median", label="overall, median (pi3-style)", better="less"),
        Metric(name="accuracy_median", label="accuracy, median", better="less"),
        Metric(name="completeness_median", label="completeness, median", better="less"),
        Metric(name="overall", label="overall, mean", better="less"),
        Metric(name="accuracy", label="accuracy, mean", better="less"),
        Metric(name="completeness", label="completeness, mean", better="less"),
        Metric(name="normal_consistency", label="normal consistency, mean"),
        Metric(name="normal_consistency_median", label="normal consistency, median"),
    )
    headline = "overall_median"
    leading = READINGS

    def refuses(self, benchmark: Benchmark) -> str | None:
        """It needs cameras and depth."""
        return why_no_sequences(benchmark, depth=True)

    def config(self, benchmark: Benchmark, settings: Settings) -> PointmapConfig:
        """Standard: points of half the pixels' rows and columns; small: 48 x 48 points a frame."""
        small = settings.preset == "small"
        return PointmapConfig(
            **shared_config(benchmark, settings),
            resolution=48 if small else settings.size // 2,
            icp_distance=_ICP_DISTANCE[benchmark.unit],
            icp_points=4096 if small else 1 << 17,
            depth_range=benchmark.depth_range,
        )

    def open(self, benchmark: Benchmark, train: Benchmark | None, config: PointmapConfig) -> PointmapTask:
        """See `Probe.open`."""
        return PointmapTask(benchmark, train, config)


PROBE = PointmapProbe()
