"""A running mean of the weights beside them: cut over the ranks as they are, and as exact on resume.

    mean <- decay * mean + (1 - decay) * weights        after every update

The mean lives where the weights do and never leaves the device, so it costs one copy of them and no waiting. It
knows nothing of optimizers, files or the loop; `tensors` is what a checkpoint keeps of it.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor


def decay_at(step: int, decay: float) -> float:
    """The decay of update `step` (0-based): at first (1 + step) / (10 + step), so that the random beginning fades.

    A function of the step alone, hence the same on a resumed run.
    """
    return min(decay, (1 + step) / (10 + step))


class RunningMean:
    """The mean of a model's weights over its updates.

    Args:
        model: as it trains, sharded or not; the mean begins at its weights.
        decay: what one update leaves of the mean, in (0, 1).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._model, self._decay = model, decay
        self._mean = {name: p.detach().clone() for name, p in model.named_parameters()}

    def tensors(self) -> dict[str, Tensor]:
        """The mean by the parameters' names, sharded as they are: to be saved, or to be loaded into."""
        return self._mean

    @torch.no_grad()
    def restart(self) -> None:
        """Begin again at the model's weights."""
        for mean, weight in self._pairs():
            mean.copy_(weight)

    @torch.no_grad()
    def update(self, step: int, held_back: Tensor) -> None:
        """Take in the weights that update `step` (0-based) led to.

        `held_back` is a scalar on the device: 1 where the update was skipped, which leaves the mean bit for bit.
        """
        share = (1 - decay_at(step, self._decay)) * (1 - held_back)
        for mean, weight in self._pairs():
            mean.lerp_(weight, share.to(mean.dtype))

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The model with the mean for its weights, which are back, bit for bit, when the context ends."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for module in self._model.modules():
            # What a forward pass has gathered from all ranks is a copy that would outlive the exchange.
            if isinstance(module, FSDPModule):
                module.reshard()
        for mean, weight in self._pairs():
            kept = weight.clone()
            weight.copy_(mean)
            mean.copy_(kept)

    def _pairs(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Mean and weight of every parameter, as this rank holds them."""
        for name, parameter in self._model.named_parameters():
            yield _own(self._mean[name]), _own(parameter.detach())


def _own(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
