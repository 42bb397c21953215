"""Which patches are kept, masked and decoded: masks as a function of noise, noise as a function of keys.

In masks 1 means masked. Patches are numbered row-major. Nothing here knows a model or a pixel. Source: masking
as in MAE, arXiv 2111.06377; each view on its own as in MuM, arXiv 2511.17309.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mum.errors import InputError


class UniformMask(NamedTuple):
    """A mask in the forms that are needed."""

    keep: Tensor
    """(I, K) int64 kept patches, by rising noise."""
    place: Tensor
    """(I, L) int64 rank of each patch's noise: below K it is kept, and stands at that place of `keep`."""
    mask: Tensor
    """(I, L) float32, 1 = masked."""
    decoded: Tensor | None
    """(I, P) int64 masked patches to be decoded, by rising noise; None where all are."""


def count_kept(patches: int, mask_ratio: float) -> int:
    """Patches of an image that the encoder sees: int(patches * (1 - mask_ratio)).

    Raises:
        InputError: the ratio would keep no patch, or mask none.
    """
    if not 0 <= mask_ratio < 1:
        raise InputError(f"mask ratio {mask_ratio} is not in [0, 1)")
    kept = int(patches * (1 - mask_ratio))
    if not 0 < kept < patches:
        raise InputError(
            f"mask ratio {mask_ratio} keeps {kept} of {patches} patches: it must keep one and mask one"
        )
    return kept


def count_decoded(masked: int, decode_fraction: float) -> int:
    """Masked patches of an image that the decoder paints: the fraction of them, rounded, and at least one.

    Raises:
        InputError: the fraction is not in (0, 1].
    """
    if not 0 < decode_fraction <= 1:
        raise InputError(f"decode fraction {decode_fraction} is not in (0, 1]")
    return max(1, round(masked * decode_fraction))


def uniform_mask(noise: Tensor, mask_ratio: float, decode_fraction: float = 1.0) -> UniformMask:
    """Keep in every image the patches with the smallest noise, and of the rest decode those with the smallest.

    Args:
        noise: (I, L) float.
        mask_ratio: share of patches to mask, in [0, 1).
        decode_fraction: share of the masked patches to decode, in (0, 1].

    Raises:
        InputError: the ratio would keep no patch or mask none, or the fraction is out of range.
    """
    patches = noise.shape[1]
    kept = count_kept(patches, mask_ratio)
    decoded = count_decoded(patches - kept, decode_fraction)
    order = noise.argsort(dim=1, stable=True)
    place = torch.empty_like(order)
    place.scatter_(1, order, torch.arange(patches, device=noise.device).expand_as(order))
    part = order[:, kept : kept + decoded] if decoded < patches - kept else None
    return UniformMask(order[:, :kept], place, (place >= kept).float(), part)


def mask_noise(seed: int, step: int, lane: int, shape: tuple[int, ...]) -> Tensor:
    """Uniform noise in [0, 1) keyed by three integers: the same on any machine, rank or thread.

    Args:
        seed, step, lane: not negative; they key NumPy's Philox generator.
        shape: of the result.

    Returns:
        float32 tensor on the CPU.

    Raises:
        InputError: a negative key.
    """
    if min(seed, step, lane) < 0:
        raise InputError(f"seed {seed}, step {step}, lane {lane}: none may be negative")
    bits = np.random.Philox(key=[seed, lane], counter=[0, 0, 0, step]).random_raw(int(np.prod(shape)))
    return torch.from_numpy(((bits >> 40).astype(np.float32) * np.float32(2**-24)).reshape(shape))


def reference_views(views: tuple[int, ...], decode_fraction: float = 1.0) -> tuple[list[int], list[int]]:
    """Split a pack for masking with a reference: the first image of each scene of two or more stays unmasked.

    A scene of one view has no other to paint, so it is masked like any other image.

    Args:
        views: images of each scene, in pack order.
        decode_fraction: what the same forward pass is asked for; a reference wants 1.

    Returns:
        Numbers in the pack of the reference images, and of the masked ones; both rising.

    Raises:
        InputError: only a share of the masked patches is decoded.
    """
    if decode_fraction != 1:
        raise InputError(
            f"decode fraction {decode_fraction} with a reference view: unmasked images are decoded whole, so "
            "set the fraction to 1 or leave the reference view out"
        )
    reference, masked, start = [], [], 0
    for count in views:
        first = 1 if count > 1 else 0
        reference += range(start, start + first)
        masked += range(start + first, start + count)
        start += count
    return reference, masked
