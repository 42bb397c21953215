"""Any frozen encoder behind one contract: square images in, maps of patch features out.

`open_encoder` takes a spec: a checkpoint file, a run folder, ``timm:NAME``, ``timm:NAME@FILE``, ``random:NAME`` or
``pixels``. What it returns encodes (N, 3, S, S), uint8 or floats in [0, 1], into ``{layer: (N, h, w, C)}`` float32,
layers counted from 1 (the first block), class tokens and registers left out. Sizes that the patch does not divide
are resized to the nearest multiple (`RESIZE`); the grid always spans the whole image, so coordinates follow from h, w
and S alone. This file knows nothing of data sets, pairs or scores.
"""

import hashlib
import json
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
from probes.encoders.backbones import SUFFIXES, nearest_multiple, patch_size, timm_model
from probes.encoders.croco import croco_model
from probes.errors import ProbeError, nearest

KINDS = "a checkpoint file, a run folder, timm:NAME, timm:NAME@FILE, random:NAME[:SEED] or pixels[:PATCH]"
RESIZE = "antialiased bicubic to the nearest multiple of the patch, half-way to the even one"
LAST_NORM = "the model's last norm, on every layer"
NO_NORM = "none: the model norms no layer that it hands out"


class Encoder(Protocol):
    """What the probes ask of an encoder."""

    spec: str
    """As the user named it."""
    identity: dict[str, Any]
    """Everything the features depend on besides the image: weights hash, preprocessing, code; JSON types."""
    patch_size: int
    """Nominal patch in pixels of the encoder's input."""
    num_layers: int
    mean: tuple[float, ...]
    """Subtracted from images in [0, 1] before the first layer, by channel; `std` then divides."""
    std: tuple[float, ...]
    class_tokens: int
    """Tokens beside the patches that stand for the image (class, distillation)."""
    registers: int
    """Tokens beside the patches that stand for nothing."""
    norm: str
    """Which norm the features have gone through, in words."""
    run: Path | None
    """The run folder, where the encoder is a run."""
    model: nn.Module | None
    """What holds the weights; None where there are none."""

    def encode(self, images: Tensor, layers: Sequence[int]) -> dict[int, Tensor]:
        """Features {layer: (N, h, w, C)} float32 on the encoder's device.

        Args:
            images: (N, 3, H, W), uint8 or floats in [0, 1], on any device.
            layers: numbers from 1; all come from one forward pass.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class PixelEncoder:
    """The baseline without weights: a patch's raw pixels, minus the mean colour of its image."""

    spec: str
    patch_size: int
    num_layers: int = 1
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    class_tokens: int = 0
    registers: int = 0
    norm: str = "none: colours minus the image's mean"
    run: Path | None = None
    model: nn.Module | None = None

    @property
    def identity(self) -> dict[str, Any]:
        """The patch size is all there is."""
        return {"kind": "pixels", "patch": self.patch_size, "resize": RESIZE, "version": 1}

    def encode(self, images: Tensor, layers: Sequence[int]) -> dict[int, Tensor]:
        """Features {1: (N, h, w, patch * patch * 3)}."""
        x = _to_multiple(_unit_range(images), self.patch_size)
        x = x - x.mean(dim=(-2, -1), keepdim=True)
        p = self.patch_size
        x = x.unflatten(-1, (-1, p)).unflatten(-3, (-1, p))  # (N, 3, h, p, w, p)
        return dict.fromkeys(layers, x.permute(0, 2, 4, 3, 5, 1).flatten(3))


