"""The block of encoder and decoder: timm's numbers, and as many of them kept as are wanted."""

import torch
from timm.models.eva import EvaBlock
from torch.utils.flop_counter import FlopCounterMode

from mum.block import Block, EncoderBlock, use_lean_blocks
from mum.rope import rope_table, signed_sin

CPU = torch.device("cpu")


def rows(head_dim: int):
    sin, cos = rope_table((2, 3), head_dim, "identity", CPU, torch.float32).chunk(2, dim=-1)
    return signed_sin(sin)[:, None, None], cos[:, None, None]


def step(block, x, *arguments):
    """Output and all gradients, and the numbers kept between the two passes."""
    kept = []
    inputs = x.clone().requires_grad_()
    weights = {id(p) for p in block.parameters()}
    own = lambda t: t.is_leaf and (id(t) in weights or t is inputs)  # noqa: E731
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: (kept.append(0 if own(t) else t.numel()), t)[1], lambda t: t
    ):
        out = block(inputs, *arguments)
    grads = torch.autograd.grad(out.square().sum(), [inputs, *block.parameters()])
    return out.detach(), grads, sum(kept)


def test_our_way_through_an_encoder_block_is_timm_s():
    torch.manual_seed(0)
    options = {"attn_type": "rope", "rotate_half": True, "num_prefix_tokens": 1}
    theirs = EvaBlock(32, 2, **options)
    ours = EvaBlock(32, 2, **options)
    ours.load_state_dict(theirs.state_dict())
    ours.__class__ = EncoderBlock
    x = torch.randn(3, 7, 32)
    table = rope_table((2, 3), 16, "identity", CPU, torch.float32)
    expected = step(theirs, x, table[1:])
    for rope in (rows(16), table[1:]):
        out, grads, _ = step(ours, x, rope)
        torch.testing.assert_close(out, expected[0])
        torch.testing.assert_close(grads, expected[1])


def test_lean_blocks_keep_less_and_give_the_same():
    torch.manual_seed(0)
    block = Block(32, 2, 1e-5)
    x = torch.randn(3, 7, 32)
    whole = step(block, x, *rows(16))
    use_lean_blocks(block)
    lean = step(block, x, *rows(16))
    assert torch.equal(lean[0], whole[0])
    assert all(torch.equal(a, b) for a, b in zip(lean[1], whole[1], strict=True))
    assert lean[2] < 0.75 * whole[2]


def test_lean_blocks_do_no_matrix_product_twice():
    torch.manual_seed(0)
    block = Block(32, 2, 1e-5)
    x = torch.randn(3, 7, 32)
    flops = []
    for lean in (False, True):
        use_lean_blocks(block, lean)
        with FlopCounterMode(display=False) as counter:
            block(x.requires_grad_(), *rows(16)).sum().backward()
        flops.append(counter.get_total_flops())
    assert flops[0] == flops[1] > 0
