"""The command line of the probes: ``python -m probes run|report|compare|list``.

It only parses, calls and prints. Bad input gives one sentence on stderr and exit code 2.
"""

import argparse
import json
import os
import shlex
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from probes.errors import ProbeError, nearest

_RUN_EXAMPLE = """\
examples:
  python -m probes run all --encoder runs/a random:mum_vittiny_patch8 --data shards/ --out scores/a --preset small
  python -m probes run matching pose --encoder timm:vit_large_patch16_dinov3 MUM=mum_vitl16.pth \\
      --data megadepth1500:/data/megadepth --train-data megadepth:/data/megadepth --out scores/megadepth

probes:   all, matching, pose, multiview_pose, pointmap, depth, normals, segmentation, consistency, speed
encoders: a checkpoint file, a run folder, timm:NAME, timm:NAME@FILE, random:NAME[:SEED] or pixels[:PATCH], each also
          under a name of yours as LABEL=SPEC
data:     a shard folder (its val split is scored) or BENCHMARK:PATH; `python -m probes list` says which there are,
          where their users get them and what PATH must hold
"""


_ENCODERS = {
    "FILE": "a checkpoint: an export or a checkpoint of a run, a released MuM, CroCo, DUSt3R or MASt3R",
    "FOLDER": "a run, or a model that timm saved",
    "timm:NAME": "a vision transformer of timm with its published weights",
    "timm:NAME@FILE": "the same with weights from a file: DINOv2, DINOv3, MAE, CLIP, SAM or timm's own form",
    "random:NAME[:SEED]": "untrained: what the architecture knows before it has seen anything",
    "pixels[:PATCH]": "the pixels of each patch, without any model",
    "LABEL=SPEC": "any of these under a name of yours",
}
_COMMANDS = ("run", "report", "compare", "list")
_WIDTH = 110


class _Parser(argparse.ArgumentParser):
    """Errors in one line, with the nearest option that exists."""

    def error(self, message: str) -> NoReturn:
        _, found, given = message.partition("argument COMMAND: invalid choice: ")
        if found:
            name = given.split("'")[1]
            raise ProbeError(f"unknown command {name!r}{nearest(name, _COMMANDS)}")
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
        options.line = "python -m probes " + shlex.join(arguments)
        return options.call(options)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("mum-probe: interrupted; what was finished is kept, the same command goes on", file=sys.stderr)
        return 130
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
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)
    _add_run(commands)
    _add_report(commands)
    _add_compare(commands)
    _add_list(commands)
    return parser


