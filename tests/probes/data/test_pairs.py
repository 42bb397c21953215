"""Pairs that are chosen and pairs that are listed: geometry, determinism, and what is refused."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import shards
from probes.benchmarks import open_benchmark
from probes.data.correspondences import Correspondences
from probes.data.frames import FrameList, FramePair
from probes.data.pairs import PairConfig, PairSet, candidates, choose_pairs, refusal
from probes.errors import NoPairs, ProbeError


@pytest.fixture(scope="module")
def test(rendered: Path) -> FrameList:
    return open_benchmark(str(rendered)).test


def choose(split: FrameList, **options: object) -> PairSet:
    points = options.pop("points", True)
    return choose_pairs("data", split, PairConfig(**{"size": 64, **options}), points=points)


def test_pairs_of_a_rendered_scene_follow_its_geometry(rendered: Path, test: FrameList) -> None:
    found = choose(test, size=32, pairs=60, min_queries=6)
    dataset = shards.open_dataset(rendered)
    chunks = {dataset.chunk(i).key: i for i in dataset.select("val")}
    assert len(found.scenes) == len({pair.scene for pair in found.pairs}) > 1
    for pair in found.pairs[:6]:
        (key, name_a), (_, name_b) = (name.split("/") for name in pair.name.split("|"))
        chunk = dataset.chunk(chunks[key])
        a, b = chunk.frame_names.index(name_a), chunk.frame_names.index(name_b)
        k, pose = chunk.intrinsics, chunk.world_to_camera
        # Twice as many pixels are stored as evaluated. Project by hand.
        xy = pair.queries * 2
        depth = dataset.read_depth(chunks[key], a)[xy[:, 1].astype(int), xy[:, 0].astype(int)]
        rays = np.concatenate([xy, np.ones((len(xy), 1))], 1) @ np.linalg.inv(k[a]).T
        world = (rays * depth[:, None] - pose[a][:, 3]) @ pose[a][:, :3]
        seen = (world @ pose[b][:, :3].T + pose[b][:, 3]) @ k[b].T
        np.testing.assert_allclose(pair.targets * 2, seen[:, :2] / seen[:, 2:], atol=1e-3)
        assert 10 <= pair.angle <= 60
        assert len(pair.queries) >= 6
        assert ((pair.targets >= 0) & (pair.targets < 32)).all()
        # The relative pose takes points of camera a to camera b.
        in_a, in_b = (world @ pose[i][:, :3].T + pose[i][:, 3] for i in (a, b))
        moved = in_a @ pair.relative_pose[:, :3].T + pair.relative_pose[:, 3]
        np.testing.assert_allclose(moved, in_b, atol=1e-6)


def test_the_list_is_the_same_every_time_and_its_hash_sees_the_config(test: FrameList) -> None:
    first, second = choose(test, pairs=12), choose(test, pairs=12)
    assert [pair.name for pair in first.pairs] == [pair.name for pair in second.pairs]
    assert first.hash == second.hash
    assert choose(test, size=32, pairs=12, min_queries=6).hash != first.hash
    assert choose(test, pairs=6).hash != first.hash
    assert choose(test, pairs=12, fit="squash").hash != first.hash


def test_pairs_are_spread_over_scenes(test: FrameList) -> None:
    found = choose(test, pairs=12)
    counts = [sum(pair.scene == scene for pair in found.pairs) for scene in found.scenes]
    assert max(counts) <= 2
    assert len(counts) > 2


def test_only_frames_that_pairs_show_are_kept(test: FrameList) -> None:
    found = choose(test, pairs=6)
    assert {index for pair in found.pairs for index in (pair.a, pair.b)} == set(range(len(found.frames)))
    assert len(found.frames) < len(test.frames)
    one = found.only(found.pairs[-1:])
    assert len(one.frames) == 2
    kept, pair = one.pairs[0], found.pairs[-1]
    assert kept.name == pair.name
    assert one.frames.names[kept.a] == found.frames.names[pair.a]
    assert one.frames.names[kept.b] == found.frames.names[pair.b]


def test_pairs_are_formed_within_a_group_only(test: FrameList) -> None:
    members = test.frames[:4]
    split = FrameList(
        frames=tuple(replace(frame, group=group) for frame, group in zip(members, "xxyy", strict=True))
    )
    found = choose(split, angles=(0, 180), min_queries=1)
    groups = dict(zip([frame.name for frame in members], "xxyy", strict=True))
    assert len(found.pairs) == 2
    for pair in found.pairs:
        a, b = pair.name.split("|")
        assert groups[a] == groups[b]


def test_a_span_of_angles_without_pairs_is_refused_with_the_counts(test: FrameList) -> None:
    with pytest.raises(
        NoPairs, match=r"'data' has no pair of views to score: \d+ with viewpoint angle outside 179 to 180"
    ):
        choose(test, angles=(179, 180))


def test_reasons_for_refusal() -> None:
    config = PairConfig(size=64, angles=(10, 60), min_queries=2)

    def found(points: int, angle: float | None) -> Correspondences:
        return Correspondences(
            queries=np.zeros((points, 2)), targets=np.zeros((points, 2)), angle=angle, overlap=None
        )

    assert refusal(found(2, 10), config) is None
    assert refusal(found(2, None), config) is None
    assert "fewer than 2" in refusal(found(1, 30), config)
    assert "outside 10 to 60" in refusal(found(2, 60.1), config)
    assert "no depth or tracks" in refusal(None, config)


def test_every_pair_of_views_is_a_candidate_once_in_an_order_that_names_decide() -> None:
    names = [f"{i}.jpg" for i in range(12)]
    found = list(candidates("scene", names))
    assert {frozenset(pair) for pair in found} == {frozenset((i, j)) for i in range(12) for j in range(i)}
    assert len(found) == 66
    assert 15 < sum(i < j for i, j in found) < 51
    assert found != list(candidates("other", names))


def listed(test: FrameList, **known: object) -> FrameList:
    """All pairs of the first scene's views as a frozen list."""
    pairs = tuple(
        FramePair(name=f"p{a}{b}", scene="listed", a=a, b=b, **known)
        for a in range(5)
        for b in range(5)
        if a != b
    )
    return FrameList(frames=test.frames[:5], pairs=pairs)


