"""Exports: an encoder, or a whole model, with a model card beside it; or a folder that a stock timm loads.

What is written: `encoder.safetensors` with `encoder.md`, or for timm a folder of `config.json`,
`model.safetensors` and `README.md`. Existing files are kept unless told otherwise, and nothing is left
half-written.
"""

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from mum.encoder import EncoderConfig, pretrained_config, timm_arguments
from mum.masked import MuM
from mum.weights import (
    WeightsError,
    encoder_weights,
    load,
    read_header,
    replace_file,
    resolve,
    save,
    write_tensors,
)

# timm's config cannot name a layer norm's epsilon, so it comes with the architecture; all the rest is
# overridden.
_TIMM_ARCHITECTURE_BY_EPS = {1e-5: "vit_small_patch16_dinov3", 1e-6: "eva02_tiny_patch14_224"}


def export(
    source: str | Path,
    out: str | Path,
    *,
    with_decoder: bool = False,
    format: Literal["safetensors", "timm"] = "safetensors",
    force: bool = False,
) -> list[Path]:
    """Write the encoder of a file or run for use elsewhere.

    Args:
        source: a file of ours, a checkpoint folder, or a run folder (its newest checkpoint).
        out: a .safetensors file, or for timm a folder.
        with_decoder: keep the decoder, too; not for timm.
        format: "safetensors", or "timm" for a folder that
            `timm.create_model("local-dir:OUT", pretrained=True)` loads without this package.
        force: replace what is there.

    Returns:
        The paths written.

    Raises:
        WeightsError: the source cannot be read, the target exists, or the two options do not fit together.
    """
    source, out = resolve(source), Path(out)
    card = out / "README.md" if format == "timm" else out.with_suffix(".md")
    if format == "timm" and with_decoder:
        raise WeightsError("timm knows no decoders: export --with-decoder as safetensors")
    if format == "safetensors" and (out.suffix != ".safetensors" or out.is_dir()):
        raise WeightsError(f"{out} is not a file name that ends in .safetensors")
    for path in (out, card):
        if path.exists() and path.resolve() == source.resolve():
            raise WeightsError(f"{path} is the file to export from: choose another --out")
        if path.exists() and not force:
            raise WeightsError(f"{path} exists: choose another --out, or replace it with --force")
    model = load(source)
    header = read_header(source)
    if with_decoder and model.decoder is None:
        raise WeightsError(f"{source} holds no decoder: export it from the run instead")
    if format == "timm":
        _write_timm_folder(model, header, out, force)
        return [out / "config.json", out / "model.safetensors", card]
    text = model_card(model, header, out, with_decoder=with_decoder, format=format)
    replace_file(card, lambda temporary: _write_text(temporary, text))
    save(
        model,
        out,
        config=model.config,
        preprocessing=header["preprocessing"],
        summary=header["summary"],
        with_decoder=with_decoder,
    )
    return [out, card]


def timm_config(encoder: EncoderConfig, preprocessing: Mapping[str, Any]) -> dict[str, Any]:
    """`config.json` of a timm folder for an encoder.

    Raises:
        WeightsError: an epsilon that no architecture of timm has.
    """
    if encoder.norm_eps not in _TIMM_ARCHITECTURE_BY_EPS:
        known = " and ".join(f"{eps:g}" for eps in _TIMM_ARCHITECTURE_BY_EPS)
        raise WeightsError(
            f"timm's config can express layer norm epsilons of {known}, not {encoder.norm_eps:g}"
        )
    data = pretrained_config(encoder) | {"tag": "mum"}
    del data["url"]
    size = preprocessing.get("size", encoder.image_size)
    data |= {"input_size": (3, size, size)}
    data |= {key: tuple(preprocessing[key]) for key in ("mean", "std") if key in preprocessing}
    return {
        "architecture": _TIMM_ARCHITECTURE_BY_EPS[encoder.norm_eps],
        "num_classes": 0,
        "num_features": encoder.width,
        "global_pool": "token",
        "pretrained_cfg": data,
        # Null takes layer scale out again: the architecture has it, we do not.
        "model_args": timm_arguments(encoder) | {"init_values": None, "use_fc_norm": False},
    }


