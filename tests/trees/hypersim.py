"""Hypersim: scenes with cameras in OpenGL's axes and the artist's units, one of them with a tilted lens."""

import csv
from pathlib import Path

import h5py
import numpy as np
from PIL import Image

from tests.trees.figures import Figures, measure
from tests.trees.world import View, World, render_world

PLAIN, TILTED, BAD = "ai_001_001", "ai_037_010", "ai_026_008"
METRES = {PLAIN: 0.0254, TILTED: 0.01, BAD: 0.01}
"""Metres of an asset unit."""
KEYFRAMES = 9


def write(root: Path, world: World) -> dict[str, View]:
    """Write three scenes: two cameras share the views in the first, the second is tilted, the third is bad.

    The pictures lie among previews of other kinds. One picture was not released and one has no keyframe.
    """
    half = len(world.views) // 2
    tilt = _rotation_xy(0.09, -0.13)
    shown = {
        **_write_camera(root, PLAIN, "cam_00", world.views[:half], np.eye(3)),
        **_write_camera(root, PLAIN, "cam_01", world.views[half:], np.eye(3)),
        **_write_camera(root, TILTED, "cam_00", world.views[: half + 1], tilt),
    }
    _write_camera(root, BAD, "cam_00", world.views[:2], np.eye(3))
    first = root / PLAIN / "images" / "scene_cam_00_final_preview"
    for number in (8, 77):  # 8 was withdrawn, 77 has no keyframe
        Image.fromarray(world.views[0].image).save(first / f"frame.{number:04d}.tonemap.jpg")
    _write_parameters(root, world.views[0], {PLAIN: np.eye(3), TILTED: tilt, BAD: np.eye(3)})
    _write_split(root)
    return shown


def figures(root: Path) -> Figures:
    """The source's row, from a tree written below `root`."""
    views = write(root / "tree", render_world(6))
    return measure("hypersim", [root / "tree"], root / "out", views, by="depth")


def _write_camera(
    root: Path, scene: str, camera: str, views: tuple[View, ...], tilt: np.ndarray
) -> dict[str, View]:
    """The declared camera looks elsewhere than along the picture's normal: x_picture = tilt @ x_declared."""
    detail = root / scene / "_detail"
    preview = root / scene / "images" / f"scene_{camera}_final_preview"
    geometry = root / scene / "images" / f"scene_{camera}_geometry_hdf5"
    for folder in (detail / camera, preview, geometry):
        folder.mkdir(parents=True)
    (detail / "metadata_scene.csv").write_text(
        f"parameter_name,parameter_value\nmeters_per_asset_unit,{METRES[scene]!r}\n"
    )
    positions = np.zeros((KEYFRAMES, 3))
    orientations = np.tile(np.eye(3), (KEYFRAMES, 1, 1))
    shown = {}
    for i, view in enumerate(views):
        number = 2 * i
        name = f"frame.{number:04d}.tonemap.jpg"
        shown[f"{scene}/{camera}/{name}"] = view
        Image.fromarray(view.image).save(preview / name, quality=97)
        for other in ("color", "diffuse_illumination", "diffuse_reflectance", "residual"):
            Image.new("RGB", view.image.shape[1::-1]).save(preview / f"frame.{number:04d}.{other}.jpg")
        positions[number] = view.camera_to_world[:3, 3] / METRES[scene]
        right, down, forward = tilt.T @ view.world_to_camera[:, :3]
        orientations[number] = np.column_stack([right, -down, -forward])
        _write_hdf5(geometry / f"frame.{number:04d}.depth_meters.hdf5", _distance(view).astype(np.float16))
    order = np.arange(KEYFRAMES)[::-1]
    _write_hdf5(detail / camera / "camera_keyframe_positions.hdf5", positions[order])
    _write_hdf5(detail / camera / "camera_keyframe_orientations.hdf5", orientations[order])
    _write_hdf5(detail / camera / "camera_keyframe_frame_indices.hdf5", order)
    return shown


def _distance(view: View) -> np.ndarray:
    """(H, W) metres from the camera's centre."""
    height, width = view.depth.shape
    (fx, _, cx), (_, fy, cy), _ = view.intrinsics
    x = (np.arange(width) + 0.5 - cx) / fx
    y = (np.arange(height) + 0.5 - cy) / fy
    return view.depth * np.sqrt(1 + x[None] ** 2 + y[:, None] ** 2)


def _write_parameters(root: Path, view: View, tilts: dict[str, np.ndarray]) -> None:
    """u to the right and v upwards, -1 to 1 from edge to edge; the camera's axes are OpenGL's."""
    height, width = view.depth.shape
    (fx, _, cx), (_, fy, cy), _ = view.intrinsics
    uv_from_rays = np.array(
        [[2 * fx / width, 0, 2 * cx / width - 1], [0, -2 * fy / height, 1 - 2 * cy / height], [0, 0, 1]]
    )
    rows = []
    for scene, tilt in tilts.items():
        uv_from_camera = uv_from_rays @ tilt @ np.diag([1.0, -1, -1])
        camera_from_uv = np.linalg.inv(uv_from_camera)
        projection = np.zeros((4, 4))
        projection[[0, 1, 3], :3] = uv_from_camera
        projection[2] = (0, 0, -1.002002002002002, -2.002002002002002)
        row = {
            "scene_name": scene,
            "settings_output_img_height": float(height),
            "settings_output_img_width": float(width),
            "settings_units_info_meters_scale": METRES[scene],
            "use_camera_physical": scene == TILTED,
            "settings_camera_fov": 1.0471975803375244,
        }
        row |= {f"M_cam_from_uv_{i}{j}": camera_from_uv[i, j] for i in range(3) for j in range(3)}
        row |= {f"M_proj_{i}{j}": projection[i, j] for i in range(4) for j in range(4)}
        rows.append(row)
    _write_csv(root / "metadata_camera_parameters.csv", rows)


def _write_split(root: Path) -> None:
    """The first scene is for training, the tilted one for testing; a withdrawn frame has no partition."""
    rows = []
    for scene, camera, partition in (
        (PLAIN, "cam_00", "train"),
        (PLAIN, "cam_01", "train"),
        (TILTED, "cam_00", "test"),
        (BAD, "cam_00", "train"),
    ):
        for number in range(KEYFRAMES):
            withdrawn = (scene, camera, number) == (PLAIN, "cam_00", 8)
            rows.append(
                {
                    "scene_name": scene,
                    "camera_name": camera,
                    "frame_id": number,
                    "included_in_public_release": not withdrawn,
                    "exclude_reason": "CONTENT FLAGGED FOR REMOVAL" if withdrawn else "",
                    "split_partition_name": "" if withdrawn else partition,
                }
            )
    _write_csv(root / "metadata_images_split_scene_v1.csv", rows)


def _write_csv(path: Path, rows: list[dict]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def _write_hdf5(path: Path, array: np.ndarray) -> None:
    with h5py.File(path, "w") as file:
        file["dataset"] = array


def _rotation_xy(x: float, y: float) -> np.ndarray:
    about_x = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    about_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    return about_x @ about_y
