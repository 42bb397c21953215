"""Exports: files, model cards, and a folder that a stock timm loads."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

import mum
from mum.export import export, timm_config

LOAD_WITH_TIMM_ALONE = """
import sys, timm, torch
from safetensors.torch import load_file, save_file
for folder in sys.argv[1:]:
    model = timm.create_model(f"local-dir:{folder}/for_timm", pretrained=True).eval()
    images = load_file(f"{folder}/images.safetensors")["images"]
    with torch.no_grad():
        features, pooled = model.forward_features(images), model(images)
        first = model.forward_intermediates(images, indices=[0], intermediates_only=True)[0]
    data = timm.data.resolve_model_data_config(model)
    assert list(data["input_size"]) == [3, 32, 32] and list(data["mean"]) == [0.485, 0.456, 0.406], data
    tensors = {"features": features, "first": first, "pooled": pooled}
    save_file({k: v.contiguous() for k, v in tensors.items()}, f"{folder}/features.safetensors")
assert "mum" not in sys.modules
"""


def test_encoder_file_and_card(saved, tiny, tmp_path):
    out = tmp_path / "out" / "encoder.safetensors"
    assert export(saved, out) == [out, out.with_suffix(".md")]
    assert load_file(out).keys() == tiny.encoder.state_dict().keys()
    assert mum.read_header(out)["summary"]["step"] == 1000
    card = out.with_suffix(".md").read_text()
    assert "| step | 1000 |" in card
    assert "| data | a \\| b |" in card
    assert 'mum.load("encoder.safetensors")' in card
    assert "decoder parameters" not in card


def test_card_s_code_runs(saved, tmp_path, monkeypatch, capsys):
    out = tmp_path / "encoder.safetensors"
    export(saved, out)
    code = out.with_suffix(".md").read_text().split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    assert capsys.readouterr().out.strip() == "torch.Size([1, 32, 28, 28])"


def test_with_decoder_keeps_it(saved, tiny, tmp_path):
    out = tmp_path / "model.safetensors"
    export(saved, out, with_decoder=True)
    assert mum.load(out).state_dict().keys() == tiny.state_dict().keys()
    assert "decoder parameters" in out.with_suffix(".md").read_text()


def test_stock_timm_loads_the_folder_with_equal_features(tmp_path):
    torch.manual_seed(0)
    expected = {}
    for eps in (1e-5, 1e-6):
        here = tmp_path / str(eps)
        encoder = mum.EncoderConfig(width=32, depth=2, heads=2, patch_size=8, image_size=32, norm_eps=eps)
        model = mum.MuM(mum.MuMConfig(name="tiny", encoder=encoder, decoder=None)).eval()
        about = {"config": model.config, "preprocessing": {"size": 32}, "summary": {}}
        mum.save(model, here / "m.safetensors", **about)
        export(here / "m.safetensors", here / "for_timm", format="timm")
        names = sorted(p.name for p in (here / "for_timm").iterdir())
        assert names == ["README.md", "config.json", "model.safetensors"]
        # Small numbers, so that the norms' epsilon shows.
        images = 1e-3 * torch.randn(2, 3, 32, 48)
        save_file({"images": images}, here / "images.safetensors")
        with torch.no_grad():
            features = model.encoder.forward_features(images)
            first = model.encoder.forward_intermediates(images, indices=[0], intermediates_only=True)[0]
        expected[here] = {"features": features, "first": first, "pooled": features[:, 0]}

    subprocess.run([sys.executable, "-c", LOAD_WITH_TIMM_ALONE, *map(str, expected)], check=True)
    for here, ours in expected.items():
        theirs = load_file(here / "features.safetensors")
        assert all(torch.equal(theirs[key], ours[key]) for key in ours)


def test_timm_cannot_express_other_epsilons():
    encoder = mum.EncoderConfig(width=32, depth=2, heads=2, norm_eps=1e-4)
    with pytest.raises(ValueError, match=r"1e-05 and 1e-06, not 0\.0001"):
        timm_config(encoder, {})


@pytest.mark.parametrize(("name", "format"), [("e.safetensors", "safetensors"), ("folder", "timm")])
def test_existing_exports_are_kept_without_force(saved, tmp_path, name, format):
    out = tmp_path / name
    export(saved, out, format=format)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    with pytest.raises(ValueError, match=r"exists.*--force"):
        export(saved, out, format=format)
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before
    export(saved, out, format=format, force=True)
    assert {p for p in tmp_path.rglob("*")} == before.keys()


def test_force_never_replaces_a_folder_that_is_no_export(saved, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_text("precious")
    with pytest.raises(ValueError, match="no earlier export"):
        export(saved, tmp_path / "photos", format="timm", force=True)
    assert (tmp_path / "photos" / "a.jpg").read_text() == "precious"


def test_refusals(saved, tmp_path):
    with pytest.raises(ValueError, match="no decoders"):
        export(saved, tmp_path / "t", format="timm", with_decoder=True)
    with pytest.raises(ValueError, match=r"ends in \.safetensors"):
        export(saved, tmp_path / "encoder.pth")
    file = saved / "checkpoints/step-00001000/model.safetensors"
    with pytest.raises(ValueError, match="the file to export from"):
        export(saved, file, force=True)
    export(saved, tmp_path / "e.safetensors")
    with pytest.raises(ValueError, match="holds no decoder"):
        export(tmp_path / "e.safetensors", tmp_path / "m.safetensors", with_decoder=True)
    assert not list(tmp_path.glob("m.*")) and not (tmp_path / "t").exists()


def test_timm_folder_s_config_is_plain_json(saved, tmp_path):
    export(saved, tmp_path / "t", format="timm")
    config = json.loads((tmp_path / "t" / "config.json").read_text())
    assert config["model_args"]["init_values"] is None
    assert config["num_features"] == 32
