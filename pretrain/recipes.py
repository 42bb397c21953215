"""Recipes: a run is a function without arguments that returns a complete frozen configuration.

What stands here is all a run depends on, besides its data: the command line changes single fields of a recipe
and nothing else, and the resolved configuration is written into the run's folder. To add a recipe, write such
a function and list it in RECIPES.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Annotated, Any, Literal

import tyro

from pretrain.checkpoint import CheckpointConfig
from pretrain.evaluation import EvaluationConfig
from pretrain.guards import GuardConfig
from pretrain.optim import OptimConfig
from pretrain.parallel import ParallelConfig
from pretrain.probing import ProbeConfig
from pretrain.sinks import LogConfig
from shards import DataConfig


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The masked autoencoder."""

    name: str = "mum_vitlarge_patch16"
    """encoder, by its name in timm's registry"""
    decoder_width: int | None = None
    """channels of the decoder; None: as belongs to the encoder, likewise below"""
    decoder_depth: int | None = None
    """blocks of the decoder, frame-wise and scene-wide together"""
    decoder_heads: int | None = None
    """attention heads of the decoder"""
    scene_wide: bool = True
    """the decoder looks across the views of a scene; with False, and --views 1 1, this is single-view MAE"""
    mask_ratio: float = 0.75
    """share of every view's patches that is masked"""
    decode_fraction: float = 1.0
    """share of the masked patches that is decoded and in the loss of training; evaluation decodes all"""
    reference_view: bool = False
    """leave the first view of every scene unmasked and out of the loss, as CroCo does"""
    norm_pix_loss: bool = True
    """targets are normalised patch by patch"""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One pretraining run."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: Annotated[DataConfig, tyro.conf.arg(name="")] = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    init: str = ""
    """weights to begin with: a run, a file or timm:NAME; files are ours or released MuM checkpoints. Empty:
    random"""
    precision: Literal["fp32", "bf16"] = "bf16"
    """fp32, or bf16 autocast over fp32 weights"""
    steps: int = 500_000
    """updates of the whole run"""
    workers: int = 8
    """processes that decode images, for each rank; 0: decode in the training process"""
    damage_limit: float = 0.01
    """share of the frames of 100 steps that may be damaged, and others shown in their place, before the run
    stops"""
    watchdog: float = 300.0
    """seconds of standstill before the rank and phase that hold the others up are named; 0: never"""
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    guard: GuardConfig = field(default_factory=GuardConfig)
    log: LogConfig = field(default_factory=LogConfig)
    probe_every: int = 0
    """steps between kNN matching scores of the frozen encoder; 0: never, else in a process beside the run"""
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    profile: bool = False
    """write a trace of a few steps into profile/ of the run's folder"""

    @property
    def images_per_step(self) -> int:
        """Images of one global batch."""
        return self.data.images_per_lane * self.data.lanes


IDENTITY = ("model", "data", "optim", "init", "precision")
"""Fields that a run keeps for life; the others may change when it goes on."""


def mum_vitl16() -> RunConfig:
    """ViT-L/16 as in the paper: 256 px, 2 to 24 views, 6144 images a step, 500 k steps.

    The paper's tenth of ImageNet is --single-share 0.1, with such photographs among the data.
    """
    return RunConfig(
        model=ModelConfig(name="mum_vitlarge_patch16"),
        data=DataConfig(size=256, images_per_lane=96, views=(2, 24), lanes=64),
        optim=OptimConfig(base_lr=1e-4, warmup=0.05),
        precision="bf16",
        steps=500_000,
    )


def mum_vitl16_224() -> RunConfig:
    """ViT-L/16 as the released code trains it: 224 px, 2 to 12 views, 4096 images a step."""
    return RunConfig(
        model=ModelConfig(name="mum_vitlarge_patch16"),
        data=DataConfig(size=224, images_per_lane=128, views=(2, 12), lanes=32),
        optim=OptimConfig(base_lr=1.5e-4, warmup=0.05),
        precision="bf16",
        steps=500_000,
    )


