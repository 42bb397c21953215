"""Figures before a run, against sums done by hand and against a run that was done."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pretrain import estimate
from pretrain.files import read_json
from pretrain.recipes import CheckpointConfig, mum_tiny, mum_vitl16_224
from pretrain.tasks import MaskedViews
from shards.view_counts import Schedule

CPU = torch.device("cpu")


def test_flops_of_the_released_recipe() -> None:
    # Of 196 patches 49 are kept; a block of width D over T tokens and K keys takes 24 T D^2 + 4 T K D.
    task = MaskedViews(mum_vitl16_224(), CPU)
    found = estimate.training_flops_per_image(task, Schedule(np.array([[7, 7], [2, 12]])))
    views = (7 * 7 * 2 + 2 * 2 + 12 * 12) / 28
    encoder = 2 * 49 * 768 * 1024 + 24 * (24 * 50 * 1024**2 + 4 * 50 * 50 * 1024)
    decoder = 12 * 24 * 197 * 768**2 + 6 * 4 * 197 * 197 * 768 * (1 + views)
    ends = 2 * 50 * 1024 * 768 + 2 * 196 * 768 * 768
    assert found == pytest.approx(3 * (encoder + decoder + ends))


def test_view_counts_without_data_are_the_configured_ones() -> None:
    data = replace(mum_vitl16_224().data, single_share=0.1)
    schedule = estimate.likely_schedule(data)
    assert {*schedule.sizes.tolist()} == {1, *range(2, 13)}
    assert {int(scenes @ schedule.sizes) for scenes in schedule.of_step} == {data.images_per_lane}
    assert {int(scenes.sum()) for scenes in schedule.of_step} == {data.scenes_per_lane}


def test_tokens_of_the_released_recipe() -> None:
    config = mum_vitl16_224()
    told = estimate.tokens_per_pass(config, MaskedViews(config, CPU), (8,) * 16)
    assert told == {"encoder": 6400, "decoder": 25216}
    half = replace(config, model=replace(config.model, decode_fraction=0.5))
    assert estimate.tokens_per_pass(half, MaskedViews(half, CPU), (8,) * 16)["decoder"] == 128 * (50 + 74)
    unmasked = replace(config, model=replace(config.model, reference_view=True))
    told = estimate.tokens_per_pass(unmasked, MaskedViews(unmasked, CPU), (8,) * 16)
    assert told == {"encoder": 112 * 50 + 16 * 197, "decoder": 25216}


def test_checkpoints_take_the_room_that_is_told(two_ranks: Path) -> None:
    checkpoints = sorted((two_ranks / "checkpoints").glob("step-*"))
    parameters = read_json(two_ranks / "config.json")["parameters"]
    real = sum(path.stat().st_size for path in checkpoints[-1].rglob("*") if path.is_file())
    assert real == pytest.approx(estimate.checkpoint_bytes(mum_tiny(), parameters), rel=0.02)
    given = replace(mum_tiny(), steps=12, checkpoint=CheckpointConfig(every=4))
    assert estimate.checkpoints_kept(given) == len(checkpoints)


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"every": 100, "keep": 2}, 2),
        ({"every": 100, "keep": 0}, 10),
        ({"every": 100, "keep": 2, "keep_every": 500}, 3),
        ({"every": 0}, 1),
        ({"every": 300, "keep": 0}, 4),
    ],
)
def test_checkpoints_that_stay(options: dict[str, int], kept: int) -> None:
    given = replace(mum_tiny(), steps=1000, checkpoint=CheckpointConfig(**options))
    assert estimate.checkpoints_kept(given) == kept


def test_speed_follows_the_peak_and_the_ranks() -> None:
    told = estimate.speed(mum_vitl16_224(), 210.6e9, ranks=8)
    assert told["H100"]["images_per_s_per_rank"] == pytest.approx(0.4 * 989e12 / 210.6e9, rel=1e-3)
    assert told["H100"]["images_per_s"] == pytest.approx(8 * told["H100"]["images_per_s_per_rank"], rel=1e-3)
    assert told["A100"]["hours"] == pytest.approx(
        500_000 * 4096 / told["A100"]["images_per_s"] / 3600, rel=1e-3
    )
