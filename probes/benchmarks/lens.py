"""Pictures and depth maps of a distorted lens brought to a pinhole camera: COLMAP's THIN_PRISM_FISHEYE.

The pinhole keeps the lens's focal lengths and principal point. Colours are averaged over blocks and interpolated,
depth is taken from the nearest pixel, since a mean of two surfaces is none. Depth along the axis is the same in
both cameras. Knows no benchmark.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class ThinPrismFisheye:
    """A lens and the pinhole that stands for it, `reduction` times smaller along each side."""

    size: tuple[int, int]
    """(H, W) of its pictures."""
    parameters: tuple[float, ...]
    """fx, fy, cx, cy, k1, k2, p1, p2, k3, k4, sx1, sy1 as in COLMAP."""
    reduction: int = 1

    @property
    def pinhole_size(self) -> tuple[int, int]:
        """(h, w) of the pinhole's pictures."""
        return self.size[0] // self.reduction, self.size[1] // self.reduction

    @property
    def pinhole(self) -> NDArray[np.float64]:
        """(3, 3) intrinsics of the pinhole, in px of its own pictures."""
        fx, fy, cx, cy = np.array(self.parameters[:4]) / self.reduction
        return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])

    def project(self, rays: NDArray) -> NDArray[np.float64]:
        """Px (n, 2) of the lens's pictures at which rays (x / z, y / z), (n, 2), arrive."""
        fx, fy, cx, cy, k1, k2, p1, p2, k3, k4, sx1, sy1 = self.parameters
        length = np.linalg.norm(rays, axis=1)
        bent = np.where(length > 1e-9, np.arctan(length) / np.maximum(length, 1e-9), 1.0)
        u, v = (rays * bent[:, None]).T
        r2 = u * u + v * v
        radial = 1 + r2 * (k1 + r2 * (k2 + r2 * (k3 + r2 * k4)))
        x = u * radial + 2 * p1 * u * v + p2 * (r2 + 2 * u * u) + sx1 * r2
        y = v * radial + 2 * p2 * u * v + p1 * (r2 + 2 * v * v) + sy1 * r2
        return np.column_stack([fx * x + cx, fy * y + cy])

    def undistort(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The pinhole's picture (h, w, 3) of the lens's (H, W, 3); black where the lens sees nothing."""
        height, width = self.pinhole_size
        step = self.reduction
        blocks = picture[: height * step, : width * step].reshape(height, step, width, step, 3)
        small = blocks.mean((1, 3), dtype=np.float32)
        points = _places(self) / step - 0.5
        inside = ((points > -1) & (points < (width, height))).all(-1)
        x, y = np.moveaxis(np.clip(points, 0, (width - 1, height - 1)), -1, 0)
        column, row = np.minimum(x.astype(int), width - 2), np.minimum(y.astype(int), height - 2)
        u, v = (x - column)[..., None], (y - row)[..., None]
        above = small[row, column] * (1 - u) + small[row, column + 1] * u
        below = small[row + 1, column] * (1 - u) + small[row + 1, column + 1] * u
        return np.round((above * (1 - v) + below * v) * inside[..., None]).astype(np.uint8)

    def undistort_depth(self, depth: NDArray[np.float32]) -> NDArray[np.float32]:
        """The pinhole's depth map (h, w) of the lens's (H, W), by the nearest pixel; 0 where the lens sees nothing."""
        places = np.floor(_places(self)).astype(np.int64)
        inside = ((places >= 0) & (places < self.size[::-1])).all(-1)
        column, row = np.moveaxis(np.where(inside[..., None], places, 0), -1, 0)
        return np.where(inside, depth[row, column], np.float32(0))


@lru_cache(maxsize=4)
def _places(lens: ThinPrismFisheye) -> NDArray[np.float32]:
    """(h, w, 2): where the centre of each of the pinhole's pixels lies in the lens's pictures, px."""
    height, width = lens.pinhole_size
    y, x = np.mgrid[:height, :width] + 0.5
    k = lens.pinhole
    rays = np.column_stack([(x.ravel() - k[0, 2]) / k[0, 0], (y.ravel() - k[1, 2]) / k[1, 1]])
    return lens.project(rays).astype(np.float32).reshape(height, width, 2)
