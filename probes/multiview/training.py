"""Training the multi-view head on frozen features, once for all probes that read it; and what it predicts.

Every step draws scenes, views and their order anew; the first view is the reference in which poses and depths are
told, in units of the mean distance of the visible points (of the other cameras, without depth), as in VGGT
(arXiv 2503.11651, section 3.4). Probes that ask for the same head with the same training share one. This file knows
no metric.
"""

import json
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from mum import cameras
from probes.data.sequences import SequenceSet
from probes.data.square import SquareFrames
from probes.encoders.encoder import Encoder
from probes.encoders.features import FeatureMaps
from probes.encoders.moments import channel_moments
from probes.metrics.correspondence import patch_centres
from probes.multiview.head import HeadConfig, MultiviewHead, Reading
from probes.schedule import warm_cosine

_KEPT = 4  # trained heads that wait for another probe
_trained: OrderedDict[str, MultiviewHead] = OrderedDict()


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How the head is trained; part of the identity of a result."""

    head: HeadConfig = field(default_factory=HeadConfig)
    steps: int = 20_000
    frames: int = 48
    """Frames a step: as many scenes as fit, all with the same number of views."""
    views: tuple[int, int] = (2, 10)
    """Least and most views of a scene; the number is drawn every step."""
    lr: float = 2e-4
    """Peak learning rate of AdamW; a twentieth of the steps warm up, then cosine to zero."""
    weight_decay: float = 0.05
    clip: float = 1.0
    """Largest norm of a step's gradient."""
    camera_weight: float = 5.0
    """Of the pose loss; the depth loss weighs 1."""
    match_weight: float = 1.0
    """Of the loss of matches with the reference."""


@dataclass(frozen=True, kw_only=True)
class Truth:
    """Cameras and depths of n frames, at the resolution of a head."""

    intrinsics: Tensor
    """(n, 3, 3) of an image of side 1."""
    world_to_camera: Tensor
    """(n, 3, 4) float64."""
    depth: Tensor
    """(n, H, W) at the centres of the head's depth cells, 0 = unknown."""


def read_truth(
    frames: SquareFrames,
    resolution: tuple[int, int],
    depth_range: tuple[float, float] | None,
    *,
    progress: bool = False,
) -> Truth:
    """What is known of frames, with depth maps of a resolution (rows, columns)."""
    column, row = np.floor(patch_centres(*resolution, frames.size)).astype(int).T
    depths = []
    for index in tqdm(range(len(frames)), desc="depth", leave=False, disable=not progress):
        found = frames.depth(index)
        depth = np.zeros(resolution) if found is None else found[row, column].reshape(resolution)
        mask = frames.mask(index)
        counts = counted(depth, depth_range) & (
            True if mask is None else mask[row, column].reshape(resolution)
        )
        depths.append(np.where(counts, depth, 0).astype(np.float32))
    return Truth(
        intrinsics=read_cameras(frames, range(len(frames))),
        world_to_camera=torch.from_numpy(
            np.stack([frames.pose(i) for i in range(len(frames))]).astype(float)
        ),
        depth=torch.from_numpy(np.stack(depths)),
    )


def read_cameras(frames: SquareFrames, indices: Sequence[int]) -> Tensor:
    """Intrinsics (n, 3, 3) of an image of side 1."""
    shrink = np.diag([1 / frames.size, 1 / frames.size, 1.0])
    return torch.from_numpy(np.stack([shrink @ frames.intrinsics(i) for i in indices])).float()


def counted(depth: NDArray, depth_range: tuple[float, float] | None) -> NDArray[np.bool_]:
    """Which depths are known and lie in the range."""
    least, most = depth_range or (0.0, np.inf)
    return np.isfinite(depth) & (depth > 0) & (depth >= least) & (depth <= most)


def ray_map(intrinsics: Tensor, rows: int, columns: int) -> Tensor:
    """Rays (n, rows * columns, 3) with z = 1 through the centres of a grid, of cameras (n, 3, 3) of a unit image."""
    centres = torch.from_numpy(patch_centres(rows, columns, 1)).to(intrinsics)
    homogeneous = F.pad(centres, (0, 1), value=1.0).expand(len(intrinsics), -1, -1)
    return torch.linalg.solve(intrinsics, homogeneous.mT).mT


