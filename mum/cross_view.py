"""The cross-view gain: how much a decoder's pictures owe to the other views of the same scene.

The masked loss when a scene's other views are swapped for strangers', minus the loss with its own: same
images, same masks. About zero for a model that looks at one view only.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from mum.errors import InputError
from mum.masked import MuM


@torch.no_grad()
def cross_view_gain(
    model: MuM,
    images: Tensor,
    noise: Tensor,
    *,
    mask_ratio: float = 0.75,
    reference_view: bool = False,
    scored: Tensor | None = None,
    between: Callable[[], None] = lambda: None,
) -> tuple[float, float]:
    """Masked loss among a scene's own views and among strangers'.

    Among strangers, view k of scene j sits with views of other scenes only: pack j holds view k of scene
    (j + k) mod B, so every image still appears once, at its own view number. Both losses run through the
    model's forward, so sharded models work as they do in training.

    Args:
        model: with its decoder; put into eval mode for the duration.
        images: (B, S, 3, H, W), uint8 or normalised; each row a different scene; B >= S >= 2.
        noise: (B * S, L) that fixes the masks, image by image.
        mask_ratio: share of patches masked.
        reference_view: leave the first view of every pack unmasked and unscored, as `MuM.forward` does.
        scored: (B,) bool, the scenes whose images count (the others are only company); all if None.
        between: called between the two passes, and may raise to end it there.

    Returns:
        (own, strangers), mean losses over the scored scenes' images. The gain is strangers - own.

    Raises:
        InputError: fewer scenes than views, a single view, or no scene to score.
    """
    if images.dim() != 5 or not images.shape[0] >= images.shape[1] >= 2:
        raise InputError(
            f"images of shape {tuple(images.shape)}: the cross-view gain needs (B, S, 3, H, W) with at least "
            "two views a scene and at least as many scenes as views"
        )
    scenes, views = images.shape[:2]
    if scored is None:
        scored = torch.ones(scenes, dtype=torch.bool)
    scored = scored.to(images.device)
    if not scored.any():
        raise InputError(f"none of the {scenes} scenes is to be scored")
    pack = torch.arange(scenes, device=images.device)[:, None]
    view = torch.arange(views, device=images.device)
    stranger = (pack + view) % scenes
    noise = noise.unflatten(0, (scenes, views))

    def run(images: Tensor, noise: Tensor) -> Tensor:
        out = model(images, mask_ratio=mask_ratio, noise=noise, reference_view=reference_view)
        return model.masked_loss(images, out).unflatten(0, (scenes, views))[:, int(reference_view) :]

    was_training = model.training
    model.eval()
    try:
        own = run(images, noise.flatten(0, 1))
        between()
        shuffled_noise = noise[stranger.to(noise.device), view.to(noise.device)].flatten(0, 1)
        strangers = run(images[stranger, view], shuffled_noise)
    finally:
        model.train(was_training)
    of_strangers = scored[stranger][:, int(reference_view) :]
    return own[scored].mean().item(), strangers[of_strangers].mean().item()