def test_a_frozen_list_is_taken_as_it_is(test: FrameList) -> None:
    found = choose(listed(test, overlap=0.37), angles=(0, 1))
    assert len(found.pairs) + sum(found.refused.values()) == 20
    assert [pair.name for pair in found.pairs] == sorted(pair.name for pair in found.pairs)
    assert {pair.overlap for pair in found.pairs} == {0.37}
    assert {pair.scene for pair in found.pairs} == {"listed"}


def test_a_part_of_a_frozen_list_is_the_same_part_everywhere(test: FrameList) -> None:
    split = listed(test)
    few = {pair.name for pair in choose(split, pairs=6).pairs}
    turned = FrameList(frames=split.frames, pairs=split.pairs[::-1])
    assert {pair.name for pair in choose(turned, pairs=6).pairs} == few
    assert few < {pair.name for pair in choose(split, pairs=12).pairs}


def test_listed_pairs_without_points_count_only_where_poses_are_scored(test: FrameList) -> None:
    split = listed(test)
    blind = FrameList(frames=tuple(replace(frame, depth=None) for frame in split.frames), pairs=split.pairs)
    with pytest.raises(NoPairs, match="20 with no point that both views see"):
        choose(blind)
    found = choose(blind, points=False)
    assert len(found.pairs) == 20
    assert all(pair.queries.shape == (0, 2) and pair.relative_pose is not None for pair in found.pairs)


def test_the_pose_that_a_list_states_is_kept(test: FrameList) -> None:
    own = np.eye(3, 4)
    assert all((pair.relative_pose == own).all() for pair in choose(listed(test, relative_pose=own)).pairs)


def test_tracks_of_a_colmap_model(testdata: Callable[[str], Path]) -> None:
    fountain = open_benchmark(f"colmap:{testdata('data/real/strecha_fountain_p11')}")
    found = choose(fountain.test, size=96)
    assert found.scenes == ["strecha_fountain_p11"]
    assert len(found.pairs) > 20
    for pair in found.pairs:
        for points in (pair.queries, pair.targets):
            assert ((points >= 0) & (points < 96)).all()
        # Right way round: tracks move little compared with a random assignment.
        moved = np.linalg.norm(pair.targets - pair.queries, axis=1).mean()
        assert moved < np.linalg.norm(pair.targets[::-1] - pair.queries, axis=1).mean()
    assert found.frames.load(0).shape == (3, 96, 96)


def test_a_walk_straight_ahead_has_no_pair_that_turns(testdata: Callable[[str], Path]) -> None:
    street = open_benchmark(f"colmap:{testdata('data/real/opensfm_lund')}")
    with pytest.raises(ProbeError, match="no pair of views"):
        choose(street.test)
