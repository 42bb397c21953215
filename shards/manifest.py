"""The lines of a dataset's manifest and the header of an index, read and checked: version, names, totals."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from shards import format as fmt
from shards.format import NotADataset
from shards.storage import Folder, Url, open_storage

_NAME = re.compile(r"shards/[A-Za-z0-9][A-Za-z0-9._-]*\.tar")
_FIELDS = {"chunks": int, "frames": int, "source": str, "sha256": str}


def read_index_header(data: bytes, path: str | Path) -> np.void:
    """The header of an `.idx` (a record of `shards.format.INDEX_HEADER`); NotADataset where it is none."""
    if len(data) < fmt.INDEX_HEADER.itemsize:
        raise NotADataset(f"{path} is cut off: it has {len(data)} bytes")
    header = np.frombuffer(data, fmt.INDEX_HEADER, count=1)[0]
    if header["magic"] != fmt.INDEX_MAGIC:
        raise NotADataset(f"{path} is not a shard's index")
    _check_version(int(header["version"]), path)
    return header


def _check_version(version: Any, path: str | Path) -> None:
    if not isinstance(version, int) or version < 1:
        raise NotADataset(f"{path} has no readable version ({version!r})")
    if version > fmt.VERSION:
        newer = f"newer than this mumkit's {fmt.VERSION}: install a newer mumkit"
        raise NotADataset(f"{path} has format version {version}, {newer}")
    if version < fmt.VERSION:
        raise NotADataset(
            f"{path} has format version {version}, this mumkit reads {fmt.VERSION}: build the dataset again"
        )


def read_manifest(place: str | Path | Folder | Url) -> tuple[dict[str, Any], list[dict[str, Any]], str]:
    """First line, shard lines, and sha256 of the shard lines of a dataset's manifest; NotADataset says why
    not."""
    files = open_storage(place) if isinstance(place, str | Path) else place
    root, path = files.root, files.where("manifest.jsonl")
    try:
        lines = files.read("manifest.jsonl").decode().splitlines()
    except (FileNotFoundError, NotADirectoryError):
        what = "is not a dataset (it holds no manifest.jsonl)" if files.exists() else "does not exist"
        make = f"python -m shards build SOURCE PATH --out {'DIR' if isinstance(files, Url) else root}"
        raise NotADataset(f"{root} {what}; make one with: {make}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise NotADataset(f"{path} cannot be read: {error}") from None
    try:
        header, *shards = [json.loads(line) for line in lines]
        if header["format"] != "mumkit-shards":
            raise KeyError(header["format"])
        _check_version(header["version"], path)
        for shard in shards:
            if not _NAME.fullmatch(shard["name"]):
                raise KeyError(shard["name"])
            for field, kind in _FIELDS.items():
                if not isinstance(shard[field], kind):
                    raise KeyError(f"{field} of {shard['name']}")
        if len(shards) != header["shards"] or len({shard["name"] for shard in shards}) != len(shards):
            raise KeyError(f"{header['shards']} shards")
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        if isinstance(error, NotADataset):
            raise
        raise NotADataset(f"{path} is not a dataset's manifest ({error})") from None
    digest = hashlib.sha256("\n".join(lines[1:]).encode()).hexdigest()
    return header, shards, digest
