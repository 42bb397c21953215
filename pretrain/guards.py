"""Guards of a run: nothing that is not finite reaches the weights, and not too much of the data is damaged.

A loss or gradient that is not finite must never reach the weights, on any rank. The decision is taken on the
device, without waiting for it: the flag is handed to the fused optimizer, which skips the update where it is
set (the mechanism made for gradient scalers), and it latches, so that no later update happens either. The host
learns of it when the metrics are next collected, and then stops, naming the step. Loss and norm are already
reduced over all ranks, hence every rank holds the same flag and stops at the same step. Damaged frames are
substituted by the loader; here they are counted, from rows that are the same on every rank.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import torch

DAMAGE_WINDOW = 100
"""Steps over which the share of damaged frames is taken."""


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


class TooMuchDamageError(RuntimeError):
    """More of the data is damaged than the run allows; said in one sentence with the mend."""

    def __init__(self, step: int, frames: int, images: int, limit: float) -> None:
        super().__init__(
            f"step {step}: {frames} of the frames of {DAMAGE_WINDOW} steps ({frames / images:.2%}) were damaged and"
            f" others stood in for them, more than --damage-limit {limit:g}: quarantine.jsonl in the run's folder"
            " lists them, python -m shards repair DIR --quarantine FILE takes them out (the run"
            " then goes on with --migrate), and a larger --damage-limit goes on with them"
        )


class DamageGuard:
    """Counts the frames of the last steps in whose place others were shown, and stops the run at a share.

    `limit` is a share of the images of `DAMAGE_WINDOW` steps, also before so many are done: a single damaged
    frame at the first step is no reason to stop.
    """

    def __init__(self, limit: float, images_per_step: int) -> None:
        self.limit, self.images = limit, images_per_step * DAMAGE_WINDOW
        self._recent: deque[int] = deque(maxlen=DAMAGE_WINDOW)

    def watch(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Count the rows of some steps, equal on all ranks. TooMuchDamageError, then, on all of them."""
        for row in rows:
            events = row.get("substituted", ())
            self._recent.append(sum(event.get("frame") is not None for event in events))
            if sum(self._recent) > self.limit * self.images:
                raise TooMuchDamageError(row["step"], sum(self._recent), self.images, self.limit)
