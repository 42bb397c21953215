"""Features as colours: like features alike, for every encoder, from the features alone."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from probes.data.frames import Frame
from probes.data.square import SquareFrames
from probes.encoders.features import FeatureMaps
from probes.report import pca_exhibits


def frames(count: int) -> SquareFrames:
    def frame(k: int) -> Frame:
        image = np.full((16, 16, 3), 40 * k, np.uint8)
        return Frame(
            name=f"view{k}",
            scene="castle",
            height=16,
            width=16,
            image=lambda: image,
            digest=lambda: f"{k:064d}",
        )

    return SquareFrames([frame(k) for k in range(count)], 16, "crop")


def picture(content: str) -> np.ndarray:
    data = re.search(r"base64,([^\"]+)", content)[1]
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def test_every_view_is_shown_under_every_encoder_and_like_features_alike() -> None:
    rng = np.random.Generator(np.random.Philox(1))
    kinds = rng.normal(size=(3, 8)).astype(np.float32)
    layout = [np.array([[0, 1], [2, 0]]), np.array([[1, 1], [0, 2]])]
    maps = FeatureMaps([kinds[one] for one in layout])
    noise = FeatureMaps([rng.normal(size=(4, 4, 8)).astype(np.float32) for _ in range(2)])
    exhibits = pca_exhibits(frames(2), {"sure": maps, "noise": noise})
    assert [[panel.label for panel in exhibit.panels] for exhibit in exhibits] == [
        ["image", "sure", "noise"]
    ] * 2
    assert [exhibit.detail for exhibit in exhibits] == ["castle", "castle"]
    shown = [picture(exhibit.panels[1].content) for exhibit in exhibits]
    assert shown[0].shape == (2, 2, 3)
    colours = {tuple(shown[k][i, j]): int(layout[k][i, j]) for k in (0, 1) for i in (0, 1) for j in (0, 1)}
    assert len(colours) == 3
    for k in (0, 1):
        for i in (0, 1):
            for j in (0, 1):
                assert colours[tuple(shown[k][i, j])] == layout[k][i, j]
    # Over all views together the colours fill their range and do not leave it.
    spread = np.stack([picture(exhibit.panels[2].content) for exhibit in exhibits])
    assert ((spread > 0) & (spread < 255)).all()
    assert spread.mean(axis=(0, 1, 2)) == pytest.approx([127.5] * 3, abs=2)


def test_features_of_fewer_than_three_channels_are_left_out() -> None:
    thin = FeatureMaps([np.zeros((2, 2, 2), np.float32)])
    (exhibit,) = pca_exhibits(frames(1), {"thin": thin})
    assert [panel.label for panel in exhibit.panels] == ["image"]
