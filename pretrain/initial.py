"""Weights to begin with: `--init` takes a run or file of ours, a released MuM checkpoint, or timm:NAME.

The encoder is taken always, the decoder where the same one is there; what stays random is said. `describe` checks
as far as that goes without the network and is all that --dry-run needs; `fill` loads, on rank 0 alone, and sends
the weights to the others. A run that goes on never comes here: its checkpoint holds everything.
"""

import difflib
import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import timm
import torch
import torch.distributed as dist
from torch import Tensor

import mum
from mum.foreign import fit_vit
from pretrain.errors import InputError
from pretrain.parallel import on_first

FORMS = "a run, a checkpoint, a released MuM file (.pth or .safetensors), or timm:NAME"


class Initial(NamedTuple):
    """Weights for a model to begin with."""

    weights: Mapping[str, Tensor]
    """under the model's own names; what is not here stays random"""
    said: str
    """what is taken and what is not, in a sentence without its end"""


def describe(init: str, config: mum.MuMConfig) -> str:
    """What `init` gives to a model of this configuration, in a sentence.

    Weights of timm are checked by their architecture, without being downloaded. InputError says what does not
    fit.
    """
    return _gather(init, config, download=False).said


def fill(model: mum.MuM, init: str) -> None:
    """Load `init` into a model that is not sharded yet, the same on every rank; all call it together.

    InputError, on all ranks, if it cannot be had or does not fit.
    """

    def load() -> None:
        weights = _gather(init, model.config, download=True).weights
        model.load_state_dict(weights, strict=False)

    on_first(load)
    for tensor in model.state_dict().values():
        dist.broadcast(tensor, 0)


def _gather(init: str, config: mum.MuMConfig, *, download: bool) -> Initial:
    kind, _, name = init.partition(":")
    try:
        if kind == "timm":
            return _of_timm(name, config, download=download)
        if not Path(init).exists():
            raise InputError(f"--init {init} does not exist: it takes {FORMS}")
        return _of_file(Path(init), config)
    except mum.InputError as error:
        raise InputError(f"--init: {error}") from error


def _of_timm(name: str, config: mum.MuMConfig, *, download: bool) -> Initial:
    # A name may carry a source (hf-hub:, local-dir:) and a tag of weights (.augreg2_in21k_ft_in1k).
    bare = name.split(".", maxsplit=1)[0]
    if ":" not in name and not timm.is_model(bare):
        near = difflib.get_close_matches(bare, timm.list_models(), n=1)
        raise InputError(
            f"--init: timm has no model {bare!r}" + (f", did you mean {near[0]}?" if near else "")
        )
    if ":" not in name and not timm.is_model_pretrained(name):
        raise InputError(f"--init: timm has no weights for {name}")
    hub = logging.getLogger("huggingface_hub")
    level = hub.level
    hub.setLevel(logging.CRITICAL)  # It warns of every retry; what failed in the end is said once.
    try:
        with torch.random.fork_rng(devices=[]), torch.device("cpu" if download else "meta"):
            theirs = timm.create_model(name, pretrained=download, num_classes=0)
    except (RuntimeError, OSError, ValueError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"--init timm:{name} could not be built or loaded: {reason}") from error
    finally:
        hub.setLevel(level)
    fitted = fit_vit(theirs, config, f"timm:{name}")
    weights = {f"encoder.{key}": value for key, value in fitted.weights.items()}
    notes = f" ({'; '.join(fitted.notes)})" if fitted.notes else ""
    return Initial(weights, f"the encoder is timm:{name}'s{notes}, the decoder stays random")


def _of_file(path: Path, config: mum.MuMConfig) -> Initial:
    released = path.suffix in (".pth", ".pt") or (path.suffix == ".safetensors" and not _is_ours(path))
    if released:
        encoder = config.encoder
        theirs = mum.load_reference(
            path, patch_size=encoder.patch_size, num_heads=encoder.heads, norm_eps=encoder.norm_eps
        )
    else:
        theirs = mum.load(path)
    # Any size of images will do: positions are relative to the picture.
    differences = _differences(asdict(theirs.config.encoder), asdict(config.encoder), but={"image_size"})
    if differences:
        raise InputError(
            f"--init {path} holds another encoder: {differences}; take another --model.name or other weights"
        )
    if theirs.decoder is None:
        decoder = "the decoder, which is not in there, stays random"
    elif differences := _differences(asdict(theirs.config.decoder), asdict(config.decoder)):
        decoder = f"the decoder stays random ({differences})"
    else:
        return Initial(theirs.state_dict(), f"encoder and decoder are {path}'s")
    weights = {key: value for key, value in theirs.state_dict().items() if key.startswith("encoder.")}
    return Initial(weights, f"the encoder is {path}'s, {decoder}")


def _is_ours(path: Path) -> bool:
    """Whether a safetensors file has our header; WeightsError if it is no such file."""
    try:
        mum.read_header(path)
    except mum.WeightsError as error:
        if "has no mum header" in str(error):
            return False
        raise
    return True


def _differences(there: Mapping[str, object], here: Mapping[str, object], but: set[str] | None = None) -> str:
    """The fields in which two shapes differ, in words; empty if they agree."""
    return ", ".join(
        f"{key.replace('_', ' ')} {there[key]} there and {here[key]} here"
        for key in here
        if there.get(key) != here[key] and key not in (but or ())
    )
