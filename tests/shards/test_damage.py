"""Shards damaged at random: met, counted, mended, and never shown."""

import gc
import os
import resource
import shutil
import threading
from pathlib import Path

import pytest

from shards.format import CorruptFrame
from shards.reader import open_dataset
from shards.verify import parse_index
from shards.writer import pack_index
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
    after = len(os.listdir("/proc/self/fd")), threading.active_count()
    assert after[0] <= before[0] and after[1] <= before[1]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 400_000  # kB; a bomb has 12 GB


@pytest.mark.parametrize(("field", "value"), [("offset", 2**64 - 1), ("offset", 2**63), ("size", 2**32 - 1)])
def test_a_row_that_says_the_impossible_is_a_corrupt_frame(
    pristine: Path, tmp_path: Path, field: str, value: int
) -> None:
    root = Path(shutil.copytree(pristine, tmp_path / "data"))
    index = root / "shards" / "ramps-000000.idx"
    chunks, members = parse_index(index.read_bytes(), "index")
    members = members.copy()
    members[field][2] = value
    index.write_bytes(pack_index(chunks, members, 10, 0))
    with pytest.raises(CorruptFrame, match=f"the index claims .*{value}"):
        open_dataset(root).read_jpeg(0, 2)
