"""The command line: what each command writes, and one sentence with exit code 2 for bad input."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import mum
from mum.__main__ import main


@pytest.fixture
def album(tmp_path):
    """Five photographs in two shapes, one pair with the same stem."""
    rng = np.random.default_rng(0)
    for name, (h, w) in {
        "a.jpg": (60, 90),
        "b.jpg": (60, 90),
        "sub/c.png": (90, 60),
        "sub/d.one.png": (60, 90),
        "a.png": (60, 90),
    }.items():
        path = tmp_path / "album" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (h, w, 3), dtype=np.uint8)).save(path)
    return tmp_path / "album"


def refused(capsys, *arguments) -> str:
    """Run, and return the one line on stderr of a run that must end with exit code 2."""
    with pytest.raises(SystemExit) as stop:
        main([str(a) for a in arguments])
    captured = capsys.readouterr()
    assert stop.value.code == 2
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err


def test_export_and_info(saved, tmp_path, capsys):
    out = tmp_path / "encoder.safetensors"
    main(["export", str(saved), "--out", str(out)])
    assert str(out) in capsys.readouterr().out
    main(["info", str(out)])
    told = capsys.readouterr().out
    assert "decoder: none" in told and "a | b" in told
    assert ["step", "1000"] in [line.split() for line in told.splitlines()]
    main(["info", str(saved), "--json"])
    header = json.loads(capsys.readouterr().out)
    assert header["parameters"]["decoder"] > 0
    assert header["config"]["name"] == "tiny"


def test_export_onto_a_file_is_refused(saved, tmp_path, capsys):
    out = tmp_path / "encoder.safetensors"
    out.write_text("mine")
    assert "--force" in refused(capsys, "export", saved, "--out", out)
    assert out.read_text() == "mine"
    assert not out.with_suffix(".md").exists()


def test_export_formats(saved, tmp_path, capsys):
    main(["export", str(saved), "--out", str(tmp_path / "t"), "--format", "timm", "--json"])
    assert str(tmp_path / "t" / "config.json") in json.loads(capsys.readouterr().out)["written"]
    main(["export", str(saved), "--out", str(tmp_path / "m.safetensors"), "--with-decoder"])
    assert mum.load(tmp_path / "m.safetensors").decoder is not None


def test_features_of_a_folder(saved, album, tmp_path, capsys):
    out = tmp_path / "features"
    main(["features", str(album), "--weights", str(saved), "--out", str(out), "--batch-size", "2"])
    names = ["a.jpg", "a.png", "b", "sub/c", "sub/d.one"]
    expected = sorted(f"{name}{suffix}" for name in names for suffix in (".npz", ".png"))
    assert sorted(str(p.relative_to(out)) for p in out.rglob("*") if p.is_file()) == expected
    with np.load(out / "sub/c.npz") as arrays:
        assert arrays["patches"].shape == (6, 4, 32)
        assert arrays["cls"].shape == (32,)
    assert Image.open(out / "b.png").size == (6 * 16, 4 * 16)
    assert not [p for p in out.rglob(".*")]


def test_features_in_batches_are_features_one_by_one(saved, album, tmp_path):
    for batch in (1, 4):
        out = str(tmp_path / f"by{batch}")
        main(["features", str(album), "--weights", str(saved), "--out", out, "--batch-size", str(batch)])
    for path in (tmp_path / "by1").rglob("*.npz"):
        other = tmp_path / "by4" / path.relative_to(tmp_path / "by1")
        with np.load(path) as one, np.load(other) as many:
            np.testing.assert_allclose(one["patches"], many["patches"], atol=1e-5)


def test_features_are_the_encoder_s(saved, album, tmp_path):
    main(["features", str(album / "a.jpg"), "--weights", str(saved), "--out", str(tmp_path / "f")])
    from mum.photos import read_photo, short_side

    model = mum.load(saved)
    images = torch.from_numpy(short_side(read_photo(album / "a.jpg"), 32, 8))[None]
    with torch.no_grad():
        tokens = model.encoder.forward_features(model.normalise(images))[0]
    with np.load(tmp_path / "f" / "a.npz") as arrays:
        np.testing.assert_allclose(arrays["patches"], tokens[1:].unflatten(0, (4, 6)), atol=1e-5)
        np.testing.assert_allclose(arrays["cls"], tokens[0], atol=1e-5)


def test_features_with_a_broken_photograph_write_nothing(saved, album, tmp_path, capsys):
    whole = (album / "a.jpg").read_bytes()
    (album / "sub" / "z.jpg").write_bytes(whole[: len(whole) // 2])
    out = tmp_path / "features"
    assert "z.jpg" in refused(capsys, "features", album, "--weights", saved, "--out", out)
    assert list(out.iterdir()) == []


def test_reconstruct(saved, album, tmp_path, capsys):
    out = tmp_path / "picture.png"
    arguments = ["reconstruct", str(album), "--weights", str(saved), "--out", str(out)]
    main([*arguments, "--json"])
    told = json.loads(capsys.readouterr().out)
    assert len(told["losses"]) == 5
    assert told["loss"] == pytest.approx(np.mean(list(told["losses"].values())), rel=1e-5)
    first = np.asarray(Image.open(out))
    assert first.shape == (3 * 32 + 4, 5 * 32 + 8, 3)
    assert "--force" in refused(capsys, *arguments)
    main([*arguments, "--force"])
    assert (np.asarray(Image.open(out)) == first).all()
    main([*arguments, "--force", "--seed", "1"])
    assert (np.asarray(Image.open(out)) != first).any()


def test_reconstruct_needs_a_decoder(saved, album, tmp_path, capsys):
    main(["export", str(saved), "--out", str(tmp_path / "e.safetensors")])
    capsys.readouterr()
    said = refused(
        capsys, "reconstruct", album, "--weights", tmp_path / "e.safetensors", "--out", tmp_path / "p.png"
    )
    assert "--with-decoder" in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["info", "nowhere"], "does not exist"),
        (["export", "RUN", "--out", "x.bin"], "ends in .safetensors"),
        (["export", "RUN", "--out", "x.safetensors", "--forc"], "did you mean --force?"),
        (["exprot", "RUN"], "did you mean export?"),
        (["features", "ALBUM", "--weights", "RUN", "--out", "f", "--size", "30"], "such as 32"),
        (["features", "ALBUM", "--weights", "RUN", "--out", "f", "--batch-size", "0"], "at least 1"),
        (["features", "EMPTY", "--weights", "RUN", "--out", "f"], "no photographs"),
        (["reconstruct", "ALBUM", "--weights", "RUN", "--out", "p.doc"], "picture's name"),
        (["reconstruct", "ALBUM", "--weights", "RUN", "--out", "p.png", "--mask-ratio", "1"], "mask ratio"),
        (["reconstruct", "ALBUM", "--weights", "RUN", "--out", "p.png", "--seed", "-1"], "negative"),
    ],
)
def test_bad_input_is_one_sentence(saved, album, tmp_path, monkeypatch, capsys, arguments, words):
    (tmp_path / "empty").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    paths = {"RUN": saved, "ALBUM": album, "EMPTY": tmp_path / "empty"}
    assert words in refused(capsys, *(paths.get(a, a) for a in arguments))
    assert list((tmp_path / "here").iterdir()) == []


def test_errors_of_ours_keep_their_traceback(saved, monkeypatch):
    def broken(options):
        raise KeyError("a bug")

    monkeypatch.setattr("mum.__main__.run_info", broken)
    with pytest.raises(KeyError):
        main(["info", str(saved)])


@pytest.mark.parametrize("command", ["export", "info", "reconstruct", "features"])
def test_help_has_an_example(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert f"example: python -m mum {command}" in capsys.readouterr().out


def test_import_is_silent_and_light():
    code = (
        "import sys, mum, torch, timm;"
        "assert 'matplotlib' not in sys.modules and 'xformers' not in sys.modules;"
        "assert not torch.cuda.is_initialized();"
        "assert 'mum_vitlarge_patch16' in timm.list_models()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
