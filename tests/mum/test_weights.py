"""Files: there and back, headers, run folders, released checkpoints, refusals."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

import mum
from mum import weights


def same(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_whole_model_there_and_back(tiny, tmp_path):
    path = tmp_path / "deep" / "model.safetensors"
    mum.save(tiny, path, config=tiny.config, preprocessing={"size": 32}, summary={"step": 3})
    again = mum.load(path)
    assert again.config == tiny.config
    assert same(again.state_dict(), tiny.state_dict())
    assert not again.training
    header = mum.read_header(path)
    assert (header["preprocessing"], header["summary"]) == ({"size": 32}, {"step": 3})
    assert list(path.parent.iterdir()) == [path]


def test_encoder_alone_has_timm_s_names(tiny, pack, tmp_path):
    path = tmp_path / "encoder.safetensors"
    state = tiny.state_dict()
    mum.save(state, path, config=tiny.config, preprocessing={}, summary={}, with_decoder=False)
    assert same(load_file(path), tiny.encoder.state_dict())
    again = mum.load(path)
    assert again.decoder is None
    images = again.normalise(pack[0])
    assert torch.equal(again.encoder.forward_features(images), tiny.encoder.forward_features(images))
    with pytest.raises(ValueError, match="without its decoder"):
        again(*pack)


def test_run_folder_means_its_newest_checkpoint(saved, tiny):
    assert same(mum.load(saved).state_dict(), tiny.state_dict())
    assert mum.read_header(saved)["summary"]["step"] == 1000
    assert mum.read_header(saved / "checkpoints/step-00000090")["summary"]["step"] == 90


def test_loading_leaves_the_generator_alone(saved):
    before = torch.get_rng_state()
    mum.load(saved)
    assert torch.equal(torch.get_rng_state(), before)


def test_full_disk_leaves_the_old_file_whole(tiny, tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    about = {"config": tiny.config, "preprocessing": {}}
    mum.save(tiny, path, summary={"step": 1}, **about)

    def half(tensors, name, metadata=None):
        name.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(weights, "save_file", half)
    with pytest.raises(OSError, match="No space"):
        mum.save(tiny, path, summary={"step": 2}, **about)
    assert mum.read_header(path)["summary"] == {"step": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_files_are_as_readable_as_any_other(tiny, tmp_path):
    (tmp_path / "any").touch()
    mum.save(tiny, tmp_path / "a.safetensors", config=tiny.config, preprocessing={}, summary={})
    assert (tmp_path / "a.safetensors").stat().st_mode == (tmp_path / "any").stat().st_mode


def test_missing_and_foreign_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        mum.load(tmp_path / "nothing.safetensors")
    with pytest.raises(ValueError, match="holds neither"):
        mum.load(tmp_path)
    text = tmp_path / "notes.safetensors"
    text.write_text("no tensors here")
    with pytest.raises(ValueError, match="not a readable safetensors"):
        mum.load(text)
    save_file({"a": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(ValueError, match="load_reference"):
        mum.load(tmp_path / "foreign.safetensors")


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ('{"version": 99}', "version 99.*update"),
        ("{", "damaged"),
        ('{"version": 1, "config": {"name": "x"}}', "lacks"),
    ],
)
def test_headers_it_cannot_use_are_refused(tmp_path, header, words):
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.zeros(1)}, path, metadata={"mum": header})
    with pytest.raises(ValueError, match=words):
        mum.load(path)


def test_truncated_file_is_refused_by_name(saved):
    path = saved / "checkpoints/step-00001000/model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="step-00001000"):
        mum.load(saved)


def reference_state(model) -> dict[str, torch.Tensor]:
    names = (
        ("encoder.", ""),
        ("decoder.mask_token", "mask_token"),
        ("decoder.embed", "decoder_embed"),
        ("decoder.frame_blocks", "decoder_frame_blocks"),
        ("decoder.scene_blocks", "decoder_global_blocks"),
        ("decoder.norm", "decoder_norm"),
        ("decoder.head", "decoder_pred"),
    )
    state = {"rope_embed.periods": torch.zeros(4), "rope_embed_decoder.periods": torch.zeros(3)}
    for key, value in model.state_dict().items():
        ours, theirs = next((o, t) for o, t in names if key.startswith(o))
        state[theirs + key.removeprefix(ours)] = value
    return state


HEADS = {"patch_size": 8, "num_heads": 2, "decoder_num_heads": 2}


@pytest.mark.parametrize("kind", ["dict", "safetensors", "pth", "pth under model"])
def test_reference_in_every_wrapping(tiny, tmp_path, kind):
    state = reference_state(tiny)
    if kind == "safetensors":
        save_file(state, tmp_path / "w.safetensors")
        state = tmp_path / "w.safetensors"
    elif kind.startswith("pth"):
        torch.save({"model": state, "step": 3} if "model" in kind else state, tmp_path / "w.pth")
        state = tmp_path / "w.pth"
    model = mum.load_reference(state, **HEADS)
    assert same(model.state_dict(), tiny.state_dict())
    assert model.config.decoder.class_tokens_between_views == "zero"
    assert (model.config.encoder.depth, model.config.decoder.depth) == (2, 3)


def test_reference_encoder_alone(tiny):
    state = {k: v for k, v in reference_state(tiny).items() if "decoder" not in k and k != "mask_token"}
    model = mum.load_reference(state, **HEADS)
    assert model.decoder is None
    assert same(model.encoder.state_dict(), tiny.encoder.state_dict())


def test_reference_converted_to_our_file_keeps_its_switches(tiny, pack, tmp_path):
    model = mum.load_reference(reference_state(tiny), **HEADS)
    mum.save(model, tmp_path / "m.safetensors", config=model.config, preprocessing={}, summary={})
    noise = torch.rand(7, 24)
    again = mum.load(tmp_path / "m.safetensors")
    assert torch.equal(again(*pack, noise=noise).pred, model(*pack, noise=noise).pred)


@pytest.mark.parametrize("lost", ["norm.bias", "decoder_pred.weight", "mask_token", "decoder_embed.weight"])
def test_reference_refuses_what_is_missing_by_name(tiny, lost):
    state = reference_state(tiny)
    del state[lost]
    with pytest.raises(ValueError, match=f"lacks {lost}"):
        mum.load_reference(state, **HEADS)


def test_reference_refuses_what_is_left_over_by_name(tiny):
    state = reference_state(tiny) | {"storage_tokens": torch.zeros(1)}
    with pytest.raises(ValueError, match="storage_tokens"):
        mum.load_reference(state, **HEADS)


def test_reference_refuses_another_patch_and_another_width(tiny):
    state = reference_state(tiny)
    with pytest.raises(ValueError, match="set patch_size"):
        mum.load_reference(state, num_heads=2)
    state["norm.bias"] = torch.zeros(5)
    with pytest.raises(ValueError, match=r"norm\.bias as \(5,\), expected \(32,\)"):
        mum.load_reference(state, **HEADS)


def test_pickled_objects_are_never_run(tmp_path):
    class Boom:
        def __reduce__(self):
            return (exec, ("raise SystemExit('ran')",))

    torch.save({"model": Boom()}, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match="tensors alone"):
        mum.load_reference(tmp_path / "evil.pth")


def test_header_is_plain_json(saved):
    from safetensors import safe_open

    with safe_open(saved / "checkpoints/step-00001000/model.safetensors", "pt") as file:
        assert json.loads(file.metadata()["mum"])["config"]["name"] == "tiny"