def mum_vitb16() -> RunConfig:
    """ViT-B/16, otherwise the paper's recipe."""
    return dataclasses.replace(mum_vitl16(), model=ModelConfig(name="mum_vitbase_patch16"))


def mum_vitb16_ablation() -> RunConfig:
    """ViT-B/16 as in the paper's ablations: 100 k steps, meant for MegaDepth alone.

    What the paper does not say of its ablations is as in its main run.
    """
    return dataclasses.replace(mum_vitb16(), steps=100_000)


def mum_tiny() -> RunConfig:
    """A ViT of 3 M parameters on 64 px crops, for one CPU: minutes on two cores."""
    return RunConfig(
        model=ModelConfig(name="mum_vittiny_patch8"),
        # So few steps see each frame a handful of times: crops would only cost overlap between views.
        data=DataConfig(
            size=64, images_per_lane=12, views=(6, 6), lanes=4, crop_area=(0.9, 1.0), crop_aspect=(1.0, 1.0)
        ),
        optim=OptimConfig(lr=7e-4, warmup=0.1, clip=1.0),
        precision="fp32",
        steps=1200,
        workers=1,
        # There is memory enough, and to so small a model each detour is a seventh of its time.
        parallel=ParallelConfig(lanes_at_once=4, recompute="none"),
        evaluation=EvaluationConfig(every=100, scenes=16, views=6, pictures=3),
        checkpoint=CheckpointConfig(every=200),
    )


RECIPES: dict[str, Callable[[], RunConfig]] = {
    recipe.__name__: recipe
    for recipe in (mum_vitl16, mum_vitl16_224, mum_vitb16, mum_vitb16_ablation, mum_tiny)
}

ABLATIONS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "masks 65 % of every view": ("--model.mask-ratio", "0.65"),
        "masks 85 %": ("--model.mask-ratio", "0.85"),
        "few views": ("--views", "2", "6"),
        "a decoder of 6 blocks": ("--model.decoder-depth", "6"),
        "a decoder 256 wide": ("--model.decoder-width", "256"),
        "no attention between views (= MAE)": ("--model.no-scene-wide",),
        "an unmasked reference view (CroCo-like)": ("--model.reference-view",),
        "raw pixels as targets": ("--model.no-norm-pix-loss",),
        "every view mirrored by itself": ("--flip", "view"),
        "no flips": ("--flip", "none"),
        "views that overlap more": ("--band", "0.5", "0.9"),
        "views that overlap less": ("--band", "0.05", "0.5"),
        "half of the masked patches decoded": ("--model.decode-fraction", "0.5"),
    }
)
"""The ablations of a recipe: what is other, and the one option that makes it so. They go with any recipe."""


def to_dict(config: RunConfig) -> dict[str, Any]:
    """The configuration as plain JSON values."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def identity(recipe: str, config: RunConfig | Mapping[str, Any], data_hashes: list[str]) -> dict[str, Any]:
    """What a run keeps for life, flattened: field path to value. `config` may be its JSON form."""
    values = dict(config) if isinstance(config, Mapping) else to_dict(config)
    flat: dict[str, Any] = {"recipe": recipe, "data": data_hashes}

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(f"{prefix}.{key}", inner)
        else:
            flat[prefix] = value

    for name in IDENTITY:
        walk(name, values.get(name))
    return flat


def complete(kept: Mapping[str, Any]) -> dict[str, Any]:
    """What an older version wrote down as a run's identity, with the fields it did not know at their defaults.

    So a new field's default must be what runs did before there was one.
    """
    known = identity("", RunConfig(), [])
    return {**{key: value for key, value in known.items() if key not in ("recipe", "data")}, **kept}


def hash_of(values: Mapping[str, Any]) -> str:
    """A short hash of plain JSON values, whatever their order."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]
