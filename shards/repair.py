"""A damaged dataset made whole: from a twin, from its own sound bytes, or without the frames that are lost.

Each shard that `verify` faults is mended in the first way that serves: a good copy taken from a twin; written
again from its own members, which gives the very bytes that were lost where only headers or the index were
damaged; or written again without what is damaged, which is told in `quarantine.jsonl` and kept in
`quarantine/`. Everything is written beside the dataset and checked, a changed shard under a new name; then the
manifest is replaced, and only then does the old shard go. A repair that is stopped leaves the dataset as it
was.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from shards import format as fmt
from shards.manifest import read_manifest
from shards.salvage import Salvage, salvage
from shards.storage import Folder, Url, index_name, open_storage
from shards.verify import check_shard, parse_index, sha256
from shards.writer import ShardWriter

Tables = tuple[np.ndarray, np.ndarray]
"""An index's chunk and member tables."""

_NUMBER = re.compile(r"(.*-)(\d{6})")


@dataclass(kw_only=True)
class Repair:
    """What was done to one shard."""

    shard: str
    done: str
    """`copied` from the twin, `restored` byte by byte, `rewritten` without what is lost, `removed` since nothing
    was left, or `left` as it is."""
    now: str = ""
    """Its name now, if that changed."""
    lost: list[dict[str, Any]] = field(default_factory=list)
    """Members that are no more: key, offset, reason, and the `frame` whose picture it was."""
    reason: str = ""
    """Why it was left."""

    def __str__(self) -> str:
        frames = sum(row["frame"] is not None for row in self.lost)
        what = {
            "copied": "copied from the twin",
            "restored": "restored, byte by byte as it was",
            "rewritten": f"written again as {self.now} without {frames} damaged frame{'s' * (frames != 1)}",
            "removed": f"removed, since none of its {frames} frames can be read",
            "left": f"left as it is: {self.reason}",
        }[self.done]
        return f"{self.shard}: {what}"


def repair(
    root: str | Path,
    *,
    twin: str | Path | None = None,
    quarantine: Path | None = None,
    decode: bool = False,
    progress: Callable[[int], Callable[[int], None]] | None = None,
) -> list[Repair]:
    """Mend a dataset's folder; returns what was done to each shard that was not whole.

    `twin` is another copy, folder or URL, whose shards are taken where their sha256 is the manifest's.
    `quarantine` is a run's `quarantine.jsonl`: the frames it lists are taken out whatever their crc says.
    `decode` takes out what does not decode. NotADataset where the manifest itself cannot be read; ShardsError
    where another repair is at work or nothing can be written.
    """
    root = Path(root)
    files = Folder(root)
    header, shards, _ = read_manifest(files)
    listed = _read_quarantine(quarantine) if quarantine else {}
    update = progress(len(shards)) if progress else None
    with _staging(root) as staging:
        work = _Work(
            files, staging, open_storage(twin) if twin else None, decode, [s["name"] for s in shards]
        )
        lines: list[dict[str, Any]] = []
        for done, shard in enumerate(shards, 1):
            line = work.mend(shard, listed.get(shard["name"], {}))
            lines += [line] if line else []
            if update:
                update(done)
        work.finish(header, shards, lines)
    return work.repairs