class TimmEncoder:
    """Any timm model with `forward_intermediates`; its last norm is applied to every layer that is read.

    Args:
        model: moved to the device, in evaluation mode; attributes as of `Encoder`.
        spec: as the user named it.
        size: side in px of an image that must pass through, to know now rather than later.
        device: where it runs.
        run: the run folder, if it is one.

    Raises:
        ProbeError: a model that gives no maps of patch features, or not at this size.
    """

    def __init__(
        self, model: nn.Module, *, spec: str, size: int, device: torch.device, run: Path | None = None
    ) -> None:
        if not hasattr(model, "forward_intermediates") or not hasattr(model, "feature_info"):
            raise ProbeError(
                f"{spec}: {type(model).__name__} has no forward_intermediates, so no patch features"
            )
        self.spec, self.run = spec, run
        self.model = model.eval().requires_grad_(False).to(device)
        self.device = device
        self.patch_size = patch_size(model)
        self.num_layers = len(model.feature_info)
        data = resolve_data_config({}, model=model)
        self.mean = tuple(round(float(m), 6) for m in data["mean"])
        self.std = tuple(round(float(s), 6) for s in data["std"])
        self._mean, self._std = (
            torch.tensor(data[key], device=device).view(1, 3, 1, 1) for key in ("mean", "std")
        )
        tokens = getattr(model, "reg_token", None)
        self.registers = getattr(model, "num_reg_tokens", None) or (0 if tokens is None else tokens.shape[1])
        self.class_tokens = (getattr(model, "num_prefix_tokens", None) or 0) - self.registers
        self._norm, self.norm = self._try(size)
        self.identity = {
            "kind": "timm",
            "architecture": type(model).__name__,
            "weights": weights_hash(model),
            "mean": list(self.mean),
            "std": list(self.std),
            "norm": self.norm,
            "class_tokens": self.class_tokens,
            "registers": self.registers,
            "resize": RESIZE,
            "compute": "float32",
            "timm": timm.__version__,
            "version": 2,
        }

    @torch.inference_mode()
    def encode(self, images: Tensor, layers: Sequence[int]) -> dict[int, Tensor]:
        """Features {layer: (N, h, w, C)} of one forward pass."""
        x = _to_multiple(_unit_range(images.to(self.device)), self.patch_size)
        order = sorted(set(layers))
        maps = self._forward((x - self._mean) / self._std, order, self._norm)
        return {
            layer: features.permute(0, 2, 3, 1).float() for layer, features in zip(order, maps, strict=True)
        }

    def _forward(self, x: Tensor, order: Sequence[int], norm: bool) -> list[Tensor]:
        return self.model.forward_intermediates(
            x,
            indices=[layer - 1 for layer in order],
            norm=norm,
            stop_early=True,
            output_fmt="NCHW",
            intermediates_only=True,
        )

    @torch.inference_mode()
    def _try(self, size: int) -> tuple[bool, str]:
        """Whether to ask the model for its norm, and what that does, found by passing an image through."""
        ramp = torch.linspace(-1, 1, nearest_multiple(size, self.patch_size), device=self.device)
        image = (ramp[:, None] * ramp).expand(1, 3, -1, -1)
        order = sorted({1, self.num_layers})
        try:
            plain = self._forward(image, order, False)
        except (AssertionError, RuntimeError, ValueError, TypeError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ProbeError(f"encoder {self.spec!r} cannot encode images of {size} px: {reason}") from error
        if any(maps.ndim != 4 for maps in plain):
            raise ProbeError(f"encoder {self.spec!r} gives no maps of features, but {tuple(plain[0].shape)}")
        if getattr(self.model, "neck", None) is not None:
            # SAM's norms sit in a neck of convolutions, which is made for its last layer alone.
            return False, "none: SAM's neck, which holds its norms, is left out"
        try:
            normed = self._forward(image, order, True)
        except AssertionError:
            return False, NO_NORM
        changed = [not torch.equal(one, other) for one, other in zip(plain, normed, strict=True)]
        if all(changed):
            return True, LAST_NORM
        return True, "the model's last norm, on its last layer" if changed[-1] else NO_NORM


def open_encoder(spec: str, *, size: int, seed: int = 0, device: str | torch.device = "cpu") -> Encoder:
    """Build the encoder that ``spec`` names, ready to encode images of ``size`` pixels.

    Args:
        spec: a checkpoint file, a run folder, a folder that timm wrote or loads, ``timm:NAME`` (pretrained),
            ``random:NAME`` (untrained, drawn from ``seed``) or ``random:NAME:SEED``, ``pixels`` (patch 8 up
            to 128 px, else 16) or ``pixels:PATCH``. ``timm:NAME@FILE`` takes the weights from a local file, in
            timm's form or in the published one of DINOv2, DINOv3, MAE, CLIP or SAM. A checkpoint file is one of
            ours, a released MuM (.pth), or one of CroCo, DUSt3R or MASt3R.
        size: evaluated size in px; models that cannot take any size are built for it.
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
        name, weights = _name_and_file(name)
        model, any_size = timm_model(name, spec, size, pretrained=True, weights=weights)
        return _timm_encoder(model, any_size, spec, size, device)
    if kind == "random":
        name, _, own_seed = name.partition(":")
        if own_seed and not own_seed.isdecimal():
            raise ProbeError(f"encoder {spec!r}: the seed {own_seed!r} is not a number")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(own_seed) if own_seed else seed)
            model, any_size = timm_model(name, spec, size, pretrained=False)
        return _timm_encoder(model, any_size, spec, size, device)
    if "/" in spec or path.suffix in SUFFIXES:
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
        model, any_size = timm_model(f"local-dir:{path}", spec, size, pretrained=True)
        return _timm_encoder(model, any_size, spec, size, device)
    if path.is_dir() and not (path / "checkpoints").is_dir():
        raise ProbeError(
            f"encoder {spec!r} is a folder, but neither a run (no checkpoints/) nor a timm export"
        )
    run = path if path.is_dir() else None
    released = path.suffix in {".pth", ".pt"}
    if released and (model := croco_model(path, spec)) is not None:
        return _timm_encoder(model, True, spec, size, device)
    try:
        model = (mum.load_reference if released else mum.load)(path).encoder
    except ValueError as error:
        other = (
            "; if it holds a timm model's weights, name the model: timm:NAME@FILE" if path.is_file() else ""
        )
        raise ProbeError(f"encoder {spec!r}: {error}{other}") from error
    return _timm_encoder(model, True, spec, size, device, run)


def _timm_encoder(
    model: nn.Module, any_size: bool, spec: str, size: int, device: torch.device, run: Path | None = None
) -> TimmEncoder:
    # A model that takes any size is asked for the least that shows what it gives.
    tried = min(size, 2 * patch_size(model)) if any_size else size
    return TimmEncoder(model, spec=spec, size=tried, device=device, run=run)


def _name_and_file(name: str) -> tuple[str, Path | None]:
    # An @ without a weights file behind it is a revision on the hub.
    before, at, file = name.partition("@")
    return (before, Path(file)) if at and Path(file).suffix in SUFFIXES else (name, None)


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except ValueError as error:
        raise ProbeError(f"{path} is not JSON: {error}") from error
    return value if isinstance(value, dict) else {}


def _pixel_patch(given: str, spec: str, size: int) -> int:
    if not given:
        return 8 if size <= 128 else 16
    if not given.isdecimal() or not 1 <= int(given) <= size:
        raise ProbeError(f"encoder {spec!r}: the patch must be a number from 1 to the size {size}")
    return int(given)


def _unit_range(images: Tensor) -> Tensor:
    """Images as floats in [0, 1]."""
    return images if images.is_floating_point() else images.float() / 255


def _to_multiple(images: Tensor, patch: int) -> Tensor:
    target = [nearest_multiple(side, patch) for side in images.shape[-2:]]
    if target == list(images.shape[-2:]):
        return images
    return F.interpolate(images, size=target, mode="bicubic", antialias=True, align_corners=False)
