"""What became of every scene and frame of a build: counted one by one, added up over parts, told at the end.

Counts hold no times, so that a manifest with a report in it is the same whenever it is made. This file knows
nothing of how scenes are found, converted and written.
"""

import dataclasses
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from shards.convert import ConvertedScene
from shards.cutting import SMALL_SCENE

_NAMED = 100
"""Most refused frames or dropped scenes that a report names; it counts them all."""

_REASONS = 100
"""Most kinds of reasons that a report tells apart."""

Counts = dict[str, int]


@dataclass(kw_only=True)
class Report:
    """What a build did; also in the manifest's first line."""

    frames_in: int = 0
    frames_out: int = 0
    frames_refused: int = 0
    refused: list[tuple[str, str]] = field(default_factory=list)
    """(picture, reason), the first hundred."""
    refused_for: Counts = field(default_factory=dict)
    """Reason -> frames; numbers and paths in it left out."""
    scenes_in: int = 0
    scenes_out: int = 0
    scenes_dropped: int = 0
    dropped: list[tuple[str, str]] = field(default_factory=list)
    """(scene, reason), the first hundred."""
    dropped_for: Counts = field(default_factory=dict)
    """Reason -> scenes; numbers and paths in it left out."""
    scenes_denied: int = 0
    """Scenes dropped because they are for evaluation (`--deny`)."""
    small_scenes: int = 0
    """Scenes kept though they have fewer than 24 frames."""
    scenes: Counts = field(default_factory=dict)
    """Split -> scenes."""
    frames: Counts = field(default_factory=dict)
    """Split -> frames."""
    licences: Counts = field(default_factory=dict)
    """Licence -> frames."""
    overlap_from: Counts = field(default_factory=dict)
    """What overlap was measured from -> scenes."""
    bytes_in: int = 0
    """Size of the pictures' files; rendered and decoded pixels have none."""
    bytes_out: int = 0
    """Size of the shards."""
    part: str = ""
    """`2/3` where this is a part of a dataset that is not whole yet."""
    missing_parts: list[int] = field(default_factory=list)
    existed: bool = False
    """The dataset was there already, built from the same input with the same options."""

    def add(self, scene: ConvertedScene) -> None:
        """Count one converted or dropped scene."""
        frames = sum(len(chunk.jpegs) for chunk in scene.chunks)
        self.scenes_in += 1
        self.frames_in += scene.frames_in
        self.frames_out += frames
        self.bytes_in += scene.bytes_in
        self.frames_refused += len(scene.refused)
        self.refused += scene.refused[: _NAMED - len(self.refused)]
        _count(self.refused_for, ((kind_of(reason), 1) for _, reason in scene.refused), _REASONS)
        if not scene.chunks:
            self.scenes_dropped += 1
            self.scenes_denied += scene.denied
            self.dropped += [(scene.name, scene.reason)][: _NAMED - len(self.dropped)]
            _count(self.dropped_for, [(kind_of(scene.reason), 1)], _REASONS)
            return
        self.scenes_out += 1
        self.small_scenes += frames < SMALL_SCENE
        _count(self.scenes, [(scene.split, 1)])
        _count(self.frames, [(scene.split, frames)])
        _count(self.licences, [(scene.licence, frames)])
        _count(self.overlap_from, [(scene.overlap_from, 1)])

    def merge(self, other: "Report") -> None:
        """Add the counts of scenes that follow these."""
        for name, value in vars(other).items():
            mine = getattr(self, name)
            if isinstance(value, bool | str) or name == "missing_parts":
                continue
            if isinstance(value, int):
                setattr(self, name, mine + value)
            elif isinstance(value, dict):
                _count(mine, value.items(), _REASONS if name.endswith("_for") else None)
            else:
                mine += [tuple(row) for row in value[: _NAMED - len(mine)]]

    def stored(self) -> dict[str, Any]:
        """As JSON for a manifest or a journal."""
        kept = {k: v for k, v in vars(self).items() if k not in {"existed", "part", "missing_parts"}}
        return {k: dict(sorted(v.items())) if isinstance(v, dict) else v for k, v in kept.items()}

    def totals(self) -> dict[str, Any]:
        """What a manifest's first line says beside its own totals."""
        splits = {
            split: {"scenes": self.scenes.get(split, 0), "frames": self.frames.get(split, 0)}
            for split in ("train", "val")
        }
        return {
            "scenes": self.scenes_out,
            "small_scenes": self.small_scenes,
            "splits": splits,
            "licences": dict(sorted(self.licences.items())),
        }


def read_report(stored: dict[str, Any]) -> Report:
    """The report that `stored` gave; fields that this version does not know are passed over."""
    report = Report()
    known = {f.name for f in dataclasses.fields(Report)}
    report.merge(Report(**{k: v for k, v in stored.items() if k in known}))
    return report


def kind_of(reason: str) -> str:
    """A reason without what differs from one picture to the next: its numbers and paths."""
    return re.sub(r"\S*/\S*", "...", re.sub(r"\d[\d.,]*", "N", reason))[:200]


def _count(counts: Counts, more: Iterable[tuple[str, int]], most: int | None = None) -> None:
    for key, number in more:
        known = key if key in counts or most is None or len(counts) < most else "other reasons"
        counts[known] = counts.get(known, 0) + number
