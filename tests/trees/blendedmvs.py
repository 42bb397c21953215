"""BlendedMVS as it is downloaded: blended and masked pictures, camera files, pairs, and depth as PFM."""

from pathlib import Path

import numpy as np
from PIL import Image

from tests.trees.figures import Figures, measure
from tests.trees.world import View, World, render_world

SCENE = "5a3ca9cb270f0e3f14d0eddb"
LOW_RES = (576, 768)


def write(root: Path, world: World, scene: str = SCENE, *, depth: bool = True) -> dict[str, View]:
    """Write one scene, its cameras for 768x576; the pictures may have any size of that aspect."""
    folder = root / scene
    for name in ("blended_images", "cams", "rendered_depth_maps"):
        (folder / name).mkdir(parents=True)
    views = {f"{i:08d}.jpg": view for i, view in enumerate(world.views)}
    for i, (name, view) in enumerate(views.items()):
        Image.fromarray(view.image).save(folder / "blended_images" / name, quality=97)
        Image.new("RGB", view.image.shape[1::-1]).save(folder / "blended_images" / f"{i:08d}_masked.jpg")
        (folder / "cams" / f"{i:08d}_cam.txt").write_text(_camera(view))
        if depth:
            _write_pfm(folder / "rendered_depth_maps" / f"{i:08d}.pfm", view.depth)
    (folder / "cams" / "pair.txt").write_text(_pairs(world, neighbours=2))
    return views


def score(one: View, two: View) -> float:
    """A score of a pair as the tree lists it: larger for more points seen by both, on no particular scale."""
    return 3.25 * len(np.intersect1d(one.points, two.points))


def figures(root: Path) -> Figures:
    """The source's row, from a tree written below `root`."""
    views = write(root / "tree", render_world(4, size=(72, 96), seed=2))
    return measure("blendedmvs", [root / "tree"], root / "out", views, by="depth")


def _camera(view: View) -> str:
    scale = np.diag([LOW_RES[1] / view.image.shape[1], LOW_RES[0] / view.image.shape[0], 1])
    pose = np.vstack([view.world_to_camera, [0, 0, 0, 1]])
    text = "extrinsic\n" + "".join(" ".join(map(repr, row)) + " \n" for row in pose.tolist())
    text += "\nintrinsic\n" + "".join(
        " ".join(map(repr, row)) + " \n" for row in (scale @ view.intrinsics).tolist()
    )
    near, far = float(view.depth.min()), float(view.depth.max())
    return text + f"\n{near!r} {(far - near) / 127!r} 128 {far!r} \n"


def _write_pfm(path: Path, depth: np.ndarray) -> None:
    """Rows from the bottom up, little endian, which the negative scale says."""
    height, width = depth.shape
    rows = [depth[row].astype("<f4").tobytes() for row in range(height - 1, -1, -1)]
    path.write_bytes(f"Pf\n{width} {height}\n-1.000000\n".encode() + b"".join(rows))


def _pairs(world: World, neighbours: int) -> str:
    lines = [str(len(world.views))]
    for i, view in enumerate(world.views):
        scores = {j: score(view, other) for j, other in enumerate(world.views) if j != i}
        best = sorted(scores, key=lambda j: -scores[j])[:neighbours]
        lines += [str(i), " ".join([str(len(best)), *(f"{j} {scores[j]}" for j in best)])]
    return "\n".join(lines) + "\n"
