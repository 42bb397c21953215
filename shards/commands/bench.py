"""`bench`: how fast this machine reads, decodes and loads a dataset, and what limits it."""

import argparse
import dataclasses
import json
from typing import Any

from tqdm import tqdm

from shards.commands import words
from shards.format import ShardsError
from shards.processes import cores
from shards.reader import open_dataset


def add(commands: Any) -> None:
    """Add the command."""
    parser = words.add_command(
        commands,
        "bench",
        _bench,
        "measure reading, decoding and loading on this machine against their limits",
        "python -m shards bench data/mine --workers 8",
    )
    parser.add_argument(
        "--seconds", type=float, default=20, metavar="N", help="about how long to measure (default: 20)"
    )
    parser.add_argument("--workers", type=int, metavar="N", help="worker processes (default: one a core)")
    parser.add_argument(
        "--size", type=int, default=224, metavar="N", help="side of the crops in pixels (default: 224)"
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")


def _bench(arguments: argparse.Namespace) -> int:
    # Torch is slow to import, and --help needs none of it.
    import torch

    from shards.bench import measure, verdict

    words.check_workers(arguments.workers)
    for name in ("seconds", "size"):
        if not getattr(arguments, name) > 0:
            raise ShardsError(f"--{name} must be more than 0, not {getattr(arguments, name)}")
    dataset = open_dataset(arguments.dataset)
    # As in a worker: one thread.
    torch.set_num_threads(1)
    with tqdm(total=100, unit="%", desc="bench", disable=None, leave=False) as bar:
        speed = measure(
            dataset,
            size=arguments.size,
            seconds=arguments.seconds,
            workers=arguments.workers or cores(),
            cores=cores(),
            progress=lambda share: bar.update(int(100 * share) - bar.n),
        )
    if arguments.json:
        figures = dataclasses.asdict(speed) | {"scaling": speed.scaling, "verdict": verdict(speed)}
        print(json.dumps(figures, indent=1))
        return 0
    rows = [
        ("reading", speed.read, ""),
        ("decoding alone", speed.decode, ""),
        ("loading, 1 process", speed.load, f"{speed.load_to_decode:.2f} of decoding alone"),
        (
            f"loading, {words.count(speed.workers, 'worker')}",
            speed.load_workers,
            f"{speed.scaling:.2f} of 1 process",
        ),
    ]
    print(f"{'':22s} {'frames/s':>9s} {'MB/s':>7s}")
    for name, rate, limit in rows:
        print(f"{name:22s} {rate:9,.0f} {rate * speed.frame_bytes / 1e6:7,.0f}  {limit}".rstrip())
    print(verdict(speed))
    return 0
