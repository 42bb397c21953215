"""`python -m mum`: export an encoder, look into a file, and try a model on photographs."""

import argparse
import difflib
import json
import os
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from mum import photos, pictures
from mum.errors import InputError
from mum.export import export, flat
from mum.masked import MuM
from mum.masking import mask_noise
from mum.weights import WeightsError, load, read_header, replace_file, resolve


class Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line, with the nearest known option."""

    def error(self, message: str) -> NoReturn:
        """Print one sentence and exit with 2."""
        known = {*self._words()}
        for word in re.findall(r"--[\w-]+|(?<=invalid choice: ')[^']+", message):
            if word not in known and (near := difflib.get_close_matches(word, known, n=1)):
                message += f" (did you mean {near[0]}?)"
        print(f"{self.prog}: {message}; {self.prog} --help shows the options", file=sys.stderr)
        raise SystemExit(2)

    def _words(self) -> Iterator[str]:
        # argparse has the top parser complain of a command's unknown options.
        for action in self._actions:
            yield from action.option_strings
            if isinstance(action.choices, dict):
                for name, sub in action.choices.items():
                    yield name
                    yield from sub._words()


def parser() -> Parser:
    """The command line."""
    top = Parser(prog="python -m mum", description="Export, inspect and try MuM models.", allow_abbrev=False)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str, example: str) -> argparse.ArgumentParser:
        return commands.add_parser(
            name,
            help=text,
            description=text,
            epilog=f"example: python -m mum {name} {example}",
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    sub = command("export", "Write a run's encoder as one file.", "runs/demo --out encoder.safetensors")
    sub.add_argument("source", metavar="RUN_OR_FILE", help="run folder (its newest checkpoint) or file")
    sub.add_argument("--out", required=True, help="a .safetensors file; for --format timm a folder")
    sub.add_argument("--with-decoder", action="store_true", help="keep the decoder, too")
    sub.add_argument("--format", choices=("safetensors", "timm"), default="safetensors")
    sub.add_argument("--force", action="store_true", help="replace what is there")
    sub.add_argument("--json", action="store_true", help="print the result as JSON")

    sub = command("info", "Say what a file or run holds.", "encoder.safetensors")
    sub.add_argument("source", metavar="RUN_OR_FILE")
    sub.add_argument("--json", action="store_true", help="print the header as JSON")

    sub = command(
        "reconstruct",
        "Mask photographs of one scene and paint them again.",
        "view1.jpg view2.jpg view3.jpg --weights runs/demo --out picture.png",
    )
    sub.add_argument("photos", nargs="+", metavar="PHOTO", help="photographs, or a folder of them")
    sub.add_argument("--weights", required=True, help="run folder, or file with decoder")
    sub.add_argument("--out", required=True, help="picture to write")
    sub.add_argument("--size", type=int, help="side of the centre squares in pixels; default: as trained")
    sub.add_argument("--mask-ratio", type=float, default=0.75)
    sub.add_argument("--seed", type=int, default=0, help="of the masks")
    sub.add_argument("--force", action="store_true", help="replace the picture if it exists")
    sub.add_argument("--json", action="store_true", help="print the losses as JSON")

    sub = command(
        "features",
        "Write each photograph's features (.npz) and a picture of them (.png).",
        "photos/ --weights encoder.safetensors --out features/",
    )
    sub.add_argument("photos", nargs="+", metavar="PHOTO", help="photographs, or folders of them")
    sub.add_argument("--weights", required=True, help="run folder or file")
    sub.add_argument("--out", required=True, help="folder to write to")
    sub.add_argument("--size", type=int, help="short side in pixels; default: as trained")
    sub.add_argument("--batch-size", type=int, default=16, help="photographs a forward pass")
    sub.add_argument("--json", action="store_true", help="print what was written as JSON")
    return top


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; bad input is one line on stderr and exit code 2."""
    options = parser().parse_args(arguments)
    run = {"export": run_export, "info": run_info, "reconstruct": run_reconstruct, "features": run_features}
    try:
        run[options.command](options)
    except (InputError, OSError) as error:
        print(f"python -m mum {options.command}: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(2) from None


def run_export(options: argparse.Namespace) -> None:
    """`export`."""
    written = export(
        options.source,
        options.out,
        with_decoder=options.with_decoder,
        format=options.format,
        force=options.force,
    )
    if options.json:
        print(json.dumps({"written": [str(path) for path in written]}))
    else:
        print("wrote " + ", ".join(str(path) for path in written))


def run_info(options: argparse.Namespace) -> None:
    """`info`."""
    path = resolve(options.source)
    header = read_header(path)
    model = load(path)
    counts = {"encoder": _count(model.encoder), "decoder": _count(model.decoder)}
    if options.json:
        print(json.dumps({"file": str(path), "parameters": counts, **header}))
        return
    config = header["config"]
    print(f"{path}: {config['name']}, format version {header['version']}")
    for part in ("encoder", "decoder"):
        if config[part] is None:
            print(f"{part}: none")
        else:
            print(f"{part}: {counts[part] / 1e6:.1f} M parameters; {_pairs(config[part])}")
    print(f"preprocessing: {_pairs(header['preprocessing'])}")
    print("training:" if header["summary"] else "training: not recorded")
    for key, value in flat(header["summary"]).items():
        print(f"  {key:<24} {value}")


def _count(module: torch.nn.Module | None) -> int:
    return sum(p.numel() for p in module.parameters()) if module is not None else 0


def _pairs(values: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items())


def run_reconstruct(options: argparse.Namespace) -> None:
    """`reconstruct`."""
    out = Path(options.out)
    if out.suffix.lower() not in photos.SUFFIXES:
        raise InputError(f"{out} is not a picture's name: end it in .png or .jpg")
    if out.exists() and not options.force:
        raise InputError(f"{out} exists: choose another --out, or replace it with --force")
    model = load(options.weights)
    if model.decoder is None:
        raise WeightsError(
            f"{options.weights} holds no decoder to paint with: use the run folder, or export --with-decoder"
        )
    size = _size(options, model)
    found = photos.find_photos(options.photos)
    squares = [photos.square(photos.read_photo(path), size) for path, _ in found]
    images = torch.from_numpy(np.stack(squares))
    patch = model.config.encoder.patch_size
    noise = mask_noise(options.seed, 0, 0, (len(images), (size // patch) ** 2))
    with torch.inference_mode():
        result = model(images, [len(images)], mask_ratio=options.mask_ratio, noise=noise)
        losses = model.masked_loss(images, result)
    picture = pictures.reconstruction_picture(
        images,
        result.pred,
        result.mask,
        patch,
        norm_pix_loss=model.config.norm_pix_loss,
        mean=model.config.mean,
        std=model.config.std,
    )
    _save_picture(picture, out)
    if options.json:
        each = {str(name): loss for (_, name), loss in zip(found, losses.tolist(), strict=True)}
        print(json.dumps({"picture": str(out), "loss": result.loss.item(), "losses": each}))
    else:
        print(f"wrote {out}: {len(images)} views of one scene, masked loss {result.loss.item():.3f}")


def run_features(options: argparse.Namespace) -> None:
    """`features`: one pass writes the arrays and sums up their PCA, a second one draws the pictures."""
    if options.batch_size < 1:
        raise InputError(f"--batch-size {options.batch_size}: at least 1")
    out = Path(options.out)
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file: --out names a folder")
    model = load(options.weights)
    size = _size(options, model)
    found = photos.find_photos(options.photos)
    names = _result_names(found)
    out.mkdir(parents=True, exist_ok=True)
    # All of it appears at the end, or nothing: a broken photograph leaves no half of a folder behind.
    with tempfile.TemporaryDirectory(dir=out, prefix=".features.") as folder:
        temporary = Path(folder)
        batches = _batches(
            [path for path, _ in found], size, model.config.encoder.patch_size, options.batch_size
        )
        moments = _Moments(model.config.encoder.width)
        bar = tqdm(total=len(found), desc="features", unit="photo", disable=None)
        for places, images in batches:
            classes, maps = encode(model, images)
            moments.add(maps)
            for place, cls, patches in zip(places, classes.numpy(), maps.numpy(), strict=True):
                target = temporary / f"{names[place]}.npz"
                target.parent.mkdir(parents=True, exist_ok=True)
                np.savez(target, cls=cls, patches=patches)
            bar.update(len(places))
        bar.close()
        mean, directions, scale = moments.pca()
        for name in tqdm(names, desc="pictures", unit="photo", disable=None):
            with np.load(temporary / f"{name}.npz") as arrays:
                maps = torch.from_numpy(arrays["patches"])[None]
            colours = pictures.pca_colours(maps, mean, directions, scale)[0]
            Image.fromarray(np.kron(colours, np.ones((16, 16, 1), np.uint8))).save(temporary / f"{name}.png")
        for name in names:
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            for suffix in (".npz", ".png"):
                os.replace(temporary / f"{name}{suffix}", out / f"{name}{suffix}")
    if options.json:
        print(json.dumps({"written": [str(out / f"{name}.npz") for name in names]}))
    else:
        print(f"wrote features (.npz) and pictures (.png) of {len(names)} photographs to {out}")


class _Moments:
    """Running sums for a PCA over any number of feature maps."""

    def __init__(self, width: int) -> None:
        self.count = 0
        self.total = torch.zeros(width, dtype=torch.float64)
        self.outer = torch.zeros(width, width, dtype=torch.float64)

    def add(self, maps: Tensor) -> None:
        flat = maps.reshape(-1, maps.shape[-1]).double()
        self.count += len(flat)
        self.total += flat.sum(0)
        self.outer += flat.T @ flat

    def pca(self) -> tuple[Tensor, Tensor, Tensor]:
        return pictures.pca_of_moments(self.count, self.total, self.outer)


@torch.inference_mode()
def encode(model: MuM, images: Tensor) -> tuple[Tensor, Tensor]:
    """Class tokens (N, width) and feature maps (N, rows, columns, width) of uint8 (N, 3, H, W)."""
    patch = model.config.encoder.patch_size
    tokens = model.encoder.forward_features(model.normalise(images))
    maps = tokens[:, 1:].unflatten(1, (images.shape[-2] // patch, images.shape[-1] // patch))
    return tokens[:, 0], maps


def _size(options: argparse.Namespace, model: MuM) -> int:
    patch = model.config.encoder.patch_size
    trained = read_header(options.weights)["preprocessing"].get("size", model.config.encoder.image_size)
    size = trained if options.size is None else options.size
    if size < patch or size % patch:
        raise InputError(
            f"--size {size}: this model needs a multiple of its patch of {patch} px, such as "
            f"{max(1, round(size / patch)) * patch}"
        )
    return size


def _result_names(found: list[tuple[Path, Path]]) -> list[Path]:
    """Names of the results, without suffix; a.jpg beside a.png keep theirs: a.jpg.npz, a.png.npz."""
    stems = Counter(name.with_suffix("") for _, name in found)
    names = [name.with_suffix("") if stems[name.with_suffix("")] == 1 else name for _, name in found]
    name, times = Counter(names).most_common(1)[0]
    if times > 1:
        raise InputError(f"{times} photographs are named {name}: give the folder that holds them all")
    return names


def _batches(
    paths: list[Path], size: int, patch_size: int, batch_size: int
) -> Iterator[tuple[list[int], Tensor]]:
    """Runs of photographs of one shape, as (places in `paths`, uint8 (N, 3, H, W))."""
    places: list[int] = []
    held: list[np.ndarray] = []
    for place, path in enumerate(paths):
        image = photos.short_side(photos.read_photo(path), size, patch_size)
        if held and (len(held) == batch_size or held[0].shape != image.shape):
            yield places, torch.from_numpy(np.stack(held))
            places, held = [], []
        places.append(place)
        held.append(image)
    yield places, torch.from_numpy(np.stack(held))


def _save_picture(picture: np.ndarray, path: Path) -> None:
    kind = Image.registered_extensions()[path.suffix.lower()]
    replace_file(path, lambda temporary: Image.fromarray(picture).save(temporary, format=kind))


if __name__ == "__main__":
    main()
