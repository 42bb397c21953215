"""Evaluation on fixed scenes; damaged frames in training."""

import json
from collections.abc import Callable
from pathlib import Path

import torch

import mum
import shards
from pretrain.evaluation import Evaluation, EvaluationConfig
from shards.build import build
from shards.sources import scenes

from .conftest import rows

Arguments = Callable[..., list[str]]
Pretrain = Callable[[list[str]], tuple[int, str, str]]


def evaluation(dataset: shards.Dataset, **config: int) -> Evaluation:
    return Evaluation(
        dataset,
        EvaluationConfig(every=1, **config),
        size=16,
        mask_ratio=0.75,
        noise=lambda step, lane, images: mum.mask_noise(0, step, lane, (images, 4)),
        seed=0,
        device=torch.device("cpu"),
    )


def test_few_val_scenes_are_filled_up_and_only_they_are_scored(data: Path) -> None:
    dataset = shards.open_dataset(data)
    full = evaluation(dataset, views=4, scenes=8, pictures=2)
    assert full.describe() == {"scenes": 3, "fillers": 1, "views": 4}
    model = mum.create_model("mum_vittiny_patch8")
    figures = full(model)
    assert figures["cross_view_gain"] == figures["val_loss_strangers"] - figures["val_loss"]
    assert full(model) == figures
    # Other fillers change nothing in the loss of the scored.
    before = figures["val_loss"]
    full.images[3] = 255 - full.images[3]
    assert full(model)["val_loss"] == before
    one = evaluation(dataset, views=4, scenes=8, pictures=1).picture(model)
    assert full.picture(model).shape == (2 * one.shape[0] + 8, *one.shape[1:])


def test_fewer_scenes_than_views_take_fewer_views(tmp_path: Path) -> None:
    options = scenes.Options(scenes=2, val_scenes=1, frames=6, size=24)
    build("scenes", [], tmp_path / "d", source_options=options, workers=1)
    assert evaluation(shards.open_dataset(tmp_path / "d"), views=6).describe() == {
        "scenes": 1,
        "fillers": 2,
        "views": 3,
    }


def test_no_val_split_is_said_once(arguments: Arguments, pretrain: Pretrain, tmp_path: Path) -> None:
    options = scenes.Options(scenes=4, val_scenes=0, frames=4, size=24)
    build("scenes", [], tmp_path / "d", source_options=options, workers=1)
    out = tmp_path / "run"
    code, _, err = pretrain(arguments(out, "--data", str(tmp_path / "d"), "--steps", "4"))
    assert code == 0
    assert err.count("no cross-view gain") == 1
    assert all("val_loss" not in row for row in rows(out))
    assert not (out / "pictures").exists()


def test_damaged_frame_is_substituted_counted_and_logged(
    arguments: Arguments, pretrain: Pretrain, tmp_path: Path
) -> None:
    folder = tmp_path / "d"
    options = scenes.Options(scenes=4, val_scenes=0, frames=4, size=24)
    build("scenes", [], folder, source_options=options, workers=1)
    tar = next((folder / "shards").glob("*.tar"))
    content = bytearray(tar.read_bytes())
    place = content.index(b"\xff\xd8\xff") + 100
    content[place] ^= 0xFF
    tar.write_bytes(content)
    out = tmp_path / "run"
    code, _, err = pretrain(arguments(out, "--data", str(folder), "--steps", "4"))
    assert code == 0, err
    events = [event for row in rows(out) for event in row.get("substituted", [])]
    assert events
    assert all(event["shard"].endswith(".tar") and "reason" in event for event in events)
    assert tar.name in err
    assert json.dumps(events)
