"""`python -m shards COMMAND`: photographs to datasets, and what is in them (`shards/commands/`, a file each)."""

import importlib
import sys
from collections.abc import Sequence

from shards.arguments import Parser
from shards.commands import COMMANDS
from shards.format import ShardsError


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code: 0 done, 2 bad input or damage, said in one sentence."""
    arguments = _parser().parse_args(argv)
    try:
        return arguments.run(arguments)
    except ShardsError as error:
        print(f"{arguments.parser.prog}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{arguments.parser.prog}: stopped", file=sys.stderr)
        return 130


def _parser() -> Parser:
    parser = Parser(prog="python -m shards", description="Multi-view datasets in tar shards.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)
    for name in COMMANDS:
        importlib.import_module(f"shards.commands.{name}").add(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
