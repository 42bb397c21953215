import json
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from shards.build import BuildOptions, build
from shards.format import NotADataset, ShardsError
from shards.reader import CorruptFrame, open_dataset
from shards.storage import Folder, open_storage
from shards.verify import Damage, check_shard, parse_index, sha256, verify
from shards.writer import pack_index
from tests.shards.servers import files, serving


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("verify")
    rng = np.random.default_rng(0)
    for scene in "abc":
        (root / "photos" / scene).mkdir(parents=True)
        for number in range(3):
            noise = Image.fromarray(rng.integers(0, 255, (400, 400, 3), np.uint8))
            noise.save(root / "photos" / scene / f"{number}.jpg", quality=97)
    build("images", [root / "photos"], root / "out", workers=1, options=BuildOptions(shard_mb=1))
    return root / "out"


@pytest.fixture
def dataset(pristine: Path, tmp_path: Path) -> Path:
    return copy(pristine, tmp_path / "copy")


def copy(source: Path, target: Path) -> Path:
    for path in source.rglob("*"):
        if path.is_file():
            (target / path.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
            (target / path.relative_to(source)).write_bytes(path.read_bytes())
    return target


def change(path: Path, edit: Callable[[bytearray], object]) -> None:
    data = bytearray(path.read_bytes())
    edit(data)
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("workers", [1, 2])
def test_whole_dataset_has_no_damage(dataset: Path, workers: int) -> None:
    assert len(open_dataset(dataset).shards) > 1
    assert verify(dataset, workers=workers) == []


def test_damaged_frame_is_named_with_its_offset(dataset: Path) -> None:
    opened = open_dataset(dataset)
    offset, size, _ = opened._member(1, 2, 0)
    shard = opened.root / opened.shards[opened.shard_of(1)]["name"]
    change(shard, lambda data: data.__setitem__(offset + size // 2, data[offset + size // 2] ^ 1))
    found = verify(dataset)
    member = [d for d in found if d.member]
    assert [(d.member, d.offset) for d in member] == [(f"{opened.chunk(1).key}.0002.jpg", offset)]
    assert any("sha256" in d.reason for d in found)
    with pytest.raises(CorruptFrame, match="crc32") as caught:
        opened.read_jpeg(1, 2)
    assert (caught.value.shard, caught.value.offset) == (str(shard), offset)
    assert caught.value.key == f"{opened.chunk(1).key}.0002.jpg"
    assert len(opened.read_jpeg(1, 1))  # its neighbours are whole


def test_cut_off_shard_is_damage(dataset: Path) -> None:
    change(
        dataset / "shards" / "images-000000.tar", lambda data: data.__delitem__(slice(len(data) // 2, None))
    )
    found = verify(dataset)
    assert any("were written" in d.reason for d in found)
    assert any("the shard ends before" in d.reason for d in found)
    with pytest.raises(CorruptFrame, match="ends after"):
        open_dataset(dataset).read_jpeg(1, 2)


def test_damaged_tar_header_is_damage(dataset: Path) -> None:
    offset, _, _ = open_dataset(dataset)._member(0, 1, 0)
    change(dataset / "shards" / "images-000000.tar", lambda data: data.__setitem__(offset - 512, ord("?")))
    assert any("tar headers" in d.reason or "index" in d.reason for d in verify(dataset))


def test_index_of_another_tar_is_damage(dataset: Path) -> None:
    shards = dataset / "shards"
    (shards / "images-000001.idx").write_bytes((shards / "images-000000.idx").read_bytes())
    assert any("images-000001" in d.shard for d in verify(dataset))


@pytest.mark.parametrize("suffix", [".tar", ".idx"])
def test_missing_file_is_damage(dataset: Path, suffix: str) -> None:
    (dataset / "shards" / f"images-000001{suffix}").unlink()
    assert any("missing" in d.reason for d in verify(dataset))


def test_file_that_the_manifest_does_not_list_is_damage(dataset: Path) -> None:
    (dataset / "shards" / "images-000099.tar").write_bytes(b"")
    assert [d.reason for d in verify(dataset)] == ["is not in the manifest"]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_changed_byte_is_found_and_reading_never_crashes(
    pristine: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    dataset = copy(pristine, tmp_path_factory.mktemp("mutated"))
    name = data.draw(st.sampled_from(sorted(p.name for p in (dataset / "shards").iterdir())))
    path = dataset / "shards" / name
    at = data.draw(st.integers(0, path.stat().st_size - 1))
    flip = data.draw(st.integers(1, 255))
    change(path, lambda content: content.__setitem__(at, content[at] ^ flip))
    assert verify(dataset)
    try:
        opened = open_dataset(dataset)
        for chunk in range(opened.num_chunks):
            for frame in range(int(opened.frames_per_chunk[chunk])):
                try:
                    opened.read_image(chunk, frame)
                    opened.chunk(chunk)
                except CorruptFrame:
                    pass
    except NotADataset:
        pass


def test_verify_of_no_dataset_says_so(tmp_path: Path) -> None:
    with pytest.raises(NotADataset, match="manifest"):
        verify(tmp_path)


def test_meta_that_breaks_the_schema_is_damage(dataset: Path) -> None:
    opened = open_dataset(dataset)
    row = opened._table[0]
    start, size = int(row["meta_offset"]), int(row["meta_size"])
    shard = dataset / "shards" / "images-000000.tar"
    meta = json.loads(shard.read_bytes()[start : start + size])
    meta["split"] = "trick"
    broken = json.dumps(meta).encode()[:size].ljust(size)
    change(shard, lambda data: data.__setitem__(slice(start, start + size), broken))
    assert any("no chunk's meta" in d.reason for d in verify(dataset))


def test_a_dataset_far_away_is_verified_byte_by_byte(dataset: Path, tmp_path: Path) -> None:
    with serving(files(dataset)) as server:
        server.troubled = True
        far = open_storage(server.url, cache=tmp_path / "cache")
        assert verify(far) == []
        change(dataset / "shards" / "images-000000.tar", lambda data: data.__setitem__(700, data[700] ^ 1))
        (dataset / "shards" / "images-000001.tar").unlink()
        found = {(d.shard, d.reason) for d in verify(far)}
    assert ("shards/images-000000.tar", "fails its sha256") in found
    assert ("shards/images-000001.tar", "is missing") in found
    assert not list((tmp_path / "cache").rglob("*.tar"))


def test_a_check_that_was_stopped_goes_on_where_it_was(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(dataset / "shards" / "images-000000.tar", lambda data: data.__setitem__(700, data[700] ^ 1))
    expected, checked = verify(dataset), []
    state, stops = tmp_path / "state", [True]

    def check(files_: Folder, shard: dict, *, decode: bool) -> list[Damage]:
        if checked and stops:
            raise KeyboardInterrupt
        checked.append(shard["name"])
        return check_shard(files_, shard, decode=decode)

    monkeypatch.setattr("shards.verify.check_shard", check)
    with pytest.raises(KeyboardInterrupt):
        verify(dataset, state=state)
    stops.clear()
    with state.open("a") as torn:
        torn.write('{"shards/im')
    assert verify(dataset, state=state) == expected
    assert checked == [shard["name"] for shard in open_dataset(dataset).shards]
    assert not state.exists()


def test_a_state_of_another_check_is_refused_and_kept(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("mine\n")
    with pytest.raises(ShardsError, match="is not the state of this check"):
        verify(dataset, state=tmp_path / "notes")
    assert (tmp_path / "notes").read_text() == "mine\n"


def test_pictures_that_do_not_decode_are_found_if_asked_for(dataset: Path) -> None:
    opened = open_dataset(dataset)
    offset, size, _ = opened._member(0, 1, 0)
    shard = opened.shards[0]
    tar, index = dataset / shard["name"], (dataset / shard["name"]).with_suffix(".idx")
    change(tar, lambda data: data.__setitem__(slice(offset, offset + size), bytes(size)))
    chunks, members = parse_index(index.read_bytes(), "index")
    members = members.copy()
    members["crc"][members["offset"] == offset] = zlib.crc32(bytes(size))
    index.write_bytes(pack_index(chunks, members, shard["frames"], shard["bytes"]))
    sums = {"sha256": sha256(tar), "index_sha256": sha256(index)}
    lines = (dataset / "manifest.jsonl").read_text().splitlines()
    lines[1] = json.dumps(json.loads(lines[1]) | sums)
    (dataset / "manifest.jsonl").write_text("\n".join(lines))
    assert verify(dataset) == []
    (found,) = verify(dataset, decode=True)
    assert found.offset == offset and found.reason.startswith("does not decode")
