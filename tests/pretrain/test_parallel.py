"""A model made ready to train: the same numbers however it is prepared, and compiled once."""

import dataclasses
from collections.abc import Iterator
from functools import partial

import pytest
import torch
from torch._dynamo.utils import counters
from torch.distributed.device_mesh import DeviceMesh

import mum
from mum.decoder import DecoderConfig
from mum.encoder import EncoderConfig
from mum.masked import MuMConfig
from pretrain.parallel import ParallelConfig, World, prepare_model, process_group

CPU = torch.device("cpu")
PLAIN = ParallelConfig(threads=1, recompute="none", compile=False)
VIEWS = [(2, 2, 4), (1, 3, 4), (4, 2, 2), (3, 3, 2)]
"""eight images in three scenes, as every step has them"""


@pytest.fixture
def mesh() -> Iterator[DeviceMesh]:
    world = World(rank=0, size=1, local_rank=0, local_size=1)
    with process_group(world, CPU, PLAIN) as mesh:
        yield mesh


@pytest.fixture
def quick_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs are captured and differentiated as ever, but run as they are instead of as new C++."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    torch.compiler.reset()


def build() -> mum.MuM:
    torch.manual_seed(0)
    encoder = EncoderConfig(width=32, depth=2, heads=2, patch_size=8)
    decoder = DecoderConfig(width=32, depth=4, heads=2)
    model = mum.MuM(MuMConfig(name="small", encoder=encoder, decoder=decoder))
    mum.use_attention(model, "sdpa", most_views=4)
    return model


def step(model: torch.nn.Module, views: tuple[int, ...]) -> tuple[float, torch.Tensor]:
    generator = torch.Generator().manual_seed(sum(views[:1]))
    images = torch.randint(256, (8, 3, 32, 32), dtype=torch.uint8, generator=generator)
    noise = torch.rand(8, 16, generator=generator)
    loss = model(images, views, noise=noise).loss
    loss.backward()
    grads = [p.grad.full_tensor().flatten() for p in model.parameters()]
    model.zero_grad()
    return loss.item(), torch.cat(grads)


@pytest.mark.parametrize(
    "changes",
    [
        {"recompute": "selective"},
        {"recompute": "block"},
        {"compile": True, "recompute": "block"},
    ],
)
def test_every_preparation_gives_the_same_loss_and_gradients(mesh, quick_compile, changes):
    expected = step(prepare_model(build(), PLAIN, mesh), VIEWS[0])
    got = step(prepare_model(build(), dataclasses.replace(PLAIN, **changes), mesh), VIEWS[0])
    torch.testing.assert_close(got, expected)


def test_state_dict_has_the_same_names_however_it_is_prepared(mesh):
    config = dataclasses.replace(PLAIN, compile=True, recompute="block")
    assert list(prepare_model(build(), config, mesh).state_dict()) == list(build().state_dict())


def test_after_the_first_step_nothing_is_compiled_again_and_no_graph_breaks(mesh, quick_compile):
    model = prepare_model(build(), dataclasses.replace(PLAIN, compile=True), mesh)
    counters.clear()
    step(model, VIEWS[0])
    graphs = counters["stats"]["unique_graphs"]
    assert graphs == 3, "one for the encoder's blocks, one for frames, one for scenes"
    with torch.no_grad():
        model(torch.zeros(5, 3, 16, 16), [5])
    for views in VIEWS[1:]:
        step(model, views)
    assert counters["stats"]["unique_graphs"] == graphs
    assert not counters["graph_break"]


def test_gradients_reduced_in_bf16_are_rounded_to_it(mesh):
    exact = step(prepare_model(build(), PLAIN, mesh), VIEWS[0])[1]
    rounded = step(prepare_model(build(), dataclasses.replace(PLAIN, reduce="bf16"), mesh), VIEWS[0])[1]
    assert rounded.dtype == torch.float32
    assert torch.equal(rounded, exact.bfloat16().float())


def test_float8_says_what_it_needs(mesh):
    with pytest.raises(ValueError, match="Hopper or newer"):
        prepare_model(build(), dataclasses.replace(PLAIN, float8=True), mesh)


def test_plain_attention_is_not_compiled(mesh):
    with pytest.raises(ValueError, match="sdpa"):
        prepare_model(build(), dataclasses.replace(PLAIN, compile=True, attention="plain"), mesh)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_step_never_waits_for_the_gpu():
    device = torch.device("cuda", 0)
    world = World(rank=0, size=1, local_rank=0, local_size=1)
    with process_group(world, device, PLAIN) as mesh:
        model = build().to(device)
        mum.use_attention(model, "auto", most_views=4)
        model = prepare_model(model, PLAIN, mesh)
        images = torch.randint(256, (8, 3, 32, 32), dtype=torch.uint8, device=device)
        noise = torch.rand(8, 16, device=device)
        for number, views in enumerate(VIEWS):
            torch.cuda.set_sync_debug_mode("error" if number else "default")
            try:
                with torch.autocast("cuda", torch.bfloat16):
                    loss = model(images, torch.tensor(views), noise=noise).loss
                loss.backward()
                model.zero_grad()
            finally:
                torch.cuda.set_sync_debug_mode("default")
