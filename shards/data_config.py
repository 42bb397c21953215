"""What decides the content of every batch: the options of the data path, checked.

It knows nothing of data that exist.
"""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Literal

from shards.draw import DRAWINGS, Rule
from shards.format import ShardsError


class PlanError(ShardsError):
    """The plan cannot be made from these data and this configuration; one sentence with numbers and the
    mend."""


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What decides the content of every batch. Nothing here may change within a run."""

    size: int = 256
    """Side of the square crops, px."""
    images_per_lane: int = 96
    """Images a lane gives to a step (I)."""
    views: tuple[int, int] = (2, 24)
    """Fewest and most views of a scene in a batch (S); (1, 1) is single-view training."""
    single_share: float = 0.0
    """Share of a lane's images that are photographs by themselves (scenes of one frame), on top of the scenes
    of `views`; 0.1 is the paper's."""
    lanes: int = 8
    """Virtual ranks (V); a step holds lanes * images_per_lane images, whatever the number of real ranks."""
    seed: int = 0
    """Seed of everything on the data path."""
    crop_area: tuple[float, float] = (0.2, 1.0)
    """Share of the stored picture's area that a crop covers, drawn uniformly per view."""
    crop_aspect: tuple[float, float] = (3 / 4, 4 / 3)
    """Width by height of a crop, drawn log-uniformly per view."""
    flip: Literal["scene", "none", "view"] = "scene"
    """Mirror all views of a scene together (cameras follow), none, or each view by itself (cameras are
    dropped)."""
    drawing: Literal["connected", "window", "anchor_topk", "uniform"] = "connected"
    """How the views of a scene are chosen: a connected set by overlap, near in the scene's order, among the
    best partners of one view, or any."""
    band: tuple[float, float] = (0.1, 0.8)
    """Overlap that a view must have with its best partner among those drawn before it (`connected`)."""
    band_end: tuple[float, float] | None = None
    """Where the band has moved to after `band_steps`, linearly, an epoch at a time; None: it stays."""
    band_steps: int = 0
    """Steps over which the band moves to `band_end`."""
    window: float = 2.0
    """Reach on either side of the first view, in multiples of the number of views (`window`)."""
    topk: int = 48
    """Best partners of the first view among which the others are drawn (`anchor_topk`)."""

    def __post_init__(self) -> None:
        low, high = self.views
        if not 1 <= low <= high:
            raise PlanError(f"views must be (fewest, most) with 1 <= fewest <= most, not {self.views}")
        for field in ("size", "images_per_lane", "lanes", "topk"):
            if getattr(self, field) < 1:
                raise PlanError(f"{field} must be at least 1, not {getattr(self, field)}")
        if not 0 <= self.seed < 2**63:
            raise PlanError(f"seed must lie in [0, 2**63), not {self.seed}")
        if not 0 < self.crop_area[0] <= self.crop_area[1] <= 1:
            raise PlanError(f"crop_area must be shares 0 < least <= most <= 1, not {self.crop_area}")
        if not 0 < self.crop_aspect[0] <= self.crop_aspect[1]:
            raise PlanError(f"crop_aspect must be 0 < least <= most, not {self.crop_aspect}")
        for field in ("band", "band_end"):
            band = getattr(self, field)
            if band is not None and not 0 <= band[0] < band[1] <= 1:
                raise PlanError(f"{field} must be overlaps 0 <= least < most <= 1, not {band}")
        if (self.band_end is None) != (self.band_steps == 0) or self.band_steps < 0:
            raise PlanError("a band that moves needs both band_end and band_steps, one that stays neither")
        if not self.window > 0:
            raise PlanError(f"window must be more than 0, not {self.window}")
        if not 0 <= self.single_share < 1:
            raise PlanError(f"single_share must lie in [0, 1), not {self.single_share}")
        if self.single_share and low == 1:
            raise PlanError(
                "single_share is for photographs beside scenes of 2 views and more: set views to those"
            )
        for field, known in (("flip", ("scene", "none", "view")), ("drawing", DRAWINGS)):
            if getattr(self, field) not in known:
                raise PlanError(f"{field} must be one of {', '.join(known)}, not {getattr(self, field)!r}")
        if self._scene_range() is None:
            raise PlanError(
                f"{self.scene_images} images a lane cannot be cut into scenes of {low} to {high} views:"
                f" take a multiple of {high}, or a wider range of views"
            )

    def _scene_range(self) -> tuple[int, int] | None:
        low, high = self.views
        fewest, most = -(-self.scene_images // high), self.scene_images // low
        return (fewest, most) if fewest <= most and most else None

    @property
    def single_images(self) -> int:
        """Images of a lane that are scenes of one frame."""
        return round(self.single_share * self.images_per_lane)

    @property
    def scene_images(self) -> int:
        """Images of a lane that the scenes of `views` share."""
        return self.images_per_lane - self.single_images

    @property
    def multi_view_scenes(self) -> int:
        """Scenes that share `scene_images`: by the mean of `views`, rounded to what is possible."""
        fewest, most = self._scene_range() or (1, 1)
        return min(max(round(2 * self.scene_images / sum(self.views)), fewest), most)

    @property
    def scenes_per_lane(self) -> int:
        """B: scenes that share a lane's images."""
        return self.multi_view_scenes + self.single_images

    @property
    def hash(self) -> str:
        """Hex digest of every field."""
        return hashlib.sha256(json.dumps(dataclasses.asdict(self), sort_keys=True).encode()).hexdigest()[:16]

    def rule(self, step: int) -> Rule:
        """How views are drawn at a step."""
        low, high = self.band
        if self.band_end is not None:
            moved = min(step / self.band_steps, 1.0)
            low, high = (round(a + moved * (b - a), 6) for a, b in zip(self.band, self.band_end, strict=True))
        return Rule(drawing=self.drawing, band=(low, high), window=self.window, topk=self.topk)
