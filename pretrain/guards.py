"""Guards of the update: a loss or gradient that is not finite must never reach the weights, on any rank.

The decision is taken on the device, without waiting for it: the flag is handed to the fused optimizer, which
skips the update where it is set (the mechanism made for gradient scalers), and it latches, so that no later
update happens either. The host learns of it when the metrics are next collected, and then stops, naming the
step. Loss and norm are already reduced over all ranks, hence every rank holds the same flag and stops at the
same step.
"""

import torch


class NonFiniteError(RuntimeError):
    """The loss or the gradient of a step was not finite; the weights are those before that step."""

    def __init__(self, step: int, loss: float, grad_norm: float) -> None:
        what = f"gradient norm {grad_norm}, loss {loss}"
        super().__init__(
            f"step {step} was stopped before its update on all ranks: {what}; the weights are those of step "
            f"{step - 1}, a lower --optim.lr or --optim.clip 1.0 may help"
        )
        self.step = step


class FiniteGuard:
    """A latched flag on the device: 1 from the first step on whose loss or gradient norm was not finite."""

    def __init__(self, device: torch.device) -> None:
        self.tripped = torch.zeros((), device=device)

    def watch(self, loss: torch.Tensor, grad_norm: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
        """Hold back `optimizer`'s coming update, and all later ones, where a value is not finite.

        `loss` and `grad_norm` are scalars that are the same on every rank. The optimizer must be fused.
        """
        finite = torch.isfinite(loss) & torch.isfinite(grad_norm)
        self.tripped = torch.maximum(self.tripped, (~finite).to(self.tripped.dtype))
        optimizer.grad_scale = None
        optimizer.found_inf = self.tripped
