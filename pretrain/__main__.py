"""`python -m pretrain RECIPE --data DIR --out RUN`, alone or under torchrun; `python -m pretrain list`."""

import json
import os
import sys
import time

from pretrain.commandline import list_recipes, parse, usage
from pretrain.launch import launch, prepare, user_errors
from pretrain.parallel import read_world
from pretrain.recipes import to_dict


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
            print(list_recipes(arguments[1:]))
        else:
            prepared = prepare(parse(arguments), world)
            config = prepared.command.config
            if prepared.command.dry_run:
                print(json.dumps({"config": to_dict(config), **prepared.figures()}, indent=1))
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


if __name__ == "__main__":
    main()
