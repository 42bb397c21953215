"""Written-out against fused attention on one CPU thread, by the length of a row: where `mum.attention` changes over.

    python benchmarks/attention_cpu.py            # a minute; --json for figures alone

CPU time of forward and backward, not wall time, so that a busy machine blurs the figures less. In bf16 the fused
kernel's backward works in fp32, and unless rows are long, attention written out is quicker; in fp32 it never is.
One thread of a busy Zen 5 server core with AVX-512, torch 2.15, gave in bf16, with heads of 32 (fused ms, written
out ms): 50 tokens 16, 4; 197 tokens 52, 18; 394 tokens 64, 65; 788 tokens 94, 166. `mum.attention.SHORT_ROW` says
where the change is.
"""

import argparse
import json
import statistics
import sys
import time
from unittest import mock

import torch

import mum.attention
from mum.attention import SHORT_ROW, attend


def cpu_ms(qkv: torch.Tensor, short_row: int, repetitions: int) -> float:
    """Median CPU time of attention and its gradient, with rows up to `short_row` written out."""
    times = []
    with mock.patch.object(mum.attention, "SHORT_ROW", short_row):
        for _ in range(repetitions + 1):
            start = time.process_time()
            out = attend(qkv, None)
            torch.autograd.grad(out, qkv, torch.ones_like(out))
            times.append(1e3 * (time.process_time() - start))
    return statistics.median(times[1:])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[50, 124, 197, 394, SHORT_ROW, 788, 1182])
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--head-width", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=1600, help="of all rows together")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows = []
    for length in options.lengths:
        shape = (max(1, options.tokens // length), length, 3, options.heads, options.head_width)
        qkv = torch.randn(shape).bfloat16().requires_grad_()
        fused, written = (cpu_ms(qkv, limit, options.repetitions) for limit in (0, sys.maxsize))
        rows.append(
            {"length": length, "fused_ms": fused, "written_out_ms": written, "ratio": fused / written}
        )
        if not options.json:
            print(f"{length:5d} tokens a row: fused {fused:.1f} ms, written out {written:.1f} ms", flush=True)
    if options.json:
        json.dump(rows, sys.stdout, indent=1)
        print()


if __name__ == "__main__":
    main()
