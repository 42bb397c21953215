"""How much arithmetic a forward pass takes: a closed form over shapes, without building or running a model.

Counted are the matrix products, a multiply-add as two; norms, softmax, GELU, rotations and the loss are left
out, as torch's own counter leaves them out. A block of width D over T tokens with K keys each takes
24 T D^2 + 4 T K D. The backward pass takes twice as much again.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mum.errors import InputError
from mum.masking import count_decoded, count_kept, reference_views

if TYPE_CHECKING:
    from mum.masked import MuMConfig


def forward_flops(
    config: "MuMConfig",
    views: Sequence[int],
    size: int | tuple[int, int],
    *,
    mask_ratio: float = 0.75,
    decode_fraction: float = 1.0,
    reference_view: bool = False,
) -> int:
    """Floating-point operations of `MuM.forward` on one pack.

    Args:
        config: of a model with a decoder.
        views: images of each scene.
        size: of an image in pixels: a side, or (height, width).
        mask_ratio, decode_fraction, reference_view: as for `MuM.forward`.

    Raises:
        InputError: no decoder, a size that is no multiple of the patch, or what the forward pass would refuse.
    """
    if config.decoder is None:
        raise InputError(f"this {config.name} has no decoder: a forward pass needs one")
    patch = config.encoder.patch_size
    height, width = (size, size) if isinstance(size, int) else size
    if height % patch or width % patch:
        raise InputError(
            f"images of {height} x {width} pixels do not divide into patches of {patch} x {patch}"
        )
    patches = (height // patch) * (width // patch)
    pixels = 3 * patch * patch
    kept = count_kept(patches, mask_ratio)
    decoded = count_decoded(patches - kept, decode_fraction)
    whole = len(reference_views(tuple(views), decode_fraction)[0]) if reference_view else 0
    images = sum(views)

    encoded = images * _encoder(config, kept, pixels) + whole * (
        _encoder(config, patches, pixels) - _encoder(config, kept, pixels)
    )
    decoder = config.decoder
    embedded = images * (1 + kept) + whole * (patches - kept)
    embed = 2 * embedded * config.encoder.width * decoder.width
    # All patches run through the head unless only a part of them was decoded.
    answered = patches if decoded == patches - kept else decoded
    head = 2 * images * answered * decoder.width * pixels
    tokens = 1 + kept + decoded
    within_scene = decoder.depth // 2
    frame = (decoder.depth - within_scene) * images * _block(decoder.width, tokens, tokens)
    scene = within_scene * sum(
        count * _block(decoder.width, tokens, tokens * (count if decoder.scene_wide else 1))
        for count in views
    )
    return encoded + embed + frame + scene + head


def _encoder(config: "MuMConfig", patches: int, pixels: int) -> int:
    """Of one image with so many patches: their embedding, then every block."""
    width = config.encoder.width
    return 2 * patches * pixels * width + config.encoder.depth * _block(width, 1 + patches, 1 + patches)


def _block(width: int, tokens: int, keys: int) -> int:
    """Projections of 4 D^2 and an MLP of 8 D^2 weights, then scores and their sums over values."""
    return 24 * tokens * width**2 + 4 * tokens * keys * width
