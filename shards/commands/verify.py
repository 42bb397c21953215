"""`verify`: check every byte of a dataset."""

import argparse
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tqdm import tqdm

from shards.commands import words
from shards.format import ShardsError
from shards.processes import cores
from shards.reader import open_dataset
from shards.verify import verify


def add(commands: Any) -> None:
    """Add the command."""
    parser = words.add_command(
        commands,
        "verify",
        _verify,
        "check every byte of a dataset; exit code 0 if it is whole, 2 with a list of the damage if not",
        "python -m shards verify data/mine",
    )
    parser.add_argument("--decode", action="store_true", help="decode every picture too")
    parser.add_argument(
        "--state",
        type=Path,
        metavar="FILE",
        help="keep what is checked there, and go on from it when stopped",
    )
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: one a core)")
    parser.add_argument("--json", action="store_true", help="print the damage as JSON")


def _verify(arguments: argparse.Namespace) -> int:
    words.check_workers(arguments.workers)

    def bar(shards: int) -> Callable[[int], None]:
        shown = tqdm(total=shards, unit="shard", desc="verify", disable=None)

        def update(done: int) -> None:
            shown.update(done - shown.n)
            if done == shards:
                shown.close()

        return update

    dataset = arguments.dataset
    damage = verify(
        dataset,
        workers=arguments.workers or cores(),
        decode=arguments.decode,
        state=arguments.state,
        progress=bar,
    )
    if arguments.json:
        print(json.dumps([dataclasses.asdict(d) for d in damage], indent=1))
    else:
        for found in damage:
            print(found)
    if damage:
        shards = len({found.shard for found in damage})
        raise ShardsError(
            f"{dataset} is damaged: {words.count(len(damage), 'fault')} in {words.count(shards, 'shard')},"
            f" first {damage[0]}"
        )
    if not arguments.json:
        whole = open_dataset(dataset)
        print(
            f"{dataset} is whole: {words.count(whole.num_frames, 'frame')} in {words.count(len(whole.shards), 'shard')}"
        )
    return 0
