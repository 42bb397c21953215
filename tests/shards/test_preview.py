from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shards.format import ShardsError
from shards.plan import DataConfig, Plan
from shards.preview import write_contact_sheet
from shards.reader import Dataset


def test_sheet_shows_the_pictures_that_the_plan_draws(ramps: Callable[..., Dataset], tmp_path: Path) -> None:
    dataset = ramps([8, 9], size=(48, 64))
    said = write_contact_sheet(dataset, tmp_path / "sheet.png", sequences=3, views=4, size=96, seed=5)
    assert said.startswith("3 sequences of 4 views, mean overlap of views drawn together 0.")
    sheet = np.asarray(Image.open(tmp_path / "sheet.png")).astype(int)
    plan = Plan(dataset, DataConfig(images_per_lane=4, views=(4, 4), lanes=1, seed=5))
    width, top = round(96 * 64 / 48), 6 + 22
    for row in range(3):
        drawn = plan.lane_step(row, 0)
        for column, frame in enumerate(drawn.frames):
            left = 6 + column * (width + 6)
            cell = sheet[top + row * (22 + 96 + 16 + 6) :, left:][:96, :width]
            blue = (37 * int(drawn.chunks[0]) + 9 * int(frame)) % 256  # what a ramp's frame is coloured with
            assert abs(np.median(cell[..., 2]) - blue) < 6


def test_unknown_overlap_is_said_to_be_unknown(ramps: Callable[..., Dataset], tmp_path: Path) -> None:
    said = write_contact_sheet(ramps([8], known=False), tmp_path / "sheet.png", sequences=1, size=40)
    assert "overlap unknown" in said


@pytest.mark.parametrize(
    ("options", "reason"),
    [({"split": "val"}, "val split"), ({"views": 0}, "--views"), ({"sequences": 1000}, "--sequences")],
)
def test_sheet_that_cannot_be_made(
    ramps: Callable[..., Dataset], tmp_path: Path, options: dict, reason: str
) -> None:
    with pytest.raises(ShardsError, match=reason):
        write_contact_sheet(ramps([4]), tmp_path / "sheet.png", **options)
    with pytest.raises(ShardsError, match="does not exist"):
        write_contact_sheet(ramps([4], name="other"), tmp_path / "nowhere" / "sheet.png")
    assert not (tmp_path / "sheet.png").exists()
