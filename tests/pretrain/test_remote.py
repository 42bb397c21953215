"""A run whose data are far away trains on the very batches of one beside its data."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.shards.servers import files, serving


def test_a_run_over_the_network_has_the_same_batches(
    arguments: Callable[..., list[str]],
    pretrain: Callable[[list[str]], tuple[int, str, str]],
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MUM_CACHE", str(tmp_path / "cache"))
    with serving(files(data)) as server:
        server.troubled = True
        for name, place in (("near", str(data)), ("far", server.url)):
            command = arguments(tmp_path / name, "--steps", "3")
            command[command.index(str(data))] = place
            code, _, err = pretrain(command)
            assert code == 0, err
    rows = [
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("near", "far")
    ]
    assert [row["batch"] for row in rows[0]] == [row["batch"] for row in rows[1]]
    assert [row["loss"] for row in rows[0]] == [row["loss"] for row in rows[1]]
