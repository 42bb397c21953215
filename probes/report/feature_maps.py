"""Features as pictures: the three leading directions of each encoder's features as red, green and blue."""

from collections.abc import Mapping

import numpy as np
import torch

from mum.pictures import fit_pca, pca_colours
from probes.data.square import SquareFrames
from probes.encoders.features import FeatureMaps
from probes.exhibits import Exhibit, Panel, image_tag

_CAPTION = (
    "Each patch is coloured by its feature's place along the three leading principal directions of that encoder's "
    "features over these images. Same colour, similar feature; colours of two encoders cannot be compared. Surfaces "
    "that keep their colour from view to view are those that an encoder recognises."
)


def pca_exhibits(frames: SquareFrames, maps: Mapping[str, FeatureMaps]) -> list[Exhibit]:
    """An exhibit for each frame: the image, then every encoder's features of it as colours.

    Args:
        frames: a few images, best several views of a scene.
        maps: of each encoder by label, its features of these frames in their order.
    """
    colours: dict[str, np.ndarray] = {}
    for label, found in maps.items():
        grid = found.grid
        tokens = torch.cat([found.tokens([index]) for index in range(len(frames))])
        tokens = tokens.unflatten(1, grid)  # (n, h, w, C)
        if tokens.shape[-1] < 3:
            continue
        colours[label] = pca_colours(tokens, *fit_pca(tokens))
    exhibits = []
    for index, name in enumerate(frames.names):
        image = np.ascontiguousarray(frames.load(index).transpose(1, 2, 0))
        panels = [Panel(label="image", caption="", content=image_tag(image, name))]
        panels += [
            Panel(label=label, caption=f"{shown[index].shape[0]} × {shown[index].shape[1]} patches",  # noqa: RUF001
                  content=image_tag(shown[index], f"features of {name} by {label}"))
            for label, shown in colours.items()
        ]  # fmt: skip
        exhibits.append(
            Exhibit(
                title=f"View {index + 1}",
                detail=frames.frames[index].scene,
                panels=tuple(panels),
                caption=_CAPTION,
            )
        )
    return exhibits
