"""Poses of several views at once: a small head reads the frozen features of a sequence and tells where every camera is.

The protocol of PoseDiffusion, VGGT and MuM: fixed random frames of a scene, all pairs of them, the error of a pair is
the larger of its rotation error and of the error of its translation's direction, folded at 90 degrees, and the score
is the area under its recall curve up to 30 degrees. ATE and RPE are of the whole sequence after Sim(3) and stand in
all its rows. A row is a pair; scenes are what the statistics resample.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from probes.data.correspondences import Correspondent
from probes.data.frames import Benchmark, FrameSequence
from probes.data.pairs import stable_order
from probes.exhibits import Exhibit
from probes.metrics.pose import (
    INTEGRATIONS,
    absolute_trajectory_error,
    auc_statistic,
    camera_centres,
    relative_pose_errors,
    rotation_errors,
    translation_errors,
)
from probes.multiview.pictures import camera_exhibits
from probes.multiview.task import (
    READINGS,
    MultiviewConfig,
    MultiviewTask,
    Prediction,
    shared_config,
    why_no_sequences,
)
from probes.pose.rows import recall_metric
from probes.probe import BASELINE, Metric, Probe, Row, Settings, Unit

NO_BASELINE = 1e-6
"""Share of the sequence's extent below which two cameras are in one place: such pairs are not scored."""
SHORT_BASELINE = 0.01
"""Share of the sequence's extent below which the direction of a translation is mostly noise."""


class MultiviewPoseTask(MultiviewTask):
    """Sequences of one data set."""

    def __init__(self, benchmark: Benchmark, train: Benchmark | None, config: MultiviewConfig) -> None:
        super().__init__("multiview_pose", benchmark, train, config, depth=False)
        self._unit = benchmark.unit
        self._covariates: dict[str, list[Row]] = {}
        gaps = np.concatenate([_baselines(self._true_poses(sequence)) for sequence in self.scored.sequences])
        self.facts["items"] = int((gaps > NO_BASELINE).sum())
        self.facts["pairs_without_baseline"] = int((gaps <= NO_BASELINE).sum())
        self.facts["pairs_with_short_baseline"] = int((gaps <= SHORT_BASELINE).sum())
        self.facts["length_unit"] = (
            self._unit or "the root mean square distance of a sequence's cameras from their middle"
        )
        if self.facts["pairs_with_short_baseline"]:
            self.notes.append(
                f"{self.facts['pairs_with_short_baseline']} pairs of {benchmark.spec} are less than "
                f"{SHORT_BASELINE:.0%} of their sequence's extent apart: the direction of their translation is noise."
            )

    def baselines(self, grids: Sequence[tuple[int, int]]) -> list[Row]:
        """Guesses that look at no feature: random poses, and cameras that all look the same way.

        No figure of the best that a grid allows is known for a learned head.
        """
        rows = []
        for sequence in self.scored.sequences:
            rng = np.random.Generator(
                np.random.Philox(int.from_bytes(stable_order(sequence.name)[:8], "big"))
            )
            count = len(sequence.frames)
            # Centres, so that the direction between any two is uniform.
            centres = rng.normal(size=(count, 3, 1))
            turned = Rotation.random(count, rng=rng).as_matrix()
            guesses = {"chance": turned, "same direction": np.broadcast_to(np.eye(3), (count, 3, 3))}
            for name, rotations in guesses.items():
                poses = np.concatenate([rotations, -rotations @ centres], axis=2)
                way = {
                    "encoder": name,
                    "layer": None,
                    "reading": BASELINE,
                    "position": "kept",
                    "seed": None,
                }
                rows += [way | row for row in self._rows(sequence, poses)]
        return rows

    def exhibits(self, units: Mapping[str, Unit]) -> list[Exhibit]:
        """Cameras from above: best, median and worst sequence by mean pair error."""
        return camera_exhibits(self.scored, units)

    def rows_of(self, sequence: FrameSequence, prediction: Prediction) -> list[Row]:
        """See `MultiviewTask.rows_of`."""
        return self._rows(sequence, prediction.world_to_camera)

    def kept(self, sequence: FrameSequence, prediction: Prediction) -> dict[str, NDArray]:
        """See `MultiviewTask.kept`."""
        return {f"{sequence.name}:poses": prediction.world_to_camera.astype(np.float32)}

    def _true_poses(self, sequence: FrameSequence) -> NDArray:
        return np.stack([self.scored.frames.pose(index) for index in sequence.frames]).astype(np.float64)

    def _rows(self, sequence: FrameSequence, predicted: NDArray) -> list[Row]:
        true = self._true_poses(sequence)
        length = 1.0 if self._unit else max(_extent(true), 1e-12)
        ate = absolute_trajectory_error(predicted, true) / length
        rpe_translation, rpe_rotation = relative_pose_errors(predicted, true)
        whole = {"ate": ate, "rpe_translation": rpe_translation / length, "rpe_rotation": rpe_rotation}
        (first, second), covariates = (
            np.array(list(combinations(range(len(true)), 2))).T,
            self._pairs(sequence),
        )
        (turned, moved), (turned_truly, moved_truly) = (
            _relative(poses[first], poses[second]) for poses in (predicted, true)
        )
        rotation = rotation_errors(turned, turned_truly)
        folded = translation_errors(moved, moved_truly, folded=True)
        signed = translation_errors(moved, moved_truly, folded=False)
        return [
            known
            | {
                "failed": not np.isfinite(max(r, f)),
                "rotation_error": float(r),
                "translation_error": float(f),
                "translation_error_signed": float(s),
                "pose_error": float(max(r, f)),
            }
            | whole
            for known, r, f, s, gap in zip(
                covariates, rotation, folded, signed, _baselines(true), strict=True
            )
            if gap > NO_BASELINE
        ]

    def _pairs(self, sequence: FrameSequence) -> list[Row]:
        """Item, scene and covariates of all pairs of a sequence."""
        if sequence.name not in self._covariates:
            frames = self.scored.frames
            correspondent, found = Correspondent(frames), []
            for a, b in combinations(sequence.frames, 2):
                seen = correspondent.between(a, b)
                turned, _ = _relative(frames.pose(a)[None], frames.pose(b)[None])
                found.append(
                    {
                        "item": f"{sequence.name}|{frames.names[a]}|{frames.names[b]}",
                        "scene": sequence.scene,
                        "sequence": sequence.name,
                        "group": sequence.group or sequence.scene,
                        "angle": seen.angle if seen else None,
                        "overlap": seen.overlap if seen else None,
                        "rotation": float(rotation_errors(turned, np.eye(3)[None])[0]),
                    }
                )
            self._covariates[sequence.name] = found
        return self._covariates[sequence.name]


