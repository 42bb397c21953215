"""Small models and packs that the tests of mum share."""

import pytest
import torch

import mum
from mum import DecoderConfig, EncoderConfig, MuM, MuMConfig


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Models this small are slower on several threads, and far slower beside other processes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def tiny() -> MuM:
    """A model of 2 + 3 blocks with patches of 8 px, in eval mode."""
    torch.manual_seed(0)
    config = MuMConfig(
        name="tiny",
        encoder=EncoderConfig(width=32, depth=2, heads=2, patch_size=8, image_size=32),
        decoder=DecoderConfig(width=24, depth=3, heads=2),
    )
    return MuM(config).eval()


@pytest.fixture
def pack() -> tuple[torch.Tensor, torch.Tensor]:
    """Seven byte images of 32 x 48 px in scenes of 2, 1, 3 and 1 views."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(256, (7, 3, 32, 48), dtype=torch.uint8, generator=generator)
    return images, torch.tensor([2, 1, 3, 1])


@pytest.fixture
def saved(tiny: MuM, tmp_path):
    """The tiny model as a run folder with two checkpoints, the newer one being the model as it is."""
    run = tmp_path / "run"
    about = {"preprocessing": {"mean": tiny.config.mean, "std": tiny.config.std, "size": 32}}
    older = {key: torch.zeros_like(value) for key, value in tiny.state_dict().items()}
    for step, state in ((90, older), (1000, tiny)):
        path = run / f"checkpoints/step-{step:08d}/model.safetensors"
        mum.save(state, path, config=tiny.config, summary={"step": step, "data": "a | b"}, **about)
    return run
