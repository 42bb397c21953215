"""What a build read, as hashes: of all its tasks, and of the first of them, so that a stopped build can go on.

A path in a task stands for a file and counts with its size and time of change, a folder with those of everything
in it; nothing is opened. This file knows nothing of what a task's fields mean.
"""

import dataclasses
import hashlib
import os
import stat
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

_STREAMS, _BLOCK = 16, 1024
"""Threads that ask for sizes and times, which takes a network disk a while each, and tasks given to them at once."""


class Fingerprint:
    """32 bytes a task; `tasks` pairs each with what else decides its bytes, such as its split."""

    def __init__(self, tasks: Iterable[tuple[Any, str]]) -> None:
        table, left = bytearray(), iter(tasks)
        with ThreadPoolExecutor(_STREAMS) as threads:
            while block := list(islice(left, _BLOCK)):
                table += b"".join(threads.map(_digest, block))
        self._table = bytes(table)

    def first(self, count: int) -> str:
        """Hash of the first `count` tasks; a count beyond the last says that none follows."""
        end = b"end" if 32 * count > len(self._table) else b""
        return hashlib.sha256(self._table[: 32 * count] + end).hexdigest()

    @property
    def whole(self) -> str:
        """Hash of all tasks."""
        return hashlib.sha256(self._table).hexdigest()


def _digest(task: tuple[Any, str]) -> bytes:
    digest = hashlib.sha256(task[1].encode())
    _put(digest, task[0])
    return digest.digest()


def _put(digest: Any, value: Any) -> None:
    if isinstance(value, Path):
        _put_path(digest, os.path.abspath(value))
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            digest.update(f"{field.name}=".encode())
            _put(digest, getattr(value, field.name))
    elif isinstance(value, (tuple, list)):
        for item in value:
            _put(digest, item)
        digest.update(b"]")
    else:
        digest.update(f"{value!r}\n".encode())


def _put_path(digest: Any, path: str) -> None:
    try:
        state = os.stat(path)
        inner = sorted(os.listdir(path)) if stat.S_ISDIR(state.st_mode) else None
    except OSError:  # the source will say what it misses
        digest.update(os.fsencode(path) + b"|missing\n")
        return
    if inner is None:
        digest.update(os.fsencode(path) + f"|{state.st_size}|{state.st_mtime_ns}\n".encode())
        return
    digest.update(os.fsencode(path) + b"/\n")
    for name in inner:
        _put_path(digest, f"{path}/{name}")
