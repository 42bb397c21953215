"""Repair: bytes as they were where they can be had, nothing damaged where not, and never less than before."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shards import __main__ as commands
from shards import format as fmt
from shards.format import ShardsError
from shards.reader import Dataset, open_dataset
from shards.repair import repair
from shards.verify import verify
from shards.writer import DatasetWriter
from tests.shards.conftest import encoded_chunk
from tests.shards.servers import files, serving


def png(array: np.ndarray) -> bytes:
    import io

    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six chunks in three shards, with depth."""
    import dataclasses

    root = tmp_path_factory.mktemp("repair") / "data"
    with DatasetWriter(root, source="ramps", shard_bytes=26_000) as writer:
        for number in range(6):
            chunk = encoded_chunk(
                number, 4, size=(48, 64), known=True, split="val" if number == 5 else "train"
            )
            meta = json.loads(chunk.meta) | {"depth_scales": [0.001] * 4}
            depths = [png(np.full((48, 64), 1000 * number + f, np.uint16)) for f in range(4)]
            overlap = float(np.float32(0.5))
            writer.add(
                dataclasses.replace(
                    chunk,
                    meta=fmt.dump_meta(meta),
                    depths=depths,
                    kinds=chunk.kinds | fmt.HAS_DEPTH,
                    overlap=overlap,
                )
            )
        writer.finish({"splits": {}, "licences": {"none": 24}})
    assert len(Dataset(root).shards) == 3
    return root


@pytest.fixture
def data(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "data"))


