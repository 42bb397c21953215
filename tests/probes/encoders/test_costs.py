"""Operations and memory, counted: against sums by hand."""

import pytest
import timm
import torch

from probes.encoders.costs import count_flops, count_peak_bytes

MEGABYTE = torch.zeros(250_000)


@pytest.mark.parametrize("fused", [True, False])
def test_operations_of_a_vit_are_those_of_its_products(fused: bool) -> None:
    model = timm.create_model("test_vit", num_classes=0).eval()
    for block in model.blocks:
        block.attn.fused_attn = fused
    width, depth, patches, hidden = 64, 6, 100, model.blocks[0].mlp.fc1.out_features
    tokens = patches + 1
    block = tokens * width * (3 * width + width + 2 * hidden) + 2 * tokens**2 * width
    by_hand = 2 * (patches * 3 * 16**2 * width + depth * block)
    with torch.inference_mode():
        assert count_flops(lambda: model(torch.zeros(1, 3, 160, 160))) == by_hand


def test_the_peak_is_of_tensors_alive_at_once() -> None:
    def forward() -> torch.Tensor:
        a = MEGABYTE + 1
        b = a * 2  # 2 MB
        del a
        c = torch.cat([b, b])  # b and 2 MB more
        del b
        return c.add_(1).view(2, -1)  # nothing new

    with torch.inference_mode():
        assert count_peak_bytes(forward) == 3 * MEGABYTE.nbytes


def test_what_was_there_before_does_not_count() -> None:
    with torch.inference_mode():
        assert count_peak_bytes(lambda: MEGABYTE.view(2, -1).t()) == 0
