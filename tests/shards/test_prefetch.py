"""Fetching ahead of the plan: in its order, no further than there is room, and for nothing after the end."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

from shards.forecast import Forecast
from shards.format import ShardsError
from shards.plan import DataConfig, Plan
from shards.prefetch import Prefetch
from shards.reader import Dataset

GROUP = "0123456789abcdef"


def until(true: Callable[[], bool]) -> None:
    """Wait for what threads are about to do."""
    while not true():
        time.sleep(0.001)


def test_chunks_come_in_the_plans_order_while_there_is_room(tmp_path: Path) -> None:
    fetched: list[tuple[int, int]] = []
    room = threading.Semaphore(4)

    def fetch(chunk: int, needed: int) -> bool:
        if chunk in [c for c, _ in fetched]:
            return True
        if not room.acquire(blocking=False):
            return False
        fetched.append((chunk, needed))
        return True

    ahead = Prefetch(lambda step: [10 * step, 10 * step + 1], fetch, Forecast(tmp_path, GROUP), 5, streams=1)
    until(lambda: len(fetched) == 4)
    assert fetched == [(50, 0), (51, 0), (60, 1), (61, 1)]
    room.release(2)
    ahead.advance(6)
    until(lambda: len(fetched) == 6)
    assert fetched[4:] == [(70, 1), (71, 1)]
    ahead.close()
    until(lambda: not [t for t in threading.enumerate() if t.name.startswith("prefetch")])
    assert not list(tmp_path.iterdir())


def test_trouble_is_left_to_whoever_needs_the_chunk(tmp_path: Path) -> None:
    fetched = []

    def fetch(chunk: int, needed: int) -> bool:
        if chunk == 1:
            raise ShardsError("no network")
        fetched.append(chunk)
        return True

    ahead = Prefetch(lambda step: [step], fetch, Forecast(tmp_path, GROUP), 0, streams=2)
    until(lambda: len(fetched) > 5)
    ahead.close()
    assert 1 not in fetched


def test_the_chunks_named_ahead_are_those_of_the_step(ramps: Callable[..., Dataset]) -> None:
    plan = Plan(ramps([20, 11, 3, 2, 25, 24]), DataConfig(size=32, images_per_lane=12, views=(2, 8), lanes=2))
    for step in range(40):
        for lane in range(2):
            assert plan.chunks_of(step, lane).tolist() == plan.lane_step(step, lane).chunks.tolist()
