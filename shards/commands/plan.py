"""`plan`: what a run over datasets would read, counted before there is a GPU: epochs, sources, views, loads."""

import argparse
import json
from typing import Any

import numpy as np

from shards.arguments import add_options, read_options
from shards.commands import words
from shards.data_config import DataConfig, PlanError
from shards.mixture import open_mixture
from shards.plan import Plan

_SAMPLE = 64


def add(commands: Any) -> None:
    """Add the command."""
    description = "what a run would read: steps an epoch, source mix, views, repeats, each rank's load"
    parser = commands.add_parser(
        "plan",
        help=description,
        description=description[0].upper() + description[1:] + ".",
        epilog="example:\n  python -m shards plan data/a=3 data/b=1 --views 2 24 --lanes 64 --ranks 16",
    )
    parser.add_argument("datasets", nargs="+", metavar="DIR[=WEIGHT]", help="datasets, and their weights")
    parser.add_argument("--ranks", type=int, default=1, metavar="N", help="processes that train (default: 1)")
    parser.add_argument("--split", choices=("train", "val"), default="train", help="default: train")
    parser.add_argument("--dry-run", action="store_true", help="as always: this command only looks")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    add_options(parser, DataConfig, "what a batch is (as in pretrain's recipes)")
    parser.set_defaults(run=_plan)


def figures(plan: Plan, ranks: int) -> dict[str, Any]:
    """`Plan.summary`, and what each of `ranks` processes has to do in a step.

    Work is the same for all by construction; what differs is which chunks they read, counted over up to 64
    steps spread over the first epoch. ShardsError where the ranks cannot share the lanes.
    """
    lanes = plan.config.lanes
    legal = [n for n in range(1, lanes + 1) if lanes % n == 0]
    if ranks not in legal:
        raise PlanError(
            f"{ranks} ranks cannot share {lanes} lanes evenly: use one of {', '.join(map(str, legal))} ranks"
        )
    steps = np.unique(np.linspace(0, plan.steps_per_epoch - 1, _SAMPLE).astype(int)).tolist()
    loads = []
    for rank in range(ranks):
        own = range(rank, lanes, ranks)
        scenes, chunks, squares = np.zeros(len(plan.coverage.pools), int), 0, 0
        for step in steps:
            slots = [plan.coverage.at(step, lane) for lane in own]
            for shown in slots:
                scenes += np.bincount(shown.pools, minlength=len(scenes))
                squares += int((shown.sizes**2).sum())
            chunks += len(np.unique(np.concatenate([shown.rows for shown in slots])))
        loads.append(
            {
                "rank": rank,
                "lanes": list(own),
                "images_per_step": len(own) * plan.config.images_per_lane,
                "scenes_per_step": len(own) * plan.config.scenes_per_lane,
                "view_pairs_per_step": squares / len(steps),
                "chunks_per_step": chunks / len(steps),
                "share_of_scenes": (scenes / scenes.sum()).round(4).tolist(),
            }
        )
    return plan.summary() | {"ranks": ranks, "steps_counted": len(steps), "loads": loads}


def _plan(arguments: argparse.Namespace) -> int:
    plan = Plan(open_mixture(arguments.datasets), read_options(DataConfig, arguments), arguments.split)
    told = figures(plan, arguments.ranks)
    if arguments.json:
        print(json.dumps(told, indent=1))
        return 0
    step = told["lanes"] * told["images_per_lane"]
    print(
        f"epoch    {words.count(told['steps_per_epoch'], 'step')} of {step:,} images in {told['lanes']} lanes,"
        f" {told['images_per_epoch']:,} images in {told['scenes_per_epoch']:,} scenes"
    )
    if told["skipped_chunks"]:
        print(
            f"skipped  {words.count(told['skipped_chunks'], 'chunk')} with fewer frames than any step shows"
        )
    print("sources")
    for source in told["sources"]:
        name = source["source"] or arguments.datasets[0]
        single = ", by themselves" if source["single_images"] else ""
        print(
            f"  {name}: {source['frames']:,} frames in {words.count(source['chunks'], 'chunk')}{single};"
            f" {source['share_of_scenes']:.2%} of scenes, {source['share_of_images']:.2%} of images;"
            f" passed {source['passes_per_epoch']:.4g} times an epoch (once in {source['steps_per_pass']:,} steps),"
            f" every frame in each pass, {source['repeat_rate']:.2%} repeats"
        )
    print("views    scenes an epoch")
    most = max(told["views"].values())
    for views, number in told["views"].items():
        print(f"  {views:3d}  {number:12,}  {'#' * round(40 * number / most)}")
    print(f"ranks    load of a step (chunks and sources counted over {told['steps_counted']} steps)")
    for load in told["loads"]:
        shares = " ".join(f"{share:.1%}" for share in load["share_of_scenes"])
        print(
            f"  {load['rank']:4d}  {words.count(len(load['lanes']), 'lane')}, {load['images_per_step']:,} images,"
            f" {load['scenes_per_step']:,} scenes, {load['view_pairs_per_step']:,.0f} pairs of views,"
            f" {load['chunks_per_step']:,.1f} chunks; sources {shares}"
        )
    return 0
