"""Masked views as a task: its masking options reach the loss, the figures and the checks before a run."""

import dataclasses

import pytest
import torch

import mum
from pretrain.errors import InputError
from pretrain.recipes import ModelConfig, RunConfig, mum_tiny
from pretrain.tasks import MaskedViews

from .conftest import rows, run_ranks


def config(**model) -> RunConfig:
    tiny = mum_tiny()
    return dataclasses.replace(tiny, model=ModelConfig(name=tiny.model.name, **model))


def task(**model) -> MaskedViews:
    return MaskedViews(config(**model), torch.device("cpu"))


@pytest.mark.parametrize(
    "masking", [{"mask_ratio": 0.5}, {"decode_fraction": 0.25}, {"reference_view": True}], ids=str
)
def test_masking_options_reach_the_loss(masking):
    changed = task(**masking)
    model = changed.build()
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (4, 3, 64, 64), dtype=torch.uint8, generator=generator)
    inputs = {"images": images, "views": torch.tensor([2, 2]), "noise": changed.noise(3, 1, 4)}
    with torch.no_grad():
        loss = changed.loss(model, inputs)
        assert torch.equal(loss, model(images, [2, 2], noise=inputs["noise"], **masking).loss)
        assert not torch.equal(loss, task().loss(model, inputs))


@pytest.mark.parametrize("masking", [{}, {"decode_fraction": 0.5}, {"reference_view": True}], ids=str)
def test_flops_are_the_model_s(masking):
    model = mum.create_model("mum_vittiny_patch8")
    assert task(**masking).flops([6, 6]) == model.flops([6, 6], 64, **masking)


@pytest.mark.parametrize(
    ("masking", "words"),
    [
        ({"mask_ratio": 1.5}, "mask ratio 1.5"),
        ({"decode_fraction": 0.0}, "decode fraction 0.0"),
        ({"decode_fraction": 0.5, "reference_view": True}, "reference view"),
    ],
    ids=str,
)
def test_masking_that_cannot_be_is_told_before_the_run(masking, words):
    with pytest.raises(InputError, match=words):
        task(**masking)


def test_reference_view_wants_scenes_of_two(pretrain, arguments, tmp_path):
    out = tmp_path / "run"
    code, _, said = pretrain(arguments(out, "--views", "1", "1", "--model.reference-view"))
    assert code == 2
    assert said.strip().count("\n") == 0
    assert "two or more views" in said
    assert not out.exists()


@pytest.mark.parametrize("option", [("--model.decode-fraction", "0.5"), ("--model.reference-view",)])
def test_run_is_evaluated_on_all_masked_patches(pretrain, arguments, tmp_path, option):
    """Two steps of the loop and an evaluation, which scores and draws in the run's masking."""
    out = tmp_path / "run"
    more = ("--steps", "2", "--evaluation.every", "2", "--checkpoint.every", "2")
    code, _, said = pretrain(arguments(out, *more, *option))
    assert code == 0, said
    assert list((out / "pictures").glob("*.png"))


@pytest.mark.torchrun
@pytest.mark.parametrize("option", [("--model.decode-fraction", "0.5"), ("--model.reference-view",)])
def test_masking_options_do_not_depend_on_the_ranks(arguments, tmp_path, option):
    """Sharded, and accumulated lane by lane, against one process with all lanes at once."""
    short = ("--steps", "3", "--evaluation.every", "0", "--checkpoint.every", "3")
    spread = ("--parallel.shard", "2", "--parallel.lanes-at-once", "1")
    for ranks, more in ((1, ()), (2, spread)):
        log = tmp_path / f"log-{ranks}"
        codes, said = run_ranks(ranks, arguments(tmp_path / str(ranks), *short, *more, *option), log)
        assert codes == [0] * ranks, said
    for here, there in zip(rows(tmp_path / "2"), rows(tmp_path / "1"), strict=True):
        assert here["batch"] == there["batch"]
        assert here["loss"] == pytest.approx(there["loss"], abs=1e-5)
        assert here["grad_norm"] == pytest.approx(there["grad_norm"], rel=1e-3)