def tree(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def spoil(root: Path, chunk: int, frame: int, kind: int = 0) -> int:
    """Flip a bit in the middle of a member; returns its offset."""
    dataset = Dataset(root)
    offset, size, _ = dataset._member(chunk, frame, kind)
    with (root / dataset.shards[dataset.shard_of(chunk)]["name"]).open("r+b") as file:
        file.seek(offset + size // 2)
        byte = file.read(1)[0]
        file.seek(offset + size // 2)
        file.write(bytes([byte ^ 16]))
    return offset


def pictures(root: Path) -> dict[tuple[str, str], bytes]:
    """(scene, frame's name) -> JPEG of every frame."""
    dataset = open_dataset(root)
    return {
        (dataset.meta(c)["scene"], dataset.meta(c)["frames"][f]): dataset.read_jpeg(c, f)
        for c in range(dataset.num_chunks)
        for f in range(int(dataset.frames_per_chunk[c]))
    }


def test_a_whole_dataset_is_left_alone(data: Path, pristine: Path) -> None:
    assert repair(data) == []
    assert tree(data) == tree(pristine)


@pytest.mark.parametrize(
    "harm", ["missing index", "cut index", "bad index", "bad header", "index of another"]
)
def test_what_the_sound_bytes_tell_comes_back_byte_by_byte(data: Path, pristine: Path, harm: str) -> None:
    index, tar = data / "shards" / "ramps-000001.idx", data / "shards" / "ramps-000001.tar"
    if harm == "missing index":
        index.unlink()
    elif harm == "cut index":
        os.truncate(index, 100)
    elif harm == "bad index":
        index.write_bytes(index.read_bytes()[:-3] + b"abc")
    elif harm == "index of another":
        shutil.copy(data / "shards" / "ramps-000000.idx", index)
    else:
        raw = bytearray(tar.read_bytes())
        raw[1:20] = b"../../../etc/passwd"
        tar.write_bytes(raw)
    assert verify(data)
    (done,) = repair(data)
    assert (done.done, done.shard, done.lost) == ("restored", "shards/ramps-000001.tar", [])
    assert {k: v for k, v in tree(data).items() if ".idx" not in k and "manifest" not in k} == {
        k: v for k, v in tree(pristine).items() if ".idx" not in k and "manifest" not in k
    }
    assert verify(data) == []
    assert pictures(data) == pictures(pristine)


def test_damaged_frames_are_taken_out_and_everything_else_stays(data: Path, pristine: Path) -> None:
    before, offsets = pictures(pristine), [spoil(data, 0, 1), spoil(data, 3, 0), spoil(data, 3, 2)]
    done = repair(data)
    assert [each.done for each in done] == ["rewritten", "rewritten"]
    assert verify(data) == []
    gone = {("scene0", "1.jpg"), ("scene3", "0.jpg"), ("scene3", "2.jpg")}
    assert pictures(data) == {key: jpeg for key, jpeg in before.items() if key not in gone}
    rows = [json.loads(line) for line in (data / "quarantine.jsonl").read_text().splitlines()]
    assert [(row["offset"], row["frame"]) for row in rows if row["frame"]] == list(
        zip(offsets, ["1.jpg", "0.jpg", "2.jpg"], strict=True)
    )
    assert len([p for p in (data / "quarantine").rglob("*") if p.is_file()]) == 3
    dataset = open_dataset(data)
    assert dataset.header["frames"] == dataset.num_frames == 21
    assert dataset.header["splits"]["train"] == {"scenes": 5, "frames": 17}
    assert dataset.header["licences"] == {"none": 21}
    assert dataset.read_depth(0, 1)[0, 0] == pytest.approx(2 * 0.001)
    assert dataset.covisibility(3).shape == (2, 2)
    assert repair(data) == []


def test_damaged_depth_goes_and_its_picture_stays(data: Path, pristine: Path) -> None:
    spoil(data, 2, 1, kind=1)
    (done,) = repair(data)
    assert [(row["key"].split(".", 1)[1], row["frame"]) for row in done.lost] == [("0001.depth.png", None)]
    assert pictures(data) == pictures(pristine)
    dataset = open_dataset(data)
    assert dataset.read_depth(2, 1) is None
    assert dataset.read_depth(2, 2)[0, 0] == pytest.approx(2.002)


def test_a_twin_gives_what_is_lost_here(data: Path, pristine: Path) -> None:
    spoil(data, 0, 1)
    (data / "shards" / "ramps-000001.tar").unlink()
    (data / "shards" / "ramps-000002.idx").unlink()
    with serving(files(pristine)) as server:
        done = repair(data, twin=server.url)
    assert [each.done for each in done] == ["copied"] * 3
    assert tree(data) == tree(pristine)


def test_a_twin_that_is_damaged_itself_gives_nothing(data: Path, pristine: Path, tmp_path: Path) -> None:
    twin = Path(shutil.copytree(pristine, tmp_path / "twin"))
    spoil(data, 0, 1)
    spoil(twin, 0, 2)
    (done,) = repair(data, twin=twin)
    assert done.done == "rewritten"
    assert verify(data) == []


def test_what_cannot_be_mended_is_left_and_told(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data / "shards" / "ramps-000000.tar").unlink()
    spoil(data, 2, 0)
    (data / "shards" / "ramps-000001.idx").unlink()
    before = tree(data)
    assert commands.main(["repair", str(data)]) == 2
    said = capsys.readouterr()
    assert "is missing; name a folder or URL that has it with --from" in said.err
    assert "its index is damaged and so is its tar" in said.out
    assert tree(data) == before


def test_a_runs_quarantine_takes_out_frames_whose_crc_is_right(data: Path, tmp_path: Path) -> None:
    dataset = Dataset(data)
    row = {"shard": f"s3://elsewhere/{dataset.shards[0]['name']}", "offset": dataset._member(1, 3, 0)[0]}
    (tmp_path / "quarantine.jsonl").write_text(json.dumps(row | {"reason": "no picture", "frame": 3}) + "\n")
    (done,) = repair(data, quarantine=tmp_path / "quarantine.jsonl")
    assert [(r["frame"], r["reason"]) for r in done.lost] == [("3.jpg", "no picture")]
    assert ("scene1", "3.jpg") not in pictures(data)
    with pytest.raises(ShardsError, match=r"is no run's quarantine\.jsonl"):
        repair(data, quarantine=data / "manifest.jsonl")


def test_a_repair_that_is_stopped_leaves_the_dataset_as_it_was(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(data, 0, 1)
    before = tree(data)
    monkeypatch.setattr("shards.repair._totals", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        repair(data)
    after = tree(data)
    assert {name: after[name] for name in before} == before
    monkeypatch.undo()
    assert [each.done for each in repair(data)] == ["rewritten"]


def test_the_command_says_what_it_did(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spoil(data, 0, 1)
    assert commands.main(["repair", str(data)]) == 0
    out = capsys.readouterr().out
    assert "written again as shards/ramps-000003.tar without 1 damaged frame" in out
    assert commands.main(["verify", str(data), "--decode"]) == 0


def test_a_chunk_without_a_sound_frame_and_a_shard_without_a_chunk_go(data: Path, pristine: Path) -> None:
    for chunk in (0, 1):
        for frame in range(4):
            spoil(data, chunk, frame)
    done: Callable = repair(data)[0]
    assert done.done == "removed"
    assert verify(data) == []
    assert open_dataset(data).num_chunks == 4