def _command(commands: argparse._SubParsersAction, name: str, words: str, more: str, example: str) -> _Parser:
    return commands.add_parser(
        name,
        help=words,
        description=more,
        epilog=example,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def _add_run(commands: argparse._SubParsersAction) -> None:
    run = _command(
        commands,
        "run",
        "score encoders and write a report",
        "Score frozen encoders on data sets. Writes report.html, table.csv, table.tex, rows-PROBE.csv and\n"
        "results.json. Features and finished parts are kept in the cache: the same command goes on where it stopped.",
        _RUN_EXAMPLE,
    )
    run.set_defaults(call=_run)
    run.add_argument("probes", nargs="+", metavar="PROBE", help="what to score, see below")
    run.add_argument("--encoder", nargs="+", required=True, metavar="E", help="encoders, see below")
    run.add_argument("--data", nargs="+", required=True, metavar="D", help="data to score on, see below")
    run.add_argument(
        "--train-data",
        nargs="+",
        default=[],
        metavar="D",
        help="data to train heads on (default: the training part of --data; images that are scored are left out)",
    )
    run.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder of the results")
    run.add_argument(
        "--preset",
        default="standard",
        metavar="P",
        help="standard: the published protocols (default); small: minutes on a CPU",
    )
    run.add_argument(
        "--size",
        type=int,
        metavar="PX",
        help="evaluated size (default: 448, small 128; less for small images)",
    )
    run.add_argument(
        "--fit",
        metavar="F",
        help="crop the central square or squash the whole image (default: the data's rule)",
    )
    run.add_argument(
        "--layers", nargs="+", default=["last"], metavar="L", help="last, all, or block numbers from 1"
    )
    run.add_argument("--readings", nargs="+", metavar="R", help="only these readings, such as knn or linear")
    run.add_argument(
        "--items", type=int, metavar="N", help="most scored pairs, frames or sequences of a data set"
    )
    run.add_argument(
        "--seeds", nargs="+", type=int, metavar="S", help="of all that is trained (default: 0 1 2; small: 0)"
    )
    run.add_argument(
        "--base",
        metavar="LABEL",
        help="encoder that the others were made from: consistency tells what is left of it",
    )
    run.add_argument("--no-pixels", action="store_true", help="leave out the raw-pixel baseline")
    run.add_argument(
        "--cache", metavar="DIR", help="features and finished parts (default: ~/.cache/mumkit), or none"
    )
    run.add_argument(
        "--device",
        nargs="+",
        default=["auto"],
        metavar="D",
        help="auto (every GPU), cpu, or cuda:0 cuda:1 ...",
    )
    run.add_argument(
        "--workers", type=int, metavar="N", help="processes that score (default: one a core or GPU)"
    )
    run.add_argument("--batch", type=int, default=32, metavar="N", help="images a forward pass")
    run.add_argument(
        "--allow-missing", action="store_true", help="score what is there of a benchmark, and say what is not"
    )
    run.add_argument("--force", action="store_true", help="replace results of another configuration in --out")
    run.add_argument("--json", action="store_true", help="print the table as JSON")


def _add_report(commands: argparse._SubParsersAction) -> None:
    report = _command(
        commands,
        "report",
        "one page over several results",
        "Join the results of several runs of the probes into one page.",
        "example:\n  python -m probes report scores/a scores/b --out scores/all.html",
    )
    report.set_defaults(call=_report)
    report.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="folders that `run` wrote")
    report.add_argument("--out", required=True, type=Path, metavar="FILE", help="the page to write")


def _add_compare(commands: argparse._SubParsersAction) -> None:
    compare = _command(
        commands,
        "compare",
        "differences of two results, pair by pair",
        "Compare two results on the items both were scored on: differences with intervals and tests, and the items\n"
        "that differ most.",
        "example:\n  python -m probes compare scores/a scores/b --out scores/a-b.html",
    )
    compare.set_defaults(call=_compare)
    compare.add_argument("a", metavar="A", help="folder that `run` wrote, or FOLDER:ENCODER")
    compare.add_argument("b", metavar="B", help="the other one")
    compare.add_argument("--out", type=Path, metavar="FILE", help="also write a page")
    compare.add_argument("--json", action="store_true", help="print as JSON")


def _add_list(commands: argparse._SubParsersAction) -> None:
    listed = _command(
        commands,
        "list",
        "the probes, encoders and benchmarks there are",
        "List the probes with their readings and scores, the ways to name an encoder, and the benchmarks with what\n"
        "they look like on disk and where their users get them.",
        "example:\n  python -m probes list",
    )
    listed.set_defaults(call=_list)
    listed.add_argument("--json", action="store_true", help="print as JSON")


