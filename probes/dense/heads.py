"""Heads that read a dense map off frozen features: one linear layer, or a light DPT over four layers.

Both take levels, a list of patch features (n, C, h, w) of one or several encoder layers, and give (n, channels, H, W)
on a finer grid that spans the same image. Channels are first centred and scaled by their mean and deviation over the
training images, which is where a batch norm ends up (DINOv2's and DINOv3's heads have one), so that one learning rate
suits every encoder. What the channels mean, and where the features come from, is not known here.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from probes.encoders.moments import Moments

LEVELS = 4
"""Layers that the DPT reads."""
_SCALES = (4.0, 2.0, 1.0, 0.5)


def evenly_spaced(depth: int) -> tuple[int, ...]:
    """The four layers, from 1, that a DPT reads of an encoder of ``depth``: every quarter's last, repeated below 4."""
    return tuple(-(-depth * quarter // LEVELS) for quarter in range(1, LEVELS + 1))


class Standardise(nn.Module):
    """A fixed affine map of the channels of (n, C, h, w) to mean 0 and deviation 1."""

    def __init__(self, moments: Moments) -> None:
        super().__init__()
        self.register_buffer("mean", moments.mean.float()[:, None, None])
        self.register_buffer("scale", 1 / moments.deviation.float()[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        """(n, C, h, w) of the same shape."""
        return (x - self.mean) * self.scale


class LinearHead(nn.Module):
    """One linear layer, the same at every patch, and bilinear interpolation (DINOv2's and DINOv3's linear heads)."""

    def __init__(self, moments: Sequence[Moments], channels: int, *, upsample: int) -> None:
        super().__init__()
        (own,) = moments
        self.norm = Standardise(own)
        self.layer = nn.Conv2d(len(own.mean), channels, 1)
        self.upsample = upsample
        nn.init.normal_(self.layer.weight, std=0.01)
        nn.init.zeros_(self.layer.bias)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """(n, channels, upsample * h, upsample * w) of one level (n, C, h, w)."""
        (x,) = levels
        return _resized(self.layer(self.norm(x)), self.upsample * x.shape[-2], self.upsample * x.shape[-1])


class DPTHead(nn.Module):
    """A dense prediction transformer's decoder (Ranftl et al. 2021), narrow and without read-out tokens.

    The four levels are laid on grids of 4, 2, 1 and 1/2 times the patches', and fused from the coarsest to the finest.
    """

    def __init__(self, moments: Sequence[Moments], channels: int, *, width: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(Standardise(own) for own in moments)
        self.project = nn.ModuleList(nn.Conv2d(len(own.mean), width, 1) for own in moments)
        self.smooth = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in moments)
        self.fuse = nn.ModuleList(_Residual(width) for _ in moments)
        self.out = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, channels, 1)
        )
        nn.init.normal_(self.out[-1].weight, std=0.01)
        nn.init.zeros_(self.out[-1].bias)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """(n, channels, 4 h, 4 w) of four levels (n, C, h, w) from shallow to deep."""
        rows, columns = levels[0].shape[-2:]
        laid = [
            smooth(_resized(project(norm(x)), max(1, round(rows * scale)), max(1, round(columns * scale))))
            for x, scale, norm, project, smooth in zip(
                levels, _SCALES, self.norms, self.project, self.smooth, strict=True
            )
        ]
        x = torch.zeros_like(laid[-1])
        for level, fuse in zip(reversed(laid), reversed(self.fuse), strict=True):
            x = fuse(_resized(x, *level.shape[-2:]) + level)
        return self.out(x)


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.relu(self.first(F.relu(x))))


def _resized(x: Tensor, rows: int, columns: int) -> Tensor:
    """Bilinear, the image's borders kept in place."""
    if tuple(x.shape[-2:]) == (rows, columns):
        return x
    return F.interpolate(x, size=(rows, columns), mode="bilinear", align_corners=False)