def train_head(
    encoder: Encoder,
    layer: int,
    maps: FeatureMaps,
    sequences: SequenceSet,
    first: int,
    *,
    depth_range: tuple[float, float] | None,
    seed: int,
    config: TrainingConfig,
    device: torch.device,
    progress: bool = False,
) -> MultiviewHead:
    """Train a head, or give the one that was trained just so before in this process.

    Args:
        encoder: whose identity says what the features are.
        layer: of the features.
        maps: features of the training frames, at ``first`` and behind.
        sequences: the training sequences.
        first: index in ``maps`` of their first frame.
        depth_range: depths that count, in the training data's unit.
        seed: of the initial weights and of the draws, so that all encoders see the same scenes.
        config: the recipe.
        device: where it is trained.
        progress: show a bar on stderr.
    """
    asked = [encoder.identity, layer, sequences.hash, depth_range, seed, asdict(config), device.type]
    key = json.dumps(asked, sort_keys=True)
    if key not in _trained:
        while len(_trained) >= _KEPT:
            _trained.popitem(last=False)
        _trained[key] = _train(maps, sequences, first, depth_range, seed, config, device, progress)
    _trained.move_to_end(key)
    return _trained[key]


def _train(
    maps: FeatureMaps,
    sequences: SequenceSet,
    first: int,
    depth_range: tuple[float, float] | None,
    seed: int,
    config: TrainingConfig,
    device: torch.device,
    progress: bool,
) -> MultiviewHead:
    moments = channel_moments(maps.tokens, range(first, first + len(sequences.frames)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = MultiviewHead(moments, maps.grid, config.head).to(device)
    truth = read_truth(sequences.frames, head.resolution, depth_range, progress=progress)
    optimizer = torch.optim.AdamW(
        head.parameters(), lr=config.lr, betas=(0.9, 0.95), weight_decay=config.weight_decay
    )
    schedule = warm_cosine(optimizer, config.steps, warm=config.steps // 20)
    for step in tqdm(range(config.steps), desc="multi-view head", leave=False, disable=not progress):
        frames, views = _draw(sequences, seed, step, config)
        picked = Truth(
            intrinsics=truth.intrinsics[frames].to(device),
            world_to_camera=truth.world_to_camera[frames].to(device),
            depth=truth.depth[frames].to(device),
        )
        tokens = maps.tokens([first + i for i in frames]).to(device)
        with _half(device):
            reading = head(tokens, ray_map(picked.intrinsics, *head.inner_grid)[..., :2], views)
        loss = loss_of(reading, picked, views, head.inner_grid, config)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(head.parameters(), config.clip)
        optimizer.step()
        schedule.step()
    return head.eval().requires_grad_(False)


def _half(device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")


def _draw(
    sequences: SequenceSet, seed: int, step: int, config: TrainingConfig
) -> tuple[list[int], tuple[int, ...]]:
    """Frames of a step, and the views of each of its scenes."""
    rng = np.random.Generator(np.random.Philox(key=[seed, step]))
    count = int(rng.integers(config.views[0], config.views[1] + 1))
    frames, views = [], []
    for place in rng.integers(len(sequences.sequences), size=max(1, config.frames // count)):
        members = sequences.sequences[place].frames
        drawn = rng.permutation(len(members))[:count]
        frames += [members[i] for i in drawn]
        views.append(len(drawn))
    return frames, tuple(views)


def reference_truth(truth: Truth, views: Sequence[int]) -> tuple[Tensor, Tensor]:
    """True poses (I, 3, 4), camera to the first of its scene, and depths, both in the scene's unit."""
    device = truth.depth.device
    first = _first(views, device)
    counts = torch.tensor(views, device=device)
    scene = torch.arange(len(views), device=device).repeat_interleave(counts)
    poses = cameras.relative_pose(truth.world_to_camera, truth.world_to_camera[first]).float()
    rays = ray_map(truth.intrinsics, *truth.depth.shape[1:])
    points = cameras.transform(rays * truth.depth.flatten(1)[..., None], poses)
    known = truth.depth.flatten(1) > 0

    def per_scene(values: Tensor) -> Tensor:
        return values.new_zeros(len(views)).index_add(0, scene, values)

    far = per_scene((points.norm(dim=-1) * known).sum(dim=1)) / per_scene(known.sum(dim=1).float()).clamp_min(
        1
    )
    apart = per_scene(poses[:, :, 3].norm(dim=-1)) / (counts - 1).clamp_min(1)
    unit = torch.where(far > 0, far, apart).clamp_min(1e-6)[scene]
    poses = torch.cat((poses[:, :, :3], poses[:, :, 3:] / unit[:, None, None]), dim=2)
    return poses, truth.depth / unit[:, None, None]


def loss_of(
    reading: Reading, truth: Truth, views: Sequence[int], grid: tuple[int, int], config: TrainingConfig
) -> Tensor:
    """Distances of rotations and centres to the truth, of logarithms of depths, and cross-entropy of matches.

    The last two are taken where depth is known.
    """
    true_poses, true_depth = reference_truth(truth, views)
    gaps = reading.poses - true_poses
    turned, moved = gaps[:, :, :3].flatten(1).norm(dim=-1), gaps[:, :, 3].norm(dim=-1)
    known = true_depth > 0
    off = (reading.log_depth - torch.where(known, true_depth, 1.0).log()).abs()
    matches = true_matches(truth, views, grid)
    seen = matches >= 0
    wrong = F.cross_entropy(reading.match_logits[seen].float(), matches[seen], reduction="sum")
    return (
        config.camera_weight * (turned + moved).mean()
        + (off * known).sum() / known.sum().clamp_min(1)
        + config.match_weight * wrong / seen.sum().clamp_min(1)
    )


def true_matches(truth: Truth, views: Sequence[int], grid: tuple[int, int]) -> Tensor:
    """Patch (I, h * w) of the reference that shows what the centre of each patch shows; -1: none, or unknown."""
    device, (height, width) = truth.depth.device, truth.depth.shape[1:]
    first = _first(views, device)

    def read(depth: Tensor, points: Tensor) -> Tensor:
        column, row = (points * torch.tensor([width, height], device=device)).long().unbind(-1)
        return depth[torch.arange(len(depth), device=device)[:, None], row, column]

    centres = torch.from_numpy(patch_centres(*grid, 1)).to(truth.intrinsics).expand(len(first), -1, -1)
    depth = read(truth.depth, centres)
    relative = cameras.relative_pose(truth.world_to_camera, truth.world_to_camera[first]).float()
    points = ray_map(truth.intrinsics, *grid) * depth[..., None]
    places, expected = cameras.project(points, truth.intrinsics[first], relative)
    inside = (depth > 0) & (expected > 0) & ((places >= 0) & (places < 1)).all(dim=-1)
    places = torch.where(inside[..., None], places, 0.0)
    found = read(truth.depth[first], places)
    seen = inside & ((found - expected).abs() <= cameras.VISIBLE_WITHIN * expected)
    column, row = (places * torch.tensor([grid[1], grid[0]], device=device)).long().unbind(-1)
    others = first != torch.arange(len(first), device=device)
    return torch.where(seen & others[:, None], row * grid[1] + column, -1)


def _first(views: Sequence[int], device: torch.device) -> Tensor:
    """Index (I,) of the reference of every frame of a pack."""
    starts = torch.tensor([0, *views[:-1]], device=device).cumsum(0)
    return starts.repeat_interleave(torch.tensor(views, device=device))


@torch.inference_mode()
def predict(
    head: MultiviewHead, maps: FeatureMaps, sequences: SequenceSet, device: torch.device
) -> Iterator[tuple[NDArray, NDArray]]:
    """What a head says of every sequence in turn, in the first frame's camera and in a unit of its own.

    ``maps`` holds their frames first. World-to-camera poses (n, 3, 4) float64, depths (n, H, W) float32 at the head's
    resolution.
    """
    for sequence in sequences.sequences:
        rays = ray_map(read_cameras(sequences.frames, sequence.frames), *head.inner_grid)[..., :2].to(device)
        tokens = maps.tokens(sequence.frames).to(device)
        with _half(device):
            found = head(tokens, rays, (len(sequence.frames),))
        yield cameras.invert(found.poses.double()).cpu().numpy(), found.log_depth.exp().cpu().numpy()
