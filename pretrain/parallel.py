"""Processes, devices and sharding: the same path on one CPU process as on many GPUs.

There is always a process group, if only of one rank, and the model always goes through `fully_shard` on a
(replicate, shard) mesh: what the tests run with gloo is what ships. A rank may be any rank; which images it
trains on follows from its lanes (rank r of W serves the lanes v with v mod W = r).
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.rendezvous import rendezvous
from torch.utils.checkpoint import checkpoint

import mum
from mum.attention import Backend
from pretrain.errors import InputError

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class ParallelConfig:
    """How the work is spread; changes no number but by rounding."""

    lanes_at_once: int = 1
    """lanes concatenated into one forward pass; a rank's other lanes are accumulated"""
    shard: int = 1
    """ranks over which weights and optimizer state are cut; 1: every rank holds them whole"""
    threads: int = 0
    """CPU threads of each process; 0: cores / processes on this machine"""
    attention: Backend = "auto"
    """kernel of attention within scenes; auto: varlen on CUDA in bf16, else sdpa"""
    recompute: Literal["none", "block", "selective"] = "selective"
    """what the backward pass makes again instead of keeping it: nothing, whole blocks, or their norms and GELUs"""
    compile: bool | None = None
    """compile every block, once; None: on GPUs"""
    reduce: Literal["fp32", "bf16"] = "fp32"
    """precision in which gradients are summed over the ranks"""
    float8: bool = False
    """linear layers of the blocks in float8 (torchao; GPUs since Ada and Hopper)"""


@dataclass(frozen=True, kw_only=True)
class World:
    """Where this process stands among the ranks."""

    rank: int
    size: int
    local_rank: int
    local_size: int

    @property
    def first(self) -> bool:
        """Whether this is rank 0, which alone writes and speaks."""
        return self.rank == 0


def read_world() -> World:
    """The world as torchrun's variables tell it; one process where they are absent."""

    def number(name: str, default: int) -> int:
        return int(os.environ.get(name, default))

    return World(
        rank=number("RANK", 0),
        size=number("WORLD_SIZE", 1),
        local_rank=number("LOCAL_RANK", 0),
        local_size=number("LOCAL_WORLD_SIZE", 1),
    )


def check_world(size: int, *, lanes: int, config: ParallelConfig) -> None:
    """InputError unless `size` ranks divide the lanes, and the shard size divides the ranks."""
    if lanes % size:
        legal = ", ".join(str(n) for n in range(1, lanes + 1) if lanes % n == 0)
        raise InputError(f"{size} ranks cannot share {lanes} lanes equally: start one of {legal} ranks")
    if size % config.shard:
        raise InputError(f"--parallel.shard {config.shard} does not divide {size} ranks")


def lanes_per_pass(config: ParallelConfig, *, lanes: int, size: int) -> int:
    """Lanes of a rank that go through one forward pass: the largest divisor up to the configured number."""
    own = lanes // size
    return max(n for n in range(1, own + 1) if own % n == 0 and n <= max(1, config.lanes_at_once))


def pick_device(world: World) -> torch.device:
    """This rank's GPU, or the CPU where there is none."""
    if torch.cuda.is_available():
        return torch.device("cuda", world.local_rank)
    return torch.device("cpu")


