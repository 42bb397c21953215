"""`info`: what a dataset holds."""

import argparse
import json
from typing import Any

import numpy as np

from shards.commands import words
from shards.reader import Dataset, open_dataset


def add(commands: Any) -> None:
    """Add the command."""
    parser = words.add_command(
        commands, "info", _info, "what a dataset holds", "python -m shards info data/mine --json"
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")


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


def summary_rows(figures: dict[str, Any]) -> dict[str, str]:
    """The figures as rows of a table, in words."""
    return {
        "dataset": f"{figures['path']} (version {figures['version']}, {figures['hash'][:12]})",
        "sources": ", ".join(figures["sources"]),
        "scenes": f"{figures['scenes']:,} in {figures['chunks']:,} chunks",
        "frames": f"{figures['frames']:,}, {figures['frames'] / max(figures['chunks'], 1):.1f} a chunk",
        "size": f"{words.size(figures['bytes'])} in {words.count(figures['shards'], 'shard')}",
        "splits": ", ".join(
            f"{k} {words.count(v['scenes'], 'scene')}, {words.count(v['frames'], 'frame')}"
            for k, v in figures["splits"].items()
        ),
        "overlap": "unknown" if figures["mean_overlap"] is None else f"{figures['mean_overlap']:.3f} mean",
        "with": ", ".join(f"{k} {v:,}" for k, v in figures["frames_with"].items()) + " frames",
        "licences": ", ".join(f"{k}: {v:,} frames" for k, v in figures["licences"].items()),
    }


def _info(arguments: argparse.Namespace) -> int:
    figures = summary(open_dataset(arguments.dataset))
    if arguments.json:
        print(json.dumps(figures, indent=1))
        return 0
    for name, value in summary_rows(figures).items():
        print(f"{name:9s} {value}")
    return 0
