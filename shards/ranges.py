"""Bytes of a URL: a whole file or a range of it, and after every interruption on from the last byte.

fsspec opens the address and brings the user's credentials; S3 and HTTP are read as streams, so that what
arrived before a cut is kept, all others in blocks. Every wait is bounded, and so is the number of attempts
that bring nothing. This file knows nothing of datasets.
"""

import asyncio
import importlib.util
import os
import re
import time
import weakref
from collections.abc import Callable
from typing import Any, Protocol

from shards.format import ShardsError

ATTEMPTS = 12
"""Attempts in a row without a new byte before a read is given up: some three quarters of a minute."""

_FIRST_WAIT, _LONGEST_WAIT = 0.05, 10.0
_CONNECT_SECONDS, _SILENT_SECONDS = 10, 30
_BLOCK = 4 << 20

_NEVER_MENDS = (PermissionError, ImportError, ValueError)
"""Errors that another attempt would only repeat."""

_BACKENDS = {"s3": "s3fs", "s3a": "s3fs", "http": "aiohttp", "https": "aiohttp"} | {
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "hf": "huggingface_hub",
    "az": "adlfs",
    "abfs": "adlfs",
}
"""Protocol -> the package that fsspec needs for it."""


_OPEN: "weakref.WeakSet[Remote]" = weakref.WeakSet()
_LEFT_BEHIND: list[Any] = []
"""Filesystems of the process that this one was forked from. Their finalisers would take its sockets out of the
event loop's epoll, which both share, and it would wait for them in vain: they must never run."""


class Sink(Protocol):
    """Where bytes go: a binary file."""

    def tell(self) -> int:
        """Bytes taken so far."""

    def write(self, data: bytes) -> Any:
        """Take some more."""


class UnsatisfiableRange(OSError):
    """The file ends before the range begins."""


def is_url(path: object) -> bool:
    """Whether a path names a place that fsspec reads: `s3://`, `https://`, ... but not `file://`."""
    return re.match(r"[a-z][a-z0-9+.-]+://", str(path)) is not None and not str(path).startswith("file://")


class Remote:
    """Files below one URL. `options` go to fsspec as they are (endpoint_url, anon, token, ...).

    Safe to use in threads and after a fork. ShardsError, with the pip command, where fsspec lacks what the
    protocol needs.
    """

    def __init__(self, url: str, options: dict[str, Any] | None = None) -> None:
        self.url, self.options = url.rstrip("/"), dict(options or {})
        self._filesystem: tuple[Any, str] | None = None
        _OPEN.add(self)
        package = _BACKENDS.get(self.protocol, "")
        if package and importlib.util.find_spec(package) is None:
            raise ShardsError(
                f"{self.url}: reading {self.protocol}:// needs {package}: pip install {package}"
            )

    @property
    def protocol(self) -> str:
        """What stands before `://`."""
        return self.url.partition("://")[0]

    def read(self, name: str) -> bytes:
        """A whole small file. FileNotFoundError where there is none; ShardsError as `fetch`."""
        import io

        sink = io.BytesIO()
        self.fetch(name, sink)
        return sink.getvalue()

    def fetch(self, name: str, sink: Sink, start: int = 0, end: int | None = None) -> None:
        """Append the bytes start + sink.tell() .. end of a file to `sink`, whose own first byte is `start`.

        It may end earlier where the file does. FileNotFoundError where there is no such file; ShardsError
        where access is denied, or where `ATTEMPTS` in a row brought no byte.
        """
        failures, wait = 0, _FIRST_WAIT
        while end is None or start + sink.tell() < end:
            had = sink.tell()
            try:
                self._attempt(name, start + had, end, sink)
                if end is None or start + sink.tell() >= end or sink.tell() == had:
                    return
                error: Exception = OSError("the connection closed early")
            except (FileNotFoundError, ShardsError, TypeError, AttributeError):
                raise
            except UnsatisfiableRange:
                return
            except _NEVER_MENDS as denied:
                raise ShardsError(f"{self.url}/{name} cannot be read: {_words(denied)}") from None
            except Exception as failed:  # whatever a backend raises for a network's troubles
                if "Credentials" in type(failed).__name__:
                    public = f"FSSPEC_{self.protocol.upper()}_ANON=true"
                    raise ShardsError(
                        f"{self.url}/{name} cannot be read: {_words(failed)}; give them as {self.protocol}://"
                        f" wants them, or set {public} if the place is public"
                    ) from None
                error = failed
            if sink.tell() > had:
                failures, wait = 0, _FIRST_WAIT
            failures += 1
            if failures >= ATTEMPTS:
                raise ShardsError(
                    f"{self.url}/{name} gave nothing more after {start + sink.tell()} bytes in {ATTEMPTS}"
                    f" attempts, the last because {_words(error)}; when it answers again, give the same"
                    " command again"
                )
            time.sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT)

    def _attempt(self, name: str, start: int, end: int | None, sink: Sink) -> None:
        from fsspec.asyn import sync

        filesystem, root = self._open()
        path = f"{root}/{name}"
        protocols = filesystem.protocol if isinstance(filesystem.protocol, tuple) else (filesystem.protocol,)
        if "s3" in protocols:
            sync(filesystem.loop, _stream_s3, filesystem, path, start, end, sink.write)
        elif "http" in protocols:
            sync(filesystem.loop, _stream_http, filesystem, path, start, end, sink.write)
        elif end is None:
            sink.write(filesystem.cat_file(path)[start:])
        else:
            while start < end:
                block = filesystem.cat_file(path, start=start, end=min(start + _BLOCK, end))
                if not block:
                    return
                sink.write(block)
                start += len(block)

    def _open(self) -> tuple[Any, str]:
        """The filesystem, made anew in a forked process, and the path of the root in it."""
        if self._filesystem is None:
            import fsspec

            options = {"skip_instance_cache": True} | _patience(self.protocol) | self.options
            try:
                filesystem, root = fsspec.core.url_to_fs(self.url, **options)
            except (ImportError, ValueError) as error:
                raise ShardsError(f"{self.url} cannot be opened: {_words(error)}") from None
            if self.protocol in ("s3", "s3a"):
                filesystem.retries = 1  # ours go on from the last byte
            self._filesystem = (filesystem, root.rstrip("/"))
        return self._filesystem


