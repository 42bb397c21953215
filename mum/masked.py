"""Masked multi-view autoencoding: the model, and its loss on normalised pixels.

A pack is images (I, 3, H, W) and views (B,) with views.sum() == I: the first views[0] images are scene 0,
and so on. A dense (B, S, 3, H, W) tensor is taken at the door and flattened. uint8 images are normalised
inside; float images are taken as normalised. In masks 1 means masked. Source: MuM, arXiv 2511.17309;
targets as in MAE, arXiv 2111.06377.
"""

import difflib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

from mum.decoder import Decoder, DecoderConfig, Unmasked
from mum.encoder import PRESETS, EncoderConfig, build_encoder, encode_kept, patch_grid
from mum.errors import InputError
from mum.flops import forward_flops
from mum.masking import reference_views, uniform_mask

DECODERS = MappingProxyType(
    {
        "mum_vittiny_patch8": DecoderConfig(width=128, depth=4, heads=4),
        "mum_vittiny_patch16": DecoderConfig(width=192, depth=4, heads=3),
        "mum_vitsmall_patch16": DecoderConfig(width=384, depth=8, heads=6),
        "mum_vitbase_patch16": DecoderConfig(width=512, depth=8, heads=8),
        "mum_vitlarge_patch16": DecoderConfig(width=768, depth=12, heads=12),
        "mum_vithuge_patch16": DecoderConfig(width=1024, depth=12, heads=16),
    }
)


@dataclass(frozen=True, kw_only=True)
class MuMConfig:
    """All that it takes to build a `MuM` again; JSON there and back by `to_dict` and `from_dict`."""

    name: str
    """Preset the encoder came from, or any other name."""
    encoder: EncoderConfig
    """The encoder's shape."""
    decoder: DecoderConfig | None
    """The decoder's shape; None for an encoder alone."""
    norm_pix_loss: bool = True
    """Whether targets are normalised within each patch."""
    mean: tuple[float, float, float] = IMAGENET_DEFAULT_MEAN
    """Mean of RGB in [0, 1] that uint8 images are normalised with."""
    std: tuple[float, float, float] = IMAGENET_DEFAULT_STD
    """Standard deviation of RGB in [0, 1] that uint8 images are normalised with."""

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists and numbers."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "MuMConfig":
        """Rebuild a config.

        Raises:
            InputError: a field that this version does not know, or one that is missing.
        """
        values = dict(_checked(cls, values))
        values["encoder"] = EncoderConfig(**_checked(EncoderConfig, values["encoder"]))
        if values["decoder"] is not None:
            values["decoder"] = DecoderConfig(**_checked(DecoderConfig, values["decoder"]))
        for key in ("mean", "std"):
            if key in values:
                values[key] = tuple(values[key])
        return cls(**values)


def _checked(cls: type, values: dict[str, Any]) -> dict[str, Any]:
    known = {field.name for field in fields(cls)}
    needed = {field.name for field in fields(cls) if field.default is field.default_factory}
    if unknown := sorted(values.keys() - known):
        raise InputError(
            f"{cls.__name__} has no field {', '.join(unknown)}: the file is newer than this code"
        )
    if missing := sorted(needed - values.keys()):
        raise InputError(f"{cls.__name__} lacks {', '.join(missing)}")
    return values


def patchify(images: Tensor, patch_size: int) -> Tensor:
    """(I, 3, H, W) to (I, L, patch * patch * 3): patches row-major, pixels row-major, channels last."""
    images = images.unflatten(-1, (-1, patch_size)).unflatten(-3, (-1, patch_size))
    return images.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)


def unpatchify(patches: Tensor, patch_size: int, grid: tuple[int, int]) -> Tensor:
    """Undo `patchify`: (I, L, patch * patch * 3) to (I, 3, H, W)."""
    x = patches.unflatten(1, grid).unflatten(-1, (patch_size, patch_size, 3))
    return x.permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)


class MuMOutput(NamedTuple):
    """What a forward pass gives."""

    loss: Tensor
    """() mean loss over the masked patches that were decoded."""
    pred: Tensor
    """(I, L, patch * patch * 3) predicted pixels, normalised within each patch if the loss is; (I, P, ...) of
    the decoded patches alone where those are but a part."""
    mask: Tensor
    """(I, L) float32, 1 = masked."""
    decoded: Tensor | None = None
    """(I, P) int64 patch of each row of `pred`; None where it holds all of them in order."""


