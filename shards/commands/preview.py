"""`preview`: sequences as they are drawn in training, to look at."""

import argparse
from pathlib import Path
from typing import Any

from shards.commands import words
from shards.commands.info import summary, summary_rows
from shards.format import ShardsError
from shards.reader import open_dataset


def add(commands: Any) -> None:
    """Add the command."""
    parser = words.add_command(
        commands,
        "preview",
        _preview,
        "sequences as they are drawn in training, as a contact sheet (.png) or, with overlaps and cameras, as a web"
        " page (.html)",
        "python -m shards preview data/mine --out page.html",
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="FILE",
        help="file to write; its suffix decides: .png or .html",
    )
    parser.add_argument("--sequences", type=int, default=8, metavar="N", help="rows (default: 8)")
    parser.add_argument("--views", type=int, default=6, metavar="N", help="views a row (default: 6)")
    parser.add_argument("--size", type=int, default=128, metavar="N", help="pixels a view (default: 128)")
    parser.add_argument("--split", choices=("train", "val"), default="train", help="default: train")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="which draws (default: 0)")


def _preview(arguments: argparse.Namespace) -> int:
    suffix = arguments.out.suffix.lower()
    if suffix not in {".png", ".html", ".htm"}:
        raise ShardsError(
            f"--out must end in .png (contact sheet) or .html (web page), not {arguments.out.name!r}"
        )
    dataset = open_dataset(arguments.dataset)
    options = {name: getattr(arguments, name) for name in ("split", "sequences", "views", "size", "seed")}
    if suffix == ".png":
        from shards.preview import write_contact_sheet

        said = write_contact_sheet(dataset, arguments.out, **options)
    else:
        from shards.preview_page import write_page

        said = write_page(dataset, arguments.out, summary=summary_rows(summary(dataset)), **options)
    print(f"{arguments.out}: {said}")
    return 0
