"""What a forward pass costs: operations and memory, counted from the tensors that pass, not measured.

Counts depend on the model and the size of its images alone, so they are the same on every machine. Nothing here
knows an encoder.
"""

import gc
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode


def count_flops(forward: Callable[[], Any]) -> int:
    """Floating-point operations of matrix products and convolutions in a call; a multiply-add is two.

    Attention is spelled out as its two products, whichever kernel would run, so every model is counted alike.
    """
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        forward()
    return int(counter.get_total_flops())


def count_peak_bytes(forward: Callable[[], Any]) -> int:
    """Most bytes of new tensors alive at once in a call; workspace inside kernels is not seen."""
    with _LiveTensors() as live:
        forward()
    return live.peak


class _LiveTensors(TorchDispatchMode):
    """Adds up the storages that operations make, until they die."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._seen: set[int] = set()

    def __enter__(self) -> "_LiveTensors":
        gc.collect()
        return super().__enter__()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = {
            x.untyped_storage()._cdata
            for x in tree_leaves((args, kwargs or {}))
            if isinstance(x, torch.Tensor)
        }
        found = func(*args, **(kwargs or {}))
        for x in tree_leaves(found):
            if isinstance(x, torch.Tensor):
                storage = x.untyped_storage()
                if storage._cdata not in self._seen and storage._cdata not in given:
                    self._add(storage)
        return found

    def _add(self, storage: torch.UntypedStorage) -> None:
        self._seen.add(storage._cdata)
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._remove, storage._cdata, storage.nbytes())

    def _remove(self, number: int, size: int) -> None:
        self._seen.discard(number)
        self.now -= size
