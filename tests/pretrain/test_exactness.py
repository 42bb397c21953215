"""The same run however it is spread: other numbers of ranks, accumulation, sharding."""

import functools
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import STEPS, die_at, rows, run_ranks

Arguments = Callable[..., list[str]]


REASSOCIATED = 5e-6
"""Relative difference of losses and gradient norms that sums in another order leave over these few steps."""


def assert_same_run(run: Path, other: Path) -> None:
    """The same images and masks step by step, the same losses and gradient norms but for the order of sums."""
    for here, there in zip(rows(run), rows(other), strict=True):
        assert here["batch"] == there["batch"]
        assert here["loss"] == pytest.approx(there["loss"], rel=REASSOCIATED)
        assert here["grad_norm"] == pytest.approx(there["grad_norm"], rel=REASSOCIATED)
        assert here.get("val_loss") == pytest.approx(there.get("val_loss"), abs=1e-5)
        assert here.get("cross_view_gain") == pytest.approx(there.get("cross_view_gain"), abs=1e-5)


@pytest.mark.torchrun
@pytest.mark.parametrize(
    ("ranks", "options"),
    [
        pytest.param(1, ("--parallel.lanes-at-once", "1"), id="1 rank, accumulating"),
        pytest.param(2, ("--parallel.lanes-at-once", "1"), id="2 ranks, accumulating"),
        pytest.param(2, ("--parallel.shard", "2"), id="2 ranks, sharded"),
        pytest.param(
            4, ("--parallel.shard", "2", "--workers", "1"), id="4 ranks, in two shards, with workers"
        ),
    ],
)
def test_batches_losses_and_gradient_norms_do_not_depend_on_the_ranks(
    two_ranks: Path, arguments: Arguments, tmp_path: Path, ranks: int, options: tuple[str, ...]
) -> None:
    out = tmp_path / "run"
    codes, said = run_ranks(ranks, arguments(out, *options), tmp_path / "log")
    assert codes == [0] * ranks, said
    assert_same_run(out, two_ranks)


@pytest.mark.torchrun
def test_run_goes_on_with_other_numbers_of_ranks(
    two_ranks: Path, arguments: Arguments, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    cut_in_two, cut_in_four = (arguments(out, "--parallel.shard", number) for number in ("2", "4"))
    for ranks, command, step in ((2, cut_in_two, 6), (4, cut_in_four, 10)):
        codes, said = run_ranks(ranks, command, tmp_path / "a", functools.partial(die_at, step))
        assert 0 not in codes, said
        assert step - 2 <= len(rows(out)) <= step
    codes, said = run_ranks(1, arguments(out), tmp_path / "b")
    assert codes == [0], said
    assert_same_run(out, two_ranks)


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
