"""Any frozen encoder behind one contract: square uint8 images in, maps of patch features out.

`open_encoder` takes a spec: a checkpoint file, a run folder, ``timm:NAME``, ``random:NAME`` or ``pixels``.
What it returns encodes (N, 3, S, S) uint8 into ``{layer: (N, h, w, C)}`` float32, layers counted from 1
(the first block). Sizes that the patch does not divide are resized to the nearest multiple; the grid always
spans the whole image, so coordinates follow from h, w and S alone. This file knows nothing of data sets,
pairs or scores.
"""

import hashlib
import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import timm
import torch
from timm.data import resolve_data_config
from torch import Tensor, nn
from torch.nn import functional as F

import mum
from probes.errors import ProbeError, nearest

KINDS = "a checkpoint file, a run folder, timm:NAME, random:NAME[:SEED] or pixels[:PATCH]"


class Encoder(Protocol):
    """What the probes ask of an encoder."""

    spec: str
    """As the user named it."""
    identity: dict[str, Any]
    """Everything the features depend on besides the image: weights hash, preprocessing, code; JSON types."""
    patch_size: int
    """Nominal patch in pixels of the encoder's input."""
    num_layers: int
    run: Path | None
    """The run folder, where the encoder is a run."""

    def encode(self, images: Tensor, layers: Sequence[int]) -> dict[int, Tensor]:
        """Features {layer: (N, h, w, C)} float32 on the encoder's device, of uint8 images (N, 3, S, S)."""
        ...


@dataclass(frozen=True, kw_only=True)
class PixelEncoder:
    """The baseline without weights: a patch's raw pixels, minus the mean colour of its image."""

    spec: str
    patch_size: int
    num_layers: int = 1
    run: Path | None = None

    @property
    def identity(self) -> dict[str, Any]:
        """The patch size is all there is."""
        return {"kind": "pixels", "patch": self.patch_size, "version": 1}

    def encode(self, images: Tensor, layers: Sequence[int]) -> dict[int, Tensor]:
        """Features {1: (N, h, w, patch * patch * 3)}."""
        x = _to_multiple(images.float() / 255, self.patch_size)
        x = x - x.mean(dim=(-2, -1), keepdim=True)
        p = self.patch_size
        x = x.unflatten(-1, (-1, p)).unflatten(-3, (-1, p))  # (N, 3, h, p, w, p)
        return dict.fromkeys(layers, x.permute(0, 2, 4, 3, 5, 1).flatten(3))


class TimmEncoder:
    """Any timm model with `forward_intermediates`; its last norm is applied to every layer that is read."""

    def __init__(self, model: nn.Module, *, spec: str, device: torch.device, run: Path | None = None) -> None:
        if not hasattr(model, "forward_intermediates") or not hasattr(model, "feature_info"):
            raise ProbeError(
                f"{spec}: {type(model).__name__} has no forward_intermediates, so no patch features"
            )
        self.spec, self.run = spec, run
        self._model = model.eval().requires_grad_(False).to(device)
        self._device = device
        self.patch_size = _patch_size(model)
        self.num_layers = len(model.feature_info)
        data = resolve_data_config({}, model=model)
        self._mean = torch.tensor(data["mean"], device=device).view(1, 3, 1, 1)
        self._std = torch.tensor(data["std"], device=device).view(1, 3, 1, 1)
        self.identity = {
            "kind": "timm",
            "architecture": type(model).__name__,
            "weights": weights_hash(model),
            "mean": [round(float(m), 6) for m in data["mean"]],
            "std": [round(float(s), 6) for s in data["std"]],
            "norm": "last norm on every layer",
            "timm": timm.__version__,
            "version": 1,
        }

    @torch.inference_mode()
    def encode(self, images: Tensor, layers: Sequence[int]) -> dict[int, Tensor]:
        """Features {layer: (N, h, w, C)} of one forward pass."""
        x = images.to(self._device).float() / 255
        x = (_to_multiple(x, self.patch_size) - self._mean) / self._std
        order = sorted(set(layers))
        maps = self._model.forward_intermediates(
            x,
            indices=[layer - 1 for layer in order],
            norm=True,
            stop_early=True,
            output_fmt="NCHW",
            intermediates_only=True,
        )
        return {
            layer: features.permute(0, 2, 3, 1).float() for layer, features in zip(order, maps, strict=True)
        }


