"""`repair`: make a damaged dataset whole again."""

import argparse
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tqdm import tqdm

from shards.commands import words
from shards.format import ShardsError
from shards.ranges import is_url


def add(commands: Any) -> None:
    """Add the command."""
    parser = words.add_command(
        commands,
        "repair",
        _repair,
        "make a damaged dataset whole: from a twin, from its own sound bytes, or without the lost frames",
        "python -m shards repair data/mine --from s3://bucket/mine",
    )
    parser.add_argument(
        "--from",
        dest="twin",
        type=words.place,
        metavar="DIR",
        help="another copy, or its URL: shards are taken from it where their sha256 is the manifest's",
    )
    parser.add_argument(
        "--quarantine", type=Path, metavar="FILE", help="a run's quarantine.jsonl: take its frames out too"
    )
    parser.add_argument("--decode", action="store_true", help="take out what does not decode, too")
    parser.add_argument("--json", action="store_true", help="print what was done as JSON")


def _repair(arguments: argparse.Namespace) -> int:
    from shards.repair import repair

    if is_url(arguments.dataset):
        raise ShardsError(f"{arguments.dataset} is a URL: repair a copy in a folder, and upload that")

    def bar(shards: int) -> Callable[[int], None]:
        shown = tqdm(total=shards, unit="shard", desc="repair", disable=None)
        return lambda done: shown.update(done - shown.n) or (shown.close() if done == shards else None)

    done = repair(
        arguments.dataset,
        twin=arguments.twin,
        quarantine=arguments.quarantine,
        decode=arguments.decode,
        progress=bar,
    )
    if arguments.json:
        print(json.dumps([dataclasses.asdict(each) for each in done], indent=1))
    else:
        for each in done:
            print(each)
    left = [each for each in done if each.done == "left"]
    if left:
        raise ShardsError(f"{arguments.dataset} is not whole: {left[0]}")
    if not arguments.json:
        frames = sum(row["frame"] is not None for each in done for row in each.lost)
        print(f"{arguments.dataset} is whole; {words.count(frames, 'frame')} in quarantine by this repair")
    return 0
