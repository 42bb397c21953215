import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shards.__main__ import main
from shards.sources import SOURCES


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for scene in ("garden", "kitchen"):
        (tmp_path / "photos" / scene).mkdir(parents=True)
        for number in range(4):
            noise = Image.fromarray(rng.integers(0, 255, (48, 64, 3), np.uint8))
            noise.save(tmp_path / "photos" / scene / f"{number}.jpg")
    return tmp_path / "photos"


def run(*words: object) -> int:
    try:
        return main([str(word) for word in words])
    except SystemExit as stop:  # argparse's way out
        return int(stop.code or 0)


def test_build_info_verify_preview(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "out"
    assert run("build", "images", photos, "--out", out, "--workers", 1) == 0
    assert "8 in, 8 out" in capsys.readouterr().out
    assert run("info", out, "--json") == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["frames"], figures["scenes"], figures["sources"]) == (8, 2, ["images"])
    assert figures["splits"]["val"] == {"scenes": 1, "frames": 4} and figures["mean_overlap"] is None
    assert run("info", out) == 0
    assert "garden" not in capsys.readouterr().err
    assert run("verify", out) == 0
    assert "is whole: 8 frames" in capsys.readouterr().out
    sheet = tmp_path / "sheet.png"
    assert run("preview", out, "--out", sheet, "--sequences", 2, "--views", 6, "--size", 40) == 0
    assert "2 sequences of 4 views" in capsys.readouterr().out
    assert Image.open(sheet).width > 4 * 40
    page = tmp_path / "page.html"
    assert run("preview", out, "--out", page, "--sequences", 2) == 0
    assert "2 sequences of 4 views" in page.read_text() and "2 in 2 chunks" in page.read_text()


def test_parts_say_what_is_missing_and_the_last_one_joins(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    command = ("build", "images", photos, "--out", tmp_path / "out", "--workers", 1)
    assert run(*command, "--part", "2/2") == 0
    assert "is no dataset yet; still to be built: 1" in capsys.readouterr().out
    assert run("info", tmp_path / "out") == 2
    capsys.readouterr()
    assert run(*command, "--part", "1/2", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["frames_out"], report["missing_parts"], report["scenes"]) == (
        8,
        [],
        {"train": 1, "val": 1},
    )
    assert run("info", tmp_path / "out") == 0


def test_second_build_says_that_there_is_nothing_to_do(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for _ in range(2):
        assert run("build", "images", photos, "--out", tmp_path / "out", "--workers", 1) == 0
    assert "nothing to do" in capsys.readouterr().out


def test_damage_is_listed_with_exit_code_2(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "out"
    run("build", "images", photos, "--out", out, "--workers", 1)
    shard = out / "shards" / "images-000000.tar"
    data = bytearray(shard.read_bytes())
    data[data.rindex(b"\xff\xd9") - 5] ^= 1
    shard.write_bytes(bytes(data))
    capsys.readouterr()
    assert run("verify", out) == 2
    printed = capsys.readouterr()
    assert re.search(r"0003\.jpg at byte \d+: fails its crc32", printed.out)
    assert printed.err.count("\n") == 1 and "is damaged" in printed.err
    assert run("verify", out, "--json") == 2
    assert len(json.loads(capsys.readouterr().out)) == 2


BAD = [
    (("build", "imges", "{photos}", "--out", "{out}"), "did you mean 'images'"),
    (("build", "images", "{photos}", "--out", "{out}", "--shortside", "3"), "did you mean '--short-side'"),
    (("build", "images", "{photos}", "--out", "{out}", "--short-side", "3"), "must lie in 16..8192"),
    (("build", "images", "{photos}", "--out", "{out}", "--short-side", "big"), "invalid int"),
    (("build", "images", "{photos}", "--out", "{out}", "--workers", "0"), "--workers must be at least 1"),
    (("build", "images", "{photos}", "--out", "{out}", "--val-fraction", "1"), "--val-fraction"),
    (("build", "images", "{photos}", "--out", "{out}", "--part", "0/3"), "parts are counted from 1"),
    (("build", "images", "{photos}", "--out", "{out}", "--part", "3"), "--part must be I/N"),
    (("build", "images", "{photos}", "--out", "{out}", "--executor", "rai"), "did you mean 'ray'"),
    (("build", "images", "{photos}", "--out", "{out}", "--ray-address", "x:1"), "goes with --executor ray"),
    (("build", "images", "{photos}"), "--out"),
    (("build", "images", "--out", "{out}"), "at least one folder"),
    (("build", "images", "{photos}", "{photos}", "--out", "{out}"), "named twice"),
    (("build", "images", "{photos}/nowhere", "--out", "{out}"), "does not exist"),
    (("build", "images", "{photos}/garden/0.jpg", "--out", "{out}"), "is a file"),
    (("build", "images", "{empty}", "--out", "{out}"), "hold no photographs"),
    (("build", "colmap", "{photos}", "--out", "{out}"), "holds no COLMAP model"),
    (("build", "scenes", "{photos}", "--out", "{out}"), "leave out"),
    (("inspect", "{out}"), "there is no COMMAND"),
    (("info", "{photos}"), "is not a dataset"),
    (("verify", "{photos}"), "is not a dataset"),
    (("preview", "{photos}", "--out", "{out}.png"), "is not a dataset"),
    (("preview", "{photos}", "--out", "{out}.pdf"), "must end in .png (contact sheet) or .html"),
]


@pytest.mark.parametrize(
    ("words", "message"), BAD, ids=lambda value: " ".join(value) if isinstance(value, tuple) else ""
)
def test_bad_input_is_one_sentence_and_exit_code_2(
    words: tuple, message: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "empty").mkdir()
    places = {"photos": photos, "out": tmp_path / "out", "empty": tmp_path / "empty"}
    assert run(*[word.format(**places) for word in words]) == 2
    printed = capsys.readouterr()
    assert message in printed.err and printed.err.count("\n") == 1
    assert not printed.out and not (tmp_path / "out").exists()


def test_truncated_photograph_is_named_by_a_real_process(photos: Path, tmp_path: Path) -> None:
    broken = photos / "kitchen" / "2.jpg"
    broken.write_bytes(broken.read_bytes()[:700])
    command = [sys.executable, "-m", "shards", "build", "images", str(photos), "--out", str(tmp_path / "out")]
    done = subprocess.run([*command, "--workers", "2"], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and str(broken) in done.stderr and "truncated" in done.stderr
    assert done.stderr.count("\n") == 1 and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "words", [(), ("build",), *(("build", s) for s in SOURCES), ("info",), ("verify",), ("preview",)]
)
def test_help_shows_an_example(words: tuple, capsys: pytest.CaptureFixture) -> None:
    assert run(*words, "--help") == 0
    assert not words or "python -m shards" in capsys.readouterr().out.split("example", 1)[1]


def test_every_option_of_a_source_is_explained() -> None:
    from shards.arguments import field_docs
    from shards.build import BuildOptions
    from shards.sources import get_source

    for options in (BuildOptions, *(get_source(name).Options for name in SOURCES)):
        docs = field_docs(options)
        assert set(docs) == set(options.__dataclass_fields__) and all(docs.values())


def test_reading_a_dataset_does_not_import_torch() -> None:
    program = "import sys, shards; shards.open_dataset; import shards.__main__; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