def open_encoder(spec: str, *, size: int, seed: int = 0, device: str | torch.device = "cpu") -> Encoder:
    """Build the encoder that ``spec`` names, ready to encode images of ``size`` pixels.

    Args:
        spec: a checkpoint file, a run folder, a folder that timm wrote or loads, ``timm:NAME`` (pretrained),
            ``random:NAME`` (untrained, drawn from ``seed``) or ``random:NAME:SEED``, ``pixels`` (patch 8 up
            to 128 px, else 16) or ``pixels:PATCH``.
        size: evaluated size in px; only models that cannot take any size use it.
        seed: of random weights.
        device: where the model runs.

    Raises:
        ProbeError: no such file or name, weights that cannot be had, a model without patch features.
    """
    device = torch.device(device)
    kind, _, name = spec.partition(":")
    path = Path(spec)
    if path.exists():
        return _from_path(path, spec, size, device)
    if kind == "pixels":
        return PixelEncoder(spec=spec, patch_size=_pixel_patch(name, spec, size))
    if kind == "timm":
        return TimmEncoder(_timm_model(name, spec, size, pretrained=True), spec=spec, device=device)
    if kind == "random":
        name, _, own_seed = name.partition(":")
        if own_seed and not own_seed.isdecimal():
            raise ProbeError(f"encoder {spec!r}: the seed {own_seed!r} is not a number")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(own_seed) if own_seed else seed)
            model = _timm_model(name, spec, size, pretrained=False)
        return TimmEncoder(model, spec=spec, device=device)
    if "/" in spec or path.suffix in {".safetensors", ".pth", ".pt"}:
        raise ProbeError(f"encoder {spec!r}: no such file or folder")
    hint = nearest(kind, ["pixels", "timm", "random"]) if kind != spec or len(spec) < 9 else ""
    raise ProbeError(f"unknown encoder {spec!r}{hint} (an encoder is {KINDS})")


def choose_layers(encoder: Encoder, wanted: str | Iterable[int]) -> tuple[int, ...]:
    """Layers to read of an encoder: ``"last"``, ``"all"``, or block numbers from 1 (negative from the end).

    Encoders with a single layer (`pixels`) give that one. ProbeError for a number beyond the encoder's depth.
    """
    depth = encoder.num_layers
    if wanted == "last" or depth == 1:
        return (depth,)
    if wanted == "all":
        return tuple(range(1, depth + 1))
    layers = [layer + depth + 1 if layer < 0 else layer for layer in map(int, wanted)]
    for layer in layers:
        if not 1 <= layer <= depth:
            raise ProbeError(f"encoder {encoder.spec!r} has layers 1 to {depth}, not {layer}")
    return tuple(sorted(set(layers)))


def weights_hash(model: nn.Module) -> str:
    """SHA-256 over names, types, shapes and bytes of all tensors of a model's state dict."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        value = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _from_path(path: Path, spec: str, size: int, device: torch.device) -> Encoder:
    config = path / "config.json"
    if path.is_dir() and config.is_file() and "architecture" in _json(config):
        model = _timm_model(f"local-dir:{path}", spec, size, pretrained=True)
        return TimmEncoder(model, spec=spec, device=device)
    if path.is_dir() and not (path / "checkpoints").is_dir():
        raise ProbeError(
            f"encoder {spec!r} is a folder, but neither a run (no checkpoints/) nor a timm export"
        )
    run = path if path.is_dir() else None
    try:
        model = mum.load_reference(path) if path.suffix in {".pth", ".pt"} else mum.load(path)
    except ValueError as error:
        raise ProbeError(f"encoder {spec!r}: {error}") from error
    return TimmEncoder(model.encoder, spec=spec, device=device, run=run)


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except ValueError as error:
        raise ProbeError(f"{path} is not JSON: {error}") from error
    return value if isinstance(value, dict) else {}


def _timm_model(name: str, spec: str, size: int, *, pretrained: bool) -> nn.Module:
    # A name may carry a source (hf-hub:, local-dir:) and a tag of weights (.augreg2_in21k_ft_in1k).
    if ":" not in name and not timm.is_model(name.split(".", maxsplit=1)[0]):
        raise ProbeError(f"encoder {spec!r}: timm has no model {name!r}{nearest(name, timm.list_models())}")
    attempts: list[dict[str, Any]] = [{"dynamic_img_size": True}, {"img_size": size}, {}]
    hub = logging.getLogger("huggingface_hub")
    level = hub.level
    for arguments in attempts:
        try:
            # The hub warns of every retry; what failed in the end is said once, below.
            hub.setLevel(logging.CRITICAL)
            return timm.create_model(name, pretrained=pretrained, num_classes=0, **arguments)
        except TypeError as error:
            if "unexpected keyword argument" not in str(error) or not arguments:
                raise
        except (RuntimeError, OSError, ValueError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise ProbeError(f"encoder {spec!r}: timm could not build or load it: {reason}") from error
        finally:
            hub.setLevel(level)
    raise AssertionError("the last attempt returns or raises")


def _patch_size(model: nn.Module) -> int:
    embed = getattr(model, "patch_embed", None)
    patch = getattr(embed, "patch_size", None)
    if patch is not None:
        return int(patch[0] if isinstance(patch, Sequence) else patch)
    return int(model.feature_info[-1]["reduction"])


def _pixel_patch(given: str, spec: str, size: int) -> int:
    if not given:
        return 8 if size <= 128 else 16
    if not given.isdecimal() or not 1 <= int(given) <= size:
        raise ProbeError(f"encoder {spec!r}: the patch must be a number from 1 to the size {size}")
    return int(given)


def _to_multiple(images: Tensor, patch: int) -> Tensor:
    target = [max(1, round(side / patch)) * patch for side in images.shape[-2:]]
    if target == list(images.shape[-2:]):
        return images
    return F.interpolate(images, size=target, mode="bicubic", antialias=True, align_corners=False)
