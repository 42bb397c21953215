"""Shards damaged at random: met, counted, mended, and never shown."""

import gc
import os
import resource
import threading
from pathlib import Path

import pytest

from tests.shards.damage import HARMS, survive, write


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("damage") / "pristine"
    write(root)
    return root


def test_every_kind_of_damage_is_met_and_every_damaged_frame_counted_once(
    pristine: Path, tmp_path: Path
) -> None:
    survive(pristine, tmp_path / "scratch", 0)
    gc.collect()
    before = len(os.listdir("/proc/self/fd")), threading.active_count()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    met = [survive(pristine, tmp_path / "scratch", seed) for seed in range(3 * len(HARMS))]
    assert {kind for kind, _, _ in met} == set(HARMS)
    assert sum(count for _, _, count in met) > 10
    assert {how.split(",")[0] for _, how, _ in met} == {"read", "quarantined", "refused"}
    gc.collect()
    assert (len(os.listdir("/proc/self/fd")), threading.active_count()) == before
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 400_000  # kB; a bomb has 12 GB
