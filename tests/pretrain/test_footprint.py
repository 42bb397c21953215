"""The memory of a step on tensors without contents, against a real step as torch's profiler saw it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

import mum
from pretrain.footprint import footprint
from pretrain.optim import build_optimizer
from pretrain.parallel import World, prepare_model, process_group
from pretrain.recipes import RunConfig, mum_tiny
from pretrain.tasks import MaskedViews

VIEWS = (2, 3, 3)
CPU = torch.device("cpu")


def config(precision: str = "fp32", **optim: float) -> RunConfig:
    tiny = mum_tiny()
    return replace(tiny, precision=precision, optim=replace(tiny.optim, **optim))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_real_step_takes_as_much(precision: str, tmp_path: Path) -> None:
    given = config(precision)
    task = MaskedViews(given, CPU)
    found = footprint(given, task, VIEWS, ranks=1, passes=1)

    alone = World(rank=0, size=1, local_rank=0, local_size=1)
    with (
        process_group(alone, CPU, replace(given.parallel, threads=1)) as mesh,
        profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler,
    ):
        model = task.build()
        mum.use_attention(model, "sdpa")
        model = prepare_model(model, given.parallel, mesh)
        optimizer = build_optimizer(model, given.optim)
        for _ in range(2):
            inputs = {
                "images": torch.zeros((8, 3, 64, 64), dtype=torch.uint8),
                "views": torch.tensor(VIEWS),
                "noise": torch.rand(8, task.tokens),
            }
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
                loss = task.loss(model, inputs)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            del loss
    profiler.export_chrome_trace(str(tmp_path / "trace.json"))
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    # What lived before is freed by nobody meanwhile.
    told = [
        event["args"] for event in sorted(events, key=lambda e: e.get("ts", 0)) if event["name"] == "[memory]"
    ]
    real = max(one["Total Allocated"] for one in told) - (told[0]["Total Allocated"] - told[0]["Bytes"])
    assert found.peak == pytest.approx(real, rel=0.01)


def test_sharding_cuts_what_a_rank_holds() -> None:
    given = config(ema=0.9)
    whole = footprint(given, MaskedViews(given, CPU), VIEWS, ranks=8, passes=1)
    cut = replace(given, parallel=replace(given.parallel, shard=8))
    part = footprint(cut, MaskedViews(cut, CPU), VIEWS, ranks=8, passes=1)
    for name in ("weights", "gradients", "moments", "average"):
        # Tensors whose rows eight ranks cannot share equally are padded.
        assert getattr(part, name) == pytest.approx(getattr(whole, name) / 8, rel=0.01)
    assert part.image == pytest.approx(whole.image, rel=0.01)
    assert part.peak < whole.peak


def test_gradients_of_earlier_passes_stay() -> None:
    given = config()
    task = MaskedViews(given, CPU)
    once, often = (footprint(given, task, VIEWS, ranks=2, passes=n) for n in (1, 3))
    assert once.peak + 0.9 * once.gradients < often.peak < once.peak + 1.5 * once.gradients


def test_tables_without_contents_are_forgotten() -> None:
    given = config()
    task = MaskedViews(given, CPU)
    footprint(given, task, VIEWS, ranks=1, passes=1)
    images = torch.zeros((2, 3, 64, 64), dtype=torch.uint8)
    assert task.build()(images, (2,)).loss.item() > 0
