"""ETH3D's DSLR scenes: photographs through a fisheye lens with thin prisms, and depth as raw floats named .JPG.

Lens and world agree in a fine picture that both are sampled from: a pinhole's pixels are the middles of 5 x 5 of its
pixels, and the lens's are the nearest ones of the rays that COLMAP itself computes.
"""

from pathlib import Path

import numpy as np
import pycolmap
from PIL import Image

from tests.trees.colmap_model import quaternion
from tests.trees.world import View, render_world

SIZE = (48, 64)
"""(H, W) of the pinhole that a reader must give."""
REDUCTION = 4
"""The lens's pictures are so many times larger."""
LENS = (0.21047, 0.21102, -5.4e-4, 5.15e-4, -0.158023, 0.406856, -8.5e-4, 8.6e-4)
"""k1 k2 p1 p2 k3 k4 sx1 sy1: those of the scene courtyard, its prisms and tangents made ten times stronger."""
_FINE, _MARGIN = 5, 24


def write(root: Path, scene: str = "courtyard", *, views: int = 7, seed: int = 3) -> dict[str, View]:
    """Write one scene; returns what a pinhole would see, by `scene/file`."""
    height, width = SIZE
    fine = render_world(views, size=(height * _FINE + 2 * _MARGIN, width * _FINE + 2 * _MARGIN), seed=seed)
    folder = root / scene
    for place in ("images", "ground_truth_depth"):
        (folder / place / "dslr_images").mkdir(parents=True)
    truth = {f"{scene}/DSC_{286 + i:04d}.JPG": _pinhole(view) for i, view in enumerate(fine.views)}
    for (name, view), source in zip(truth.items(), fine.views, strict=True):
        colour, depth = _through_lens(view, source)
        file = name.rpartition("/")[2]
        Image.fromarray(colour).save(folder / "images" / "dslr_images" / file, "JPEG", quality=97)
        depth[:8] = np.inf  # the scanner did not reach there
        (folder / "ground_truth_depth" / "dslr_images" / file).write_bytes(depth.astype("<f4").tobytes())
    _write_model(folder / "dslr_calibration_jpg", truth)
    return truth


def _pinhole(fine: View) -> View:
    """The fine view's inner part at a fifth of its size: exactly what a pinhole sees through its pixels' centres."""
    (height, width), m, s = SIZE, _MARGIN, _FINE
    to = np.array([[1 / s, 0, -m / s], [0, 1 / s, -m / s], [0, 0, 1]])
    inner = np.s_[m : m + s * height, m : m + s * width]
    image = fine.image[inner].reshape(height, s, width, s, 3).mean((1, 3)).astype(np.uint8)
    return View(
        image=image,
        intrinsics=to @ fine.intrinsics,
        world_to_camera=fine.world_to_camera,
        depth=fine.depth[inner][s // 2 :: s, s // 2 :: s],
        points=np.empty(0, np.int64),
        xy=np.empty((0, 2)),
    )


def _camera(view: View) -> pycolmap.Camera:
    k = REDUCTION * view.intrinsics
    return pycolmap.Camera(
        model="THIN_PRISM_FISHEYE",
        width=REDUCTION * SIZE[1],
        height=REDUCTION * SIZE[0],
        params=[k[0, 0], k[1, 1], k[0, 2], k[1, 2], *LENS],
    )


def _through_lens(view: View, fine: View) -> tuple[np.ndarray, np.ndarray]:
    """Colour and depth that the lens sees: those of the fine pixel that each of its rays hits."""
    camera = _camera(view)
    y, x = np.mgrid[: camera.height, : camera.width] + 0.5
    rays = np.array(camera.cam_from_img(np.column_stack([x.ravel(), y.ravel()])))
    if rays.shape[1] == 2:
        rays = np.column_stack([rays, np.ones(len(rays))])
    points = rays @ fine.intrinsics.T
    column, row = np.floor(points[:, :2] / points[:, 2:]).astype(int).T
    assert min(column.min(), row.min()) >= 0, "the fine picture is too narrow for the lens"
    shape = camera.height, camera.width
    return fine.image[row, column].reshape(*shape, 3), fine.depth[row, column].reshape(shape)


def _write_model(folder: Path, truth: dict[str, View]) -> None:
    folder.mkdir()
    camera = _camera(next(iter(truth.values())))
    parameters = " ".join(map(repr, map(float, camera.params)))
    (folder / "cameras.txt").write_text(
        "# Camera list with one line of data per camera:\n"
        f"0 THIN_PRISM_FISHEYE {camera.width} {camera.height} {parameters}\n"
    )
    lines = ["# Image list with two lines of data per image:\n"]
    for number, (name, view) in enumerate(reversed(truth.items())):
        pose = [*quaternion(view.world_to_camera[:, :3]).tolist(), *view.world_to_camera[:, 3].tolist()]
        file = f"dslr_images/{name.rpartition('/')[2]}"
        lines.append(f"{number} {' '.join(map(repr, pose))} 0 {file}\n1.5 2.5 -1\n")
    (folder / "images.txt").write_text("".join(lines))
