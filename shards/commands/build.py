"""`build`: photographs to shards, one sub-command a source."""

import argparse
import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tqdm import tqdm

from shards.arguments import Parser, add_options, read_options
from shards.build import BuildOptions, Report, build
from shards.commands import words
from shards.reader import Dataset, open_dataset
from shards.sources import SOURCES, get_source

_EXAMPLES = {
    "scenes": "python -m shards build scenes --scenes 1500 --out data/scenes",
    "images": "python -m shards build images photos/ --out data/photos",
    "colmap": "python -m shards build colmap garden/ kitchen/ --out data/mine",
    "megadepth": "python -m shards build megadepth MegaDepth/ --out data/megadepth",
    "megascenes": "python -m shards build megascenes MegaScenes/ --min-views 12 --skip-bad --out data/megascenes",
    "blendedmvs": "python -m shards build blendedmvs BlendedMVS/ --out data/blendedmvs",
    "scannetpp": "python -m shards build scannetpp scannetpp/ --images fisheye --out data/scannetpp",
    "dl3dv": "python -m shards build dl3dv DL3DV-10K/ --out data/dl3dv",
    "jgz": "python -m shards build jgz co3d_train.jgz --root co3d/ --ordered --out data/co3d",
    "co3d": "python -m shards build co3d CO3D/ --out data/co3d",
    "wildrgbd": "python -m shards build wildrgbd WildRGB-D/ --out data/wildrgbd",
    "arkitscenes": "python -m shards build arkitscenes ARKitScenes/raw/ --out data/arkitscenes",
    "hypersim": "python -m shards build hypersim Hypersim/ --out data/hypersim",
    "realestate10k": "python -m shards build realestate10k RealEstate10K/ --stride 6 --out data/realestate10k",
    "streetview": "python -m shards build streetview 3D_Street_View/ --out data/streetview",
    "video": "python -m shards build video walks/ --spacing parallax --out data/walks",
    "imagenet": "python -m shards build imagenet ILSVRC2012/ --out data/imagenet",
}


def add(commands: Any) -> None:
    """Add the command and a sub-command for every source."""
    building = commands.add_parser(
        "build", help="photographs to shards", description="Build a dataset from a source.", epilog=_epilog()
    )
    sources = building.add_subparsers(required=True, metavar="SOURCE", dest="source", parser_class=Parser)
    for name in SOURCES:
        _add_source(sources, name)


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
    words.check_workers(arguments.workers)
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
            f"{k} {words.count(v['scenes'], 'scene')}, {words.count(v['frames'], 'frame')}"
            for k, v in splits.items()
        )
    )
    if not splits["val"]["scenes"]:
        print("        no scene is held out: validation figures need at least two scenes")
    size = dataset.header["bytes"]
    print(
        f"size    {words.size(size)} in {words.count(len(dataset.shards), 'shard')},"
        f" {words.count(dataset.num_chunks, 'chunk')}"
    )
