"""Where points truly lie in another view: against worlds whose truth is known, OpenCV, and hand-made depth."""

from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probes.data.correspondences import Correspondences, Correspondent, query_step
from probes.data.frames import Frame
from probes.data.square import SquareFrames
from tests.trees.world import View, project, render_world, unproject

FLAT = np.array([[50.0, 0, 32], [0, 50, 32], [0, 0, 1]])
STILL = np.eye(3, 4)


def frame(name: str, height: int = 64, width: int = 64, **known: Any) -> Frame:
    return Frame(
        name=name,
        scene="s",
        height=height,
        width=width,
        image=lambda: np.zeros((height, width, 3), np.uint8),
        digest=lambda: name,
        **known,
    )


def of_view(view: View, name: str, **known: Any) -> Frame:
    height, width = view.depth.shape
    truth = {"depth": lambda: view.depth, "tracks": (view.points, view.xy)} | known
    return frame(
        name,
        height,
        width,
        intrinsics=view.intrinsics,
        world_to_camera=view.world_to_camera,
        **{key: value for key, value in truth.items() if value is not None},
    )


def wall(depth: np.ndarray, name: str, pose: np.ndarray = STILL, **known: Any) -> Frame:
    return frame(name, intrinsics=FLAT, world_to_camera=pose, depth=lambda: depth.astype(np.float32), **known)


def between(
    a: Frame, b: Frame, size: int = 64, fit: str = "squash", **options: Any
) -> Correspondences | None:
    return Correspondent(SquareFrames([a, b], size, fit)).between(0, 1, **options)


@pytest.mark.parametrize("fit", ["crop", "squash"])
@pytest.mark.parametrize("size", [48, 160])
def test_depth_leads_to_where_the_world_is_seen(fit: str, size: int) -> None:
    """Cameras with fx != fy and a principal point off the middle, images that are no squares."""
    a, b = render_world(2, size=(72, 96), seed=1).views
    frames = SquareFrames([of_view(a, "a"), of_view(b, "b")], size, fit)
    found = Correspondent(frames).between(0, 1)
    assert len(found.queries) > 10
    xy = frames.square(0).outward(found.queries)
    depth = a.depth[xy[:, 1].astype(int), xy[:, 0].astype(int)].astype(float)
    points = unproject(xy, depth, a.intrinsics, a.world_to_camera)
    true, _ = project(points, b.intrinsics, b.world_to_camera)
    np.testing.assert_allclose(found.targets, frames.square(1).inward(true), atol=1e-3)
    # An independent library agrees.
    turn, _ = cv2.Rodrigues(b.world_to_camera[:, :3])
    seen, _ = cv2.projectPoints(points, turn, b.world_to_camera[:, 3], b.intrinsics, None)
    np.testing.assert_allclose(found.targets, frames.square(1).inward(seen[:, 0]), atol=1e-3)


def test_tracks_lead_to_where_the_shared_points_are_seen() -> None:
    a, b = render_world(2, size=(72, 96), seed=1).views
    found = between(of_view(a, "a", depth=None), of_view(b, "b", depth=None), size=72, fit="crop")
    shared = sorted(set(a.points) & set(b.points))
    inward = {id: xy - [12, 0] for id, xy in zip(a.points, a.xy, strict=True)}
    outward = {id: xy - [12, 0] for id, xy in zip(b.points, b.xy, strict=True)}
    inside = [id for id in shared if all(0 <= p[id][0] < 72 for p in (inward, outward))]
    np.testing.assert_allclose(found.queries, [inward[id] for id in inside])
    np.testing.assert_allclose(found.targets, [outward[id] for id in inside])
    assert found.overlap == pytest.approx(len(shared) / len(a.points))


def test_depth_and_tracks_see_the_same_angle() -> None:
    a, b = render_world(2, size=(72, 96), seed=1).views
    by_depth = between(of_view(a, "a"), of_view(b, "b"))
    by_tracks = between(of_view(a, "a", depth=None), of_view(b, "b", depth=None))
    assert by_depth.angle == pytest.approx(by_tracks.angle, abs=5)


