"""The order survives anything: any ranks, workers and grouping, stopped at any step and resumed in another shape."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from shards.loader import Loader
from shards.mixture import Mixture
from shards.plan import DataConfig
from shards.reader import Dataset

CONFIG = DataConfig(size=16, images_per_lane=10, views=(2, 5), lanes=8, single_share=0.1, seed=5)
STEPS = 9
"""More than two epochs of the data below."""


@dataclass(frozen=True)
class Leg:
    """Part of a run: so many steps by so many ranks, each with so many workers."""

    steps: int
    ranks: int
    workers: int
    at_once: int


legs = st.builds(
    Leg,
    steps=st.integers(1, 4),
    ranks=st.sampled_from([1, 2, 4, 8]),
    workers=st.sampled_from([0, 0, 1, 3]),
    at_once=st.sampled_from([1, 8]),
)


def run(dataset: Mixture, route: Sequence[Leg]) -> dict[tuple[int, int], int]:
    """(step, lane) -> crc32 of the images, crops, flips and view counts, over all legs and ranks."""
    seen: dict[tuple[int, int], int] = {}
    step, state = 0, None
    for leg in route:
        for rank in range(leg.ranks):
            loader = Loader(
                dataset,
                CONFIG,
                rank=rank,
                world=leg.ranks,
                workers=leg.workers,
                lanes_at_once=leg.at_once,
                start_step=step,
            )
            if state is not None:
                loader.check(json.loads(state))
            for batch in islice(loader, leg.steps * loader.micro_batches_per_step):
                for lane, crc in zip(batch.lanes, batch.crcs.tolist(), strict=True):
                    assert (batch.step, lane) not in seen
                    seen[batch.step, lane] = crc
        step += leg.steps
        state = json.dumps(loader.state(step))
        assert len(state) <= 2048
    return seen


@pytest.fixture
def mixture(ramps: Callable[..., Dataset]) -> Mixture:
    size = (24, 32)
    return Mixture(
        [
            ramps([20, 11, 5, 2, 30, 25, 40], size=size, name="scenes"),
            ramps([9, 14, 20, 30], size=size, known=False, name="unknown"),
            ramps([1] * 11, size=size, name="photographs"),
        ],
        [2, 1, 1],
    )


@pytest.fixture
def expected(mixture: Mixture) -> dict[tuple[int, int], int]:
    loader = Loader(mixture, CONFIG)
    assert 1 < loader.plan.steps_per_epoch < STEPS / 2
    whole = run(mixture, [Leg(steps=STEPS, ranks=1, workers=0, at_once=8)])
    assert len(whole) == len(set(whole.values())) == 8 * STEPS
    return whole


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@given(st.lists(legs, min_size=2, max_size=3))
@example([Leg(1, 8, 1, 1), Leg(1, 1, 3, 8)])
@example([Leg(1, 2, 3, 1), Leg(2, 4, 0, 1), Leg(1, 1, 1, 1)])
@settings(
    max_examples=6,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_a_run_in_any_shapes_sees_the_batches_of_an_undisturbed_one(
    mixture: Mixture, expected: dict[tuple[int, int], int], route: list[Leg]
) -> None:
    seen = run(mixture, route)
    done = min(STEPS, sum(leg.steps for leg in route))
    assert {key: crc for key, crc in seen.items() if key[0] < done} == {
        key: crc for key, crc in expected.items() if key[0] < done
    }
