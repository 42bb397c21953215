"""Matching end to end on rendered scenes: what perfect features, noise and nothing at all score."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import shards
from probes import matching
from probes.errors import ProbeError
from probes.linear import LinearConfig
from probes.metrics import patch_centres

QUICK = {"size": 64, "pairs": 24, "train_pairs": 24, "linear": LinearConfig(steps=40, pairs=8)}


class Perfect:
    """Features that are the true 3-D points of the patch centres, as random waves so that cosine means nearness."""

    spec, patch_size, num_layers, run = "perfect", 8, 1, None
    identity = {"weights": "perfect"}  # noqa: RUF012

    def __init__(self, data: Path) -> None:
        dataset = shards.open_dataset(data)
        rng = np.random.default_rng(0)
        waves, phases = rng.normal(size=(3, 2048)) * 4, rng.uniform(0, 2 * np.pi, 2048)
        centres = patch_centres(8, 8, 64)
        homogeneous = np.concatenate([centres, np.ones((64, 1))], axis=1)
        self._known: dict[bytes, np.ndarray] = {}
        for number in range(dataset.num_chunks):
            chunk = dataset.chunk(number)
            for frame in range(chunk.num_frames):
                depth = dataset.read_depth(number, frame)[
                    centres[:, 1].astype(int), centres[:, 0].astype(int)
                ]
                rays = homogeneous @ np.linalg.inv(chunk.intrinsics[frame]).T
                pose = chunk.world_to_camera[frame]
                world = (rays * depth[:, None] - pose[:, 3]) @ pose[:, :3]
                image = np.ascontiguousarray(dataset.read_image(number, frame).transpose(2, 0, 1))
                self._known[image.tobytes()] = np.cos(world @ waves + phases).reshape(8, 8, -1)

    def encode(self, images: torch.Tensor, layers: Sequence[int]) -> dict[int, torch.Tensor]:
        maps = np.stack([self._known[image.numpy().tobytes()] for image in images])
        return {1: torch.from_numpy(maps).float()}


class Noise:
    """Features that know nothing, different for every call."""

    spec, patch_size, num_layers, run = "noise", 8, 1, None
    identity = {"weights": "noise"}  # noqa: RUF012

    def encode(self, images: torch.Tensor, layers: Sequence[int]) -> dict[int, torch.Tensor]:
        generator = torch.Generator().manual_seed(int(images.sum()))
        return {1: torch.randn(len(images), 8, 8, 32, generator=generator)}


@pytest.fixture
def known_encoders(rendered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = matching.open_encoder

    def open_encoder(spec: str, **options: Any) -> Any:
        return {"perfect": lambda: Perfect(rendered), "noise": Noise}.get(
            spec, lambda: real(spec, **options)
        )()

    monkeypatch.setattr(matching, "open_encoder", open_encoder)


def line(results: matching.Results, **wanted: Any) -> dict[str, Any]:
    (found,) = [row for row in results.table if all(row[key] == value for key, value in wanted.items())]
    return found


@pytest.mark.usefixtures("known_encoders")
def test_perfect_features_reach_the_floor_of_the_grid_and_noise_scores_at_chance(rendered: Path) -> None:
    results = matching.run(["perfect", "noise"], [str(rendered)], readings=["knn"], **QUICK)
    oracle = line(results, encoder="oracle (8 x 8)")
    chance = line(results, encoder="chance (8 x 8)")
    perfect = line(results, encoder="perfect", position="kept")
    noise = line(results, encoder="noise", position="kept")
    assert oracle["pck_patch"] == 1
    assert oracle["epe"] <= perfect["epe"] < oracle["epe"] + 1
    assert perfect["pck_patch"] > 0.95
    assert abs(noise["epe"] - chance["epe"]) < 2
    assert abs(noise["pck_patch"] - chance["pck_patch"]) < 0.03


@pytest.mark.usefixtures("known_encoders")
def test_the_linear_probe_learns_from_scenes_that_are_not_scored(rendered: Path) -> None:
    results = matching.run(["perfect"], [str(rendered)], readings=["linear"], baselines=False, **QUICK)
    assert line(results, encoder="perfect", reading="linear", position="kept")["pck_patch"] > 0.8
    assert {row["reading"] for row in results.rows} == {"linear", "linear-soft"}
    assert results.train_data[0]["split"] == "train"


def test_the_same_run_gives_the_same_rows_from_memory_and_from_the_cache(
    rendered: Path, tmp_path: Path
) -> None:
    arguments = (["random:mum_vittiny_patch8", "pixels"], [str(rendered)])
    first = matching.run(*arguments, **QUICK)
    second = matching.run(*arguments, cache=tmp_path, **QUICK)
    third = matching.run(*arguments, cache=tmp_path, **QUICK)
    assert first.rows == second.rows == third.rows
    assert first.hash == third.hash


def test_every_pair_has_a_row_for_every_reading_and_variant(rendered: Path) -> None:
    results = matching.run(["pixels:8"], [str(rendered)], **QUICK)
    pairs = {row["pair"] for row in results.rows}
    assert len(pairs) == results.data[0]["pairs"]
    for reading in ("knn", "linear", "linear-soft"):
        for position in ("kept", "removed"):
            rows = results.select(encoder="pixels:8", reading=reading, position=position)
            assert {row["pair"] for row in rows} == pairs
            assert len(rows) == len(pairs)


def test_same_position_is_the_distance_that_points_moved(rendered: Path) -> None:
    from probes.ground_truth import open_pairs
    from probes.pairs import PairConfig

    results = matching.run(["pixels:8"], [str(rendered)], readings=["knn"], **QUICK)
    found = open_pairs(str(rendered), PairConfig(size=64, pairs=24))
    moved = [np.linalg.norm(pair.targets - pair.queries, axis=1).mean() for pair in found.pairs]
    assert line(results, encoder="same position (8 x 8)")["epe"] == pytest.approx(np.mean(moved))


def test_position_removed_takes_away_a_feature_that_is_only_position(
    rendered: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Place(Noise):
        spec = "place"

        def encode(self, images: torch.Tensor, layers: Sequence[int]) -> dict[int, torch.Tensor]:
            place = torch.eye(64).reshape(1, 8, 8, 64).expand(len(images), -1, -1, -1) * 10
            generator = torch.Generator().manual_seed(int(images.sum()))
            return {1: place + 0.1 * torch.randn(len(images), 8, 8, 64, generator=generator)}

    monkeypatch.setattr(matching, "open_encoder", lambda spec, **_: Place())
    results = matching.run(["place"], [str(rendered)], readings=["knn"], **QUICK)
    same = line(results, encoder="same position (8 x 8)")["epe"]
    chance = line(results, encoder="chance (8 x 8)")["epe"]
    assert line(results, encoder="place", position="kept")["epe"] == pytest.approx(same)
    assert abs(line(results, encoder="place", position="removed")["epe"] - chance) < 2


def test_all_layers_have_rows(rendered: Path) -> None:
    results = matching.run(
        ["random:mum_vittiny_patch8"],
        [str(rendered)],
        readings=["knn"],
        layers="all",
        baselines=False,
        **QUICK,
    )
    assert sorted({row["layer"] for row in results.rows}) == [1, 2, 3, 4, 5, 6]


def test_labels_name_encoders(rendered: Path) -> None:
    results = matching.run(["raw=pixels:8"], [str(rendered)], readings=["knn"], **QUICK)
    assert [encoder["label"] for encoder in results.encoders] == ["raw"]
    with pytest.raises(ProbeError, match="two encoders are called 'a'"):
        matching.run(["a=pixels:8", "a=pixels:4"], [str(rendered)], readings=["knn"], **QUICK)


def test_the_default_size_fits_the_images(rendered: Path) -> None:
    results = matching.run(["pixels"], [str(rendered)], readings=["knn"], pairs=6)
    assert results.identity["config"]["size"] == 64


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"readings": ["kn"]}, "unknown reading 'kn'; did you mean 'knn'"),
        ({"size": 4}, "at least 8"),
        ({"readings": []}, "no reading"),
    ],
)
def test_bad_options_are_refused(rendered: Path, changes: dict, message: str) -> None:
    with pytest.raises(ProbeError, match=message):
        matching.run(["pixels:4"], [str(rendered)], **QUICK | changes)


def test_images_that_are_scored_are_never_trained_on(testdata: Any) -> None:
    spec = f"colmap:{testdata('data/real/strecha_fountain_p11')}"
    with pytest.raises(ProbeError, match="all images of the training data are also scored"):
        matching.run(["pixels"], [spec], train_data=[spec], readings=["linear"], **QUICK)
    with pytest.raises(ProbeError, match="name other scenes with --train-data"):
        matching.run(["pixels"], [spec], readings=["linear"], **QUICK)
    results = matching.run(["pixels"], [spec], **QUICK)
    assert "one scene only" in results.notes[0]
    assert results.table[0]["epe_lo"] is None


def test_training_data_without_a_pair_is_left_out_and_said(testdata: Any) -> None:
    """A walk straight down a street has no two views that look at its points from ten degrees apart."""
    street, kitchen, fountain = (
        f"colmap:{testdata(f'data/real/{scene}')}"
        for scene in ("opensfm_lund", "vggt_kitchen", "strecha_fountain_p11")
    )
    results = matching.run(["pixels"], [fountain], train_data=[street, kitchen], readings=["linear"], **QUICK)
    assert [described["data"] for described in results.train_data] == [kitchen]
    assert any("opensfm_lund" in note and "no pair of views" in note for note in results.notes)
    with pytest.raises(ProbeError, match="opensfm_lund' has no pair of views"):
        matching.run(["pixels"], [fountain], train_data=[street], readings=["linear"], **QUICK)
