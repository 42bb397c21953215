"""What a device can do at most: dense matrix products a second, by the name its driver gives it.

The figures are the makers' data sheets: without structured sparsity, with accumulation in fp32. A device that is
not in the table has no peak, and is not taken for a neighbour: a laptop's chip, a slice of a GPU or a variant
with another clock would be told a wrong share. Nothing here knows of models or runs.
"""

import re
import resource
import sys
from dataclasses import dataclass
from typing import Literal

import torch

Precision = Literal["bf16", "tf32", "fp32"]


@dataclass(frozen=True, kw_only=True)
class Peak:
    """Dense peaks of a device in TFLOP/s."""

    words: str
    """words that its name must have"""
    bf16: float
    fp32: float
    """without tensor cores"""


# Of two rows that fit a name, the one that asks for more words is meant.
PEAKS = (
    Peak(words="gb300", bf16=2500, fp32=80),
    Peak(words="gb200", bf16=2500, fp32=80),
    Peak(words="b300", bf16=2250, fp32=75),
    Peak(words="b200", bf16=2250, fp32=75),
    Peak(words="gh200", bf16=989, fp32=67),
    Peak(words="h200", bf16=989, fp32=67),
    Peak(words="h200 nvl", bf16=835, fp32=60),
    Peak(words="h100", bf16=989, fp32=67),
    Peak(words="h100 nvl", bf16=835, fp32=60),
    Peak(words="h100 pcie", bf16=756, fp32=51),
    Peak(words="h800", bf16=989, fp32=67),
    Peak(words="h800 pcie", bf16=756, fp32=51),
    Peak(words="h20", bf16=148, fp32=44),
    Peak(words="a100", bf16=312, fp32=19.5),
    Peak(words="a800", bf16=312, fp32=19.5),
    Peak(words="l40s", bf16=362, fp32=91.6),
    Peak(words="l40", bf16=181, fp32=90.5),
    Peak(words="l4", bf16=121, fp32=30.3),
    Peak(words="a40", bf16=149.7, fp32=37.4),
    Peak(words="a10", bf16=125, fp32=31.2),
    Peak(words="rtx a6000", bf16=154.8, fp32=38.7),
    Peak(words="rtx 6000 ada", bf16=364, fp32=91.1),
    Peak(words="rtx 5090", bf16=209.5, fp32=104.8),
    Peak(words="rtx 4090", bf16=165.2, fp32=82.6),
    Peak(words="rtx 3090", bf16=71, fp32=35.6),
    Peak(words="mi300x", bf16=1307, fp32=163.4),
    Peak(words="mi325x", bf16=1307, fp32=163.4),
)
_OTHER_CHIPS = {"mig", "laptop", "mobile", "q", "ti", "super", "d"}
"""Words of a name that mark another chip, or a part of one."""


def peak_flops(name: str, precision: Precision) -> float | None:
    """Dense peak in FLOP/s of the device of that name, such as "NVIDIA H100 80GB HBM3" or "H100".

    None where it is not known. tf32 counts half of bf16, as on every device of the table.
    """
    words = set(re.findall(r"[a-z0-9]+", name.lower()))
    fits = [peak for peak in PEAKS if words.issuperset(peak.words.split())]
    if not fits or words & _OTHER_CHIPS:
        return None
    best = max(fits, key=lambda peak: len(peak.words.split()))
    return {"bf16": best.bf16, "tf32": best.bf16 / 2, "fp32": best.fp32}[precision] * 1e12


def device_name(device: torch.device) -> str:
    """What the driver calls a device; CPUs are all called CPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type.upper()


def run_peak(device: torch.device, precision: Literal["fp32", "bf16"], given: float = 0.0) -> float | None:
    """The FLOP/s that a run's MFU is a share of: `given` in TFLOP/s, or the table's where that is 0.

    None where neither is known. Under `precision` fp32 the products may be carried out in tf32; float8 layers
    are measured by the peak of bf16, so that a run's figures can be compared with and without them.
    """
    if given > 0:
        return given * 1e12
    carried_out: Precision = precision
    if precision == "fp32" and torch.get_float32_matmul_precision() != "highest":
        carried_out = "tf32"
    return peak_flops(device_name(device), carried_out)


def peak_memory(device: torch.device) -> int:
    """Bytes that this process held at most so far: tensors on a GPU, all of its main memory else."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # Kilobytes, but bytes on macOS.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
