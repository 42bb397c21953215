"""Full loading against decoding alone, and against the usual Pillow + torchvision chain, on one core in one run.

Full loading is what a run pays for an image: plan, overlap, read by position, crc, decode, random resized crop to
224, flip, pack, hash of the batch. Decoding alone is simplejpeg into warm memory, from bytes already read. The
chain is Image.open, convert, torchvision's RandomResizedCrop (bicubic), flip, float, normalise. All three see the
same frames in the same order, in turns; figures are medians over the turns, ratios are medians of ratios.

    python benchmarks/loader.py [--turns 9] [--steps 4] [--json]
"""

import argparse
import io
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import v2

from shards import DataConfig, Dataset, Frame, Plan
from shards import format as fmt
from shards.decode import Decoder
from shards.encode import encode_frame
from shards.microbatch import MicroBatches
from shards.writer import DatasetWriter, EncodedChunk

CHUNKS, FRAMES, SHORT, LONG = 6, 96, 384, 512


def photograph(rng: np.random.Generator) -> np.ndarray:
    """A picture with the spectrum of a photograph: 1/f noise in luminance, smoother in colour, hard-edged regions."""
    planes = [natural_noise(rng, slope) for slope in (1.1, 1.5, 1.5)]
    y, cb, cr = (plane * contrast for plane, contrast in zip(planes, (50, 15, 15), strict=True))
    y += 35 * (natural_noise(rng, 1.6) > 0.3)
    rgb = np.stack([y + 1.4 * cr, y - 0.34 * cb - 0.71 * cr, y + 1.77 * cb], -1)
    return (rgb + 115).clip(0, 255).astype(np.uint8)


def natural_noise(rng: np.random.Generator, slope: float) -> np.ndarray:
    """(SHORT, LONG) noise of unit deviation whose amplitude falls as frequency ** -slope."""
    frequency = np.hypot(np.fft.fftfreq(SHORT)[:, None], np.fft.rfftfreq(LONG)[None])
    frequency[0, 0] = 1
    field = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((SHORT, LONG))) / frequency**slope, (SHORT, LONG))
    return (field - field.mean()) / field.std()


def make_dataset(out: Path) -> Dataset:
    """CHUNKS x FRAMES pictures of short side 384 at quality 90, as a build would store them."""
    rng = np.random.default_rng(0)
    overlap = rng.integers(20, 200, (FRAMES, FRAMES)).astype(np.uint8)
    npy = io.BytesIO()
    np.save(npy, np.minimum(overlap, overlap.T))
    with DatasetWriter(out, source="noise") as writer:
        for number in range(CHUNKS):
            frames = [
                encode_frame(Frame(name=str(i), image=photograph(rng)), short_side=SHORT)
                for i in range(FRAMES)
            ]
            key = fmt.chunk_key("noise", str(number), 0)
            meta = {field: None for field in fmt.META_FIELDS} | {
                "schema": fmt.VERSION,
                "key": key,
                "source": "noise",
                "scene": str(number),
                "split": "train",
                "licence": "none",
                "classes": [],
                "frames": [frame.name for frame in frames],
                "sizes": [frame.size for frame in frames],
                "original_sizes": [frame.original_size for frame in frames],
                "transforms": [frame.transform.tolist() for frame in frames],
                "encodings": [frame.encoding for frame in frames],
            }
            writer.add(
                EncodedChunk(
                    key=key,
                    scene=fmt.scene_hash("noise", str(number)),
                    split="train",
                    kinds=0,
                    overlap=0.4,
                    meta=fmt.dump_meta(meta),
                    covisibility=npy.getvalue(),
                    jpegs=[frame.jpeg for frame in frames],
                )
            )
        writer.finish({})
    return Dataset(out)


def seconds(work: Callable[[], None]) -> float:
    """CPU seconds of this process, so that a neighbour's load does not count."""
    start = time.process_time()
    work()
    return time.process_time() - start


def measure(dataset: Dataset, turns: int, steps: int) -> dict[str, float]:
    """Images a second of the three, and the ratios of full loading to the others."""
    config = DataConfig(size=224, images_per_lane=128, views=(2, 12), lanes=1)
    plan = Plan(dataset, config)
    batches = MicroBatches(plan, [(0,)], cameras=False)
    decoder = Decoder()
    chain = v2.Compose(
        [
            v2.RandomResizedCrop(224, scale=(0.2, 1.0), interpolation=v2.InterpolationMode.BICUBIC),
            v2.RandomHorizontalFlip(),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    rows = []
    for turn in range(turns + 1):
        numbers = range(turn * steps, (turn + 1) * steps)
        parts = [plan.lane_step(number, 0) for number in numbers]
        jpegs = [
            dataset.read_jpeg(int(chunk), int(frame))
            for part in parts
            for chunk, frame in zip(np.repeat(part.chunks, part.views), part.frames, strict=True)
        ]
        full = seconds(lambda numbers=numbers: [batches.load(number, (0,)) for number in numbers])
        decode = seconds(lambda jpegs=jpegs: [decoder.decode(jpeg) for jpeg in jpegs])
        few = jpegs[:128]
        usual = seconds(
            lambda few=few: torch.stack([chain(Image.open(io.BytesIO(j)).convert("RGB")) for j in few])
        )
        planning = seconds(lambda numbers=numbers: [plan.lane_step(number, 0) for number in numbers])
        rows.append((len(jpegs) / full, len(jpegs) / decode, len(few) / usual, planning / len(parts)))
    full, decode, usual, planning = zip(*rows[1:], strict=True)  # the first turn warms up

    def ratio(of: tuple[float, ...]) -> float:
        return statistics.median(a / b for a, b in zip(full, of, strict=True))

    return {
        "kilobytes_a_frame": dataset.header["bytes"] / dataset.header["frames"] / 1000,
        "full_images_per_s": statistics.median(full),
        "decode_images_per_s": statistics.median(decode),
        "chain_images_per_s": statistics.median(usual),
        "full_to_decode": ratio(decode),
        "full_to_chain": ratio(usual),
        "plan_ms_a_lane_step": 1000 * statistics.median(planning),
    }


def main() -> None:
    """Make the frames, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--turns", type=int, default=9, help="repetitions that count")
    parser.add_argument("--steps", type=int, default=4, help="lane-steps of 128 images a repetition")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(make_dataset(Path(folder) / "frames"), arguments.turns, arguments.steps)
    if arguments.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:22} {value:10.3f}")


if __name__ == "__main__":
    main()
