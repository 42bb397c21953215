"""Dataset families, a file each: every source finds scenes and reads them, one at a time.

A source is a module with three names:

    Options                 frozen dataclass: its options on the command line, a docstring under each field
    find(paths, options)    yields tasks: cheap, picklable frozen dataclasses in a fixed order, each with the
                            scene's `name` and, where it is known, `views`, the number of its frames; paths in
                            a task stand for input files and are part of the build's fingerprint
    read(task) -> Scene     the heavy part; runs in worker processes

A task that stands for several scenes (the shots of a video, a batch of pictures) lets `read` return a list of
them or yield one after another, with names distinct within the build; they share the task's split. A source
whose scenes are single pictures says so with `SINGLE_VIEWS = True`: they are kept without being asked for, and
each finds its split by a hash of its own name.

Bad input raises `shards.format.ShardsError` with one sentence. A source is listed in `SOURCES` and nowhere
else; its module is imported when it is asked for, so what it needs is needed only then.
"""

import difflib
import importlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from shards.format import Scene, ShardsError

SOURCES = {
    "scenes": "shards.sources.scenes",
    "images": "shards.sources.images",
    "colmap": "shards.sources.colmap",
    "megadepth": "shards.sources.megadepth",
    "megascenes": "shards.sources.megascenes",
    "blendedmvs": "shards.sources.blendedmvs",
    "scannetpp": "shards.sources.scannetpp",
    "dl3dv": "shards.sources.dl3dv",
    "jgz": "shards.sources.jgz",
    "co3d": "shards.sources.co3d",
    "wildrgbd": "shards.sources.wildrgbd",
    "arkitscenes": "shards.sources.arkitscenes",
    "hypersim": "shards.sources.hypersim",
    "realestate10k": "shards.sources.realestate10k",
    "streetview": "shards.sources.streetview",
    "video": "shards.sources.video",
    "imagenet": "shards.sources.imagenet",
}
"""Source's name -> module."""


class Task(Protocol):
    """One scene to be read: a frozen dataclass with at least its name."""

    @property
    def name(self) -> str:
        """The scene's name, distinct within the build."""
        ...


class Source(Protocol):
    """What a source's module looks like."""

    Options: type

    def find(self, paths: Sequence[Path], options: Any) -> Iterator[Task]:
        """Scenes below `paths`."""
        ...

    def read(self, task: Any) -> Scene | Iterable[Scene]:
        """One scene with its frames, or several."""
        ...


def get_source(name: str) -> Source:
    """The module of a source; ShardsError suggests the nearest name where there is none."""
    if name not in SOURCES:
        near = difflib.get_close_matches(name, SOURCES, n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ShardsError(f"there is no source {name!r}{hint} (sources: {', '.join(sorted(SOURCES))})")
    return importlib.import_module(SOURCES[name])  # type: ignore[return-value]