def _run(options: argparse.Namespace) -> int:
    for name in ("items", "batch", "workers"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise ProbeError(f"--{name} must be at least 1, not {value}")
    for name, known in (("preset", ("small", "standard")), ("fit", ("crop", "squash", None))):
        if (value := getattr(options, name)) not in known:
            raise ProbeError(f"--{name} {value!r} is unknown{nearest(str(value), filter(None, known))}")
    layers = _layers(options.layers)
    # Imported late, so that --help and a mistyped option answer at once.
    from probes import suite
    from probes.report import text

    devices = _devices(options.device)
    results = suite.run(
        options.probes,
        options.encoder,
        options.data,
        train_data=options.train_data,
        out=options.out,
        preset=options.preset,
        size=options.size,
        fit=options.fit,
        layers=layers,
        seeds=options.seeds,
        items=options.items,
        readings=options.readings,
        pixels=not options.no_pixels,
        base=options.base,
        cache=options.cache,
        devices=devices,
        workers=options.workers or (len(devices) if devices[0] != "cpu" else os.cpu_count() or 1),
        batch=options.batch,
        allow_missing=options.allow_missing,
        force=options.force,
        progress=sys.stderr.isatty(),
        command=options.line,
    )
    if options.json:
        print(json.dumps({"out": str(options.out), **results.to_json()}, indent=1))
    else:
        print(text.table(results))
        print(f"report: {options.out / 'report.html'}")
    return 0


def _report(options: argparse.Namespace) -> int:
    from probes import report
    from probes.files import write_text
    from probes.results.results import Results
    from probes.units import PROBES, probe

    probes = {name: probe(name) for name in PROBES}
    joined = Results.join([Results.read(folder, probes) for folder in options.folders])
    pages = ", ".join(str(folder / "report.html") for folder in options.folders)
    joined.notes.append(f"Pictures of single items are on the pages of the joined results: {pages}.")
    write_text(options.out, report.page(joined, {}))
    print(f"report: {options.out}")
    return 0


def _compare(options: argparse.Namespace) -> int:
    from probes.files import write_text
    from probes.report.comparison import page
    from probes.results.compare import compare_folders, text
    from probes.units import PROBES, probe

    probes = {name: probe(name) for name in PROBES}
    found = compare_folders(options.a, options.b, probes)
    if options.out:
        write_text(options.out, page(found))
    print(json.dumps(found.to_json(), indent=1) if options.json else text(found))
    if options.out:
        print(f"report: {options.out}", file=sys.stderr if options.json else sys.stdout)
    return 0


def _list(options: argparse.Namespace) -> int:
    from probes import benchmarks
    from probes.units import PROBES, probe

    kinds = [probe(name) for name in PROBES]
    probes = [
        {
            "name": kind.name,
            "question": kind.question,
            "readings": list(kind.leading),
            "scores": [metric.label for metric in kind.metrics],
        }
        for kind in kinds
    ]
    readers = [(name, benchmarks.reader(name)) for name in benchmarks.NAMES]
    known = [
        {"name": name, "title": reader.title, "where": reader.where, "layout": reader.paths}
        for name, reader in readers
    ]
    if options.json:
        print(json.dumps({"probes": probes, "encoders": _ENCODERS, "benchmarks": known}, indent=1))
        return 0
    print("probes, with what --readings may name")
    for row in probes:
        print(_entry(row["name"], row["question"]))
        print(_entry("", f"readings: {', '.join(row['readings'])}"))
        more = f"; {len(row['scores']) - 3} more" if len(row["scores"]) > 3 else ""
        print(_entry("", f"scores: {'; '.join(row['scores'][:3])}{more}"))
    print("\nencoders")
    for form, words in _ENCODERS.items():
        print(_entry(form, words))
    print("\nbenchmarks, given as NAME:PATH (a shard folder also by its path alone)")
    for row in known:
        print(_entry(row["name"], row["title"]))
        print(_entry("", f"from {row['where']}"))
        print("\n".join(f"{'':22}{line}" for line in row["layout"]))
    return 0


def _entry(name: str, words: str) -> str:
    """A name and what it is, in a column that the words do not leave."""
    lines = textwrap.wrap(words, _WIDTH - 22, break_long_words=False, break_on_hyphens=False)
    return f"  {name:<19} " + f"\n{'':22}".join(lines)


def _layers(given: Sequence[str]) -> str | tuple[int, ...]:
    if len(given) == 1 and given[0] in {"last", "all"}:
        return given[0]
    try:
        return tuple(int(layer) for layer in given)
    except ValueError:
        raise ProbeError(f"--layers takes last, all or block numbers, not {' '.join(given)!r}") from None


def _devices(given: Sequence[str]) -> list[str]:
    import torch

    if list(given) == ["auto"]:
        return [f"cuda:{i}" for i in range(torch.cuda.device_count())] or ["cpu"]
    for name in given:
        try:
            device = torch.device(name)
        except RuntimeError as error:
            raise ProbeError(f"--device {name!r} is no device of torch's") from error
        if device.type == "cuda" and not torch.cuda.is_available():
            raise ProbeError(f"--device {name!r}: this machine has no usable CUDA device")
    return list(given)


if __name__ == "__main__":
    sys.exit(main())
