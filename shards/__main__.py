"""`python -m shards build | info | verify | preview`: photographs to datasets, and what is in them."""

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from shards.arguments import Parser, add_options, read_options
from shards.build import BuildOptions, Report, build
from shards.format import ShardsError
from shards.processes import cores
from shards.reader import Dataset, open_dataset
from shards.sources import SOURCES, get_source
from shards.verify import verify

_EXAMPLES = {
    "scenes": "python -m shards build scenes --scenes 1500 --out data/scenes",
    "images": "python -m shards build images photos/ --out data/photos",
    "colmap": "python -m shards build colmap garden/ kitchen/ --out data/mine",
}


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

    building = commands.add_parser(
        "build", help="photographs to shards", description="Build a dataset from a source.", epilog=_epilog()
    )
    sources = building.add_subparsers(required=True, metavar="SOURCE", dest="source", parser_class=Parser)
    for name in SOURCES:
        _add_source(sources, name)

    info = _add(commands, "info", _info, "what a dataset holds", "python -m shards info data/mine --json")
    info.add_argument("--json", action="store_true", help="print the figures as JSON")

    check = _add(
        commands,
        "verify",
        _verify,
        "check every byte of a dataset; exit code 0 if it is whole, 2 with a list of the damage if not",
        "python -m shards verify data/mine",
    )
    check.add_argument("--workers", type=int, metavar="N", help="processes (default: one a core)")
    check.add_argument("--json", action="store_true", help="print the damage as JSON")

    preview = _add(
        commands,
        "preview",
        _preview,
        "a contact sheet of sequences as they are drawn in training, with their overlap",
        "python -m shards preview data/mine --out sheet.png",
    )
    preview.add_argument("--out", type=Path, required=True, metavar="FILE", help="PNG file to write")
    preview.add_argument("--sequences", type=int, default=8, metavar="N", help="rows (default: 8)")
    preview.add_argument("--views", type=int, default=6, metavar="N", help="views a row (default: 6)")
    preview.add_argument("--size", type=int, default=128, metavar="N", help="pixels a view (default: 128)")
    preview.add_argument("--split", choices=("train", "val"), default="train", help="default: train")
    preview.add_argument("--seed", type=int, default=0, metavar="N", help="which draws (default: 0)")
    return parser


def _add(
    commands: Any, name: str, run: Callable[[argparse.Namespace], int], description: str, example: str
) -> argparse.ArgumentParser:
    text = description[0].upper() + description[1:] + "."
    parser = commands.add_parser(name, help=description, description=text, epilog=f"example:\n  {example}")
    parser.add_argument("dataset", type=Path, metavar="DIR", help="a folder that `build` wrote")
    parser.set_defaults(run=run)
    return parser


def _epilog() -> str:
    return "examples:\n" + "\n".join(f"  {line}" for line in _EXAMPLES.values())


def _add_source(sources: Any, name: str) -> None:
    module: Any = get_source(name)
    summary = (module.__doc__ or name).strip().splitlines()[0]
    epilog = f"example:\n  {_EXAMPLES[name]}" if name in _EXAMPLES else None
    parser = sources.add_parser(name, help=summary, description=module.__doc__, epilog=epilog)
    parser.add_argument("paths", nargs="*", type=Path, metavar="PATH", help="folders to read")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the dataset's folder")
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: one a core)")
    parser.add_argument("--force", action="store_true", help="replace another dataset in DIR")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    add_options(parser, BuildOptions, "options of every source")
    add_options(parser, module.Options, f"options of {name}")
    parser.set_defaults(run=_build)


def _build(arguments: argparse.Namespace) -> int:
    _check_workers(arguments.workers)
    started = time.monotonic()
    report = build(
        arguments.source,
        arguments.paths,
        arguments.out,
        options=read_options(BuildOptions, arguments),
        source_options=read_options(get_source(arguments.source).Options, arguments),
        workers=arguments.workers,
        force=arguments.force,
        progress=_build_bar,
    )
    if arguments.json:
        print(json.dumps(dataclasses.asdict(report), indent=1))
    else:
        _print_report(report, open_dataset(arguments.out), time.monotonic() - started)
    return 0


def _build_bar(scenes: int) -> Callable[[int, int], None]:
    bar = tqdm(total=scenes, unit="scene", desc="build", disable=None)

    def update(done: int, frames: int) -> None:
        bar.set_postfix_str(f"{frames} frames", refresh=False)
        bar.update(done - bar.n)
        if done == scenes:
            bar.close()

    return update


