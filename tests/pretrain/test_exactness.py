"""The same run however it is spread: other numbers of ranks, accumulation, sharding."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import STEPS, rows, run_ranks

Arguments = Callable[..., list[str]]


@pytest.mark.torchrun
@pytest.mark.parametrize(
    ("ranks", "options"),
    [
        pytest.param(1, ("--parallel.lanes-at-once", "1"), id="1 rank, accumulating"),
        pytest.param(2, ("--parallel.shard", "2"), id="2 ranks, sharded"),
        pytest.param(4, ("--workers", "1"), id="4 ranks, with workers"),
    ],
)
def test_global_batches_and_losses_do_not_depend_on_the_ranks(
    two_ranks: Path, arguments: Arguments, tmp_path: Path, ranks: int, options: tuple[str, ...]
) -> None:
    out = tmp_path / "run"
    codes, said = run_ranks(ranks, arguments(out, *options), tmp_path / "log")
    assert codes == [0] * ranks, said
    for here, there in zip(rows(out), rows(two_ranks), strict=True):
        assert here["batch"] == there["batch"]
        assert here["loss"] == pytest.approx(there["loss"], abs=1e-5)
        assert here["grad_norm"] == pytest.approx(there["grad_norm"], rel=1e-3)
        assert here.get("cross_view_gain") == pytest.approx(there.get("cross_view_gain"), abs=1e-5)


@pytest.mark.torchrun
def test_run_goes_on_with_another_number_of_ranks(
    two_ranks: Path, arguments: Arguments, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    codes, said = run_ranks(2, arguments(out, "--parallel.shard", "2"), tmp_path / "a", stop_after_a_save)
    assert codes != [0, 0], said
    assert 0 < len(rows(out)) < STEPS
    codes, said = run_ranks(1, arguments(out), tmp_path / "b")
    assert codes == [0], said
    for here, there in zip(rows(out), rows(two_ranks), strict=True):
        assert here["batch"] == there["batch"]
        assert here["loss"] == pytest.approx(there["loss"], abs=1e-5)


def stop_after_a_save(rank: int) -> None:
    """Die at step 6, two steps after a checkpoint."""
    from pretrain.trainer import Trainer

    update = Trainer._update

    def dying(self: Trainer, *given: object) -> None:
        if self.step == 6:
            os._exit(9)
        update(self, *given)

    Trainer._update = dying  # type: ignore[method-assign]


def test_batches_differ_from_step_to_step(two_ranks: Path) -> None:
    assert len({row["batch"] for row in rows(two_ranks)}) == STEPS


@pytest.mark.torchrun
def test_three_ranks_are_refused_by_name(arguments: Arguments, tmp_path: Path) -> None:
    out = tmp_path / "run"
    codes, said = run_ranks(3, arguments(out), tmp_path / "log")
    assert codes == [2, 2, 2]
    assert said[0].count("\n") == 1
    assert "3 ranks" in said[0]
    assert "1, 2, 4" in said[0]
    assert said[1] == said[2] == ""
    assert not out.exists()
