"""From a name, or a name and a file, to a timm model that takes the evaluated size.

timm knows the architectures and how the published files of DINOv2, DINOv3, CLIP, SAM or MAE are named inside; this
file chooses the arguments, reads local files without unpickling anything but tensors, and says in one sentence what
went wrong. It knows nothing of features.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from probes.errors import ProbeError, nearest

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model", "teacher")
"""Keys under which training codes keep a model's tensors, the first that is there is taken."""
NOT_ENCODER = ("decoder", "head.", "head_dist.", "fc.", "classifier.", "dino_head.", "ibot_head.")
"""Beginnings of names that a file may hold beyond the encoder; anything else that is left over is refused."""


def timm_model(
    name: str, spec: str, size: int, *, pretrained: bool, weights: Path | None = None
) -> tuple[nn.Module, bool]:
    """Build a timm model without its classifier.

    Args:
        name: timm's, possibly with a tag of weights (``vit_base_patch16_224.mae``) or a source (``local-dir:``).
        spec: what the user wrote, for errors.
        size: side of the images in px; models that are built for one size are built for the nearest they can have.
        pretrained: with the weights that timm knows by this name.
        weights: a file to take them from instead.

    Returns:
        The model, and whether it takes images of any size.

    Raises:
        ProbeError: no such model or file, weights that cannot be had or do not fit.
    """
    if ":" not in name and not timm.is_model(name.split(".", maxsplit=1)[0]):
        raise ProbeError(f"encoder {spec!r}: timm has no model {name!r}{nearest(name, timm.list_models())}")

    def fitting(model: nn.Module) -> int:
        return nearest_multiple(wanted, patch_size(model))

    wanted = size
    given: dict[str, Any] = {"pretrained": pretrained, "num_classes": 0}
    if weights is not None:
        # timm forgives missing and left-over tensors where the number of classes differs from its config's.
        config = {"state_dict": encoder_state(weights, spec), "num_classes": 0, "label_offset": 0}
        given |= {"pretrained": True, "pretrained_cfg_overlay": config}
    try:
        if (model := _build(name, **given, dynamic_img_size=True)) is not None:
            return model, True
        try:
            model = _build(name, **given, img_size=size)
        except AssertionError:  # no multiple of its patch, which a model of its usual size tells
            model, size = _build(name, num_classes=0), 0
        if model is None:
            return _build(name, **given), True
        return model if fitting(model) == size else _build(name, **given, img_size=fitting(model)), False
    except (RuntimeError, OSError, ValueError, AssertionError, KeyError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        what = f"the weights of {weights}" if weights else "it"
        # torch names the tensors that are missing or left over on the second line.
        raise ProbeError(
            f"encoder {spec!r}: timm could not build or load {what}: {' '.join(lines[:2])[:300]}"
        ) from error


def _build(name: str, **arguments: Any) -> nn.Module | None:
    """The model, or None if its class has no such argument."""
    hub = logging.getLogger("huggingface_hub")
    level = hub.level
    try:
        # The hub warns of every retry; what failed in the end is said once.
        hub.setLevel(logging.CRITICAL)
        return timm.create_model(name, **arguments)
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        return None
    finally:
        hub.setLevel(level)


def patch_size(model: nn.Module) -> int:
    """Nominal patch of a timm model in px: of its embedding, or the reduction of its last layer."""
    embed = getattr(model, "patch_embed", None)
    patch = getattr(embed, "patch_size", None)
    if patch is not None:
        return int(patch[0] if isinstance(patch, tuple | list) else patch)
    return int(model.feature_info[-1]["reduction"])


def nearest_multiple(side: int, patch: int) -> int:
    """The multiple of the patch nearest to a side in px, at least one patch; half-way to the even one."""
    return max(1, round(side / patch)) * patch


def read_weights(path: Path) -> dict[str, Any]:
    """What a file of weights holds, nothing but tensors and plain values ever unpickled.

    Raises:
        ProbeError: no such file, damaged, or with objects in it.
    """
    if not path.is_file():
        raise ProbeError(f"there is no file of weights {path}")
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (SafetensorError, UnpicklingError, RuntimeError, OSError, EOFError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ProbeError(
            f"{path} is no readable file of weights, or holds more than tensors: {reason[:200]}"
        ) from error
    if not isinstance(found, Mapping):
        raise ProbeError(f"{path} holds a {type(found).__name__}, not a state dict")
    return dict(found)


def encoder_state(path: Path, spec: str) -> dict[str, torch.Tensor]:
    """An encoder's tensors in a file: unwrapped, without what belongs to decoders and heads.

    Raises:
        ProbeError: as of `read_weights`, or no tensors in it.
    """
    found: Any = read_weights(path)
    for key in WRAPPERS:
        if isinstance(found.get(key), Mapping):
            found = found[key]
    tensors = {
        key.removeprefix("module.").removeprefix("backbone."): value
        for key, value in found.items()
        if isinstance(value, torch.Tensor)
    }
    tensors = {key: value for key, value in tensors.items() if not key.startswith(NOT_ENCODER)}
    if not tensors:
        raise ProbeError(f"encoder {spec!r}: {path} holds no tensors of an encoder")
    return tensors
