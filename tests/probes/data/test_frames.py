"""Lists of frames: what their hash sees, and that they say what they are without reading a pixel."""

from dataclasses import replace

import numpy as np
import pytest

from probes.data.frames import Frame, FrameList, FramePair, FrameSequence


def frame(**changes: object) -> Frame:
    known: dict[str, object] = {
        "name": "a",
        "scene": "s",
        "height": 4,
        "width": 6,
        "image": lambda: np.zeros((4, 6, 3), np.uint8),
        "digest": lambda: "0" * 64,
        "intrinsics": np.eye(3),
        "world_to_camera": np.eye(3, 4),
    }
    return Frame(**(known | changes))


BASE = FrameList(
    frames=(frame(), frame(name="b")),
    pairs=(FramePair(name="a|b", scene="s", a=0, b=1, overlap=0.5),),
    sequences=(FrameSequence(name="q", scene="s", frames=(0, 1)),),
)


def with_first(**changes: object) -> FrameList:
    return replace(BASE, frames=(frame(**changes), BASE.frames[1]))


def with_pair(**changes: object) -> FrameList:
    return replace(BASE, pairs=(replace(BASE.pairs[0], **changes),))


def with_sequence(**changes: object) -> FrameList:
    return replace(BASE, sequences=(replace(BASE.sequences[0], **changes),))


@pytest.mark.parametrize(
    "other",
    [
        with_first(name="c"),
        with_first(scene="t"),
        with_first(group="g"),
        with_first(height=5),
        with_first(width=5),
        with_first(digest=lambda: "1" * 64),
        with_first(intrinsics=2 * np.eye(3)),
        with_first(world_to_camera=None),
        with_first(depth=lambda: np.ones((4, 6), np.float32)),
        with_first(normals=lambda: np.ones((4, 6, 3), np.float32)),
        with_first(labels=lambda: np.ones((4, 6), np.uint8)),
        with_first(mask=lambda: np.ones((4, 6), bool)),
        with_first(tracks=(np.array([1]), np.array([[2.0, 3.0]]))),
        with_first(stamp="a.png:12"),
        with_pair(name="b|a"),
        with_pair(b=0),
        with_pair(overlap=0.6),
        with_pair(relative_pose=np.eye(3, 4)),
        with_pair(homography=np.eye(3)),
        with_sequence(frames=(1, 0)),
        with_sequence(group="category"),
        replace(BASE, frames=BASE.frames[::-1]),
        replace(BASE, pairs=None),
        replace(BASE, sequences=None),
    ],
)
def test_the_hash_sees_everything_that_scores_depend_on(other: FrameList) -> None:
    assert other.hash != BASE.hash


def test_the_hash_is_of_contents_and_not_of_objects() -> None:
    again = FrameList(
        frames=(frame(), frame(name="b")), pairs=tuple(BASE.pairs), sequences=tuple(BASE.sequences)
    )
    assert again.hash == BASE.hash and len(BASE.hash) == 64
    fortran = with_first(world_to_camera=np.asfortranarray(np.eye(3, 4)))
    assert fortran.hash == BASE.hash


def test_the_hash_tells_tracks_from_no_tracks_of_the_next_frame() -> None:
    tracks = np.array([1]), np.array([[2.0, 3.0]])
    first = FrameList(frames=(frame(tracks=tracks), frame(name="b")))
    second = FrameList(frames=(frame(), frame(name="b", tracks=tracks)))
    assert first.hash != second.hash


def test_a_list_says_what_it_is_without_reading_pixels() -> None:
    def unread() -> np.ndarray:
        raise AssertionError("read")

    listed = FrameList(frames=(frame(image=unread, depth=unread),))
    assert listed.hash and "a" in repr(listed.frames[0])
