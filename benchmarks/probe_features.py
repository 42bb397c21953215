"""Features and zero-shot matches against what they cannot do without: the encoder alone, the bare matrix product.

Extraction (decoding JPEGs of 640 x 480, squaring, encoding, rounding, writing the cache) of a set of images takes
turns with the encoder on the same batches, already decoded; the limit is 5 % over it. The matcher of 1024 x 1024
tokens takes turns with the product of both; the limit is 1.5 times. Figures are ratios of medians of one run.

Usage: python benchmarks/probe_features.py [--encoder random:mum_vitbase_patch16] [--size 224] [--device cpu] [--json]
Exit code 1 where a limit is missed.
"""

import argparse
import hashlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from probes.benchmarks.picture_files import read_picture
from probes.data.frames import Frame
from probes.data.square import SquareFrames
from probes.encoders.encoder import open_encoder
from probes.encoders.features import extract
from probes.matching.patch_matches import nearest_neighbours

EXTRACTION_LIMIT, MATCHER_LIMIT = 1.05, 1.5
TOKENS, WIDTH = 1024, 768


def write_photographs(folder: Path, count: int) -> list[Frame]:
    """JPEGs of 640 x 480 with detail at all scales, as frames."""
    frames = []
    for number in range(count):
        rng = np.random.Generator(np.random.Philox(key=number))
        picture = np.zeros((480, 640, 3))
        for cells in (4, 16, 64, 256):
            noise = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), np.uint8))
            picture += np.asarray(noise.resize((640, 480), Image.Resampling.BICUBIC)) / 4
        path = folder / f"{number}.jpg"
        Image.fromarray(picture.astype(np.uint8)).save(path, quality=90)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        image = partial(read_picture, path, upright=False)
        frames.append(
            Frame(
                name=path.name, scene="noise", height=480, width=640, image=image, digest=partial(str, digest)
            )
        )
    return frames


def medians(calls: list[Callable[[], object]], rounds: int, device: torch.device) -> list[float]:
    """Median seconds of each call, all taking turns, the first turn not counted."""
    seconds: list[list[float]] = [[] for _ in calls]
    for turn in range(rounds + 1):
        for found, call in zip(seconds, calls, strict=True):
            start = time.perf_counter()
            call()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if turn:
                found.append(time.perf_counter() - start)
    return [statistics.median(found) for found in seconds]


def extraction(spec: str, size: int, device: torch.device, images: int, batch: int, rounds: int) -> dict:
    """Seconds an image of the encoder alone and of the whole extraction, and their ratio."""
    encoder = open_encoder(spec, size=size, device=device)
    layers = (encoder.num_layers,)
    with tempfile.TemporaryDirectory() as folder:
        frames = SquareFrames(write_photographs(Path(folder), images), size, "crop")
        pixels = torch.from_numpy(np.stack([frames.load(i) for i in range(images)])).to(device)
        caches = iter(range(rounds + 1))

        def alone() -> None:
            for part in pixels.split(batch):
                encoder.encode(part, layers)

        def whole() -> None:
            extract(encoder, frames, layers, cache=Path(folder) / f"cache-{next(caches)}", batch=batch)

        seconds = medians([alone, whole], rounds, device)
    return {
        "encoder": spec,
        "size": size,
        "batch": batch,
        "alone_s": seconds[0] / images,
        "extraction_s": seconds[1] / images,
        "ratio": seconds[1] / seconds[0],
        "limit": EXTRACTION_LIMIT,
    }


def matcher(device: torch.device, rounds: int) -> dict:
    """Seconds of the bare product and of the matcher, and their ratio."""
    generator = torch.Generator().manual_seed(0)
    a, b = (
        torch.nn.functional.normalize(torch.randn(TOKENS, WIDTH, generator=generator), dim=1).to(device)
        for _ in range(2)
    )
    seconds = medians([lambda: a @ b.T, lambda: nearest_neighbours(a, b)], rounds, device)
    return {
        "tokens": TOKENS,
        "width": WIDTH,
        "product_s": seconds[0],
        "matcher_s": seconds[1],
        "ratio": seconds[1] / seconds[0],
        "limit": MATCHER_LIMIT,
    }


def main() -> int:
    """Measure both and print them; 0 if both limits are kept."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--encoder", default="random:mum_vitbase_patch16")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", action="store_true", help="print JSON")
    given = parser.parse_args()
    device = torch.device(given.device)
    found = {
        "device": given.device,
        "threads": torch.get_num_threads(),
        "extraction": extraction(given.encoder, given.size, device, given.images, given.batch, given.rounds),
        "matcher": matcher(device, 20 * given.rounds),
    }
    if given.json:
        print(json.dumps(found, indent=1))
    else:
        features, matches = found["extraction"], found["matcher"]
        print(
            f"extraction {1e3 * features['extraction_s']:.2f} ms an image, encoder alone "
            f"{1e3 * features['alone_s']:.2f} ms: ratio {features['ratio']:.3f} (limit {EXTRACTION_LIMIT}); "
            f"{given.encoder}, {given.size} px"
        )
        print(
            f"matcher {1e3 * matches['matcher_s']:.2f} ms, bare product {1e3 * matches['product_s']:.2f} ms: ratio "
            f"{matches['ratio']:.3f} (limit {MATCHER_LIMIT}); {TOKENS} x {TOKENS} tokens of {WIDTH}"
        )
    return int(any(found[part]["ratio"] > found[part]["limit"] for part in ("extraction", "matcher")))


if __name__ == "__main__":
    sys.exit(main())
