"""Sequences of frames: the frozen list or a fixed draw, what is refused, and what the hash sees."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from probes.benchmarks import open_benchmark
from probes.data.frames import Frame, FrameList, FramePair, FrameSequence
from probes.data.sequences import SequenceConfig, choose_sequences
from probes.errors import NoPairs

CONFIG = SequenceConfig(size=8, frames=4)


def frame(name: str, scene: str = "s", **known: object) -> Frame:
    camera = {"intrinsics": np.eye(3), "world_to_camera": np.eye(3, 4)}
    return Frame(
        name=name,
        scene=scene,
        height=8,
        width=8,
        image=lambda: np.zeros((8, 8, 3), np.uint8),
        digest=lambda: name,
        **(camera | known),
    )


def names(found: object) -> list[list[str]]:
    return [[found.frames.names[i] for i in s.frames] for s in found.sequences]


def test_frames_are_drawn_from_every_scene_and_always_the_same() -> None:
    split = FrameList(frames=tuple(frame(f"{s}{i}", s) for s in "ab" for i in range(9)))
    found = choose_sequences("x", split, CONFIG)
    assert [s.scene for s in found.sequences] == ["a", "b"]
    assert all(len(part) == 4 and len({name[0] for name in part}) == 1 for part in names(found))
    assert names(found)[0] != ["a0", "a1", "a2", "a3"]
    assert names(choose_sequences("x", split, CONFIG)) == names(found)
    # What else is in the list, and in which order, changes no scene's draw.
    other = FrameList(frames=(*split.frames[2:9], *split.frames[:2]))
    assert sorted(names(choose_sequences("x", other, CONFIG))[0]) == sorted(names(found)[0])


def test_a_frozen_list_is_taken_as_it_is() -> None:
    frames = tuple(frame(f"f{i}") for i in range(6))
    listed = (FrameSequence(name="q", scene="s", frames=(5, 0, 3, 2, 1)),)
    found = choose_sequences("x", FrameList(frames=frames, sequences=listed), CONFIG)
    assert names(found) == [["f5", "f0", "f3", "f2", "f1"]]


def test_a_list_of_pairs_grows_sequences_whose_frames_hang_together() -> None:
    frames = tuple(frame(f"f{i}") for i in range(9))
    links = [(0, 1), (1, 2), (2, 3), (3, 4), (6, 7), (7, 8)]
    pairs = tuple(FramePair(name=f"{a}-{b}", scene="s", a=a, b=b) for a, b in links)
    found = choose_sequences("x", FrameList(frames=frames, pairs=pairs), replace(CONFIG, least=2))
    seen = [name for part in names(found) for name in part]
    assert len(seen) == len(set(seen)) and "f5" not in seen
    for part in names(found):
        members = {int(name[1:]) for name in part}
        joined = {members.pop()}
        while grown := {i for i in members if any({i, j} in map(set, links) for j in joined)}:
            joined |= grown
            members -= grown
        assert not members, f"{part} falls apart"


def test_frames_without_a_camera_or_depth_are_refused_and_counted() -> None:
    lost = frame("lost", world_to_camera=np.full((3, 4), np.inf))
    bare = frame("bare", intrinsics=None)
    split = FrameList(frames=(*(frame(f"f{i}") for i in range(3)), lost, bare))
    found = choose_sequences("x", split, CONFIG)
    assert sorted(names(found)[0]) == ["f0", "f1", "f2"]
    assert found.refused == {"frames without a camera": 2}
    with pytest.raises(NoPairs, match="no sequence of 3 views to read together: 3 with frames without depth"):
        choose_sequences("x", FrameList(frames=split.frames[:3]), replace(CONFIG, depth=True))
    listed = (FrameSequence(name="q", scene="s", frames=(0, 1, 3)),)
    with pytest.raises(NoPairs, match="sequences with a frame without camera"):
        choose_sequences("x", FrameList(frames=split.frames, sequences=listed), CONFIG)


def test_scored_images_are_left_out_of_training() -> None:
    split = FrameList(frames=tuple(frame(f"{s}{i}", s) for s in "ab" for i in range(4)))
    found = choose_sequences("x", split, CONFIG, without=frozenset({"a0", "b0", "b1"}))
    assert [sorted(part) for part in names(found)] == [["a1", "a2", "a3"]]
    assert found.refused["images that are scored"] == 3


def test_a_cap_takes_the_same_sequences_whatever_the_order() -> None:
    split = FrameList(frames=tuple(frame(f"{s}{i}", s) for s in "abcdef" for i in range(3)))
    few = choose_sequences("x", split, replace(CONFIG, sequences=2))
    turned = choose_sequences("x", FrameList(frames=split.frames[::-1]), replace(CONFIG, sequences=2))
    assert len(few.sequences) == 2 and set(few.scenes) == set(turned.scenes)
    assert len(few.frames) == 6


def test_the_hash_sees_cameras_images_and_size(rendered: Path) -> None:
    split = open_benchmark(str(rendered)).test
    found = choose_sequences("x", split, SequenceConfig(size=64))
    assert len(found.sequences) == 6 and {len(s.frames) for s in found.sequences} == {5}
    assert choose_sequences("y", split, SequenceConfig(size=64)).hash == found.hash
    assert choose_sequences("x", split, SequenceConfig(size=32)).hash != found.hash
    moved = replace(split.frames[0], world_to_camera=split.frames[0].world_to_camera + 1e-3)
    changed = FrameList(frames=(moved, *split.frames[1:]))
    assert choose_sequences("x", changed, SequenceConfig(size=64)).hash != found.hash
