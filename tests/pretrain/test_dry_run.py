"""What is told before a run: the dry run, for any number of ranks, and the list of recipes."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pretrain import __main__ as program
from pretrain.recipes import RECIPES

Arguments = Callable[..., list[str]]
Pretrain = Callable[[list[str]], tuple[int, str, str]]


def test_figures_as_json_and_nothing_written(
    arguments: Arguments, pretrain: Pretrain, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    code, said, _ = pretrain(arguments(out, "--dry-run", "--json", "--optim.lr", "0.5"))
    assert code == 0
    told = json.loads(said)
    assert told["config"]["optim"]["lr"] == told["peak_lr"] == 0.5
    assert told["differences"]["optim.lr"] == {"here": 0.5, "recipe": 7e-4}
    assert told["differences"]["data.size"] == {"here": 16, "recipe": 64}
    assert "data.flip" not in told["differences"]
    assert told["images_per_step"] == 16
    assert told["parameters"] > 3e6
    assert told["epochs"] > 0
    assert told["memory"]["peak_bytes"] > told["memory"]["weights_bytes"] == 4 * told["parameters"]
    assert not out.exists()


def test_figures_in_words(arguments: Arguments, pretrain: Pretrain, tmp_path: Path) -> None:
    code, said, _ = pretrain(arguments(tmp_path / "run", "--dry-run", "--optim.lr", "0.5"))
    assert code == 0
    for words in (
        "M parameters",
        "GFLOP an image",
        "tokens in the encoder",
        "for each image of a pass",
        "epochs",
    ):
        assert words in " ".join(said.split())
    assert "assumed and not measured" in " ".join(said.split())
    assert "* optim.lr = 0.5   (recipe: 0.0007)\n" in said
    assert "\n  data.flip = scene\n" in said
    assert not (tmp_path / "run").exists()


def test_a_world_that_is_not_there_is_checked(
    arguments: Arguments, pretrain: Pretrain, tmp_path: Path
) -> None:
    ask = (*("--dry-run", "--json"), "--lanes", "64", "--parallel.shard", "8")
    code, said, _ = pretrain(arguments(tmp_path / "run", *ask, "--world", "32"))
    assert code == 0
    told = json.loads(said)
    assert told["ranks"] == 32
    assert told["passes_per_step"] * told["images_per_pass"] * 32 == told["images_per_step"]
    assert 8 * told["memory"]["weights_bytes"] == pytest.approx(4 * told["parameters"], rel=0.01)


@pytest.mark.parametrize(
    ("world", "more", "said"),
    [
        ("3", (), "3 ranks cannot share 4 lanes equally: start one of 1, 2, 4 ranks"),
        ("4", ("--parallel.shard", "3"), "--parallel.shard 3 does not divide 4 ranks"),
        ("-1", (), "--world -1 is no number of ranks"),
    ],
)
def test_a_world_that_does_not_fit_is_refused(
    arguments: Arguments, pretrain: Pretrain, tmp_path: Path, world: str, more: tuple[str, ...], said: str
) -> None:
    code, _, err = pretrain(arguments(tmp_path / "run", "--dry-run", "--world", world, *more))
    assert code == 2
    assert said in err
    assert err.count("\n") == 1


def test_list_shows_every_recipe_with_its_figures(
    pretrain: Pretrain, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Each takes seconds, and the small one shows all there is.
    monkeypatch.setattr(program, "RECIPES", {"mum_tiny": RECIPES["mum_tiny"]})
    code, out, _ = pretrain(["list"])
    assert code == 0
    assert out.startswith("mum_tiny: ")
    assert "M parameters" in out
    assert [line.split() for line in out.splitlines() if "few views" in line] == [
        ["few", "views", "--views", "2", "6"]
    ]
    code, out, _ = pretrain(["list", "--json"])
    (row,) = json.loads(out)
    assert row["peak_lr"] == pytest.approx(7e-4)
    assert row["images"] == 1200 * 48
    assert {"memory", "training_gflop_per_image", "tokens_per_pass", "checkpoint_bytes", "speed"} <= set(row)