def _leave_behind() -> None:
    for remote in list(_OPEN):
        _LEFT_BEHIND.append(remote._filesystem)
        remote._filesystem = None


os.register_at_fork(after_in_child=_leave_behind)


def _patience(protocol: str) -> dict[str, Any]:
    """Options that bound every wait, and leave repeating to `fetch`."""
    if protocol in ("s3", "s3a"):
        return {
            "config_kwargs": {
                "retries": {"total_max_attempts": 1},
                "connect_timeout": _CONNECT_SECONDS,
                "read_timeout": _SILENT_SECONDS,
            }
        }
    if protocol in ("http", "https"):
        import aiohttp

        timeout = aiohttp.ClientTimeout(sock_connect=_CONNECT_SECONDS, sock_read=_SILENT_SECONDS)
        return {"client_kwargs": {"timeout": timeout}}
    return {}


def _range(start: int, end: int | None) -> str:
    return f"bytes={start}-{'' if end is None else end - 1}"


async def _stream_s3(
    filesystem: Any, path: str, start: int, end: int | None, write: Callable[[bytes], Any]
) -> None:
    bucket, key, version = filesystem.split_path(path)
    request = {"Bucket": bucket, "Key": key, **filesystem.req_kw}
    if version is not None:
        request["VersionId"] = version
    if start or end is not None:
        request["Range"] = _range(start, end)
    try:
        response = await filesystem._call_s3("get_object", **request)
    except OSError as error:
        if "range" in str(error).lower() and "satisfiable" in str(error).lower():
            raise UnsatisfiableRange(str(error)) from None
        raise
    async with response["Body"] as body:
        while block := await body.read(1 << 20):
            write(block)


async def _stream_http(
    filesystem: Any, path: str, start: int, end: int | None, write: Callable[[bytes], Any]
) -> None:
    ranged = bool(start) or end is not None
    headers = {"Range": _range(start, end)} if ranged else {}
    # Compressed bodies would count other bytes than the file has.
    headers |= {"Accept-Encoding": "identity"}
    session = await filesystem.set_session()
    async with session.get(filesystem.encode_url(path), headers=headers) as response:
        if response.status in (404, 410):
            raise FileNotFoundError(path)
        if response.status in (401, 403, 407):
            raise PermissionError(f"the server answers {response.status} {response.reason}")
        if response.status == 416:
            raise UnsatisfiableRange(path)
        if ranged and response.status == 200:
            raise ValueError(
                "its server serves no byte ranges: copy the dataset to one that does, or to a disk"
            )
        if response.status not in (200, 206):
            raise OSError(f"the server answers {response.status} {response.reason}")
        while block := await response.content.read(1 << 20):
            write(block)


def _words(error: BaseException) -> str:
    """An error in one line."""
    if isinstance(error, (TimeoutError, asyncio.TimeoutError)) and not str(error):
        return "nothing came in time"
    return " ".join(f"{type(error).__name__}: {error}".split())
