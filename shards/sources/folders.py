"""Folders of photographs: which files count, their natural order, and names that tell scenes apart."""

import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from shards.format import ShardsError
from shards.photographs import SUFFIXES

_SILENT = {"images", "image", "rgb"}
"""Folder names that say nothing of the scene: its parent's name does."""


def natural_key(text: str) -> list[tuple[int, int, str]]:
    """Sort key by which `view9` comes before `view10`."""
    parts = re.split(r"(\d+)", text)
    return [(1, int(part), part) if part.isdecimal() else (0, 0, part) for part in parts]


def check_folders(paths: Sequence[Path]) -> None:
    """ShardsError unless there is at least one path and each is a folder, given once."""
    if not paths:
        raise ShardsError("name at least one folder of photographs")
    for path in paths:
        if not path.exists():
            raise ShardsError(f"{path} does not exist")
        if not path.is_dir():
            raise ShardsError(f"{path} is a file; name the folder it lies in")
    resolved = [path.resolve() for path in paths]
    for path in paths:
        if resolved.count(path.resolve()) > 1:
            raise ShardsError(f"{path} is named twice")


def list_photographs(folder: Path) -> list[Path]:
    """The photographs lying directly in a folder, in natural order; hidden files are none."""
    with os.scandir(folder) as entries:
        names = [
            entry.name
            for entry in entries
            if not entry.name.startswith(".") and os.path.splitext(entry.name)[1].lower() in SUFFIXES
        ]
    return [folder / name for name in sorted(names, key=natural_key) if (folder / name).is_file()]


def children(folder: Path) -> list[Path]:
    """The folders directly in a folder, links to folders too, in natural order; hidden ones are left out."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir()]
    return [folder / name for name in sorted(names, key=natural_key)]


def subfolders(folder: Path) -> list[Path]:
    """The folder and everything below it that is not hidden, each before what it holds, in natural order."""
    found = [folder]
    inner = [p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".") and not p.is_symlink()]
    for path in sorted(inner, key=lambda p: natural_key(p.name)):
        found += subfolders(path)
    return found


def distinct_names(folders: Sequence[Path]) -> list[str]:
    """A name for each folder: its last part, and as many parts before it as it takes to tell them apart."""
    parts = []
    for folder in folders:
        own = list(folder.resolve().parts[1:]) or ["root"]
        parts.append(own[:-1] if own[-1].lower() in _SILENT and len(own) > 1 else own)
    names = ["/".join(own[-1:]) for own in parts]
    length = 1
    while len(set(names)) < len(names) and length < max(map(len, parts)):
        length += 1
        taken = Counter(names)
        names = [
            "/".join(own[-length:]) if taken[name] > 1 else name
            for own, name in zip(parts, names, strict=True)
        ]
    if len(set(names)) < len(names):  # such as x and x/images
        names = ["/".join(folder.resolve().parts[1:]) for folder in folders]
    return names
