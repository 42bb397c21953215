"""The tar reader: the members of a sound tar, one fault for what is none, and on from the next sound header."""

import io
import os
import tarfile
from pathlib import Path

import pytest

from shards.tarscan import Fault, Member, scan

NAMES = ["a-0.meta.json", "a-0.covis.npy", "a-0.0000.jpg", "a-0.0001.jpg"]


@pytest.fixture
def tar(tmp_path: Path) -> Path:
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as file:
        for number, name in enumerate(NAMES):
            info = tarfile.TarInfo(name)
            info.size = 600 * number
            file.addfile(info, io.BytesIO(bytes([number + 1]) * info.size))
    return path


def read(path: Path) -> list[Member | Fault]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return list(scan(descriptor))
    finally:
        os.close(descriptor)


def change(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def test_members_stand_where_tarfile_says(tar: Path) -> None:
    with tarfile.open(tar) as file:
        expected = [Member(m.name, m.offset_data, m.size) for m in file]
    assert read(tar) == expected


def test_a_damaged_header_costs_its_own_member_alone(tar: Path) -> None:
    whole = read(tar)
    change(tar, whole[2].offset - 512 + 100, b"9")
    assert read(tar) == [
        whole[0],
        whole[1],
        Fault(whole[2].offset - 512, "a header that fails its checksum"),
        whole[3],
    ]


def test_zeros_in_the_middle_are_no_end(tar: Path) -> None:
    whole = read(tar)
    change(tar, whole[1].offset - 512, bytes(1536))
    assert read(tar) == [
        whole[0],
        Fault(whole[1].offset - 512, "zeros stand where a header should be"),
        *whole[2:],
    ]


@pytest.mark.parametrize(
    ("change_info", "said"),
    [
        (lambda info: setattr(info, "name", "../a-0.0000.jpg"), "a member called '../a-0.0000.jpg'"),
        (lambda info: setattr(info, "type", tarfile.SYMTYPE), "which is no plain file"),
        (lambda info: setattr(info, "size", 8**11 - 1), "a header of 8589934591 bytes, beyond the end"),
    ],
)
def test_what_no_writer_of_ours_writes_is_a_fault(tar: Path, change_info, said: str) -> None:
    whole = read(tar)
    info = tarfile.TarInfo(NAMES[2])
    info.size = 1200
    change_info(info)
    change(tar, whole[2].offset - 512, info.tobuf(tarfile.USTAR_FORMAT))
    found = read(tar)
    assert isinstance(found[2], Fault) and said in found[2].reason
    assert found[-1] == whole[3]


def test_a_cut_tar_ends_in_a_fault(tar: Path) -> None:
    whole = read(tar)
    os.truncate(tar, whole[3].offset - 512)
    assert read(tar) == [
        *whole[:3],
        Fault(whole[3].offset - 512, "the tar ends without its two blocks of zeros"),
    ]
