"""Pictures of what a model sees and paints: reconstructions and feature maps by PCA.

Images in are uint8; pictures out are uint8 arrays (H, W, 3), ready for Pillow. No matplotlib, no files.
"""

import numpy as np
import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor

from mum.masked import patchify, unpatchify

GAP = 2
PAPER = 255
MASKED_GREY = 128


def reconstruction_picture(
    images: Tensor,
    pred: Tensor,
    mask: Tensor,
    patch_size: int,
    *,
    norm_pix_loss: bool = True,
    mean: tuple[float, ...] = IMAGENET_DEFAULT_MEAN,
    std: tuple[float, ...] = IMAGENET_DEFAULT_STD,
) -> np.ndarray:
    """A grid with a column a view; rows: original, what the encoder saw, reconstruction.

    Predictions normalised within each patch get the true patch's mean and contrast back, as in MAE's figures:
    the picture shows structure, not colour, that the model found. Kept patches are pasted in.

    Args:
        images: (S, 3, H, W) uint8.
        pred: (S, L, patch * patch * 3) of a `MuMOutput`.
        mask: (S, L), 1 = masked.
        patch_size: pixels along a patch's side.
        norm_pix_loss: whether `pred` is normalised within each patch.
        mean, std: of the model's input, RGB in [0, 1].

    Returns:
        uint8 (3 rows, S columns).
    """
    images, pred, mask = images.detach().cpu(), pred.detach().float().cpu(), mask.detach().cpu()
    grid = (images.shape[-2] // patch_size, images.shape[-1] // patch_size)
    centre = 255 * torch.tensor(mean).view(1, 3, 1, 1)
    spread = 255 * torch.tensor(std).view(1, 3, 1, 1)
    original = patchify((images.float() - centre) / spread, patch_size)
    if norm_pix_loss:
        var, average = torch.var_mean(original, dim=-1, keepdim=True)
        pred = pred * (var + 1e-6).sqrt() + average
    hidden = mask.unsqueeze(-1).bool()
    painted = unpatchify(torch.where(hidden, pred, original), patch_size, grid) * spread + centre
    painted = painted.round().clamp(0, 255).byte()
    grey = torch.full_like(original, MASKED_GREY)
    seen = unpatchify(
        torch.where(hidden, grey, patchify(images.float(), patch_size)), patch_size, grid
    ).byte()
    return _grid([_hwc(images), _hwc(seen), _hwc(painted)])


def fit_pca(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`pca_of_moments` of features (..., C)."""
    flat = features.reshape(-1, features.shape[-1]).double()
    return pca_of_moments(len(flat), flat.sum(0), flat.T @ flat)


def pca_of_moments(count: int, total: Tensor, outer: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """PCA from running sums, so that a folder of any size needs memory for one batch.

    Args:
        count: number of vectors.
        total: (C,) their sum, float64.
        outer: (C, C) sum of their outer products, float64.

    Returns:
        Mean (C,), the three leading directions (C, 3) and the standard deviations along them (3,), float32.
        The largest entry of each direction is positive, so that colours are the same from run to run.
    """
    mean = total / count
    variances, vectors = torch.linalg.eigh(outer / count - torch.outer(mean, mean))
    directions = vectors[:, -3:].flip(-1)
    largest = directions.gather(0, directions.abs().argmax(0, keepdim=True))
    scale = variances[-3:].flip(-1).clamp(min=0).sqrt()
    return mean.float(), (directions * largest.sign()).float(), scale.float()


def pca_colours(features: Tensor, mean: Tensor, directions: Tensor, scale: Tensor) -> np.ndarray:
    """Features as colours: three standard deviations either way span the range.

    Args:
        features: (N, h, w, C).
        mean, directions, scale: from `fit_pca` or `pca_of_moments`.

    Returns:
        uint8 (N, h, w, 3).
    """
    colours = 0.5 + (features.float() - mean) @ directions / (6 * scale.clamp(min=1e-12))
    return (colours.clamp(0, 1) * 255).round().byte().numpy()


def _hwc(images: Tensor) -> list[np.ndarray]:
    return [image.detach().cpu().permute(1, 2, 0).numpy() for image in images]


def _grid(rows: list[list[np.ndarray]]) -> np.ndarray:
    height, width = rows[0][0].shape[:2]
    sheet = np.full(
        (len(rows) * (height + GAP) - GAP, len(rows[0]) * (width + GAP) - GAP, 3), PAPER, dtype=np.uint8
    )
    for r, row in enumerate(rows):
        for c, tile in enumerate(row):
            y, x = r * (height + GAP), c * (width + GAP)
            sheet[y : y + height, x : x + width] = tile
    return sheet
