"""A bounded folder of downloaded chunks that all processes of a node share, none of which is a sole copy.

An entry is downloaded into `NUMBER.SIZE.part` under a lock on that very file, which ends with its holder, and
then renamed: others wait for it and find it, and after a crash the next one goes on from the last byte. An entry
that is open stays readable though it is evicted, so nobody ever waits for room: what cannot be kept within
the limit is kept a little beyond it, or read without being kept. Evicted is what is needed last (Belady,
1966) by what the processes announce (`shards/forecast.py`); what nobody announced goes before all of that,
least recently used first. Nothing is deleted but entries, by their own names, in a folder that this file made
and marked. It knows nothing of networks or datasets.
"""

import contextlib
import errno
import fcntl
import getpass
import io
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from shards.forecast import next_needs
from shards.format import ShardsError

TAG = "CACHEDIR.TAG"
_TAG_TEXT = (
    b"Signature: 8a477f597d28d172789f06886806bc55\n"
    b"# mumkit's cache of downloaded chunks: it may be deleted at any time.\n"
)
_GROUP, _ENTRY = re.compile(r"[0-9a-f]{16}"), re.compile(r"(\d{9})(?:\.(\d+)\.part)?")
_NEVER = 1 << 62

_MANY, _SLACK = 1024, 32
"""From so many entries on an eviction frees limit / _SLACK more, so that the folder is seldom listed."""

Download = Callable[[BinaryIO], Any]
"""Appends to a file, which may hold an entry's first bytes, the missing ones."""


class Bytes:
    """An open file whose first byte has the position `base`; closed with its last reference, so that no thread
    loses it in the middle of a read."""

    def __init__(self, path: Path, base: int = 0) -> None:
        self.descriptor, self.base = -1, base
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def read(self, size: int, offset: int) -> bytes:
        """Up to `size` bytes from position `offset` on; fewer where the file ends."""
        return os.pread(self.descriptor, size, offset - self.base) if offset >= self.base else b""

    def __del__(self, _close: Callable[[int], None] = os.close) -> None:
        # Bound early: when the interpreter ends, the module may go before its last file.
        if self.descriptor >= 0:
            _close(self.descriptor)


class Unkept:
    """The same of bytes in memory."""

    def __init__(self, data: bytes, base: int) -> None:
        self.data, self.base = data, base

    def read(self, size: int, offset: int) -> bytes:
        """Up to `size` bytes from position `offset` on."""
        return self.data[offset - self.base : offset - self.base + size] if offset >= self.base else b""


@dataclass(frozen=True)
class _Entry:
    path: Path
    size: int
    used: float
    needed: int
    """Steps until someone needs it; `_NEVER` if nobody says so."""


