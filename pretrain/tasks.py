"""Tasks: what is trained. A task turns a batch of the loader into inputs and inputs into a loss.

The loop calls these and nothing else, so another objective is another class here. Randomness of a task is a
pure function of (seed, step, lane), so a batch gives the same loss whoever computes it. The batch is uint8
images (n * I, 3, H, W) of n lanes with views (n * B,).
"""

import dataclasses
import difflib
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

import mum
from mum.attention import choose_backend
from mum.flops import forward_flops
from pretrain import initial
from pretrain.errors import InputError
from pretrain.recipes import RunConfig
from shards import Batch

Inputs = dict[str, torch.Tensor]


class Task(Protocol):
    """What the loop asks of an objective."""

    cameras: bool
    """whether batches must carry intrinsics and poses"""

    def build(self) -> nn.Module:
        """The model with random weights, the same on every rank."""
        ...

    def initial(self) -> str:
        """What --init brings into the model, in a sentence; InputError if it does not fit."""
        ...

    def fill(self, model: nn.Module) -> None:
        """Bring in what --init names, before the model is sharded; all ranks call it together."""
        ...

    def inputs(self, batch: Batch) -> tuple[Inputs, dict[int, int]]:
        """The model's inputs on the CPU, and for every lane a 32-bit sum of all that its loss depends on."""
        ...

    def loss(self, model: nn.Module, inputs: Inputs) -> torch.Tensor:
        """The scalar loss: a mean in which every lane weighs the same."""
        ...

    def flops(self, views: Sequence[int]) -> int:
        """Floating-point operations of one forward pass over a pack of scenes of so many views."""
        ...

    def save(self, weights: Mapping[str, torch.Tensor], path: Path, summary: dict[str, Any]) -> None:
        """Write the whole model where others read it."""
        ...


class MaskedViews:
    """Masked autoencoding of many views (MuM, arXiv 2511.17309, section 3): paint the masked patches."""

    cameras = False

    def __init__(self, config: RunConfig, device: torch.device) -> None:
        self._config, self._device = config, device
        model = self.skeleton()
        self._model_config = model.config
        self._parameters = sum(p.numel() for p in model.parameters())
        patch = self._model_config.encoder.patch_size
        if config.data.size % patch:
            raise InputError(f"--size {config.data.size} is no multiple of the model's patch, {patch} px")
        self.tokens = (config.data.size // patch) ** 2
        """patches of one image (L)"""
        if config.model.reference_view and config.data.views[1] < 2:
            raise InputError(
                "--model.reference-view needs scenes of two or more views, and --views 1 1 has none"
            )
        dtype = torch.bfloat16 if config.precision == "bf16" else torch.float32
        try:
            self.attention = choose_backend(config.parallel.attention, device, dtype)
            """kernel of attention within scenes"""
        except ValueError as error:
            raise InputError(f"--parallel.attention: {error}") from None
        # Masking that cannot be is told before the run, of the scenes with the most views.
        try:
            self.flops([config.data.views[1]])
        except ValueError as error:
            raise InputError(f"--model.*: {error}") from None

    def skeleton(self) -> mum.MuM:
        """The model on the meta device: shapes without numbers."""
        with torch.device("meta"):
            return self._create()

    def describe(self) -> dict[str, Any]:
        """The whole configuration of the model, with what the recipe leaves to its preset."""
        return self._model_config.to_dict()

    def flops(self, views: Sequence[int]) -> int:
        """Floating-point operations of one forward pass over a pack; training takes three times as many."""
        model = self._config.model
        return forward_flops(
            self._model_config,
            views,
            self._config.data.size,
            mask_ratio=model.mask_ratio,
            decode_fraction=model.decode_fraction,
            reference_view=model.reference_view,
        )

    def parameters(self) -> int:
        """Trained numbers of encoder and decoder."""
        return self._parameters

    def _create(self) -> mum.MuM:
        model = self._config.model
        if model.name not in mum.PRESETS:
            near = difflib.get_close_matches(model.name, mum.PRESETS, n=1)
            hint = f", did you mean {near[0]}?" if near else ","
            raise InputError(f"there is no model {model.name!r}{hint} known are {', '.join(mum.PRESETS)}")
        given = {
            "width": model.decoder_width,
            "depth": model.decoder_depth,
            "heads": model.decoder_heads,
            "scene_wide": model.scene_wide,
        }
        with torch.device("meta"):
            default = mum.create_model(model.name).config.decoder
        try:
            decoder = dataclasses.replace(default, **{k: v for k, v in given.items() if v is not None})
        except ValueError as error:
            raise InputError(f"--model.decoder-*: {error}") from None
        return mum.create_model(model.name, decoder=decoder, norm_pix_loss=model.norm_pix_loss)

    def build(self) -> mum.MuM:
        """The model of the recipe; its initial weights depend on the seed alone."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._config.data.seed)
            model = self._create()
        mum.use_attention(model, self.attention, most_views=self._config.data.views[1])
        return model.to(self._device)

    def initial(self) -> str:
        """Which weights --init brings and which stay random; empty where it names none."""
        return initial.describe(self._config.init, self._model_config) if self._config.init else ""

    def fill(self, model: mum.MuM) -> None:
        """Load the weights that --init names, if any."""
        if self._config.init:
            initial.fill(model, self._config.init)

    def noise(self, step: int, lane: int, images: int) -> torch.Tensor:
        """(images, L) float32 noise; the patches with the smallest values stay visible."""
        return mum.mask_noise(self._config.data.seed, step, lane, (images, self.tokens))

    def inputs(self, batch: Batch) -> tuple[Inputs, dict[int, int]]:
        """Images, views and mask noise of a batch."""
        per_lane = len(batch.images) // len(batch.lanes)
        noise = [self.noise(batch.step, lane, per_lane) for lane in batch.lanes]
        checks = {
            lane: zlib.crc32(drawn.numpy(), int(crc))
            for lane, drawn, crc in zip(batch.lanes, noise, batch.crcs, strict=True)
        }
        return {"images": batch.images, "views": batch.views, "noise": torch.cat(noise)}, checks

    def loss(self, model: nn.Module, inputs: Inputs) -> torch.Tensor:
        """Mean squared error of the decoded patches; every image that is masked has the same number of them."""
        return model(
            inputs["images"],
            inputs["views"],
            mask_ratio=self._config.model.mask_ratio,
            noise=inputs["noise"],
            decode_fraction=self._config.model.decode_fraction,
            reference_view=self._config.model.reference_view,
        ).loss

    def save(self, weights: Mapping[str, torch.Tensor], path: Path, summary: dict[str, Any]) -> None:
        """Write a file that `mum.load` reads."""
        mum.save(
            weights,
            path,
            config=self._model_config,
            preprocessing={
                "mean": list(self._model_config.mean),
                "std": list(self._model_config.std),
                "size": self._config.data.size,
            },
            summary=summary,
        )