def _print_report(report: Report, dataset: Dataset, seconds: float) -> None:
    if report.existed:
        print(f"{dataset.root} is built already from the same input with the same options; nothing to do.")
    else:
        print(f"{dataset.root}: built in {seconds:.1f} s")
    refused = f", {report.frames_refused} refused" if report.frames_refused else ""
    print(f"frames  {report.frames_in} in, {report.frames_out} out{refused}")
    for name, reason in report.refused:
        print(f"        refused {name}: {reason}")
    dropped = f", {report.scenes_dropped} dropped" if report.scenes_dropped else ""
    print(f"scenes  {report.scenes_in} in, {report.scenes_out} out{dropped}")
    for name, reason in report.dropped:
        print(f"        dropped {name}: {reason}")
    splits = dataset.header["splits"]
    print(
        "splits  "
        + ", ".join(
            f"{k} {_count(v['scenes'], 'scene')}, {_count(v['frames'], 'frame')}" for k, v in splits.items()
        )
    )
    if not splits["val"]["scenes"]:
        print("        no scene is held out: validation figures need at least two scenes")
    size = dataset.header["bytes"]
    print(
        f"size    {_size(size)} in {_count(len(dataset.shards), 'shard')}, {_count(dataset.num_chunks, 'chunk')}"
    )


def summary(dataset: Dataset) -> dict[str, Any]:
    """The figures of `info`: totals, by split and licence, and the mean overlap of the pairs of a chunk."""
    known = np.isfinite(dataset.overlap)
    weights = dataset.frames_per_chunk[known]
    overlap = float(np.average(dataset.overlap[known], weights=weights)) if known.any() else None
    kinds = {"depth": 1, "labels": 2, "intrinsics": 4, "poses": 8}
    return {
        "path": str(dataset.root),
        "hash": dataset.hash,
        "version": dataset.header["version"],
        "sources": dataset.sources,
        "scenes": len(np.unique(dataset.scene_hash)),
        "chunks": dataset.num_chunks,
        "frames": dataset.num_frames,
        "shards": len(dataset.shards),
        "bytes": dataset.header["bytes"],
        "splits": dataset.header["splits"],
        "licences": dataset.header["licences"],
        "mean_overlap": overlap,
        "frames_with": {
            name: int(dataset.frames_per_chunk[dataset.has(bit)].sum()) for name, bit in kinds.items()
        },
    }


def _info(arguments: argparse.Namespace) -> int:
    figures = summary(open_dataset(arguments.dataset))
    if arguments.json:
        print(json.dumps(figures, indent=1))
        return 0
    rows = {
        "dataset": f"{figures['path']} (version {figures['version']}, {figures['hash'][:12]})",
        "sources": ", ".join(figures["sources"]),
        "scenes": f"{figures['scenes']:,} in {figures['chunks']:,} chunks",
        "frames": f"{figures['frames']:,}, {figures['frames'] / max(figures['chunks'], 1):.1f} a chunk",
        "size": f"{_size(figures['bytes'])} in {_count(figures['shards'], 'shard')}",
        "splits": ", ".join(
            f"{k} {_count(v['scenes'], 'scene')}, {_count(v['frames'], 'frame')}"
            for k, v in figures["splits"].items()
        ),
        "overlap": "unknown" if figures["mean_overlap"] is None else f"{figures['mean_overlap']:.3f} mean",
        "with": ", ".join(f"{k} {v:,}" for k, v in figures["frames_with"].items()) + " frames",
        "licences": ", ".join(f"{k}: {v:,} frames" for k, v in figures["licences"].items()),
    }
    for name, value in rows.items():
        print(f"{name:9s} {value}")
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    _check_workers(arguments.workers)

    def bar(shards: int) -> Callable[[int], None]:
        shown = tqdm(total=shards, unit="shard", desc="verify", disable=None)

        def update(done: int) -> None:
            shown.update(done - shown.n)
            if done == shards:
                shown.close()

        return update

    dataset = arguments.dataset
    damage = verify(dataset, workers=arguments.workers or cores(), progress=bar)
    if arguments.json:
        print(json.dumps([dataclasses.asdict(d) for d in damage], indent=1))
    else:
        for found in damage:
            print(found)
    if damage:
        shards = len({found.shard for found in damage})
        raise ShardsError(
            f"{dataset} is damaged: {_count(len(damage), 'fault')} in {_count(shards, 'shard')}, first {damage[0]}"
        )
    if not arguments.json:
        whole = open_dataset(dataset)
        print(
            f"{dataset} is whole: {_count(whole.num_frames, 'frame')} in {_count(len(whole.shards), 'shard')}"
        )
    return 0


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


def _check_workers(workers: int | None) -> None:
    if workers is not None and workers < 1:
        raise ShardsError(f"--workers must be at least 1, not {workers}")


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


if __name__ == "__main__":
    sys.exit(main())