class _Work:
    """Mends shards one by one in the staging folder, then moves all of them into their places."""

    def __init__(
        self, files: Folder, staging: Path, twin: Folder | Url | None, decode: bool, names: list[str]
    ) -> None:
        self.files, self.staging, self.twin, self.decode = files, staging, twin, decode
        self.names = set(names)
        self.repairs: list[Repair] = []
        self.moves: list[tuple[Path, Path]] = []

    def mend(self, shard: dict[str, Any], bad: Mapping[int, str]) -> dict[str, Any] | None:
        """The shard's line of the manifest from now on; None where nothing is left of it."""
        damage = check_shard(self.files, shard, decode=self.decode)
        if not damage and not bad:
            return shard
        if self.twin and damage and self._copy(shard):
            self.repairs.append(Repair(shard=shard["name"], done="copied"))
            return shard
        try:
            descriptor = os.open(self.files.root / shard["name"], os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            reason = "it is missing; name a folder or URL that has it with --from"
            self.repairs.append(Repair(shard=shard["name"], done="left", reason=reason))
            return shard
        try:
            index, trusted = self._evidence(shard)
            if not trusted:
                reason = (
                    "its index is damaged and so is its tar, so nobody can tell good from bad; try --from"
                )
                self.repairs.append(Repair(shard=shard["name"], done="left", reason=reason))
                return shard
            found = salvage(descriptor, index, bad=bad, decode=self.decode)
            return self._write(shard, found, index, descriptor)
        finally:
            os.close(descriptor)

    def _evidence(self, shard: dict[str, Any]) -> tuple[Tables | None, bool]:
        """The index's tables, or None where the tar tells all itself; and whether either can be trusted.

        An index that is the manifest's has the crc of everything. So has a member's row in a damaged one, for
        a member whose crc it happens to be.
        """
        name, data = index_name(shard), b""
        with contextlib.suppress(OSError):
            data = self.files.read(name)
        if hashlib.sha256(data).hexdigest() == shard.get("index_sha256"):
            return parse_index(data, name), True
        if sha256(self.files.root / shard["name"]) == shard["sha256"]:
            return None, True
        with contextlib.suppress(fmt.NotADataset):
            return parse_index(data, name, strict=False), True
        return None, False

    def _copy(self, shard: dict[str, Any]) -> bool:
        """Take the twin's copy of a shard where it is the one that the manifest lists."""
        assert self.twin is not None
        parts = ((shard["name"], shard["sha256"]), (index_name(shard), shard.get("index_sha256")))
        moves = []
        for name, wanted in parts:
            target = self.staging / Path(name).name
            try:
                with self.twin.whole(name) as source:
                    shutil.copyfile(source, target)
            except FileNotFoundError:
                return False
            if sha256(target) != wanted:
                target.unlink()
                return False
            moves.append((target, self.files.root / name))
        self.moves += moves
        return True

    def _write(
        self, shard: dict[str, Any], found: Salvage, index: Tables | None, descriptor: int
    ) -> dict[str, Any] | None:
        """Write a shard again from what was salvaged, under its own name if that gives its own bytes."""
        if not found.chunks:
            self._keep_lost(shard, found, index, descriptor)
            self.repairs.append(Repair(shard=shard["name"], done="removed", lost=found.lost))
            return None
        stem = self._free_name(Path(shard["name"]).stem)
        (self.staging / "shards").mkdir(exist_ok=True)
        writer = ShardWriter(self.staging / "shards", stem)
        for chunk in found.chunks:
            writer.add(chunk)
        line = shard | writer.close()
        faults = check_shard(Folder(self.staging), line)
        if faults:
            raise fmt.ShardsError(f"{shard['name']} cannot be written again: {faults[0]}")
        fresh = self.staging / line["name"]
        if line["sha256"] == shard["sha256"]:
            line["name"], done = shard["name"], "restored"
        else:
            done = "rewritten"
            self.names.add(line["name"])
            self._keep_lost(shard, found, index, descriptor)
        for suffix in (".tar", ".idx"):
            target = (self.files.root / line["name"]).with_suffix(suffix)
            self.moves.append((fresh.with_suffix(suffix), target))
        self.repairs.append(Repair(shard=shard["name"], done=done, now=line["name"], lost=found.lost))
        return line

    def _free_name(self, stem: str) -> str:
        """A name like the shard's, with a number that none has."""
        parts = _NUMBER.fullmatch(stem)
        prefix, number = (parts[1], int(parts[2])) if parts else (f"{stem}-", 0)
        taken = {Path(name).stem for name in self.names}
        taken |= {path.stem for path in (self.files.root / "shards").glob("*")}
        while f"{prefix}{number:06d}" in taken:
            number += 1
        return f"{prefix}{number:06d}"

    def _keep_lost(
        self, shard: dict[str, Any], found: Salvage, index: Tables | None, descriptor: int
    ) -> None:
        """Put the bytes of what is lost, as far as there are any, into the quarantine folder."""
        sizes = dict(index[1][["offset", "size"]].tolist()) if index else {}
        for row in found.lost:
            size = min(sizes.get(row["offset"], 0), 1 << 28)
            data = os.pread(descriptor, size, row["offset"]) if size and 0 < row["offset"] < 1 << 50 else b""
            if data:
                folder = self.staging / "quarantine" / Path(shard["name"]).stem
                folder.mkdir(parents=True, exist_ok=True)
                (folder / row["key"]).write_bytes(data)

    def finish(
        self, header: dict[str, Any], before: list[dict[str, Any]], lines: list[dict[str, Any]]
    ) -> None:
        """Move what was written into its place, the manifest last, and then take away what it replaced."""
        if not self.repairs:
            return
        root = self.files.root
        lost = [
            {"shard": each.shard, **row}
            for each in self.repairs
            if each.done != "restored"
            for row in each.lost
        ]
        if lost:
            path = root / "quarantine.jsonl"
            old = path.read_text() if path.exists() else ""
            text = old + "".join(json.dumps(row, sort_keys=True) + "\n" for row in lost)
            _write(self.staging / "quarantine.jsonl", text)
            self.moves.append((self.staging / "quarantine.jsonl", path))
        for source, target in self.moves:
            target.parent.mkdir(exist_ok=True)
            _sync(source)
            os.replace(source, target)
        for kept in (self.staging / "quarantine").glob("*/*"):
            target = root / "quarantine" / kept.parent.name / kept.name
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(kept, target)
        _sync(root / "shards")
        if lines != before:
            first = header | _totals(header, before, lines, self.files)
            text = "".join(json.dumps(line, sort_keys=True) + "\n" for line in (first, *lines))
            _write(self.staging / "manifest.jsonl", text)
            os.replace(self.staging / "manifest.jsonl", root / "manifest.jsonl")
            _sync(root)
        names = {line["name"] for line in lines}
        for shard in before:
            if shard["name"] not in names:
                for name in (shard["name"], index_name(shard)):
                    (root / name).unlink(missing_ok=True)


def _totals(
    header: dict[str, Any], before: list[dict[str, Any]], lines: list[dict[str, Any]], files: Folder
) -> dict[str, Any]:
    """The totals of the manifest's first line, counted again where the indices tell them."""
    totals: dict[str, Any] = {key: sum(line[key] for line in lines) for key in ("bytes", "chunks", "frames")}
    totals["shards"] = len(lines)
    tables = []
    for line in lines:
        with contextlib.suppress(OSError, fmt.NotADataset):
            tables.append(parse_index(files.read(index_name(line)), line["name"])[0])
    chunks = np.concatenate([np.empty(0, fmt.INDEX_CHUNK), *tables])
    if "splits" in header and len(tables) == len(lines):
        totals["splits"] = {
            split: {
                "scenes": len(np.unique(chunks["scene"][chunks["split"] == number])),
                "frames": int(chunks["frames"][chunks["split"] == number].sum()),
            }
            for number, split in enumerate(fmt.SPLITS)
        }
    licences = header.get("licences")
    gone = sum(line["frames"] for line in before) - totals["frames"]
    if isinstance(licences, dict) and len(licences) == 1 and gone:
        totals["licences"] = {name: count - gone for name, count in licences.items()}
    return totals


def _read_quarantine(path: Path) -> dict[str, dict[int, str]]:
    """Shard -> offset -> reason, from a run's file."""
    found: dict[str, dict[int, str]] = {}
    try:
        for line in path.read_text().splitlines():
            row = json.loads(line)
            name = "/".join(str(row["shard"]).split("/")[-2:])
            if row.get("frame") is not None:
                found.setdefault(name, {})[int(row["offset"])] = str(row["reason"])
    except (OSError, UnicodeDecodeError) as error:
        raise fmt.ShardsError(f"{path} cannot be read: {error}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise fmt.ShardsError(f"{path} is no run's quarantine.jsonl ({error})") from None
    return found


@contextlib.contextmanager
def _staging(root: Path) -> Iterator[Path]:
    """An empty folder beside the shards that only one repair has."""
    staging = root / ".repairing"
    try:
        staging.mkdir(exist_ok=True)
        with (staging / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                for left in staging.iterdir():
                    if left.name != "lock":
                        shutil.rmtree(left) if left.is_dir() else left.unlink()
                yield staging
            finally:
                shutil.rmtree(staging, ignore_errors=True)
    except BlockingIOError:
        raise fmt.ShardsError(f"another repair of {root} is at work; wait for it or stop it") from None
    except OSError as error:
        raise fmt.ShardsError(
            f"{root} cannot be repaired: {error.strerror or error}; it is as it was"
        ) from error


def _write(path: Path, text: str) -> None:
    path.write_text(text)
    _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