class MuM(nn.Module):
    """Encoder and decoder of a multi-view masked autoencoder.

    `encoder` is a timm model; `decoder` is None where only an encoder was loaded, and then `forward` says so.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, config: MuMConfig) -> None:
        super().__init__()
        self.config = config
        patch = config.encoder.patch_size
        self.encoder = build_encoder(config.encoder, variant=config.name)
        self.decoder: Decoder | None = None
        if config.decoder is not None:
            self.decoder = Decoder(config.decoder, config.encoder.width, patch * patch * 3)
        # Scaled for bytes, and left out of the state dict: they are config, not weights.
        for name, values in (("pixel_mean", config.mean), ("pixel_std", config.std)):
            buffer = 255 * torch.tensor(values, dtype=torch.float32).view(1, 3, 1, 1)
            self.register_buffer(name, buffer, persistent=False)

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 (I, 3, H, W) to normalised float32; float images as they are."""
        if images.dtype != torch.uint8:
            return images
        return (images.float() - self.pixel_mean) / self.pixel_std

    def forward(
        self,
        images: Tensor,
        views: Tensor | Sequence[int] | None = None,
        *,
        mask_ratio: float = 0.75,
        noise: Tensor | None = None,
        decode_fraction: float = 1.0,
        reference_view: bool = False,
    ) -> MuMOutput:
        """Mask, encode, decode, compare.

        Args:
            images: (I, 3, H, W), or (B, S, 3, H, W) without `views`; uint8, or normalised float.
            views: (B,) images of each scene; best on the CPU, where reading them waits for nothing.
            mask_ratio: share of patches masked in every image.
            noise: (I, L) that decides the mask; drawn from torch's generator if None.
            decode_fraction: share of every image's masked patches that is decoded and compared, those with the
                smallest noise; the decoder sees the kept tokens and these, so it costs less.
            reference_view: leave the first image of each scene of two or more unmasked and out of the loss
                (as CroCo does, arXiv 2210.10716, with the rest masked as ever).

        Raises:
            InputError: shapes or options that do not fit together, or a model without a decoder.
        """
        if self.decoder is None:
            raise InputError(
                f"this {self.config.name} was loaded without its decoder: use model.encoder, or load a file "
                "exported with --with-decoder"
            )
        images, counts = as_pack(images, views)
        grid = patch_grid(self.encoder, images)
        if noise is None:
            noise = torch.rand(len(images), grid[0] * grid[1], device=images.device)
        elif tuple(noise.shape) != (len(images), grid[0] * grid[1]):
            raise InputError(
                f"noise of shape {tuple(noise.shape)} for {len(images)} images of {grid[0]} x {grid[1]} "
                f"patches: expected ({len(images)}, {grid[0] * grid[1]})"
            )
        images = self.normalise(images)
        noise = noise.to(images.device)
        if reference_view:
            return self._with_reference(images, counts, noise, grid, mask_ratio, decode_fraction)
        keep, place, mask, decoded = uniform_mask(noise, mask_ratio, decode_fraction)
        tokens = encode_kept(self.encoder, images, keep)
        part = None if decoded is None else torch.cat((keep, decoded), dim=1)
        pred = self.decoder(tokens, place, grid, counts, part=part).float()
        # Every image has the same number of decoded patches, so the mean of images is the mean of patches.
        loss = self._per_image_loss(images, pred, mask, decoded).mean()
        return MuMOutput(loss, pred, mask, decoded)

    def _with_reference(
        self,
        images: Tensor,
        views: tuple[int, ...],
        noise: Tensor,
        grid: tuple[int, int],
        mask_ratio: float,
        decode_fraction: float,
    ) -> MuMOutput:
        # Two passes of constant shape: the number of scenes of a pack is as constant as that of its images.
        reference, masked = (
            torch.tensor(numbers, dtype=torch.int64).to(images.device, non_blocking=True)
            for numbers in reference_views(views, decode_fraction)
        )
        keep, place, hidden, _ = uniform_mask(noise[masked], mask_ratio)
        every = torch.arange(noise.shape[1], device=images.device).expand(len(reference), -1)
        unmasked = Unmasked(
            tokens=encode_kept(self.encoder, images[reference], every),
            order=torch.cat((masked, reference)).argsort(),
        )
        tokens = encode_kept(self.encoder, images[masked], keep)
        pred = self.decoder(tokens, place, grid, views, unmasked=unmasked).float()
        mask = hidden.new_zeros(noise.shape).index_copy(0, masked, hidden)
        loss = self._per_image_loss(images[masked], pred[masked], hidden).mean()
        return MuMOutput(loss, pred, mask)

    def flops(
        self,
        views: Sequence[int],
        size: int | tuple[int, int],
        *,
        mask_ratio: float = 0.75,
        decode_fraction: float = 1.0,
        reference_view: bool = False,
    ) -> int:
        """Floating-point operations of one forward pass; see `mum.flops`. Training takes three times as many.

        Args:
            views: images of each scene of the pack.
            size: of an image in pixels: a side, or (height, width).
            mask_ratio, decode_fraction, reference_view: as for `forward`.

        Raises:
            InputError: what `forward` would refuse.
        """
        return forward_flops(
            self.config,
            views,
            size,
            mask_ratio=mask_ratio,
            decode_fraction=decode_fraction,
            reference_view=reference_view,
        )

    def masked_loss(self, images: Tensor, out: MuMOutput) -> Tensor:
        """(I,) mean squared error of each image's decoded masked patches, 0 where it has none.

        `images` as given to `forward`.
        """
        images, _ = as_pack(images, None if images.dim() == 5 else [1] * len(images))
        return self._per_image_loss(self.normalise(images), out.pred, out.mask, out.decoded)

    def _per_image_loss(
        self, images: Tensor, pred: Tensor, mask: Tensor, decoded: Tensor | None = None
    ) -> Tensor:
        with torch.no_grad():
            target = patchify(images.float(), self.config.encoder.patch_size)
            if decoded is not None:
                target = target[torch.arange(len(target), device=target.device)[:, None], decoded]
            if self.config.norm_pix_loss:
                var, mean = torch.var_mean(target, dim=-1, keepdim=True)
                target = (target - mean) * (var + 1e-6).rsqrt()
        error = (pred.float() - target).square().mean(dim=-1)
        if decoded is not None:
            return error.mean(dim=1)
        return (error * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)


