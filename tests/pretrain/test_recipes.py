"""Recipes, and the paper's ablations of them: one option each, which changes what it says and nothing else."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

import mum
import shards
from pretrain.commandline import parse
from pretrain.recipes import ABLATIONS, RunConfig, identity, mum_vitb16, mum_vitb16_ablation
from pretrain.tasks import MaskedViews

SCENES, VIEWS = 16, 4


class Tables:
    """Scenes of 24 frames that overlap the less the further they stand apart in their order."""

    hash = "0" * 64
    frames_per_chunk = np.full(SCENES, 24)

    def select(self, split: str | None) -> np.ndarray:
        return np.arange(SCENES)

    def covisibility(self, chunk: int) -> np.ndarray:
        apart = np.abs(np.subtract.outer(np.arange(24), np.arange(24)))
        return (254 * np.exp(-apart / 6)).astype(np.uint8)


class Shown(NamedTuple):
    """What a recipe does with one pack, and what it draws."""

    model: mum.MuM
    out: mum.MuMOutput
    views: np.ndarray
    flips: np.ndarray
    overlap: float


def show(*options: str) -> Shown:
    """One small step of the tiny recipe with these options; images, masks and weights are always the same."""
    small = ("--size", "32", "--images-per-lane", "8", "--views", "4", "4", "--parallel.threads", "1")
    config = parse(["mum_tiny", "--data", "D", "--out", "R", *small, *options]).config
    task = MaskedViews(config, torch.device("cpu"))
    model = task.build()
    seen: list[mum.MuMOutput] = []
    model.register_forward_hook(lambda module, given, out: seen.append(out))
    images = torch.randint(0, 256, (8, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    inputs = {
        "images": images.to(torch.uint8),
        "views": torch.tensor([VIEWS, VIEWS]),
        "noise": task.noise(0, 0, 8),
    }
    assert torch.equal(task.loss(model, inputs), seen[0].loss)
    drawn = [shards.Plan(Tables(), config.data).lane_step(step, 0) for step in range(20)]
    return Shown(
        model,
        seen[0],
        np.concatenate([step.views for step in drawn]),
        np.stack([step.flips.reshape(-1) for step in drawn]),
        float(np.mean([step.overlap for step in drawn])),
    )


@pytest.fixture(scope="module")
def default() -> Shown:
    return show()


def flat(config: RunConfig) -> dict[str, Any]:
    values: dict[str, Any] = {}

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(f"{prefix}.{key}", inner)
        else:
            values[prefix] = value

    walk("", asdict(config))
    return values


@pytest.mark.parametrize("what", ABLATIONS)
def test_an_ablation_is_one_option_and_changes_one_field(what: str) -> None:
    options = ABLATIONS[what]
    assert sum(option.startswith("--") for option in options) == 1
    before = flat(mum_vitb16_ablation())
    after = flat(parse(["mum_vitb16_ablation", "--data", "D", "--out", "R", *options]).config)
    assert len([key for key in before if before[key] != after[key]]) == 1


def masked(shown: Shown) -> torch.Tensor:
    """(I,) share of each image that is masked."""
    return shown.out.mask.mean(1)


def predicted_apart(shown: Shown) -> bool:
    """Whether a scene's first view is painted the same when its last one is another picture."""
    torch.manual_seed(0)
    images = torch.rand(VIEWS, 3, 32, 32)
    noise = torch.rand(VIEWS, 16)
    other = images.clone()
    other[-1] = torch.rand(3, 32, 32)
    with torch.no_grad():
        one, two = (shown.model(pack, [VIEWS], noise=noise).pred[0] for pack in (images, other))
    return torch.allclose(one, two, atol=1e-6)


def mirrored_together(shown: Shown) -> bool:
    """Whether all views of a scene are mirrored, or none, in every step."""
    scenes = shown.flips.reshape(len(shown.flips), -1, VIEWS)
    return bool((scenes == scenes[..., :1]).all())


def test_default_masks_three_quarters_and_looks_across_views(default: Shown) -> None:
    assert (masked(default) == 0.75).all()
    assert not predicted_apart(default)
    assert mirrored_together(default)
    assert default.flips.any()
    assert default.out.decoded is None


def fewer_views(shown: Shown, default: Shown) -> bool:
    return set(default.views) == {4} and set(shown.views) == {2, 3, 4, 5, 6}


def other_targets(shown: Shown, default: Shown) -> bool:
    same = torch.equal(shown.out.pred, default.out.pred)
    return same and not torch.allclose(shown.out.loss, default.out.loss, rtol=0.01)


def reference_seen(shown: Shown, default: Shown) -> bool:
    first = torch.arange(8) % VIEWS == 0
    return bool((masked(shown)[first] == 0).all() and (masked(shown)[~first] == 0.75).all())


EFFECTS: dict[str, Callable[[Shown, Shown], bool]] = {
    # 16 patches an image, the kept ones rounded down.
    "masks 65 % of every view": lambda shown, _: bool((masked(shown) == 11 / 16).all()),
    "masks 85 %": lambda shown, _: bool((masked(shown) == 14 / 16).all()),
    "few views": fewer_views,
    "a decoder of 6 blocks": lambda shown, _: (
        len(shown.model.decoder.frame_blocks) == len(shown.model.decoder.scene_blocks) == 3
    ),
    "a decoder 256 wide": lambda shown, _: shown.model.decoder.head.in_features == 256,
    "no attention between views (= MAE)": lambda shown, _: predicted_apart(shown),
    "an unmasked reference view (CroCo-like)": reference_seen,
    "raw pixels as targets": other_targets,
    "every view mirrored by itself": lambda shown, _: not mirrored_together(shown),
    "no flips": lambda shown, _: not shown.flips.any(),
    "views that overlap more": lambda shown, default: shown.overlap > default.overlap + 0.02,
    "views that overlap less": lambda shown, default: shown.overlap < default.overlap - 0.02,
    "half of the masked patches decoded": lambda shown, _: shown.out.pred.shape[1] == 6,
}


@pytest.mark.parametrize("what", ABLATIONS)
def test_an_ablation_does_what_it_says(default: Shown, what: str) -> None:
    assert EFFECTS[what](show(*ABLATIONS[what]), default)


def test_ablations_train_a_base_model_for_a_fifth_of_the_papers_steps() -> None:
    ablation, main = flat(mum_vitb16_ablation()), flat(mum_vitb16())
    assert {key: ablation[key] for key in main if ablation[key] != main[key]} == {".steps": 100_000}
    assert mum_vitb16_ablation().model.name == "mum_vitbase_patch16"


def test_init_is_part_of_what_a_run_keeps() -> None:
    config = parse(["mum_tiny", "--data", "D", "--out", "R", "--init", "timm:x"]).config
    assert identity("mum_tiny", config, [])["init"] == "timm:x"
