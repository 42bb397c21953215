"""`preview`: sequences as they are drawn in training, to look at."""

import argparse
from pathlib import Path
from typing import Any

from shards.commands import words
from shards.reader import open_dataset


def add(commands: Any) -> None:
    """Add the command."""
    parser = words.add_command(
        commands,
        "preview",
        _preview,
        "a contact sheet of sequences as they are drawn in training, with their overlap",
        "python -m shards preview data/mine --out sheet.png",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="PNG file to write")
    parser.add_argument("--sequences", type=int, default=8, metavar="N", help="rows (default: 8)")
    parser.add_argument("--views", type=int, default=6, metavar="N", help="views a row (default: 6)")
    parser.add_argument("--size", type=int, default=128, metavar="N", help="pixels a view (default: 128)")
    parser.add_argument("--split", choices=("train", "val"), default="train", help="default: train")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="which draws (default: 0)")


def _preview(arguments: argparse.Namespace) -> int:
    from shards.preview import write_contact_sheet

    sheet = write_contact_sheet(
        open_dataset(arguments.dataset),
        arguments.out,
        split=arguments.split,
        sequences=arguments.sequences,
        views=arguments.views,
        size=arguments.size,
        seed=arguments.seed,
    )
    print(f"{arguments.out}: {sheet}")
    return 0
