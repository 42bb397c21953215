"""Files that a reader only ever sees whole: written under a temporary name beside the target, then renamed."""

import os
from pathlib import Path
from uuid import uuid4

from probes.errors import ProbeError


def write_whole(path: Path, data: bytes | str) -> None:
    """Write ``data`` to ``path`` atomically; a failure leaves no part and an older file as it was.

    Any number of threads, processes and hosts may write the same path at once.
    """
    part = path.with_name(f".{path.name}.{uuid4().hex}.part")
    try:
        part.write_bytes(data.encode() if isinstance(data, str) else data)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a file that the user named, making its folder.

    Raises:
        ProbeError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text)
    except OSError as error:
        raise ProbeError(f"{str(path)!r} cannot be written ({error}): name another file") from error
