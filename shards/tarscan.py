"""The headers of a tar, read 512 bytes at a time: which of a dataset's members lie where, whatever else is there.

Only what the writer writes counts: plain files of the dataset's own names. Links, folders, long-name records,
names that lead elsewhere and sizes beyond the file are reported as faults, and reading goes on at the next
block that is a sound header, so that one bad header costs one member. Nothing is ever extracted, and no size
in a header is believed before it was compared with the file's.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

BLOCK = 512

_NAME = re.compile(rb"[A-Za-z0-9_-]{1,90}\.(meta\.json|covis\.npy|\d{4}\.(jpg|depth\.png|label\.png))")
_OCTAL = re.compile(rb"[0-7]{1,11}[ \0]*")
_ZEROS = bytes(BLOCK)


@dataclass(frozen=True)
class Member:
    """One file in a tar: its name, and where its bytes are."""

    name: str
    offset: int
    size: int


@dataclass(frozen=True)
class Fault:
    """A place where a header should be and no sound one is."""

    offset: int
    reason: str


def scan(descriptor: int) -> Iterator[Member | Fault]:
    """The members of an open tar in their order, and one Fault for each run of bytes that are none."""
    end, at, lost = os.fstat(descriptor).st_size, 0, False
    while at + BLOCK <= end:
        header = os.pread(descriptor, BLOCK, at)
        if header == _ZEROS:
            if not lost and not _only_zeros(descriptor, at, end):
                yield Fault(at, "zeros stand where a header should be")
                lost = True
            elif not lost:
                return
            at += BLOCK
            continue
        found = read_header(header, at, end)
        if isinstance(found, Member):
            yield found
            at, lost = found.offset + -(-found.size // BLOCK) * BLOCK, False
            continue
        if not lost:
            yield Fault(at, found)
            lost = True
        at += BLOCK
    if not lost:
        yield Fault(min(at, end), "the tar ends without its two blocks of zeros")


def read_header(header: bytes, at: int, end: int) -> Member | str:
    """The member of a header at byte `at` of a tar of `end` bytes, or what is wrong with it."""
    if header[257:262] != b"ustar":
        return "no tar header"
    stored = _OCTAL.fullmatch(header[148:156].strip(b" \0") or b"-")
    if not stored or int(stored[0].strip(b" \0"), 8) != sum(header[:148]) + 8 * 32 + sum(header[156:]):
        return "a header that fails its checksum"
    if header[156:157] not in (b"0", b"\0"):
        return f"a header of type {header[156:157]!r}, which is no plain file"
    name = header[:100].rstrip(b"\0")
    if header[345:500].strip(b"\0") or not _NAME.fullmatch(name):
        return f"a member called {name[:60].decode('ascii', 'replace')!r}, as none of a dataset is"
    size = _OCTAL.fullmatch(header[124:136])
    if not size:
        return "a header without a readable size"
    length = int(size[0].strip(b" \0"), 8)
    if at + BLOCK + length > end:
        return f"a header of {length} bytes, beyond the end of the tar"
    return Member(name.decode("ascii"), at + BLOCK, length)


def _only_zeros(descriptor: int, at: int, end: int) -> bool:
    while at < end:
        block = os.pread(descriptor, min(1 << 20, end - at), at)
        if block.strip(b"\0"):
            return False
        at += len(block)
    return True