def of_this_start(store: dist.Store) -> dist.Store:
    """The part of the ranks' common store that belongs to this start of theirs.

    torchrun --max-restarts keeps one store for all starts, with the addresses of dead ranks in it: a rank that
    reads one before it is written anew connects to nobody. On several nodes, which need not have counted the
    same number of starts, TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 gives each start a store of its own.
    """
    kept = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    if not kept or os.environ.get("GROUP_WORLD_SIZE", "1") != "1":
        return store
    return dist.PrefixStore(f"start-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)


@contextmanager
def process_group(world: World, device: torch.device, config: ParallelConfig) -> Iterator[DeviceMesh]:
    """Join the ranks for as long as the context lasts; gives the (replicate, shard) mesh."""
    if device.type == "cuda":
        torch.cuda.set_device(device)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(config.threads or max(1, cores // world.local_size))
    # gloo beside nccl: figures that live on the CPU (hashes of batches) are reduced there.
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    if world.size > 1:
        store, rank, size = next(rendezvous("env://"))
        dist.init_process_group(backend, store=of_this_start(store), rank=rank, world_size=size)
    else:
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield init_device_mesh(
            device.type,
            (world.size // config.shard, config.shard),
            mesh_dim_names=("replicate", "shard"),
        )
    finally:
        dist.destroy_process_group()


def prepare_model(model: nn.Module, config: ParallelConfig, mesh: DeviceMesh | None) -> nn.Module:
    """Make `model` ready to train, in place: float8, then recomputation, then compilation, then sharding.

    There is one order, and it is this: what is recomputed is compiled with its block, and the hooks that gather
    weights stay outside of both. Every member of a ModuleList is a block. Gradients come out as the mean over
    the ranks. Without a mesh, which only measurements do, nothing is sharded.

    Raises:
        InputError: float8 without a GPU that has it or without torchao; plain attention, to be compiled.
    """
    blocks = [block for part in model.modules() if isinstance(part, nn.ModuleList) for block in part]
    device = next(model.parameters()).device.type
    compiles = device == "cuda" if config.compile is None else config.compile
    if compiles and config.attention == "plain":
        raise InputError("--parallel.attention plain cannot be compiled: take sdpa, or --parallel.no-compile")
    if config.float8:
        to_float8(blocks, device)
    mum.use_lean_blocks(model, config.recompute == "selective")
    for block in blocks:
        if config.recompute == "block":
            block.forward = partial(checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False)
        if compiles:
            block.forward = _compiled(block.forward)
    if mesh is None:
        return model
    policy = MixedPrecisionPolicy(reduce_dtype=torch.bfloat16 if config.reduce == "bf16" else None)
    # What fits whole on every rank stays whole between forward and backward.
    resharded = mesh["shard"].size() > 1
    for part in [*blocks, model]:
        fully_shard(part, mesh=mesh, mp_policy=policy, reshard_after_forward=resharded)
    return model


def _compiled(forward: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """`forward`, compiled for training steps, whose shapes never change; evaluations take the plain one."""
    quick = torch.compile(forward, fullgraph=True, dynamic=False)

    def choose(*inputs: Any) -> torch.Tensor:
        return (quick if torch.is_grad_enabled() else forward)(*inputs)

    return choose


def to_float8(blocks: list[nn.Module], device_type: str) -> None:
    """Let the linear layers of the blocks multiply in float8, with scales drawn from each tensor.

    Raises:
        InputError: the device has no such arithmetic, or torchao is missing.
    """
    if device_type != "cuda" or torch.cuda.get_device_capability() < (8, 9):
        name = torch.cuda.get_device_name() if device_type == "cuda" else "a CPU"
        raise InputError(f"--parallel.float8 needs a GPU with float8 (Ada, Hopper or newer), this is {name}")
    try:
        from torchao.float8 import convert_to_float8_training
    except ImportError as error:
        raise InputError(
            f"--parallel.float8 needs torchao, which cannot be imported ({error}): pip install torchao"
        ) from error
    for block in blocks:
        convert_to_float8_training(block)


def whole_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """The whole state dict on rank 0, in main memory; empty on the others. All ranks call it together."""
    return get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))


def reduce_mean(value: torch.Tensor) -> torch.Tensor:
    """The mean of `value` over all ranks, the same bits on each."""
    dist.all_reduce(value)
    return value / dist.get_world_size()


def on_first(act: Callable[[], T]) -> T:
    """What `act` gives on rank 0, on every rank; an InputError raised there is raised on all of them."""
    said: list[Any] = [None, None]
    if dist.get_rank() == 0:
        try:
            said[0] = act()
        except InputError as error:
            said[1] = str(error)
    dist.broadcast_object_list(said)
    if said[1] is not None:
        raise InputError(said[1])
    return said[0]


def local(value: torch.Tensor) -> torch.Tensor:
    """A plain tensor from one that may be distributed."""
    return value.full_tensor() if hasattr(value, "full_tensor") else value
