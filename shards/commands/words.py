"""What the commands share in words: one parser over a dataset, counts, sizes, checks of a number of processes."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from shards.format import ShardsError
from shards.ranges import is_url


def add_command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], int], description: str, example: str
) -> argparse.ArgumentParser:
    """A parser for a command over one dataset (`arguments.dataset`), with an example."""
    text = description[0].upper() + description[1:] + "."
    parser = commands.add_parser(name, help=description, description=text, epilog=f"example:\n  {example}")
    parser.add_argument("dataset", type=place, metavar="DIR", help="a folder that `build` wrote, or its URL")
    parser.set_defaults(run=run)
    return parser


def place(text: str) -> str | Path:
    """A dataset's URL as it was given, or its folder."""
    return text if is_url(text) else Path(text)


def check_workers(workers: int | None) -> None:
    """ShardsError unless a given number of processes is at least 1."""
    if workers is not None and workers < 1:
        raise ShardsError(f"--workers must be at least 1, not {workers}")


def count(number: int, what: str) -> str:
    """`1 scene`, `2 scenes`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def size(number: float) -> str:
    """Bytes as a person reads them."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} B" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"