class Cache:
    """Entries named by a group (16 hex digits) and a number, together at most `limit` bytes.

    `folder` may hold other things: the cache is a folder in it that bears the user's name. By default it is
    the user's own cache folder, or `MUM_CACHE`, and `limit` is `MUM_CACHE_GB`, or else half of what the disk
    has free. ShardsError where it cannot be written, or where something else has its name.
    """

    def __init__(self, folder: str | Path | None = None, limit: int | None = None) -> None:
        folder = folder or os.environ.get("MUM_CACHE") or os.environ.get("XDG_CACHE_HOME")
        user = f"{re.sub('[^A-Za-z0-9_-]+', '-', _user())}-{os.getuid()}"
        self.folder = Path(folder or Path.home() / ".cache") / f"mumkit-{user}"
        self.plans = self.folder / "plans"
        try:
            self._mark()
            self.limit = self._default_limit() if limit is None else limit
        except OSError as error:
            raise ShardsError(
                f"{self.folder} cannot hold what is downloaded: {error.strerror or error};"
                " name another folder in the environment variable MUM_CACHE"
            ) from None

    def _mark(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        tag = self.folder / TAG
        if tag.exists():
            return
        strangers = any(not path.name.startswith(TAG) for path in self.folder.iterdir())
        # Looked for once more: who is making the cache at this moment marks it before all else.
        if strangers and not tag.exists():
            raise ShardsError(
                f"{self.folder} is no cache of mumkit's (it holds files and no {TAG}), so nothing in it is"
                " touched: name another folder in the environment variable MUM_CACHE"
            )
        write_whole(tag, _TAG_TEXT)

    def _default_limit(self) -> int:
        said = os.environ.get("MUM_CACHE_GB", "")
        if not said:
            return (shutil.disk_usage(self.folder).free + sum(entry.size for entry in self._entries({}))) // 2
        try:
            return int(float(said) * 1e9)
        except ValueError:
            raise ShardsError(f"MUM_CACHE_GB must be a number of gigabytes, not {said!r}") from None

    def open(
        self, group: str, number: int, size: int, base: int, download: Download, *, needed: int | None = None
    ) -> Bytes | Unkept | None:
        """The entry's bytes, downloaded unless they are there; `base` is the position of its first byte.

        With `needed` it is fetched ahead of its need in so many steps: None where that would cost an entry
        that is needed as soon. Errors of `download` pass through.
        """
        path = self._path(group, number)
        while True:
            with contextlib.suppress(FileNotFoundError):
                found = Bytes(path, base)
                with contextlib.suppress(OSError):
                    os.utime(path)
                return found
            if size > self.limit:
                return None if needed is not None else _without_keeping(base, download)
            path.parent.mkdir(exist_ok=True)
            partial = path.with_name(f"{path.name}.{size}.part")
            with _locked(partial) as part:
                if part is None or path.exists():
                    continue
                if not self._make_room(partial, 0 if part.tell() else size, needed):
                    return None
                try:
                    download(part)
                    part.flush()
                except OSError as error:
                    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                        raise
                    part.truncate(0)
                    return None if needed is not None else _without_keeping(base, download)
                os.replace(partial, path)

    def forget(self, group: str, number: int) -> None:
        """Drop an entry, whose bytes turned out to be wrong."""
        self._path(group, number).unlink(missing_ok=True)

    def holds(self, group: str, number: int) -> bool:
        """Whether the entry is there, whole."""
        return self._path(group, number).exists()

    def _path(self, group: str, number: int) -> Path:
        return self.folder / group / f"{number:09d}"

    # -- the limit

    def _make_room(self, own: Path, size: int, needed: int | None) -> bool:
        """Evict until `size` more bytes, for `own`, fit, and count them; False where they may not, being needed
        too late."""
        with (self.folder / "lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                return self._evict(own, size, -1 if needed is None else needed)
            finally:
                fcntl.flock(lock, fcntl.LOCK_UN)

    def _evict(self, own: Path, size: int, needed: int) -> bool:
        # The count is kept in a file, since listing a large folder takes longer than a download.
        count = self.folder / "bytes"
        try:
            used = int(count.read_text())
        except (FileNotFoundError, ValueError):
            used = _NEVER
        fits = True
        if used + size > self.limit:
            entries = [entry for entry in self._entries(next_needs(self.plans)) if entry.path != own]
            entries.sort(key=lambda entry: (-entry.needed, entry.used))
            used = sum(entry.size for entry in entries)
            slack = self.limit // _SLACK if len(entries) >= _MANY else 0
            for entry in entries:
                if used + size <= self.limit - slack or entry.needed <= needed:
                    break
                used -= entry.size if _remove(entry.path) else 0
            fits = used + size <= self.limit or needed < 0
        count.write_text(str(used + size if fits else used))
        return fits

    def _entries(self, needs: dict[tuple[str, int], int]) -> Iterator[_Entry]:
        for group in self.folder.iterdir():
            if not _GROUP.fullmatch(group.name):
                continue
            for item in os.scandir(group):
                name = _ENTRY.fullmatch(item.name)
                if name:
                    with contextlib.suppress(FileNotFoundError):
                        stat = item.stat(follow_symlinks=False)
                        needed = needs.get((group.name, int(name[1])), _NEVER)
                        yield _Entry(Path(item.path), int(name[2] or stat.st_size), stat.st_mtime, needed)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a number without a name, as in containers
        return "user"


def _without_keeping(base: int, download: Download) -> Unkept:
    sink = io.BytesIO()
    download(sink)
    return Unkept(sink.getvalue(), base)


def _remove(path: Path) -> bool:
    """Delete an entry, unless someone is downloading it."""
    try:
        with path.open("rb") as file:
            if path.suffix:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[BinaryIO | None]:
    """The file under its lock, to be appended to; None if it was renamed or deleted while this one waited.

    A file that is empty in the end is taken away.
    """
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            if not _is(path, file):
                yield None
                return
            file.seek(0, os.SEEK_END)
            yield file
        finally:
            if _is(path, file) and file.seek(0, os.SEEK_END) == 0:
                path.unlink(missing_ok=True)
            # Not left to the closing: a process that was forked meanwhile has the file open too.
            fcntl.flock(file, fcntl.LOCK_UN)


def _is(path: Path, file: BinaryIO) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def write_whole(path: Path, data: bytes) -> None:
    """Write a small file at once or not at all, whoever else writes it."""
    part = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}")
    part.write_bytes(data)
    os.replace(part, path)
