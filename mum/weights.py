"""Weights in and out: our safetensors files with their config in the header, and the released checkpoints.

A file of ours holds the model's own key names (`encoder.*`, `decoder.*`), or, for an encoder alone, timm's.
Its header's `mum` entry is JSON: format version, config, preprocessing, training summary. Nothing is ever
unpickled but tensors.
"""

import json
import os
import pickle
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mum.decoder import DecoderConfig
from mum.encoder import EncoderConfig
from mum.errors import InputError
from mum.masked import MuM, MuMConfig

FORMAT_VERSION = 1

# In the released checkpoints, but computed from the head width here.
IGNORED_REFERENCE_KEYS = frozenset({"rope_embed.periods", "rope_embed_decoder.periods"})

_REFERENCE_DECODER = (
    ("decoder_embed.", "decoder.embed."),
    ("decoder_frame_blocks.", "decoder.frame_blocks."),
    ("decoder_global_blocks.", "decoder.scene_blocks."),
    ("decoder_norm.", "decoder.norm."),
    ("decoder_pred.", "decoder.head."),
    ("mask_token", "decoder.mask_token"),
)


class WeightsError(InputError):
    """A weights file that cannot be used, with its path and the reason."""


def replace_file(path: Path, write: Callable[[Path], None]) -> None:
    """Write a file under a temporary name beside it, then rename: whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(temporary)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def encoder_weights(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The encoder's part of a model's state dict, under timm's names."""
    prefix = "encoder."
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def save(
    model: nn.Module | Mapping[str, Tensor],
    path: str | Path,
    *,
    config: MuMConfig,
    preprocessing: Mapping[str, Any],
    summary: Mapping[str, Any],
    with_decoder: bool = True,
) -> None:
    """Write a model to one safetensors file, atomically.

    Args:
        model: a `MuM`, or its full state dict.
        path: of the file; its folder is made.
        config: of the model; saved without its decoder if `with_decoder` is false.
        preprocessing: {"mean", "std", "size"} of the images it was trained on.
        summary: anything JSON can hold about the training.
        with_decoder: false keeps the encoder alone, under timm's names.

    Raises:
        OSError: the disk is full or refuses; the path then holds what it held before.
    """
    state = model.state_dict() if isinstance(model, nn.Module) else dict(model)
    if not with_decoder or config.decoder is None:
        config = _without_decoder(config)
        state = encoder_weights(state)
    header = {
        "version": FORMAT_VERSION,
        "config": config.to_dict(),
        "preprocessing": dict(preprocessing),
        "summary": dict(summary),
    }
    tensors = {key: value.detach().cpu().contiguous() for key, value in state.items()}
    metadata = {"format": "pt", "mum": json.dumps(header)}

    replace_file(Path(path), lambda temporary: write_tensors(tensors, temporary, metadata))


def write_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str]) -> None:
    """Write a safetensors file that others may read as far as the umask allows, not its owner alone."""
    # safetensors gives its own file mode 600, but writes into one that is there already.
    path.touch()
    mode = path.stat().st_mode
    try:
        save_file(dict(tensors), path, metadata=dict(metadata))
    except SafetensorError as error:
        raise OSError(f"cannot write {path}: {error}") from error
    path.chmod(mode)


def _without_decoder(config: MuMConfig) -> MuMConfig:
    return MuMConfig.from_dict(config.to_dict() | {"decoder": None})


def resolve(path: str | Path) -> Path:
    """The weights file that a path means: itself, a checkpoint folder's, or a run folder's newest.

    Raises:
        WeightsError: there is none.
    """
    path = Path(path)
    if not path.exists():
        raise WeightsError(f"{path} does not exist: expected a .safetensors file or a run folder")
    if path.is_file():
        return path
    if (path / "model.safetensors").is_file():
        return path / "model.safetensors"
    steps = {
        int(found[1]): folder / "model.safetensors"
        for folder in path.glob("checkpoints/step-*")
        if (found := re.fullmatch(r"step-(\d+)", folder.name)) and (folder / "model.safetensors").is_file()
    }
    if not steps:
        raise WeightsError(
            f"{path} holds neither model.safetensors nor checkpoints/step-*/model.safetensors: it is not a "
            "run folder, or its first checkpoint has not been written yet"
        )
    return steps[max(steps)]


def read_header(path: str | Path) -> dict[str, Any]:
    """Config, preprocessing and summary of a file or run folder, without reading a tensor.

    Returns:
        {"version", "config", "preprocessing", "summary"}.

    Raises:
        WeightsError: not a safetensors file of ours, or of a newer version.
    """
    path = resolve(path)
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is not a readable safetensors file: {error}") from error
    if "mum" not in metadata:
        raise WeightsError(
            f"{path} has no mum header: if it is a released MuM checkpoint, open it with mum.load_reference"
        )
    try:
        header = json.loads(metadata["mum"])
        version = header["version"]
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{path} has a damaged mum header: {error}") from error
    if version > FORMAT_VERSION:
        raise WeightsError(
            f"{path} has format version {version}, this code reads up to {FORMAT_VERSION}: update mumkit"
        )
    return header


