"""ARKitScenes: captures of both releases, held in any of four ways, with files named by time and poses ten a second."""

from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from tests.trees.figures import Figures, measure
from tests.trees.world import View, World, render_world

CAPTURE, RAW = "41048190", "42444946"
HELD = {"upright": 0, "left": 1, "down": 2, "right": 3}
"""Where the sky is in the stored pictures -> quarter turns, against the clock, that bring it there."""


def write(
    root: Path, world: World, sky: Literal["upright", "left", "down", "right"] = "left"
) -> dict[str, View]:
    """Write a capture of the 3D detection release, its sky at `sky`; returns file name -> the view in the file.

    A picture after the trajectory's end and one without intrinsics are there too. `metadata.csv` names a wrong sky.
    """
    folder = root / "3dod" / "Training" / CAPTURE / f"{CAPTURE}_frames"
    turned = [turn(view, HELD[sky]) for view in world.views]
    views = _write_frames(folder, CAPTURE, "lowres_wide", turned, depth_step=1)
    stray = Image.fromarray(turned[0].image)
    stray.save(folder / "lowres_wide" / f"{CAPTURE}_250.000.png")
    lost = turned[0].intrinsics[[0, 1, 0, 1], [0, 1, 2, 2]]
    _write_pincam(folder / "lowres_wide_intrinsics" / f"{CAPTURE}_250.000.pincam", stray.size, lost)
    stray.save(folder / "lowres_wide" / f"{CAPTURE}_99.980.png")
    (root / "3dod" / "metadata.csv").write_text(
        f"video_id,visit_id,fold,sky_direction\n{CAPTURE},1,Training,Up\n"
    )
    return views


def write_raw(root: Path, world: World) -> dict[str, View]:
    """Write a capture of the raw release: large pictures beside small ones, and depth of half their size."""
    folder = root / "raw" / "Validation" / RAW
    _write_frames(folder, RAW, "lowres_wide", [world.views[-1]] * len(world.views), depth_step=2)
    return _write_frames(folder, RAW, "vga_wide", list(world.views), depth_step=2)


def turn(view: View, quarters: int) -> View:
    """The view of a camera turned about its axis so that the picture turns by quarters against the clock."""
    for _ in range(quarters):
        width = view.image.shape[1]
        # x' = y and y' = width - x: in pixels as in the camera's axes, there without the width
        axes = np.array([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]])
        (fx, _, cx), (_, fy, cy), _ = view.intrinsics
        view = View(
            image=np.ascontiguousarray(np.rot90(view.image)),
            intrinsics=np.array([[fy, 0, cy], [0, fx, width - cx], [0, 0, 1]]),
            world_to_camera=axes @ view.world_to_camera,
            depth=np.ascontiguousarray(np.rot90(view.depth)),
            points=view.points,
            xy=np.column_stack([view.xy[:, 1], width - view.xy[:, 0]]),
        )
    return view


def figures(root: Path) -> Figures:
    """The source's row, from a capture whose pictures lie on their side."""
    world = render_world(6)
    views = write(root / "tree", world, "left")
    upright = dict(zip(views, world.views, strict=True))
    return measure("arkitscenes", [root / "tree"], root / "out", views, by="depth", upright=upright)


def _write_frames(
    folder: Path, capture: str, pictures: str, views: list[View], *, depth_step: int
) -> dict[str, View]:
    for kind in (pictures, f"{pictures}_intrinsics", "lowres_depth"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    shown, rows = {}, []
    for i, view in enumerate(views):
        time = 99.95 + 0.5 * i  # two digits before the point, then three
        name = f"{capture}_{time:.3f}.png"
        shown[name] = view
        Image.fromarray(view.image).save(folder / pictures / name)
        numbers = view.intrinsics[[0, 1, 0, 1], [0, 1, 2, 2]]
        late = f"{capture}_{time + 0.001 * (i % 3 - 1):.3f}.pincam"
        _write_pincam(folder / f"{pictures}_intrinsics" / late, view.image.shape[1::-1], numbers)
        depth = (1000 * view.depth[::depth_step, ::depth_step]).round().astype(np.uint16)
        Image.fromarray(depth).save(folder / "lowres_depth" / name)
        rows += [_trajectory_row(view, time, back) for back in (-1, 1)]
    (folder / "lowres_wide.traj").write_text("\n".join(rows) + "\n")
    return shown


def _write_pincam(path: Path, size: tuple[int, int], numbers: np.ndarray) -> None:
    path.write_text(" ".join(f"{x:.8f}" for x in (*size, *numbers)))


def _trajectory_row(view: View, time: float, side: int) -> str:
    """The pose 50 ms before or after the picture: half way between the two it stands where the view does."""
    step = side * np.array([0.11, -0.07, 0.05])
    rotation = _rotation(step) @ view.world_to_camera[:, :3]
    centre = view.camera_to_world[:3, 3] + 0.3 * step
    numbers = (time + 0.05 * side, *_axis_angle(rotation), *(-rotation @ centre))
    return " ".join(f"{x:.12f}" for x in numbers)


def _rotation(vector: np.ndarray) -> np.ndarray:
    """Rodrigues' formula."""
    angle = np.linalg.norm(vector)
    x, y, z = vector / angle
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def _axis_angle(rotation: np.ndarray) -> np.ndarray:
    """By the eigenvector of eigenvalue 1; the sign by the skew part."""
    angle = np.arccos(np.clip((np.trace(rotation) - 1) / 2, -1, 1))
    values, vectors = np.linalg.eig(rotation)
    axis = vectors[:, np.argmin(abs(values - 1))].real
    skew = np.array(
        [rotation[2, 1] - rotation[1, 2], rotation[0, 2] - rotation[2, 0], rotation[1, 0] - rotation[0, 1]]
    )
    return angle * axis * np.sign(axis @ skew)
