"""HPatches' full sequences: a flat picture and five others of it, by homographies written as the dataset does."""

from pathlib import Path

import numpy as np
from PIL import Image

from tests.trees.world import pixel_grid, render_world

SEQUENCES = ("i_dome", "v_boat", "v_wall")
IGNORED = "v_talent"
"""One of the eight sequences that nobody scores; its files hold nothing."""
SIZES = ((96, 120), (80, 130), (96, 120), (120, 96), (70, 90), (96, 140))
"""(H, W) of the six pictures."""
_TO_CORNER = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])


def write(root: Path) -> dict[str, np.ndarray]:
    """Write three sequences; returns the true homographies by `sequence/1|k`, pixel centres at +0.5."""
    base = root / "hpatches-sequences-release"
    truth = {}
    for number, sequence in enumerate(SEQUENCES):
        (base / sequence).mkdir(parents=True)
        flat = render_world(3, size=SIZES[0], seed=5).views[number].image
        Image.fromarray(flat).save(base / sequence / "1.ppm")
        for k, size in enumerate(SIZES[1:], 2):
            homography = np.eye(3) if sequence[0] == "i" else true_homography(k, number)
            picture = warp(flat, homography, SIZES[0] if sequence[0] == "i" else size)
            dark = 1 - 0.1 * k if sequence[0] == "i" else 1
            Image.fromarray((picture * dark).astype(np.uint8)).save(base / sequence / f"{k}.ppm")
            # On disk the centre of the first pixel is (0, 0).
            stored = np.linalg.inv(_TO_CORNER) @ homography @ _TO_CORNER
            np.savetxt(base / sequence / f"H_1_{k}", stored * 1.7, fmt="%.10g")
            truth[f"{sequence}/1|{k}"] = homography
    (base / IGNORED).mkdir()
    (base / IGNORED / "1.ppm").write_bytes(b"")
    return truth


def true_homography(k: int, seed: int) -> np.ndarray:
    """(3, 3) from the first picture to the k-th: turned, scaled by about k / 3, and seen from the side."""
    angle, scale = 0.1 * (k - 4) + 0.05 * seed, k / 3
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    side = np.array([4e-4 * (k - 3), -3e-4 * (seed + 1)])
    middle, target = np.array([60, 48]), np.array(SIZES[k - 1][::-1]) / 2
    centred = np.vstack([np.column_stack([turn, [0, 0]]), [*side, 1]])
    to, back = np.eye(3), np.eye(3)
    to[:2, 2], back[:2, 2] = -middle, target
    return back @ centred @ to


def warp(picture: np.ndarray, homography: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The picture (H, W, 3) as its homography shows it, at another size; black where it shows nothing."""
    points = np.column_stack([pixel_grid(*size), np.ones(size[0] * size[1])]) @ np.linalg.inv(homography).T
    return sample(picture, points[:, :2] / points[:, 2:]).reshape(*size, 3)


def sample(picture: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Colours (n, 3) at points (n, 2), bilinear, pixel centres at +0.5; black outside."""
    height, width = picture.shape[:2]
    inside = (points >= 0.5).all(1) & (points[:, 0] < width - 0.5) & (points[:, 1] < height - 0.5)
    x, y = np.where(inside[:, None], points - 0.5, 0).T
    column, row = x.astype(int), y.astype(int)
    u, v = (x - column)[:, None], (y - row)[:, None]
    right, below = np.minimum(column + 1, width - 1), np.minimum(row + 1, height - 1)
    top = picture[row, column] * (1 - u) + picture[row, right] * u
    bottom = picture[below, column] * (1 - u) + picture[below, right] * u
    return np.where(inside[:, None], top * (1 - v) + bottom * v, 0)
