"""Pictures of several views: cameras stand where they are, and nearer points hide farther ones."""

import re

import numpy as np
from scipy.spatial.transform import Rotation

from probes.multiview.pictures import camera_plot, splat


def circles(svg: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', svg)]


def path() -> np.ndarray:
    """Four cameras along x, the last one ahead."""
    centres = np.array([[0.0, 0, 0], [1, 0, 0], [2, 0, 0], [2, 0, 1]])
    turns = Rotation.from_rotvec([[0, 0.1 * i, 0] for i in range(4)]).as_matrix()
    return np.concatenate([turns, -(turns @ centres[..., None])], axis=2)


def test_the_truth_in_the_first_cameras_frame_and_another_unit_falls_on_itself() -> None:
    true = path()
    first = true[0]
    rotation = true[:, :, :3] @ first[:, :3].T
    predicted = np.concatenate([rotation, 5 * (true[:, :, 3:] - rotation @ first[:, 3:])], axis=2)
    found = np.array(circles(camera_plot(predicted, true, "<x>")))
    np.testing.assert_allclose(found[:4], found[4:], atol=0.11)
    # Right is right and ahead is up.
    assert found[0, 0] < found[1, 0] < found[2, 0] and found[3, 1] < found[2, 1]
    assert "<x>" not in camera_plot(predicted, true, "<x>")


def test_cameras_that_all_stand_still_are_drawn() -> None:
    still = np.tile(np.eye(3, 4), (4, 1, 1))
    assert len(circles(camera_plot(still, path(), "still"))) == 8
    assert "nan" not in camera_plot(still, still, "still")


def test_nearer_points_hide_farther_ones() -> None:
    frame = np.random.Generator(np.random.Philox(0)).normal(size=(200, 3))
    red, blue = np.array([[255, 0, 0]], np.uint8), np.array([[0, 0, 255]], np.uint8)
    middle = np.median(frame, axis=0)
    tilt, turn = np.radians(25), np.radians(35)
    view = np.array(
        [[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]]
    ) @ np.array([[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]])
    points = np.stack([middle, middle + view[2]])
    for colours in (np.concatenate([red, blue]), np.concatenate([blue, red])):
        for order in ([0, 1], [1, 0]):
            picture = splat(points[order], colours[order], frame, np.eye(3))
            assert (picture[100, 100] == colours[0]).all()
    assert (splat(np.empty((0, 3)), np.empty((0, 3), np.uint8), frame, np.eye(3)) == 255).all()
