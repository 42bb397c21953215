"""What a step holds in memory, found by running it on tensors without contents.

The model is built, cut over the mesh of a fake process group of any size, and taken through the forward and
backward passes of one step; every storage that comes into being is counted while it lives. Nothing is computed
and nothing allocated, so any model and any number of ranks fit on any machine. Attention is taken as fused and
blocks as not compiled. What is counted are tensors: an allocator's spare room, and what drivers and
communication keep for themselves, come on top. Nothing here knows of command lines or folders.
"""

import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.weak import WeakIdKeyDictionary

import mum
from mum.rope import rope_table
from pretrain.parallel import prepare_model
from pretrain.recipes import RunConfig
from pretrain.tasks import MaskedViews


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """Bytes of one rank in the dearest moment of a step."""

    weights: int
    """its share of the fp32 weights"""
    gradients: int
    """its share of their gradients"""
    moments: int
    """AdamW's two of each"""
    average: int
    """the running mean of the weights, where there is one"""
    image: int
    """what a forward pass keeps for the backward pass, for one image more"""
    peak: int
    """all tensors together at the highest point"""


class Living(TorchDispatchMode):
    """Counts the bytes of all storages made under it for as long as they live: `now`, and the most so far."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._sizes: WeakIdKeyDictionary = WeakIdKeyDictionary()

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run `func` and note the storages it made."""
        if any(issubclass(kind, DTensor) for kind in types):
            # It comes here again with the local tensors inside.
            return NotImplemented
        out = func(*args, **(kwargs or {}))
        for value in tree_iter(out):
            if isinstance(value, torch.Tensor):
                self._note(value.untyped_storage())
        return out

    def __enter__(self) -> "Living":
        # Sharded weights come and go by resizing their storage, which no dispatch shows.
        original = self._original = torch.UntypedStorage.resize_

        def resize(storage: torch.UntypedStorage, size: int) -> torch.UntypedStorage:
            original(storage, size)
            if (known := self._sizes.get(storage)) is not None:
                self._add(size - known[0])
                known[0] = size
            return storage

        torch.UntypedStorage.resize_ = resize
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        torch.UntypedStorage.resize_ = self._original
        super().__exit__(*error)

    def _add(self, size: int) -> None:
        self.now += size
        self.peak = max(self.peak, self.now)

    def _note(self, storage: torch.UntypedStorage) -> None:
        if storage in self._sizes:
            return
        size = self._sizes[storage] = [storage.nbytes()]
        self._add(size[0])
        weakref.finalize(storage, self._forget, size)

    def _forget(self, size: list[int]) -> None:
        self.now -= size[0]
        size[0] = 0


@contextmanager
def pretended_ranks(size: int, shard: int) -> Iterator[DeviceMesh]:
    """The (replicate, shard) mesh of `size` ranks of which this process is the first and the others are fake."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=size)
    try:
        yield init_device_mesh("cpu", (size // shard, shard), mesh_dim_names=("replicate", "shard"))
    finally:
        dist.destroy_process_group()


def footprint(
    config: RunConfig, task: MaskedViews, views: Sequence[int], *, ranks: int, passes: int
) -> Footprint:
    """The memory of one of `ranks` ranks whose step is `passes` passes over packs of these view counts.

    No process group may exist. InputError where the model cannot be cut so.
    """
    model = task.skeleton()
    with pretended_ranks(ranks, config.parallel.shard) as mesh:
        try:
            with FakeTensorMode(allow_non_fake_inputs=True), Living() as living:
                return _measure(config, task, model, views, mesh, passes, living)
        finally:
            # The tables made meanwhile have no contents either.
            rope_table.cache_clear()


def _measure(
    config: RunConfig,
    task: MaskedViews,
    model: mum.MuM,
    views: Sequence[int],
    mesh: DeviceMesh,
    passes: int,
    living: Living,
) -> Footprint:
    model = model.to_empty(device="cpu")
    mum.use_attention(model, "sdpa")
    # Compiled blocks keep what blocks with selective recomputation do, and pretended numbers cannot be compiled.
    model = prepare_model(model, replace(config.parallel, compile=False, float8=False), mesh)
    weights = sum(map(_bytes_here, model.parameters()))

    # Two packs tell what one image more takes: weights that are gathered or cast are in both.
    few = views[:1] if len(views) > 1 else (-(-views[0] // 2),)
    kept = _step(config, task, model, few, living, passes=1)
    living.peak = living.now
    more = _step(config, task, model, views, living, passes=passes) - kept
    average = weights if config.optim.ema else 0
    return Footprint(
        weights=weights,
        gradients=weights,
        moments=2 * weights,
        average=average,
        image=more // max(1, sum(views) - sum(few)),
        # The optimizer's state lies there all the while; clipping and update work in place.
        peak=living.peak + 2 * weights + average,
    )


def _bytes_here(parameter: nn.Parameter) -> int:
    """Bytes of this rank's part of a parameter."""
    part = parameter.to_local() if isinstance(parameter, DTensor) else parameter
    return part.numel() * part.element_size()


def _step(
    config: RunConfig,
    task: MaskedViews,
    model: nn.Module,
    views: Sequence[int],
    living: Living,
    *,
    passes: int,
) -> int:
    """Take a step up to its update; gives the bytes that a forward pass left behind for its backward pass."""
    kept = 0
    # As in the loop: the gradients of earlier passes, however many, lie there until the last one reduces them.
    for last in (False, True) if passes > 1 else (True,):
        model.set_requires_gradient_sync(last)
        before = living.now
        loss = _loss(config, task, model, views)
        kept = living.now - before
        loss.backward()
    model.zero_grad(set_to_none=True)
    return kept


def _loss(config: RunConfig, task: MaskedViews, model: nn.Module, views: Sequence[int]) -> torch.Tensor:
    size, images = config.data.size, sum(views)
    inputs: dict[str, Any] = {
        "images": torch.zeros((images, 3, size, size), dtype=torch.uint8),
        "views": tuple(views),
        "noise": torch.zeros((images, task.tokens)),
    }
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=config.precision == "bf16"):
        return task.loss(model, inputs)
