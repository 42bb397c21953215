"""The decoder: puts mask tokens back in place and alternates attention within an image and within a scene.

Tokens are (I, 1 + L, width): the class token first, then the patches in row-major order, or of every image
the same number of patches in any order; the images of a scene are contiguous. Views carry no embedding, so
their order means nothing. This file knows no pixels and no losses. Source: MuM, arXiv 2511.17309, section 3.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mum.attention import SceneLayout
from mum.block import Block
from mum.errors import InputError
from mum.rope import compute_dtype, rope_table, signed_sin


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """Shape of the decoder."""

    width: int
    """Channels of a token."""
    depth: int
    """Blocks of both kinds together, alternating frame-wise, scene-wide, frame-wise, ..."""
    heads: int
    """Attention heads a block; width / heads must be a multiple of 4."""
    norm_eps: float = 1e-5
    """Epsilon of every layer norm."""
    scene_wide: bool = True
    """Whether every second block attends within the scene. False keeps all of them within an image: single-view
    MAE, whatever the packs hold."""
    class_tokens_between_views: Literal["identity", "zero"] = "identity"
    """Rotation of class tokens in scene-wide blocks. "zero" makes their queries and keys zero, as in the
    released weights: a legacy switch."""

    def __post_init__(self) -> None:
        if self.width % self.heads or (self.width // self.heads) % 4:
            raise InputError(
                f"a decoder of width {self.width} with {self.heads} heads has heads of "
                f"{self.width / self.heads:g}: the head width must be a multiple of 4"
            )


class Unmasked(NamedTuple):
    """Images of a pack that reach the decoder whole, beside the masked ones."""

    tokens: Tensor
    """(U, 1 + L, input_width) class token and all patches, row-major."""
    order: Tensor
    """(I,) int64 that brings the masked images, followed by these, into pack order."""


class Decoder(nn.Module):
    """Embed kept tokens, put mask tokens in place of the rest, alternate blocks, project every patch.

    Args:
        config: its shape.
        input_width: channels of the encoder's tokens.
        output_width: numbers a patch, patch * patch * 3 for pixels.
    """

    most_views: int | None = None
    """Views that no scene will exceed, if known (`mum.use_attention`)."""

    def __init__(self, config: DecoderConfig, input_width: int, output_width: int) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Linear(input_width, config.width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, config.width))
        scene_depth = config.depth // 2
        shape = (config.width, config.heads, config.norm_eps)
        self.frame_blocks = nn.ModuleList(Block(*shape) for _ in range(config.depth - scene_depth))
        self.scene_blocks = nn.ModuleList(Block(*shape) for _ in range(scene_depth))
        self.norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.head = nn.Linear(config.width, output_width)
        self.init_weights()

    def init_weights(self) -> None:
        """Draw the weights from torch's generator, as MAE does: Xavier matrices, a normal mask token."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(
        self,
        x: Tensor,
        place: Tensor,
        grid: tuple[int, int],
        views: tuple[int, ...],
        *,
        part: Tensor | None = None,
        unmasked: Unmasked | None = None,
    ) -> Tensor:
        """Predict every patch of every image, or a part of the masked ones.

        Args:
            x: (I, 1 + K, input_width) class token and kept patches of the masked images, as the encoder gave
                them.
            place: (I, L) int64: where in [kept tokens, mask tokens] patch l of an image is found; from
                `mum.masking.uniform_mask`.
            grid: patches (down, across); their product is L.
            views: images of each scene, in pack order.
            part: (I, K + P) int64: decode but these patches, the kept ones in the order of x, then P masked.
            unmasked: images that are not among x, and not with `part`.

        Returns:
            (I, L, output_width); with `part` (I, P, output_width), the masked patches of the part.
        """
        kept = x.shape[1] - 1
        x = self.embed(x)
        if part is None:
            x = self._put_in_place(x, place)
        else:
            hidden = self.mask_token.expand(len(x), part.shape[1] - kept, -1)
            x = torch.cat((x.to(hidden.dtype), hidden), dim=1)
        if unmasked is not None:
            x = torch.cat((x, self.embed(unmasked.tokens).to(x.dtype)))[unmasked.order]
        scenes = views if self.config.scene_wide else (1,) * len(x)
        layout = SceneLayout(scenes, x.shape[1], x.device, self.most_views)
        by_count = layout.sorted()
        if by_count is not None:
            layout, order, inverse = by_count
            x = x[order]
            part = None if part is None else part[order]

        dtype = compute_dtype(x)
        head_dim = self.config.width // self.config.heads
        frame = self._table(grid, head_dim, "identity", x.device, dtype, part)
        scene, class_row = frame, self.config.class_tokens_between_views
        if class_row != "identity":
            scene = self._table(grid, head_dim, class_row, x.device, dtype, part)
        for index, frame_block in enumerate(self.frame_blocks):
            x = frame_block(x, *frame)
            if index < len(self.scene_blocks):
                x = self.scene_blocks[index](x, *scene, layout)
        x = self.head(self.norm(x[:, 1:] if part is None else x[:, 1 + kept :]))
        return x if by_count is None else x[inverse]

    def _put_in_place(self, x: Tensor, place: Tensor) -> Tensor:
        # Every masked patch points at the one mask token that follows the kept ones.
        images, kept = x.shape[0], x.shape[1] - 1
        x = torch.cat((x.to(self.mask_token.dtype), self.mask_token.expand(images, 1, -1)), dim=1)
        index = F.pad(place.clamp(max=kept) + 1, (1, 0))
        return x.gather(1, index.unsqueeze(-1).expand(-1, -1, x.shape[-1]))

    @staticmethod
    def _table(
        grid: tuple[int, int],
        head_dim: int,
        class_row: Literal["identity", "zero"],
        device: torch.device,
        dtype: torch.dtype,
        part: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        table = rope_table(grid, head_dim, class_row, device, dtype)
        if part is not None:
            # Each image has its own patches, hence its own rows; one copy for all heads.
            table = table[F.pad(part + 1, (1, 0))]
        sin, cos = table.chunk(2, dim=-1)
        return signed_sin(sin)[..., None, None, :], cos[..., None, None, :]