def load(path: str | Path) -> MuM:
    """Load a model of ours in eval mode, on the CPU.

    Args:
        path: a .safetensors file, a checkpoint folder, or a run folder (its newest checkpoint).

    Returns:
        The model; `model.decoder` is None if the file holds the encoder alone.

    Raises:
        WeightsError: no such file, not ours, newer, or with tensors that do not fit its config.
    """
    path = resolve(path)
    try:
        config = MuMConfig.from_dict(read_header(path)["config"])
    except (KeyError, TypeError, ValueError) as error:
        raise error if isinstance(error, WeightsError) else WeightsError(f"{path}: {error}") from error
    state = load_file(path)
    if config.decoder is None:
        state = {f"encoder.{key}": value for key, value in state.items()}
    return _build(config, state, str(path))


def _build(
    config: MuMConfig, state: Mapping[str, Tensor], origin: str, spell: Callable[[str], str] = str
) -> MuM:
    # Loading must not move the caller's random numbers.
    with torch.random.fork_rng(devices=[]):
        model = MuM(config)
    wanted = model.state_dict()
    problems = []
    if missing := [key for key in wanted if key not in state]:
        problems.append(f"lacks {_few([spell(key) for key in missing])}")
    if left_over := [key for key in state if key not in wanted]:
        problems.append(f"has {_few([spell(key) for key in left_over])} that the model does not know")
    for key in wanted.keys() & state.keys():
        if wanted[key].shape != state[key].shape:
            found, expected = tuple(state[key].shape), tuple(wanted[key].shape)
            problems.append(f"holds {spell(key)} as {found}, expected {expected}")
    if problems:
        raise WeightsError(f"{origin} {', and '.join(problems)}")
    model.load_state_dict(state)
    return model.eval()


def _few(names: list[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def load_reference(
    weights: Mapping[str, Tensor] | str | Path,
    patch_size: int = 16,
    num_heads: int = 16,
    decoder_num_heads: int = 16,
    norm_eps: float = 1e-5,
    norm_pix_loss: bool = True,
) -> MuM:
    """Load weights with the released MuM checkpoints' own names, encoder-decoder or encoder alone.

    Widths and depths come from the tensors. Class tokens get zero queries and keys in scene-wide blocks, as
    these weights were trained.

    Args:
        weights: a state dict, or a .safetensors or .pth file of one (possibly under "model" or "state_dict").
        patch_size: pixels along a patch's side.
        num_heads: of the encoder.
        decoder_num_heads: of the decoder; 16 heads of 48 in the released ones.
        norm_eps: epsilon of every layer norm.
        norm_pix_loss: whether targets are normalised within each patch.

    Raises:
        WeightsError: tensors missing, left over or of the wrong shape (by name), or an unreadable file.
    """
    if isinstance(weights, str | Path):
        origin = str(weights)
        weights = _read_state(Path(weights))
    else:
        origin = "the state dict"
    renamed = {_our_name(key): value for key, value in weights.items() if key not in IGNORED_REFERENCE_KEYS}
    try:
        kernel = renamed["encoder.patch_embed.proj.weight"]
    except KeyError:
        raise WeightsError(
            f"{origin} lacks patch_embed.proj.weight: not a MuM checkpoint (it holds {_few(list(weights))})"
        ) from None
    if tuple(kernel.shape[1:]) != (3, patch_size, patch_size):
        raise WeightsError(
            f"{origin} has a patch kernel of {tuple(kernel.shape[1:])}, expected (3, {patch_size}, "
            f"{patch_size}): set patch_size"
        )
    decoder = None
    if any(key.startswith("decoder.") for key in renamed):
        if "decoder.embed.weight" not in renamed:
            raise WeightsError(f"{origin} lacks decoder_embed.weight")
        decoder = DecoderConfig(
            width=renamed["decoder.embed.weight"].shape[0],
            depth=_depth(renamed, "decoder.frame_blocks.") + _depth(renamed, "decoder.scene_blocks."),
            heads=decoder_num_heads,
            norm_eps=norm_eps,
            class_tokens_between_views="zero",
        )
    config = MuMConfig(
        name="mum_reference",
        encoder=EncoderConfig(
            width=kernel.shape[0],
            depth=_depth(renamed, "encoder.blocks."),
            heads=num_heads,
            patch_size=patch_size,
            norm_eps=norm_eps,
        ),
        decoder=decoder,
        norm_pix_loss=norm_pix_loss,
    )
    return _build(config, renamed, origin, _their_name)


def _our_name(key: str) -> str:
    for theirs, ours in _REFERENCE_DECODER:
        if key.startswith(theirs):
            return ours + key.removeprefix(theirs)
    return f"encoder.{key}"


def _their_name(key: str) -> str:
    for theirs, ours in _REFERENCE_DECODER:
        if key.startswith(ours):
            return theirs + key.removeprefix(ours)
    return key.removeprefix("encoder.")


def _depth(state: Mapping[str, Tensor], prefix: str) -> int:
    pattern = re.compile(re.escape(prefix) + r"(\d+)\.")
    return 1 + max((int(found[1]) for key in state if (found := pattern.match(key))), default=-1)


def _read_state(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise WeightsError(f"{path} does not exist: expected a .safetensors or .pth file")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise WeightsError(f"{path} is not a readable safetensors file: {error}") from error
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise WeightsError(f"{path} cannot be read as tensors alone (weights_only=True): {reason}") from error
    for key in ("model", "state_dict"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"{path} holds no state dict: expected tensors by name")
    return state