def test_what_stands_in_between_hides_what_is_behind() -> None:
    far, near = np.full((64, 64), 4.0), np.full((64, 64), 4.0)
    near[:, :32] = 2.0
    found = between(wall(far, "a"), wall(near, "b"))
    assert (found.queries[:, 0] > 32).all()
    assert (len(found.queries), found.overlap) == (32, 0.5)
    np.testing.assert_allclose(found.targets, found.queries)
    # A point that is hidden is not hidden the other way round: what is near is seen, and lies elsewhere.
    assert between(wall(near, "b"), wall(far, "a")).overlap == 0.5


@pytest.mark.parametrize(("factor", "seen"), [(0.96, 64), (1.04, 64), (0.94, 0), (1.06, 0)])
def test_depths_may_differ_by_five_percent(factor: float, seen: int) -> None:
    plane = np.full((64, 64), 3.0)
    assert len(between(wall(plane, "a"), wall(factor * plane, "b")).queries) == seen


def test_unknown_depth_is_no_point_and_no_lack_of_overlap() -> None:
    half = np.full((64, 64), 3.0)
    half[:32] = 0
    found = between(wall(half, "a"), wall(np.full((64, 64), 3.0), "b"))
    assert (len(found.queries), found.overlap) == (32, 1.0)
    assert len(between(wall(np.full((64, 64), 3.0), "b"), wall(half, "a")).queries) == 32


def test_masks_of_both_views_are_kept_to() -> None:
    plane = np.full((64, 64), 3.0)
    left, top = np.zeros((2, 64, 64), bool)
    left[:, :32] = top[:32] = True
    found = between(wall(plane, "a", mask=lambda: left), wall(plane, "b", mask=lambda: top))
    assert (found.queries < 32).all()
    assert (len(found.queries), found.overlap) == (16, 0.5)


def test_a_step_to_the_side_moves_near_points_further() -> None:
    """Golden: 50 px focal length, 0.4 to the side: 20 px at depth 1, 10 px at depth 2."""
    aside = np.column_stack([np.eye(3), [-0.4, 0, 0]])
    for depth, moved in ((1.0, 20), (2.0, 10)):
        plane = np.full((64, 64), depth)
        found = between(wall(plane, "a"), wall(plane, "b", pose=aside))
        np.testing.assert_allclose(
            found.targets - found.queries, [[-moved, 0]] * len(found.queries), atol=1e-5
        )


@settings(max_examples=25, deadline=None)
@given(st.integers(40, 90), st.integers(40, 90), st.sampled_from(["crop", "squash"]), st.integers(0, 99))
def test_homographies_follow_the_square(height: int, width: int, fit: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    homography = np.eye(3) + rng.normal(size=(3, 3)) * [[0.05, 0.05, 4], [0.05, 0.05, 4], [5e-4, 5e-4, 0]]
    frames = SquareFrames([frame("a", height, width), frame("b", 70, 50)], 64, fit)
    found = Correspondent(frames).between(0, 1, homography)
    assert found.angle is None
    assert 0 <= found.overlap <= 1
    if len(found.queries):
        xy = frames.square(0).outward(found.queries)
        true = cv2.perspectiveTransform(xy[None], homography)[0]
        np.testing.assert_allclose(found.targets, frames.square(1).inward(true), atol=1e-6)
    assert ((found.targets >= 0) & (found.targets < 64)).all()


def test_points_behind_a_homography_are_not_seen() -> None:
    mirrored = np.diag([1.0, 1.0, -1.0])
    assert len(between(frame("a"), frame("b"), homography=mirrored).queries) == 0


def test_frames_that_know_nothing_have_no_correspondences() -> None:
    plane = np.full((64, 64), 3.0)
    assert between(frame("a"), frame("b")) is None
    assert between(wall(plane, "a"), frame("b", intrinsics=FLAT, world_to_camera=STILL)) is None


def test_the_grid_of_queries_does_not_depend_on_an_encoder() -> None:
    assert [query_step(size) for size in (64, 128, 224, 448)] == [8, 8, 16, 16]
    plane = np.full((64, 64), 3.0)
    found = between(wall(plane, "a"), wall(plane, "b"), size=448)
    assert len(found.queries) == 28 * 28
    assert found.queries[0].tolist() == [8, 8]