def _write_timm_folder(model: MuM, header: Mapping[str, Any], out: Path, force: bool) -> None:
    config = timm_config(model.config.encoder, header["preprocessing"])
    if out.exists() and not (out.is_dir() and (not any(out.iterdir()) or (out / "config.json").exists())):
        raise WeightsError(f"{out} is no earlier export: --force replaces only a folder with a config.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    try:
        temporary.chmod(0o755)
        _write_text(temporary / "config.json", json.dumps(config, indent=2) + "\n")
        tensors = {key: value.contiguous() for key, value in encoder_weights(model.state_dict()).items()}
        write_tensors(tensors, temporary / "model.safetensors", {"format": "pt"})
        card = model_card(model, header, out, with_decoder=False, format="timm")
        _write_text(temporary / "README.md", card)
        if force and out.exists():
            old = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}.old."))
            out.rename(old / "old")
            temporary.rename(out)
            shutil.rmtree(old)
        else:
            temporary.rename(out)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def model_card(
    model: MuM,
    header: Mapping[str, Any],
    out: Path,
    *,
    with_decoder: bool,
    format: Literal["safetensors", "timm"],
) -> str:
    """Markdown that says what a file is, how it was trained and how to use it."""
    config = model.config
    encoder, decoder = config.encoder, config.decoder
    shape = (
        f"ViT, {encoder.depth} blocks of width {encoder.width}, {encoder.heads} heads, patches of "
        f"{encoder.patch_size} px, axial RoPE, one class token"
    )
    rows = [("encoder", shape), ("encoder parameters", f"{_millions(model.encoder)} M")]
    if with_decoder and decoder is not None:
        rows += [
            ("decoder", f"{decoder.depth} blocks of width {decoder.width}, {decoder.heads} heads"),
            ("decoder parameters", f"{_millions(model.decoder)} M"),
        ]
    preprocessing = header["preprocessing"]
    rows += [
        ("mean", ", ".join(f"{x:g}" for x in preprocessing.get("mean", config.mean))),
        ("standard deviation", ", ".join(f"{x:g}" for x in preprocessing.get("std", config.std))),
        (
            "trained at",
            f"{preprocessing.get('size', encoder.image_size)} px; any multiple of the patch works",
        ),
    ]
    if format == "timm":
        library = "timm"
        usage = f"""import timm, torch

encoder = timm.create_model("local-dir:{out.name}", pretrained=True).eval()
images = torch.rand(1, 3, 224, 224)  # RGB in [0, 1], less the mean, over the standard deviation
features = encoder.forward_intermediates(images, indices=1, norm=True, intermediates_only=True)[0]"""
    else:
        library = "mumkit"
        usage = f"""import mum, torch

model = mum.load("{out.name}")
images = model.normalise(torch.randint(256, (1, 3, 224, 224), dtype=torch.uint8))
features = model.encoder.forward_intermediates(images, indices=1, norm=True, intermediates_only=True)[0]"""
    rows_of_training = flat(header["summary"]).items()
    training = "\n".join(
        f"| {key} | {value.replace('|', chr(92) + '|')} |" for key, value in rows_of_training
    )
    return f"""---
library_name: {library}
tags: [self-supervised, multi-view, masked-autoencoder]
---
# {config.name}

{"A multi-view masked autoencoder" if with_decoder else "The encoder of a multi-view masked autoencoder"}
(MuM, arXiv 2511.17309), pretrained without labels: many views of a scene are masked, each view is encoded by
itself, and a decoder that sees all views paints what is missing.

| | |
|---|---|
{chr(10).join(f"| {key} | {value} |" for key, value in rows)}

## Use
```python
{usage}
print(features.shape)  # (1, {encoder.width}, rows, columns)
```

## Training
{"| | |" + chr(10) + "|---|---|" + chr(10) + training if training else "No summary was recorded."}
"""


def _millions(module: Any) -> str:
    return f"{sum(p.numel() for p in module.parameters()) / 1e6:.1f}"


def flat(values: Mapping[str, Any] | Sequence[Any], prefix: str = "") -> dict[str, str]:
    """Nested JSON as one level of dotted names and short texts, for people to read."""
    rows: dict[str, str] = {}
    for key, value in values.items() if isinstance(values, Mapping) else enumerate(values):
        if isinstance(value, Mapping) or (
            isinstance(value, Sequence) and any(isinstance(v, Mapping) for v in value)
        ):
            rows |= flat(value, f"{prefix}{key}.")
        else:
            text = (
                f"{value:.5g}"
                if isinstance(value, float)
                else value
                if isinstance(value, str)
                else json.dumps(value)
            )
            rows[f"{prefix}{key}"] = text
    return rows
