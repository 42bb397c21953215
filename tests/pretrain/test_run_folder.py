"""What --resume accepts and refuses, in a folder that holds a finished run."""

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from pretrain import launch
from pretrain.errors import InputError
from pretrain.run_folder import RunFolder, name_differences
from shards.build import build
from shards.sources import scenes

from .conftest import rows

Arguments = Callable[..., list[str]]
Pretrain = Callable[[list[str]], tuple[int, str, str]]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, data: Path, arguments: Arguments) -> Path:
    out = tmp_path_factory.mktemp("runs") / "finished"
    from pretrain.commandline import parse
    from pretrain.launch import launch, prepare
    from pretrain.parallel import read_world

    launch(prepare(parse(arguments(out, "--steps", "4")), read_world()), lambda text: None)
    return out


def snapshot(folder: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in folder.rglob("*")
        if p.is_file() and p.name != ".lock"
    }


def test_finished_run_says_so_and_is_left_alone(
    finished: Path, arguments: Arguments, pretrain: Pretrain
) -> None:
    before = snapshot(finished)
    code, out, _ = pretrain(arguments(finished, "--steps", "4"))
    assert code == 0
    assert "is finished" in out
    assert snapshot(finished) == before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--optim.lr", "1e-3"), "optim.lr is 0.0007 there and 0.001 here"),
        (("--seed", "5"), "data.seed is 0 there and 5 here"),
        (("--resume", "never"), "not empty"),
        (("--model.decoder-depth", "2"), "model.decoder_depth is None there and 2 here"),
    ],
)
def test_another_run_is_refused_with_the_difference(
    finished: Path, arguments: Arguments, pretrain: Pretrain, options: tuple[str, ...], said: str
) -> None:
    before = snapshot(finished)
    code, _, err = pretrain(arguments(finished, "--steps", "4", *options, "--dry-run"))
    assert code == 2
    assert said in err
    assert err.count("\n") == 1
    assert snapshot(finished) == before


def test_run_of_a_version_with_fewer_options_goes_on(
    finished: Path, arguments: Arguments, pretrain: Pretrain, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    config = json.loads((run / "config.json").read_text())
    for name in ("init", "optim.ema", "model.decode_fraction"):
        del config["identity"][name]
    (run / "config.json").write_text(json.dumps(config))
    code, _, err = pretrain(arguments(run, "--steps", "4", "--optim.ema", "0.5"))
    assert code == 2
    assert "optim.ema is 0.0 there and 0.5 here" in err
    code, out, err = pretrain(arguments(run, "--steps", "4"))
    assert code == 0, err
    assert "is finished" in out


def test_other_data_are_refused_until_migrate_is_said(
    finished: Path, arguments: Arguments, pretrain: Pretrain, tmp_path: Path, data: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    options = scenes.Options(scenes=8, val_scenes=0, frames=2, size=24, seed=1)
    build("scenes", [], tmp_path / "other", source_options=options, workers=1)
    grown = arguments(run, "--data", str(data), str(tmp_path / "other"), "--steps", "6")
    before = snapshot(run)
    code, _, err = pretrain(grown)
    assert code == 2
    assert "data is" in err
    assert "--migrate goes on" in err
    assert snapshot(run) == before
    code, _, err = pretrain([*grown, "--migrate", "--optim.lr", "1e-3"])
    assert code == 2
    assert "optim.lr is 0.0007 there" in err
    assert snapshot(run) == before

    code, _, err = pretrain([*grown, "--migrate"])
    assert code == 0
    assert "goes on from step 4 with other data" in err
    assert [row["step"] for row in rows(run)] == [1, 2, 3, 4, 5, 6]
    told = json.loads((run / "config.json").read_text())
    (migration,) = told["migrations"]
    assert migration["step"] == 4
    assert migration["from"] == json.loads((finished / "config.json").read_text())["identity"]["data"]
    assert migration["to"] == told["identity"]["data"] != migration["from"]
    assert len(migration["to"]) == 2

    # From here on it is a run of the new data; a checkpoint of the old ones is not gone on with unasked.
    assert pretrain(grown)[0] == 0
    shutil.rmtree(max((run / "checkpoints").iterdir()))
    code, _, err = pretrain(grown)
    assert code == 2
    assert "data had hash" in err and "--migrate" in err
    assert pretrain([*grown, "--migrate"])[0] == 0
    assert len(json.loads((run / "config.json").read_text())["migrations"]) == 1


def test_folder_that_is_no_run_is_refused(arguments: Arguments, pretrain: Pretrain, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    code, _, err = pretrain(arguments(tmp_path))
    assert code == 2
    assert "holds no run" in err
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_more_steps_and_other_logging_go_on(
    finished: Path, arguments: Arguments, pretrain: Pretrain, tmp_path: Path
) -> None:
    out = tmp_path / "longer"
    shutil.copytree(finished, out)
    code, _, err = pretrain(arguments(out, "--steps", "6", "--log.every", "3", "--workers", "1"))
    assert code == 0, err
    assert [row["step"] for row in rows(out)] == [1, 2, 3, 4, 5, 6]
    assert rows(out)[:4] == rows(finished)
    assert json.loads((out / "status.json").read_text())["state"] == "finished"


def test_path_starts_a_new_run_from_a_checkpoint(
    finished: Path, arguments: Arguments, pretrain: Pretrain, tmp_path: Path
) -> None:
    out = tmp_path / "branch"
    branch = arguments(out, "--steps", "6", "--resume", str(finished), "--optim.lr", "1e-4")
    code, _, err = pretrain(branch)
    assert code == 0, err
    assert [row["step"] for row in rows(out)] == [5, 6]
    code, said, _ = pretrain(branch)
    assert code == 0
    assert "is finished" in said


def test_run_in_use_is_refused(tmp_path: Path) -> None:
    import multiprocessing

    folder = RunFolder(tmp_path / "run")
    lock = folder.claim()
    # Record locks belong to a process, so the second claim must come from another one.
    with multiprocessing.get_context("forkserver").Pool(1) as pool:
        said = pool.apply(claim_twice, (str(folder.root),))
    assert "in use by process" in said
    lock.close()


def claim_twice(root: str) -> str:
    try:
        RunFolder(Path(root)).claim(patience=0)
    except InputError as error:
        return str(error)
    return ""


def test_differences_are_counted_past_the_third() -> None:
    there = {str(k): k for k in range(5)}
    said = name_differences(there, {str(k): -k - 1 for k in range(5)})
    assert said.startswith("0 is 0 there and -1 here")
    assert said.endswith("and 2 more")
    assert name_differences(there, dict(there)) == ""


def test_full_disk_outside_a_save_is_told_in_one_sentence(monkeypatch, tmp_path):
    def no_space() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(launch, "Trainer", lambda _job: SimpleNamespace(step=7, run=no_space))
    folder = RunFolder(tmp_path)
    job = SimpleNamespace(
        config=SimpleNamespace(steps=9), folder=folder, world=SimpleNamespace(rank=0, first=True)
    )
    with pytest.raises(InputError, match="is full at step 7"):
        launch.run_to_the_end(job)
    assert "is full" in json.loads(folder.status.read_text())["reason"]
