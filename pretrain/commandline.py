"""The command line: a recipe's name, where data and results are, and single fields of the recipe changed.

tyro reads the options from the configuration's types; its errors, drawn as boxes, are told here in one
sentence.
"""

import contextlib
import dataclasses
import difflib
import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from pretrain.errors import InputError
from pretrain.optim import describe_schedule
from pretrain.recipes import RECIPES, RunConfig

USAGE = """\
usage: python -m pretrain RECIPE --data DIR... --out RUN [--resume auto|never|PATH] [--dry-run] [options]
       python -m pretrain RECIPE --help     all options of a recipe, with its values
       python -m pretrain list              the recipes

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
    """check everything, say what would run, write nothing"""
    config: Annotated[RunConfig, tyro.conf.arg(name="")]


def usage() -> str:
    """How to call the program, and the recipes with a line each."""
    width = max(map(len, RECIPES))
    lines = [f"  {name:{width}}  {(make.__doc__ or '').splitlines()[0]}" for name, make in RECIPES.items()]
    return USAGE + "\n".join(lines)


def list_recipes(arguments: Sequence[str]) -> str:
    """What `list` prints: each recipe with what it trains on; as JSON with --json."""
    if set(arguments) - {"--json"}:
        raise InputError(f"list takes --json and nothing else, not {' '.join(arguments)}")
    rows = []
    for name, make in RECIPES.items():
        config = make()
        rows.append(
            {
                "recipe": name,
                "what": (make.__doc__ or "").splitlines()[0],
                "model": config.model.name,
                "size": config.data.size,
                "views": list(config.data.views),
                "images_per_step": config.images_per_step,
                "lanes": config.data.lanes,
                "precision": config.precision,
            }
            | describe_schedule(config.optim, steps=config.steps, images_per_step=config.images_per_step)
        )
    if arguments:
        return json.dumps(rows, indent=1)
    return "\n".join(
        f"{row['recipe']}: {row['what']}\n"
        f"    {row['model']}, {row['size']} px, {row['views'][0]} to {row['views'][1]} views,"
        f" {row['images_per_step']} images a step in {row['lanes']} lanes,\n"
        f"    {row['steps']} steps, peak lr {row['peak_lr']:g}, {row['precision']}"
        for row in rows
    )


def parse(arguments: Sequence[str]) -> Command:
    """The command that the arguments mean; InputError in one sentence if they mean none. --help exits."""
    if not arguments:
        raise InputError(
            "which recipe? python -m pretrain list names them; python -m pretrain --help says more"
        )
    name, *rest = arguments
    if name not in RECIPES:
        near = difflib.get_close_matches(name, RECIPES, n=1, cutoff=0.4)
        hint = f", did you mean {near[0]}?" if near else ","
        raise InputError(f"there is no recipe {name!r}{hint} known are {', '.join(RECIPES)}")
    default = Command(recipe=name, data=tyro.MISSING, out=tyro.MISSING, config=RECIPES[name]())
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
        raise InputError(_unknown(unknown[0]))
    return command


def _options(kind: type, prefix: str = "") -> list[str]:
    """The names of all options that a dataclass of configuration gives."""
    names: list[str] = []
    for field in dataclasses.fields(kind):
        inner = field.type
        bare = field.name in ("data", "config") and hasattr(inner, "__metadata__")
        if hasattr(inner, "__metadata__"):
            inner = inner.__origin__
        if dataclasses.is_dataclass(inner):
            names += _options(inner, prefix if bare else f"{prefix}{field.name}.")
        else:
            names.append("--" + f"{prefix}{field.name}".replace("_", "-"))
    return names


def _unknown(argument: str) -> str:
    """What to say of an argument that is no option."""
    option = argument.partition("=")[0].replace("_", "-")
    near = difflib.get_close_matches(option, _options(Command), n=1, cutoff=0.5)
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
