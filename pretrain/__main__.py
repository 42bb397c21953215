"""`python -m pretrain RECIPE --data DIR --out RUN`, alone or under torchrun; `python -m pretrain list`."""

import json
import os
import sys
import time

from pretrain.commandline import parse, parse_list, usage
from pretrain.launch import Prepared, launch, prepare, user_errors
from pretrain.parallel import World, read_world
from pretrain.recipes import ABLATIONS, RECIPES


def main() -> None:
    """Run the command line; exit code 2 and one sentence on stderr for bad input."""
    world = read_world()
    arguments = sys.argv[1:]
    if not world.first:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    try:
        if arguments[:1] in (["-h"], ["--help"]):
            print(usage())
        elif arguments[:1] == ["list"]:
            _list(as_json=parse_list(arguments[1:]))
        else:
            command = parse(arguments)
            prepared = prepare(command, _pretended(command.world) if command.world else world)
            config = command.config
            if command.dry_run:
                if world.first:
                    _look_ahead(prepared)
            elif prepared.finished:
                print(
                    f"{prepared.folder.root} is finished: {prepared.beginning.step} of {config.steps} steps, "
                    "nothing to do (more --steps would go on)"
                )
            else:
                stopped = launch(prepared, lambda text: print(text, file=sys.stderr, flush=True))
                if stopped is not None:
                    print(
                        f"{prepared.folder.root} is stopped and saved ({stopped}): the same command goes on"
                    )
                    sys.exit(stopped.exit_code())
                print(f"{prepared.folder.root} is finished: {config.steps} steps")
    except KeyboardInterrupt:
        sys.exit(130)
    except user_errors() as error:
        if world.first or getattr(error, "own_rank", False):
            print(f"pretrain: {error}", file=sys.stderr, flush=True)
        else:
            # torchrun ends all processes when one has failed: rank 0 speaks first.
            time.sleep(3)
        sys.exit(2)


def _pretended(size: int) -> World:
    """Rank 0 of so many ranks that need not be there."""
    return World(rank=0, size=size, local_rank=0, local_size=1)


# What follows runs the model on tensors without contents, whose machinery a run does not need to import.


def _look_ahead(prepared: Prepared) -> None:
    from pretrain.dry_run import dry_run, dry_run_in_words

    as_json = prepared.command.json
    print(json.dumps(dry_run(prepared), indent=1) if as_json else dry_run_in_words(prepared))


def _list(*, as_json: bool) -> None:
    from pretrain.dry_run import recipe_figures, recipe_in_words

    if as_json:
        print(json.dumps([recipe_figures(name) for name in RECIPES], indent=1))
        return
    for name in RECIPES:
        print(recipe_in_words(name), flush=True)
    print("Ablations of any recipe, one option each:")
    width = max(map(len, ABLATIONS))
    for what, options in ABLATIONS.items():
        print(f"    {what:{width}}  {' '.join(options)}")


if __name__ == "__main__":
    main()
