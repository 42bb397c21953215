"""NYU Depth v2's labelled set: MATLAB's HDF5 with reversed axes and text by reference, and a split that counts from 1.

Views are shown enlarged eightfold, pixel by pixel: the file knows no other size than 640 x 480. Ladicky's normals
can be written too, with the axes that the caller says.
"""

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import scipy.io
from PIL import Image

from tests.trees.world import World

SIZE = (60, 80)
"""(H, W) of the world's views."""
TIMES = 8
SCENES = ("kitchen_0004", "office_0012")
TEST, TRAIN = (2, 3, 6), (1, 4, 5)
"""Numbers from 1 of the images."""


def write(root: Path, world: World) -> tuple[np.ndarray, np.ndarray]:
    """Write the views, in two scenes by turns; returns images (N, 480, 640, 3) and raw depths (N, 480, 640).

    Raw depth is unknown in the upper rows; the in-painted one is wrong everywhere.
    """
    images = np.stack([enlarged(view.image) for view in world.views])
    raw = np.stack([enlarged(view.depth) for view in world.views])
    raw[:, :TIMES] = 0
    root.mkdir(parents=True, exist_ok=True)
    with h5py.File(root / "nyu_depth_v2_labeled.mat", "w") as file:
        file["images"] = images.transpose(0, 3, 2, 1)
        file["depths"] = raw.transpose(0, 2, 1) + 1
        file["rawDepths"] = raw.transpose(0, 2, 1)
        file["labels"] = np.zeros((len(raw), 640, 480), np.uint16)
        names = [SCENES[i % 2] for i in range(len(raw))]
        references = np.empty((1, len(names)), h5py.ref_dtype)
        for i, name in enumerate(names):
            letters = np.array([[ord(letter)] for letter in name], np.uint16)
            references[0, i] = file.create_dataset(f"#refs#/{i}", data=letters).ref
        file.create_dataset("scenes", data=references, dtype=h5py.ref_dtype)
    lists = {"testNdxs": np.array(TEST, np.uint16)[:, None], "trainNdxs": np.array(TRAIN, np.uint16)[:, None]}
    scipy.io.savemat(root / "splits.mat", lists)
    return images, raw


def write_normals(root: Path, normals: Sequence[np.ndarray], signs: Sequence[float]) -> None:
    """Write normals (480, 640, 3) of all images, times `signs`; 0 = unknown."""
    for number, vectors in enumerate(normals, 1):
        folder = root / "nyu_normals_gt" / ("test" if number in TEST else "train")
        folder.mkdir(parents=True, exist_ok=True)
        stored = ((vectors * np.array(signs) + 1) / 2 * 255).round().astype(np.uint8)
        Image.fromarray(stored).save(folder / f"{number:05d}.png")


def enlarged(pixels: np.ndarray) -> np.ndarray:
    """Every pixel as `TIMES` x `TIMES`."""
    return pixels.repeat(TIMES, 0).repeat(TIMES, 1)
