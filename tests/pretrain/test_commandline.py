"""The command line: one sentence for every mistake, and nothing written."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pretrain.commandline import _options, parse
from pretrain.recipes import RECIPES
from shards.build import build
from shards.sources import scenes

Arguments = Callable[..., list[str]]
Pretrain = Callable[[list[str]], tuple[int, str, str]]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["mum_tinny"], "did you mean mum_tiny?"),
        (["mum_tiny", "--data", "D", "--out", "R", "--optim.lrr", "1"], "did you mean --optim.lr?"),
        (["mum_tiny", "--data", "D", "--out", "R", "--lane", "4"], "did you mean --lanes?"),
        (["mum_tiny", "--data", "D", "--out", "R", "--steps", "many"], "--steps"),
        (["mum_tiny", "--data", "D"], "--out"),
        (["mum_tiny", "--data", "nowhere", "--out", "R"], "nowhere"),
        (["mum_tiny", "--data", "D", "--out", "R", "--views", "5", "3"], "views"),
        ([], "which recipe?"),
        (["list", "--all"], "--json"),
    ],
)
def test_mistakes_are_told_in_one_line(
    arguments: list[str], said: str, pretrain: Pretrain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = pretrain(arguments)
    assert code == 2
    assert out == ""
    assert said in err
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--model.name", "mum_vittiny_patch9"), "did you mean mum_vittiny_patch8?"),
        (("--size", "20"), "no multiple of the model's patch, 8 px"),
        (("--model.decoder-heads", "7"), "--model.decoder"),
        (("--parallel.shard", "2"), "--parallel.shard 2"),
        (("--views", "24", "24", "--images-per-lane", "24"), "largest scene"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    arguments: Arguments, pretrain: Pretrain, tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    out = tmp_path / "run"
    code, _, err = pretrain(arguments(out, *options))
    assert code == 2
    assert said in err
    assert err.count("\n") == 1
    assert not out.exists()


def test_a_dataset_named_twice_is_refused(
    arguments: Arguments, pretrain: Pretrain, tmp_path: Path, data: Path
) -> None:
    code, _, err = pretrain(arguments(tmp_path / "run", "--data", str(data), str(data)))
    assert code == 2
    assert "named twice" in err


def test_datasets_are_mixed_by_weight(
    arguments: Arguments, pretrain: Pretrain, tmp_path: Path, data: Path
) -> None:
    options = scenes.Options(scenes=8, val_scenes=0, frames=3, size=24, seed=1)
    build("scenes", [], tmp_path / "more", source_options=options, workers=1)
    both = (f"{data}=3", f"{tmp_path / 'more'}=1")
    code, out, _ = pretrain(arguments(tmp_path / "run", "--data", *both, "--dry-run"))
    assert code == 0
    told = json.loads(out)
    assert [entry["weight"] for entry in told["data"]] == [3, 1]
    assert [source["share_of_scenes"] for source in told["sources"]] == pytest.approx([0.75, 0.25], abs=0.1)


def test_dry_run_tells_figures_and_writes_nothing(
    arguments: Arguments, pretrain: Pretrain, tmp_path: Path
) -> None:
    code, out, _ = pretrain(arguments(tmp_path / "run", "--dry-run", "--optim.lr", "0.5"))
    assert code == 0
    told = json.loads(out)
    assert told["config"]["optim"]["lr"] == told["peak_lr"] == 0.5
    assert told["images_per_step"] == 16
    assert told["parameters"] > 3e6
    assert told["epochs"] > 0
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_parses_and_every_option_is_known(name: str) -> None:
    command = parse([name, "--data", "D", "--out", "R"])
    assert command.config == RECIPES[name]()
    assert {"--optim.lr", "--lanes", "--parallel.lanes-at-once", "--data"} <= set(_options(type(command)))


def test_help_and_list(pretrain: Pretrain, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = pretrain(["--help"])
    assert code == 0
    assert "example:" in out
    code, out, _ = pretrain(["mum_tiny", "--help"])
    assert code == 0
    assert "example:" in out
    code, out, _ = pretrain(["list", "--json"])
    assert {row["recipe"]: row["peak_lr"] for row in json.loads(out)} == pytest.approx(
        dict.fromkeys(("mum_vitl16", "mum_vitl16_224", "mum_vitb16", "mum_vitb16_ablation"), 2.4e-3)
        | {"mum_tiny": 7e-4}
    )
