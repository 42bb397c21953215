"""Pairs from depth and from tracks: geometry, determinism, and what is refused."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import shards
from probes.errors import ProbeError
from probes.ground_truth import content_hash, open_pairs, shortest_side
from probes.pairs import PairConfig
from probes.square import Square


@given(st.integers(16, 900), st.integers(16, 900), st.integers(8, 512))
def test_outward_undoes_inward(height: int, width: int, size: int) -> None:
    square = Square(height=height, width=width, size=size)
    points = np.array([[0.5, 0.5], [width / 3, height / 2]])
    np.testing.assert_allclose(square.outward(square.inward(points)), points, atol=1e-6)


def test_the_square_is_central() -> None:
    square = Square(height=100, width=200, size=50)
    np.testing.assert_allclose(square.inward(np.array([[50.0, 0.0], [150.0, 100.0]])), [[0, 0], [50, 50]])
    assert square.contains(np.array([[0.0, 49.9], [50.0, 10.0]])).tolist() == [True, False]


def test_pairs_of_a_rendered_scene_follow_its_geometry(rendered: Path) -> None:
    found = open_pairs(str(rendered), PairConfig(size=32, pairs=60, min_queries=6))
    dataset = shards.open_dataset(rendered)
    chunks = {dataset.chunk(i).key: i for i in dataset.select("val")}
    assert found.truth == "depth"
    assert len(found.scenes) == len({pair.scene for pair in found.pairs}) > 1
    for pair in found.pairs[:6]:
        key, name_a, name_b = pair.name.split("/")
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


def test_the_list_is_the_same_every_time_and_its_hash_sees_the_config(rendered: Path) -> None:
    config = PairConfig(size=64, pairs=12)
    first, second = open_pairs(str(rendered), config), open_pairs(str(rendered), config)
    assert [pair.name for pair in first.pairs] == [pair.name for pair in second.pairs]
    assert first.hash == second.hash
    assert open_pairs(str(rendered), PairConfig(size=32, pairs=12, min_queries=6)).hash != first.hash
    assert open_pairs(str(rendered), PairConfig(size=64, pairs=6)).hash != first.hash


def test_pairs_are_spread_over_scenes_and_splits_are_kept_apart(rendered: Path) -> None:
    scored = open_pairs(str(rendered), PairConfig(size=64, pairs=12))
    trained = open_pairs(str(rendered), PairConfig(size=64, pairs=12, scenes=2), split="train")
    counts = [sum(pair.scene == scene for pair in scored.pairs) for scene in scored.scenes]
    assert max(counts) <= 2
    assert len(trained.scenes) <= 2
    assert not set(scored.scenes) & set(trained.scenes)


def test_a_span_of_angles_without_pairs_is_refused_with_the_counts(rendered: Path) -> None:
    with pytest.raises(
        ProbeError, match=r"no pair of views to score: \d+ with viewpoint angle outside 179 to 180"
    ):
        open_pairs(str(rendered), PairConfig(size=64, angles=(179, 180)))


def test_tracks_of_a_colmap_model(testdata: Callable[[str], Path]) -> None:
    spec = f"colmap:{testdata('data/real/strecha_fountain_p11')}"
    found = open_pairs(spec, PairConfig(size=96))
    assert found.truth == "tracks"
    assert found.scenes == ["strecha_fountain_p11"]
    assert shortest_side(spec) == 480
    assert content_hash(spec) == content_hash(spec)
    assert len(found.pairs) > 20
    for pair in found.pairs:
        for points in (pair.queries, pair.targets):
            assert ((points >= 0) & (points < 96)).all()
        # Right way round: tracks move little compared with a random assignment.
        moved = np.linalg.norm(pair.targets - pair.queries, axis=1).mean()
        assert moved < np.linalg.norm(pair.targets[::-1] - pair.queries, axis=1).mean()
    assert found.images.load(0).shape == (3, 96, 96)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nowhere", "no such folder"),
        ("colmpa:x", "did you mean 'colmap'"),
        ("colmap:nowhere", "nowhere"),
    ],
)
def test_what_is_no_data_is_refused(spec: str, message: str) -> None:
    with pytest.raises(ProbeError, match=message):
        open_pairs(spec, PairConfig(size=64))
    with pytest.raises(ProbeError, match=message):
        content_hash(spec)


def test_a_folder_that_is_no_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProbeError, match=str(tmp_path)):
        open_pairs(str(tmp_path), PairConfig(size=64))


def test_shards_without_depth_are_refused_with_the_way_out(tmp_path: Path) -> None:
    from shards.convert import Conversion, convert_scene
    from shards.format import Frame, Scene
    from shards.writer import DatasetWriter

    rng = np.random.default_rng(0)
    frames = [Frame(name=str(i), image=rng.integers(0, 256, (64, 64, 3), np.uint8)) for i in range(3)]
    scene = Scene(name="bare", frames=frames, split="val")
    with DatasetWriter(tmp_path / "d", source="images") as writer:
        for chunk in convert_scene(scene, source="images", split="val", conversion=Conversion()).chunks:
            writer.add(chunk)
        writer.finish({})
    with pytest.raises(ProbeError, match=r"has no depth with cameras.*colmap:PATH"):
        open_pairs(str(tmp_path / "d"), PairConfig(size=64))
    with pytest.raises(ProbeError, match="no scenes in its train split"):
        open_pairs(str(tmp_path / "d"), PairConfig(size=64), split="train")
