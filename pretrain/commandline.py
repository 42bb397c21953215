"""The command line: a recipe's name, where data and results are, and single fields of the recipe changed.

tyro reads the options from the configuration's types; its errors, drawn as boxes, are told here in one
sentence.
"""

import contextlib
import difflib
import io
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from pretrain.errors import InputError
from pretrain.options import options, short_help
from pretrain.recipes import RECIPES, RunConfig

USAGE = """\
usage: python -m pretrain RECIPE --data DIR... --out RUN [--resume auto|never|PATH] [--dry-run] [options]
       python -m pretrain RECIPE --help     the options, with the recipe's values (--help-all: at length)
       python -m pretrain list [--json]     the recipes, with what they cost

example: torchrun --nproc-per-node 2 -m pretrain mum_tiny --data data/scenes --out runs/tiny

The same command goes on with a run that was interrupted. Recipes:
"""


@dataclass(frozen=True, kw_only=True)
class Command:
    """Pretrain by a recipe; the same command again continues an interrupted run, bit for bit.

    example: torchrun --nproc-per-node 2 -m pretrain mum_tiny --data data/scenes --out runs/tiny --optim.lr
    1e-3
    """

    recipe: tyro.conf.Suppress[str]
    data: tuple[str, ...]
    """folders that python -m shards build wrote, or their URLs; several are mixed by weight: A=3 B=1, or by their
    numbers of frames where none has a weight"""
    out: Path
    """the run's folder"""
    resume: str = "auto"
    """auto: start in an empty folder, go on with a run of the same recipe and data; never: only an empty
    folder; a path: start from that checkpoint or run"""
    migrate: bool = False
    """go on with this run although its data changed (grew, or were weighted anew): from the next step on the
    batches are those of the new data"""
    dry_run: bool = False
    """check everything, say what would run and what it takes, write nothing"""
    world: int = 0
    """with --dry-run: as if on so many ranks, which need not be there; 0: those that there are"""
    json: bool = False
    """with --dry-run: the figures as JSON"""
    config: Annotated[RunConfig, tyro.conf.arg(name="")]


def usage() -> str:
    """How to call the program, and the recipes with a line each."""
    width = max(map(len, RECIPES))
    lines = [f"  {name:{width}}  {(make.__doc__ or '').splitlines()[0]}" for name, make in RECIPES.items()]
    return USAGE + "\n".join(lines)


def parse_list(arguments: Sequence[str]) -> bool:
    """Whether `list` is to print JSON."""
    if set(arguments) - {"--json"}:
        raise InputError(f"list takes --json and nothing else, not {' '.join(arguments)}")
    return bool(arguments)


def recipe_help(name: str) -> str:
    """The short help of a recipe."""
    return (
        f"usage: python -m pretrain {name} --data DIR... --out RUN [options]\n"
        f"{(RECIPES[name].__doc__ or '').splitlines()[0]}\n"
        f"{short_help(_defaults(name))}\n"
        "--help-all says more of each.\n"
        f"example: torchrun --nproc-per-node 2 -m pretrain {name} --data data/scenes --out runs/one"
    )


def _defaults(name: str) -> Command:
    return Command(recipe=name, data=tyro.MISSING, out=tyro.MISSING, config=RECIPES[name]())


def parse(arguments: Sequence[str]) -> Command:
    """The command that the arguments mean; InputError in one sentence if they mean none.

    --help and --help-all print, and exit.
    """
    if not arguments:
        raise InputError(
            "which recipe? python -m pretrain list names them; python -m pretrain --help says more"
        )
    name, *rest = arguments
    if name not in RECIPES:
        near = difflib.get_close_matches(name, RECIPES, n=1, cutoff=0.4)
        hint = f", did you mean {near[0]}?" if near else ","
        raise InputError(f"there is no recipe {name!r}{hint} known are {', '.join(RECIPES)}")
    default = _defaults(name)
    if {"-h", "--help"} & set(rest):
        sys.stdout.write(recipe_help(name) + "\n")
        raise SystemExit
    rest = ["--help" if argument == "--help-all" else argument for argument in rest]
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            command, unknown = tyro.cli(
                Command,
                args=rest,
                default=default,
                prog=f"python -m pretrain {name}",
                return_unknown_args=True,
                config=(tyro.conf.FlagCreatePairsOff,),
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        raise InputError(_sentence(said.getvalue())) from None
    if unknown:
        raise InputError(_unknown(unknown[0], default))
    for option, given in (("--world", command.world), ("--json", command.json)):
        if given and not command.dry_run:
            raise InputError(f"{option} goes with --dry-run: it is for looking ahead")
    if command.world < 0:
        raise InputError(f"--world {command.world} is no number of ranks")
    return command


def _unknown(argument: str, default: Command) -> str:
    """What to say of an argument that is no option."""
    option = argument.partition("=")[0].replace("_", "-")
    known = ["--help-all", *(known.name for known in options(default))]
    near = difflib.get_close_matches(option, known, n=1, cutoff=0.5)
    return f"there is no option {argument}" + (f", did you mean {near[0]}?" if near else "")


def _sentence(box: str) -> str:
    """The text of tyro's error box up to its first rule, as one line."""
    lines = [line.strip("│╭╮╰╯ \n") for line in box.splitlines()]
    text: list[str] = []
    for line in lines[1:]:
        if line and set(line) <= {"─"}:
            break
        text.append(line)
    return re.sub(r"\s+", " ", " ".join(text)).strip() or "the arguments cannot be read"
