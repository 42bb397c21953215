"""The command line of the probes: ``python -m probes run matching --encoder E... --data D... --out DIR``.

It only parses, calls and prints. Bad input gives one sentence on stderr and exit code 2.
"""

import argparse
import json
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from probes.errors import ProbeError, nearest

PROBES = ("matching",)
_EXAMPLE = """\
example:
  python -m probes run matching --encoder runs/a random:mum_vittiny_patch8 pixels --data shards/ --out scores/a

encoders: a checkpoint file, a run folder, timm:NAME, random:NAME[:SEED] or pixels[:PATCH], each also LABEL=SPEC
data:     a shard folder with depth (its val split is scored) or colmap:PATH
"""


class _Parser(argparse.ArgumentParser):
    """Errors in one line, with the nearest option that exists."""

    def error(self, message: str) -> NoReturn:
        raise ProbeError(f"{message} (see {self.prog} --help)")

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: object = None) -> tuple:
        found, unknown = super().parse_known_args(args, namespace)
        options = [option for option in unknown if option.startswith("-")]
        if options:
            known = [name for action in self._actions for name in action.option_strings]
            raise ProbeError(f"unknown option {options[0].partition('=')[0]}{nearest(options[0], known)}")
        return found, unknown


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code: 0, or 2 after one sentence about bad input."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        options = _parser().parse_args(arguments)
        if options.probe not in PROBES:
            raise ProbeError(f"unknown probe {options.probe!r}{nearest(options.probe, PROBES)}")
        return _matching(options, "python -m probes " + shlex.join(arguments))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except ValueError as error:
        if not _is_users(error):
            raise
        print(f"mum-probe: {' '.join(str(error).split())}", file=sys.stderr)
        return 2


def _is_users(error: ValueError) -> bool:
    """Whether the error speaks to the user: ours, or of the rooms whose files were read."""
    return type(error).__module__.split(".")[0] in {"probes", "mum", "shards"}


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="mum-probe", description="How good are frozen features? Scores for any encoder.")
    commands = parser.add_subparsers(required=True, metavar="run", parser_class=_Parser)
    run = commands.add_parser(
        "run",
        help="score encoders and write a report",
        description="Score frozen encoders on data sets; writes results.json, pairs.csv, table.csv and "
        "report.html.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    run.add_argument("probe", help="matching: where does a patch of one view lie in another?")
    run.add_argument("--encoder", nargs="+", required=True, metavar="E", help="encoders, see below")
    run.add_argument("--data", nargs="+", required=True, metavar="D", help="data to score on, see below")
    run.add_argument(
        "--train-data",
        nargs="+",
        metavar="D",
        help="data to train the linear reading on (default: the train split of the shard folders in --data)",
    )
    run.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder of the results")
    run.add_argument(
        "--size",
        type=int,
        metavar="PX",
        help="evaluated size (default: 448, or less where images are smaller)",
    )
    run.add_argument(
        "--readings",
        nargs="+",
        metavar="R",
        help="knn, linear (default: both; knn alone where there is nothing to train on)",
    )
    run.add_argument(
        "--layers", nargs="+", default=["last"], metavar="L", help="last, all, or block numbers from 1"
    )
    run.add_argument("--pairs", type=int, default=384, metavar="N", help="scored pairs of each data set")
    run.add_argument("--seed", type=int, default=0, help="of random encoders and of the linear reading")
    run.add_argument(
        "--cache", metavar="DIR", help="feature cache (default: ~/.cache/mumkit/features), or none"
    )
    run.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 ...")
    run.add_argument("--batch", type=int, default=32, metavar="N", help="images a forward pass")
    run.add_argument("--force", action="store_true", help="replace results of another configuration in --out")
    run.add_argument("--json", action="store_true", help="print the table as JSON")
    return parser


def _matching(options: argparse.Namespace, command: str) -> int:
    for name in ("pairs", "batch"):
        if getattr(options, name) < 1:
            raise ProbeError(f"--{name} must be at least 1, not {getattr(options, name)}")
    layers = _layers(options.layers)
    # Imported late, so that --help and a mistyped option answer at once.
    import torch

    from probes import features, matching

    cache = None if options.cache == "none" else Path(options.cache or features.default_cache())
    try:
        device = torch.device(
            ("cuda" if torch.cuda.is_available() else "cpu") if options.device == "auto" else options.device
        )
    except RuntimeError as error:
        raise ProbeError(f"--device {options.device!r} is no device of torch's") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ProbeError(f"--device {options.device!r}: this machine has no usable CUDA device")
    results = matching.run(
        options.encoder,
        options.data,
        train_data=options.train_data,
        out=options.out,
        size=options.size,
        readings=options.readings,
        layers=layers,
        pairs=options.pairs,
        seed=options.seed,
        cache=cache,
        device=device,
        batch=options.batch,
        force=options.force,
        progress=sys.stderr.isatty(),
        command=command,
    )
    if options.json:
        print(json.dumps({"out": str(options.out), **results.to_json()}, indent=1))
    else:
        print(_text(results))
        print(f"report: {options.out / 'report.html'}")
    return 0


def _layers(given: Sequence[str]) -> str | tuple[int, ...]:
    if len(given) == 1 and given[0] in {"last", "all"}:
        return given[0]
    try:
        return tuple(int(layer) for layer in given)
    except ValueError:
        raise ProbeError(f"--layers takes last, all or block numbers, not {' '.join(given)!r}") from None


def _text(results: "matching.Results") -> str:  # noqa: F821
    """The table for a terminal."""
    lines = []
    for data in results.data:
        scenes = f"{data['scenes']} scene{'s' * (data['scenes'] != 1)}"
        interval = " [95 % over scenes]" if data["scenes"] > 1 else ""
        lines.append(
            f"{data['data']}: {data['pairs']} pairs of {scenes} at {data['size']} px, means over pairs{interval}"
        )
        head = ("reading", "position", "encoder", "layer", "EPE px", "PCK one patch", "robust")
        cells = [head]
        for row in results.table:
            if row["data"] == data["data"]:
                layer = "" if row["layer"] is None else str(row["layer"])
                numbers = (
                    _interval(row, "epe", 1),
                    _interval(row, "pck_patch", 3),
                    _interval(row, "robust", 3),
                )
                cells.append((row["reading"], row["position"], row["encoder"], layer, *numbers))
        widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
        lines += [
            "  " + "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells
        ]
    return "\n".join(lines + results.notes)


def _interval(row: dict, metric: str, digits: int) -> str:
    mean, lo, hi = row[metric], row[f"{metric}_lo"], row[f"{metric}_hi"]
    return f"{mean:.{digits}f}" + ("" if lo is None else f" [{lo:.{digits}f}, {hi:.{digits}f}]")


if __name__ == "__main__":
    sys.exit(main())