def as_pack(images: Tensor, views: Tensor | Sequence[int] | None) -> tuple[Tensor, tuple[int, ...]]:
    """Bring images to (I, 3, H, W) and view counts to the host.

    Raises:
        InputError: a shape that is neither layout, or counts that do not add up to I.
    """
    if images.dim() == 5 and views is None:
        scenes, count = images.shape[:2]
        images, counts = images.flatten(0, 1), (count,) * scenes
    elif images.dim() == 4 and views is not None:
        counts = tuple(views.tolist() if isinstance(views, Tensor) else views)
    elif images.dim() == 4:
        raise InputError(
            f"images of shape {tuple(images.shape)} need views, the number of images of each scene "
            "(or give scenes as one tensor (B, S, 3, H, W))"
        )
    else:
        raise InputError(
            f"images of shape {tuple(images.shape)}{' with views' if views is not None else ''}: expected "
            "(I, 3, H, W) with views, or (B, S, 3, H, W) without"
        )
    if images.shape[1] != 3:
        raise InputError(f"images have {images.shape[1]} channels on axis -3, expected 3 (RGB)")
    if not counts or min(counts) < 1 or sum(counts) != len(images):
        raise InputError(
            f"views {list(counts)} add up to {sum(counts)} images, but the pack holds {len(images)}: "
            "every scene needs at least one view and the counts must add up"
        )
    return images, counts


def create_model(
    name: str,
    *,
    decoder: DecoderConfig | None = None,
    norm_pix_loss: bool = True,
    norm_eps: float = 1e-5,
) -> MuM:
    """Build a preset with random weights from torch's generator.

    Args:
        name: one of `mum.PRESETS`.
        decoder: None takes the preset's own.
        norm_pix_loss: whether targets are normalised within each patch.
        norm_eps: epsilon of the layer norms of the encoder and of the preset's decoder.

    Raises:
        InputError: an unknown preset.
    """
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise InputError(f"unknown model {name!r}{hint}: one of {', '.join(PRESETS)}")
    return MuM(
        MuMConfig(
            name=name,
            encoder=replace(PRESETS[name], norm_eps=norm_eps),
            decoder=decoder or replace(DECODERS[name], norm_eps=norm_eps),
            norm_pix_loss=norm_pix_loss,
        )
    )
