"""The command line: one sentence for every mistake, and nothing written."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pretrain.commandline import parse, recipe_help
from pretrain.options import options
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
        (["mum_tiny", "--data", "D", "--out", "R", "--dry-runs"], "did you mean --dry-run?"),
        (["mum_tiny", "--data", "D", "--out", "R", "--json"], "--json goes with --dry-run"),
        (["mum_tiny", "--data", "D", "--out", "R", "--world", "8"], "--world goes with --dry-run"),
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
    code, out, _ = pretrain(arguments(tmp_path / "run", "--data", *both, "--dry-run", "--json"))
    assert code == 0
    told = json.loads(out)
    assert [entry["weight"] for entry in told["data"]] == [3, 1]
    assert [source["share_of_scenes"] for source in told["sources"]] == pytest.approx([0.75, 0.25], abs=0.1)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_parses_and_every_option_is_known(name: str) -> None:
    command = parse([name, "--data", "D", "--out", "R"])
    assert command.config == RECIPES[name]()
    assert {"--optim.lr", "--lanes", "--parallel.lanes-at-once", "--data"} <= {
        o.name for o in options(command)
    }


def test_every_option_is_one_that_the_parser_takes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["mum_tiny", "--help-all"])
    at_length = capsys.readouterr().out
    command = parse(["mum_tiny", "--data", "D", "--out", "R"])
    for option in options(command):
        assert f"{option.name} " in at_length
        assert option.meaning


@pytest.mark.parametrize("name", RECIPES)
def test_help_is_short_and_leaves_no_option_out(name: str) -> None:
    text = recipe_help(name)
    assert len(text.splitlines()) <= 80
    assert max(map(len, text.splitlines())) <= 110
    for option in options(parse([name, "--data", "D", "--out", "R"])):
        assert f"{option.name} " in text.replace(",", " ").replace("\n", " ")


def test_help_has_an_example(pretrain: Pretrain) -> None:
    for arguments in (["--help"], ["mum_tiny", "--help"]):
        code, out, _ = pretrain(arguments)
        assert code == 0
        assert "example:" in out
