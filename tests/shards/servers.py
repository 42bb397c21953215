"""Servers on loopback that behave like the far ones: byte ranges, and trouble in one request of five.

`serving` answers from a function of a request; `files` serves a folder over HTTP with ranges; `passed_on`
forwards to another server, such as moto's S3. Trouble is counted, not random: the fifth request is cut in the
middle of its body, the tenth answered 503, the fifteenth delayed, and so on. `asked` notes every request.
"""

import contextlib
import http.client
import itertools
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

Answer = tuple[int, dict[str, str], bytes]
"""Status, headers without a length, and body."""

DELAY = 0.03


class Server(ThreadingHTTPServer):
    """Answers GET, HEAD and PUT by `answer(method, path, headers, body)`; `troubled` is how many of 5 fail."""

    daemon_threads = True

    def __init__(self, answer: Callable[[str, str, dict[str, str], bytes], Answer]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer, self.troubled = answer, False
        self.asked: list[tuple[str, str, str]] = []
        """(method, path, Range header) of every request."""
        self.troubles = itertools.count()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, *_: object) -> None:
        """A client that closes its connection is none of ours."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def _do(self) -> None:
        server = self.server
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        server.asked.append((self.command, self.path, self.headers.get("Range", "")))
        number = next(server.troubles)
        trouble = ("cut", "503", "late")[number // 5 % 3] if server.troubled and number % 5 == 4 else ""
        if trouble == "late":
            time.sleep(DELAY)
        status, headers, data = server.answer(self.command, self.path, dict(self.headers), body)
        if trouble == "503":
            status, headers, data = 503, {}, b"<Error><Code>ServiceUnavailable</Code></Error>"
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[: len(data) // 2] if trouble == "cut" else data)
        if trouble == "cut":
            # Not only closed: forked workers of the test's own process have the socket open too.
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

    do_GET = do_HEAD = do_PUT = _do

    def log_message(self, *_: object) -> None:
        """Quiet."""


@contextlib.contextmanager
def serving(answer: Callable[[str, str, dict[str, str], bytes], Answer]) -> Iterator[Server]:
    """A server in a thread, for as long as the context lasts."""
    server = Server(answer)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def files(root: Path, *, ranges: bool = True) -> Callable[[str, str, dict[str, str], bytes], Answer]:
    """Answers with the files of a folder; without `ranges` a whole file is the answer to any range."""

    def answer(_: str, path: str, headers: dict[str, str], __: bytes) -> Answer:
        file = root / path.lstrip("/")
        if not file.is_file():
            return 404, {}, b""
        data = file.read_bytes()
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", headers.get("Range", ""))
        if not asked or not ranges:
            return 200, {}, data
        first, last = int(asked[1]), min(int(asked[2] or len(data) - 1), len(data) - 1)
        if first >= len(data):
            return 416, {}, b""
        return 206, {"Content-Range": f"bytes {first}-{last}/{len(data)}"}, data[first : last + 1]

    return answer


def passed_on(host: str, port: int) -> Callable[[str, str, dict[str, str], bytes], Answer]:
    """Answers with what another server answers."""

    def answer(method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        connection = http.client.HTTPConnection(host, port)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            data = response.read()
            kept = {k: v for k, v in response.getheaders() if k.lower() not in _HOP_BY_HOP}
            if method != "HEAD":
                kept.pop("Content-Length", None)
            return response.status, kept, data
        finally:
            connection.close()

    return answer


_HOP_BY_HOP = {"connection", "transfer-encoding", "date", "server"}
