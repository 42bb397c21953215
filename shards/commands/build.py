"""`build`: photographs to shards, one sub-command a source."""

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tqdm import tqdm

from shards.arguments import Parser, add_options, read_options
from shards.build import BuildOptions, build
from shards.build_report import Report
from shards.commands import words
from shards.cutting import SMALL_SCENE
from shards.executor import Execution
from shards.format import SPLITS
from shards.parts import parse_part
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
    parser.add_argument(
        "--part",
        metavar="I/N",
        help="build the I-th of N parts of the scenes, counted from 1; the last to finish joins them all in DIR"
        " (sbatch --array=1-16: --part $SLURM_ARRAY_TASK_ID/16)",
    )
    parser.add_argument("--force", action="store_true", help="replace another dataset in DIR")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    add_options(parser, Execution, "what runs it")
    add_options(parser, BuildOptions, "options of every source")
    add_options(parser, module.Options, f"options of {name}")
    parser.set_defaults(run=_build)


def _build(arguments: argparse.Namespace) -> int:
    started = time.monotonic()
    try:
        report = build(
            arguments.source,
            arguments.paths,
            arguments.out,
            options=read_options(BuildOptions, arguments),
            source_options=read_options(get_source(arguments.source).Options, arguments),
            execution=read_options(Execution, arguments),
            part=parse_part(arguments.part) if arguments.part else None,
            force=arguments.force,
            progress=_build_bar,
        )
    except KeyboardInterrupt:
        print("stopped; the same command goes on behind the shards that are finished", file=sys.stderr)
        return 130
    seconds = time.monotonic() - started
    if arguments.json:
        speed = None if report.existed else round(report.frames_in / seconds, 1)
        times = {"seconds": round(seconds, 1), "frames_per_second": speed}
        print(json.dumps(dataclasses.asdict(report) | times, indent=1))
    else:
        _print_report(report, arguments.out, seconds)
    return 0


def _build_bar(scenes: int) -> Callable[[int, int], None]:
    bar = tqdm(total=scenes, unit="scene", desc="build", disable=None)

    def update(done: int, frames: int) -> None:
        bar.set_postfix_str(f"{frames} frames", refresh=False)
        bar.update(done - bar.n)
        if done == scenes:
            bar.close()

    return update


def _print_report(report: Report, out: Path, seconds: float) -> None:
    if report.existed:
        what = f"part {report.part} of {out}" if report.part else f"{out}"
        print(f"{what} is built already from the same input with the same options; nothing to do.")
    else:
        what = f"{out}, part {report.part}" if report.part else f"{out}"
        print(f"{what}: built in {seconds:.1f} s, {report.frames_in / seconds:,.0f} frames a second")
    _print_counts("frames", report.frames_in, report.frames_out, {"refused": report.frames_refused})
    _print_reasons("refused", report.refused_for, report.refused)
    named = {"dropped": report.scenes_dropped, "of them for evaluation": report.scenes_denied}
    _print_counts("scenes", report.scenes_in, report.scenes_out, named)
    _print_reasons("dropped", report.dropped_for, report.dropped)
    if report.small_scenes:
        print(f"        {words.count(report.small_scenes, 'small scene')} of fewer than {SMALL_SCENE} frames")
    splits = [
        f"{split} {words.count(report.scenes.get(split, 0), 'scene')},"
        f" {words.count(report.frames.get(split, 0), 'frame')}"
        for split in SPLITS
    ]
    print("splits  " + ", ".join(splits))
    if not report.scenes.get("val") and not report.part:
        print("        no scene is held out: validation figures need at least two scenes")
    print("overlap " + ", ".join(f"{k} {words.count(v, 'scene')}" for k, v in report.overlap_from.items()))
    print(
        f"size    {words.size(report.bytes_in)} of pictures in, {words.size(report.bytes_out)} of shards out"
    )
    if report.missing_parts:
        still = ", ".join(str(number) for number in report.missing_parts[:20])
        print(f"parts   {out} is no dataset yet; still to be built: {still}")


def _print_counts(what: str, before: int, after: int, lost: dict[str, int]) -> None:
    less = "".join(f", {number:,} {name}" for name, number in lost.items() if number)
    print(f"{what:7s} {before:,} in, {after:,} out{less}")


def _print_reasons(verb: str, reasons: dict[str, int], named: list[tuple[str, str]]) -> None:
    if len(named) > 5:
        for reason, number in sorted(reasons.items(), key=lambda item: -item[1]):
            print(f"        {verb} {number:,}: {reason}")
    for name, reason in named:
        print(f"        {verb} {name}: {reason}")
    if sum(reasons.values()) > len(named):
        print(f"        {verb}: {sum(reasons.values()) - len(named):,} more")
