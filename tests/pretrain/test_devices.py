"""Peaks of devices by the names their drivers give."""

import pytest

from pretrain.devices import PEAKS, peak_flops


@pytest.mark.parametrize(
    ("name", "tera"),
    [
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H100 NVL", 835),
        ("NVIDIA H200", 989),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA A100 80GB PCIe", 312),
        ("NVIDIA B200", 2250),
        ("NVIDIA L4", 121),
        ("NVIDIA L40S", 362),
        ("NVIDIA RTX 6000 Ada Generation", 364),
        ("NVIDIA GeForce RTX 4090", 165.2),
        ("AMD Instinct MI300X", 1307),
        ("H100", 989),
    ],
)
def test_drivers_names_find_their_peak(name: str, tera: float) -> None:
    assert peak_flops(name, "bf16") == tera * 1e12
    assert peak_flops(name, "tf32") == tera / 2 * 1e12


@pytest.mark.parametrize(
    "name",
    [
        "CPU",
        "NVIDIA A1000",
        "NVIDIA A100-SXM4-40GB MIG 1g.5gb",
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA GeForce RTX 3090 Ti",
        "",
    ],
)
def test_a_device_that_is_not_in_the_table_has_no_peak(name: str) -> None:
    assert peak_flops(name, "bf16") is None
    assert peak_flops(name, "fp32") is None


def test_tensor_cores_are_the_faster_ones() -> None:
    assert all(peak.bf16 > peak.fp32 for peak in PEAKS)
