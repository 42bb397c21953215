"""ScanNet-1500 in both published forms: LoFTR's arrays beside ScanNet's folders, SuperGlue's lines beside pictures.

Colour is larger than depth and of a slightly different aspect, as the sensor's is. In LoFTR's form one frame was lost
by the tracking: its pose file and the pair that names it are not finite.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from tests.trees.world import View, render_world

SIZE = (480, 640)
COLOUR = (968, 1296)
PAIRS = (
    ("scene0707_00", 15, 585),
    ("scene0707_00", 585, 45),
    ("scene0806_00", 0, 30),
    ("scene0806_00", 30, 60),
)
"""The first, third and so on of a scene's numbers are its views in this order."""
LOST = ("scene0806_00", 60)


def write(root: Path) -> dict[str, View]:
    """Write LoFTR's form; returns the views by `scene/number`, the lost one too."""
    views = _views(SIZE)
    cameras, names, poses = {}, [], []
    for name, view in views.items():
        scene, number = name.split("/")
        folder = root / "test" / scene
        for kind in ("color", "depth", "pose", "intrinsic"):
            (folder / kind).mkdir(parents=True, exist_ok=True)
        colour = Image.fromarray(view.image).resize(COLOUR[::-1], Image.Resampling.BICUBIC)
        colour.save(folder / "color" / f"{number}.jpg", quality=97)
        Image.fromarray(np.round(view.depth * 1000).astype(np.uint16)).save(
            folder / "depth" / f"{number}.png"
        )
        pose = np.full((4, 4), -np.inf) if (scene, int(number)) == LOST else view.camera_to_world
        np.savetxt(folder / "pose" / f"{number}.txt", pose, fmt="%.9g")
        for sensor, scale in (("depth", (1, 1)), ("color", (COLOUR[1] / SIZE[1], COLOUR[0] / SIZE[0]))):
            matrix = np.eye(4)
            matrix[:3, :3] = np.diag([*scale, 1]) @ view.intrinsics
            np.savetxt(folder / "intrinsic" / f"intrinsic_{sensor}.txt", matrix, fmt="%.6f")
        cameras[scene] = view.intrinsics
    for scene, first, second in PAIRS:
        names.append([int(scene[5:9]), int(scene[10:]), first, second])
        lost = LOST in {(scene, first), (scene, second)}
        pose = relative(views[f"{scene}/{first}"], views[f"{scene}/{second}"])
        poses.append(np.where(lost, np.inf, pose).ravel())
    (root / "scannet_test_1500").mkdir()
    np.savez(
        root / "scannet_test_1500" / "test.npz",
        name=np.array(names, np.uint16),
        rel_pose=np.array(poses, np.float32),
    )
    np.savez(root / "scannet_test_1500" / "intrinsics.npz", **cameras)
    return views


def write_lines(root: Path) -> dict[str, View]:
    """Write SuperGlue's form; returns the views by `scene/number`."""
    views = _views((120, 160))
    (root / "images").mkdir(parents=True)
    lines = []
    for name, view in views.items():
        Image.fromarray(view.image).save(root / "images" / _flat(name), quality=97)
    for scene, first, second in PAIRS:
        a, b = f"{scene}/{first}", f"{scene}/{second}"
        pose = np.vstack([relative(views[a], views[b]), [0, 0, 0, 1]])
        numbers = np.concatenate([views[a].intrinsics.ravel(), views[b].intrinsics.ravel(), pose.ravel()])
        lines.append(f"{_flat(a)} {_flat(b)} 0 0 {' '.join(f'{number:.5f}' for number in numbers)}\n")
    (root / "scannet_test_pairs_with_gt.txt").write_text("".join(lines))
    return views


def relative(one: View, two: View) -> np.ndarray:
    """(3, 4) that takes points of the first camera into the second."""
    return (np.vstack([two.world_to_camera, [0, 0, 0, 1]]) @ one.camera_to_world)[:3]


def _views(size: tuple[int, int]) -> dict[str, View]:
    names = list(dict.fromkeys(f"{scene}/{number}" for scene, *both in PAIRS for number in both))
    return dict(zip(names, render_world(len(names), size=size, seed=4).views, strict=True))


def _flat(name: str) -> str:
    scene, number = name.split("/")
    return f"{scene}_frame-{int(number):06d}.jpg"
