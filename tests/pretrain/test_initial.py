"""--init: what a run begins with, what stays random, and what is refused."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import mum
import mum.weights as weights_module
from mum.export import export
from pretrain import initial
from pretrain.errors import InputError
from pretrain.run_folder import read_json

from .conftest import run_ranks

Arguments = Callable[..., list[str]]
Pretrain = Callable[[list[str]], tuple[int, str, str]]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of ours with encoder and decoder that no seed draws."""
    model = mum.create_model("mum_vittiny_patch8")
    torch.manual_seed(5)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.01 * torch.randn_like(p))
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    mum.save(model, path, config=model.config, preprocessing={"size": 16}, summary={})
    return path


def config(**changes: int) -> mum.MuMConfig:
    with torch.device("meta"):
        default = mum.create_model("mum_vittiny_patch8").config.decoder
        decoder = mum.DecoderConfig(**(vars(default) | changes))
        return mum.create_model("mum_vittiny_patch8", decoder=decoder).config


def filled(init: str, wanted: mum.MuMConfig) -> set[str]:
    """The names that `init` brings, which must hold what the file of this module holds."""
    return set(initial._gather(init, wanted, download=True).weights)


@pytest.mark.torchrun
def test_run_begins_with_the_weights_on_every_rank_and_needs_them_no_more(
    weights: Path, arguments: Arguments, pretrain: Pretrain, tmp_path: Path
) -> None:
    source, out = tmp_path / "model.safetensors", tmp_path / "run"
    shutil.copy(weights, source)
    still = ("--init", str(source), "--optim.lr", "0", "--steps", "2", "--evaluation.every", "0")
    codes, said = run_ranks(2, arguments(out, *still, "--parallel.shard", "2"), tmp_path / "log")
    assert codes == [0, 0], said
    assert f"encoder and decoder are {source}'s" in said[0]
    there, here = mum.load(weights).state_dict(), mum.load(out).state_dict()
    assert all(torch.equal(there[key], here[key]) for key in there)

    source.unlink()
    code, _, err = pretrain(arguments(out, *still, "--steps", "3"))
    assert code == 0, err
    assert read_json(out / "config.json")["initial"] == f"encoder and decoder are {source}'s"
    code, _, err = pretrain(arguments(out, "--steps", "4", "--optim.lr", "0"))
    assert code == 2
    assert "init is" in err
    code, _, err = pretrain(arguments(tmp_path / "other", "--init", str(weights), "--resume", str(out)))
    assert code == 2
    assert "--init and --resume" in err


def test_decoder_of_another_shape_stays_random_and_says_so(weights: Path) -> None:
    wanted = config(depth=2)
    assert initial.describe(str(weights), wanted) == (
        f"the encoder is {weights}'s, the decoder stays random (depth 4 there and 2 here)"
    )
    assert filled(str(weights), wanted) == {
        f"encoder.{key}" for key in mum.load(weights).encoder.state_dict()
    }


def test_encoders_of_every_form_arrive_whole(weights: Path, tmp_path: Path) -> None:
    encoder = mum.load(weights).encoder.state_dict()
    export(weights, tmp_path / "encoder.safetensors")
    export(weights, tmp_path / "folder", format="timm")
    # The released checkpoints have these very names.
    torch.save({"model": encoder}, tmp_path / "released.pth")
    save_file(encoder, tmp_path / "released.safetensors")
    for init in (
        f"{tmp_path}/encoder.safetensors",
        f"timm:local-dir:{tmp_path}/folder",
        f"{tmp_path}/released.pth",
        f"{tmp_path}/released.safetensors",
    ):
        came = initial._gather(init, config(), download=True)
        assert came.weights.keys() == {f"encoder.{key}" for key in encoder}, init
        assert all(torch.equal(value, encoder[key[8:]]) for key, value in came.weights.items()), init
        assert "stays random" in initial.describe(init, config())


def test_released_decoder_stays_behind_and_says_why(weights: Path, tmp_path: Path) -> None:
    state = mum.load(weights).state_dict()
    torch.save(
        {weights_module._their_name(key): value for key, value in state.items()}, tmp_path / "whole.pth"
    )
    came = initial._gather(f"{tmp_path}/whole.pth", config(), download=True)
    assert all(torch.equal(value, state[key]) for key, value in came.weights.items())
    assert came.weights.keys() == {key for key in state if key.startswith("encoder.")}
    assert came.said == (
        f"the encoder is {tmp_path}/whole.pth's, the decoder stays random "
        "(heads 16 there and 4 here, class tokens between views zero there and identity here)"
    )


def test_what_does_not_fit_is_refused_before_the_run(
    weights: Path, arguments: Arguments, pretrain: Pretrain, tmp_path: Path
) -> None:
    def refused(*options: str) -> str:
        code, _, err = pretrain(arguments(tmp_path / "run", *options))
        assert code == 2
        assert err.count("\n") == 1
        assert not (tmp_path / "run").exists()
        return err

    other = ("--model.name", "mum_vittiny_patch16", "--size", "32")
    assert "depth 6 there and 12 here" in refused("--init", str(weights), *other)
    assert "patch size 8 there and 16 here" in refused("--init", str(weights), *other)
    assert "does not exist" in refused("--init", "nowhere.safetensors")
    assert "did you mean resnet18?" in refused("--init", "timm:resnet118")
    # Known by its architecture alone: nothing is downloaded.
    said = refused("--init", "timm:vit_small_patch16_dinov3")
    assert "width 384 there and 192 here" in said
    assert "patches of 16 x 16 px there and 8 x 8 px here" in said


def test_timm_says_what_it_leaves_out() -> None:
    with torch.device("meta"):
        wanted = mum.create_model("mum_vitsmall_patch16").config
    assert initial.describe("timm:vit_small_patch16_dinov3", wanted) == (
        "the encoder is timm:vit_small_patch16_dinov3's (its register tokens are left out), "
        "the decoder stays random"
    )
    with pytest.raises(InputError, match="timm has no weights for vit_small_resnet26d_224"):
        initial.describe("timm:vit_small_resnet26d_224", wanted)
