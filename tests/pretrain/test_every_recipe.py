"""Every recipe builds and trains, and every field of its configuration does something."""

import dataclasses
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import pytest
import torch

import shards
from pretrain.__main__ import main
from pretrain.probing import Probing
from pretrain.recipes import RECIPES, RunConfig
from pretrain.tasks import MaskedViews

from .conftest import rows

REDUCED = [
    *("--model.name", "mum_vittiny_patch8", "--size", "16", "--lanes", "2", "--images-per-lane", "6"),
    *(
        "--views",
        "2",
        "4",
        "--single-share",
        "0",
        "--steps",
        "2",
        "--workers",
        "0",
        "--parallel.threads",
        "1",
    ),
    *("--evaluation.every", "2", "--evaluation.views", "2", "--evaluation.pictures", "1", "--log.every", "1"),
]
"""A recipe, small enough for a test; what makes it this recipe otherwise stays."""
SWITCHED_ON = [
    *("--checkpoint.every", "1", "--checkpoint.keep", "1", "--checkpoint.keep-every", "2"),
    *("--probe-every", "2", "--guard.on-nonfinite", "skip", "--profile"),
]
"""What only then asks for its fields, and is off in every recipe."""
PLANS = (
    {"drawing": "window"},
    {"drawing": "anchor_topk"},
    {"band_end": (0.2, 0.9), "band_steps": 4},
)
"""Ways to draw views that no recipe takes."""


class Runs(NamedTuple):
    """All recipes, run."""

    losses: dict[str, list[float]]
    used: set[str]
    """fields that something asked for while they ran"""


def fields_of(kind: type) -> Iterator[tuple[type, str]]:
    """Every field of the configuration, with its class; groups of fields are none."""
    for field in dataclasses.fields(kind):
        inner = getattr(field.type, "__origin__", field.type)
        if dataclasses.is_dataclass(inner):
            yield from fields_of(inner)
        else:
            yield kind, field.name


def in_passing(frame: FrameType) -> bool:
    """Whether whoever reads a field does not act on it: it compares, copies, prints, parses or checks it."""
    module = frame.f_globals.get("__name__", "")
    return (
        module.split(".")[0] in ("dataclasses", "copy", "tyro")
        or frame.f_code.co_filename == "<string>"
        or frame.f_code.co_name == "__post_init__"
    )


def record(patch: pytest.MonkeyPatch) -> set[str]:
    """Have every class of the configuration note which of its fields are read."""
    used: set[str] = set()

    def noting(kind: type) -> Callable[[Any, str], Any]:
        names = {field.name for field in dataclasses.fields(kind)}

        def read(self: Any, name: str) -> Any:
            if name in names and not in_passing(sys._getframe(1)):
                used.add(f"{kind.__name__}.{name}")
            return object.__getattribute__(self, name)

        return read

    for kind in {kind for kind, _ in fields_of(RunConfig)}:
        patch.setattr(kind, "__getattribute__", noting(kind))
    return used


@pytest.fixture(scope="module")
def runs(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    losses: dict[str, list[float]] = {}
    with pytest.MonkeyPatch.context() as patch:
        used = record(patch)
        # Scoring a snapshot is not at stake here, and slow.
        patch.setattr(Probing, "_start", lambda probing, step: subprocess.Popen(["false"]))
        for name in RECIPES:
            out = tmp_path_factory.mktemp("recipes") / name
            more = SWITCHED_ON if name == "mum_tiny" else []
            given = ["pretrain", name, "--data", str(data), "--out", str(out), *REDUCED, *more]
            patch.setattr(sys, "argv", given)
            main()
            losses[name] = [row["loss"] for row in rows(out)]
        for options in PLANS:
            config = shards.DataConfig(images_per_lane=6, views=(2, 4), lanes=2, **options)
            shards.Plan(shards.open_dataset(data), config).lane_step(0, 0)
    return Runs(losses, used)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_builds_at_full_size(name: str) -> None:
    assert MaskedViews(RECIPES[name](), torch.device("cpu")).parameters() > 1e6


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_runs_two_steps_at_reduced_size(name: str, runs: Runs) -> None:
    assert len(runs.losses[name]) == 2
    assert all(math.isfinite(loss) and loss > 0 for loss in runs.losses[name])


def test_no_field_goes_unused(runs: Runs) -> None:
    unused = {f"{kind.__name__}.{name}" for kind, name in fields_of(RunConfig)} - runs.used
    assert not unused, f"nothing asks for {sorted(unused)}"
