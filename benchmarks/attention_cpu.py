"""Fused against plain attention in a training step on one CPU thread: images per CPU-second, and their ratio.

    python benchmarks/attention_cpu.py            # a minute; --json for figures alone

CPU time, not wall time, so that a busy machine blurs the figures less. Plain softmax(q k^T) v in bf16 is what
`mum.use_plain_attention` switches on. One thread of a busy two-core Xeon with AMX, torch 2.15 gave
(fused, plain, ratio):

    64 px fp32 87, 79, 0.91    64 px bf16 82, 149, 1.81    96 px fp32 41, 28, 0.67    96 px bf16 37, 60, 1.61
"""

import argparse
import json
import statistics
import sys
import time

import torch

import mum


def cpu_seconds(model: mum.MuM, images: torch.Tensor, views: list[int], bf16: bool, steps: int) -> float:
    """Median CPU time of one training step."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    times = []
    for step in range(steps + 2):
        start = time.process_time()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = model(images, views).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step >= 2:
            times.append(time.process_time() - start)
    return statistics.median(times)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="mum_vittiny_patch8")
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 96], help="pixels")
    parser.add_argument("--images", type=int, default=48, help="a step, in scenes of 6")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows = []
    for size in options.sizes:
        images = torch.randint(256, (options.images, 3, size, size), dtype=torch.uint8)
        views = [6] * (options.images // 6)
        for bf16 in (False, True):
            rates = {}
            for kind in ("fused", "plain"):
                model = mum.create_model(options.model)
                mum.use_plain_attention(model, kind == "plain")
                rates[kind] = options.images / cpu_seconds(model, images, views, bf16, options.steps)
            row = {"size": size, "dtype": "bf16" if bf16 else "fp32", **rates}
            rows.append(row | {"ratio": rates["plain"] / rates["fused"]})
            if not options.json:
                print(
                    f"{size} px {row['dtype']}: fused {rates['fused']:.0f}, plain {rates['plain']:.0f} "
                    f"images/CPU-s, plain / fused {rows[-1]['ratio']:.2f}",
                    flush=True,
                )
    if options.json:
        json.dump(rows, sys.stdout, indent=1)
        print()


if __name__ == "__main__":
    main()