def _relative(first: NDArray, second: NDArray) -> tuple[NDArray, NDArray]:
    """Rotations (n, 3, 3) and translations (n, 3) from first cameras (n, 3, 4) to second ones."""
    rotation = second[:, :, :3] @ first[:, :, :3].transpose(0, 2, 1)
    return rotation, second[:, :, 3] - (rotation @ first[:, :, 3:])[..., 0]


def _baselines(world_to_camera: NDArray) -> NDArray:
    """Distances of all pairs of cameras, as shares of their extent."""
    centres = camera_centres(world_to_camera)
    first, second = np.array(list(combinations(range(len(centres)), 2))).T
    return np.linalg.norm(centres[first] - centres[second], axis=1) / max(_extent(world_to_camera), 1e-12)


def _extent(world_to_camera: NDArray) -> float:
    """Root mean square distance of camera centres from their middle."""
    centres = camera_centres(world_to_camera)
    return float(np.sqrt(np.square(centres - centres.mean(axis=0)).sum(axis=1).mean()))


def _auc(threshold: int, kind: str) -> Metric:
    return Metric(
        name=f"auc{threshold}_{kind}",
        label=f"AUC@{threshold}° ({kind})",
        digits=1,
        scale=100,
        column="pose_error",
        statistic=auc_statistic(threshold, kind),
    )


class MultiviewPoseProbe(Probe):
    """See the file's opening."""

    name = "multiview_pose"
    title = "Pose of several views"
    question = (
        "Can a small head that sees several views at once tell from frozen features where they were taken?"
    )
    metrics: ClassVar[tuple[Metric, ...]] = (
        _auc(30, "histogram"),
        recall_metric("RRA", 15, "rotation_error"),
        recall_metric("RTA", 15, "translation_error"),
        *(_auc(30, kind) for kind in INTEGRATIONS if kind != "histogram"),
        _auc(15, "histogram"),
        _auc(5, "histogram"),
        *(
            recall_metric(name, threshold, column)
            for name, column in (("RRA", "rotation_error"), ("RTA", "translation_error"))
            for threshold in (5, 30)
        ),
        Metric(name="rotation_error", label="rotation error", unit="°", better="less", digits=1),
        Metric(
            name="translation_error", label="translation error, folded", unit="°", better="less", digits=1
        ),
        Metric(
            name="translation_error_signed",
            label="translation error, signed",
            unit="°",
            better="less",
            digits=1,
        ),
        Metric(name="ate", label="ATE", better="less"),
        Metric(name="rpe_translation", label="RPE, translation", better="less"),
        Metric(name="rpe_rotation", label="RPE, rotation", unit="°", better="less", digits=1),
    )
    headline = "auc30_histogram"
    leading = READINGS

    def refuses(self, benchmark: Benchmark) -> str | None:
        """It needs cameras."""
        return why_no_sequences(benchmark, depth=False)

    def config(self, benchmark: Benchmark, settings: Settings) -> MultiviewConfig:
        """Standard: 10 frames, a VGGT-like head of 12 blocks; small: the same plan in seconds."""
        return MultiviewConfig(**shared_config(benchmark, settings))

    def open(
        self, benchmark: Benchmark, train: Benchmark | None, config: MultiviewConfig
    ) -> MultiviewPoseTask:
        """See `Probe.open`."""
        return MultiviewPoseTask(benchmark, train, config)


PROBE = MultiviewPoseProbe()
