"""Guards of a run: nothing that is not finite reaches the weights, and not too much of the data is damaged.

A loss or gradient that is not finite must never reach the weights, on any rank. The decision is taken on the
device, without waiting for it: the flag is handed to the fused optimizer, which skips the update where it is
set (the mechanism made for gradient scalers). Past the number of updates that may be skipped, none unless
--guard.on-nonfinite skip says otherwise, it latches, so that no later update happens either. The host learns of it
when the metrics are next collected, and then stops, naming the step. Loss and norm are already reduced over all
ranks, hence every rank holds the same flag and stops at the same step. Spikes, which are finite, are only told.
Damaged frames are substituted by the loader; here they are counted, from rows that are the same on every rank.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from pretrain.errors import InputError

DAMAGE_WINDOW = 100
"""Steps over which the share of damaged frames is taken."""


@dataclass(frozen=True, kw_only=True)
class GuardConfig:
    """What happens when loss or gradient go wrong."""

    on_nonfinite: Literal["stop", "skip"] = "stop"
    """when a loss or gradient is not finite: stop before the update, or leave that update out and go on"""
    max_skips: int = 20
    """updates that may be left out in the whole life of a run before it stops after all"""
    spike_sigmas: float = 10.0
    """a loss or gradient norm so many robust deviations above the median of the steps before is told; 0: never"""
    spike_window: int = 200
    """steps before, over which median and deviation are taken; nothing is told until a quarter of them is done"""

    def __post_init__(self) -> None:
        if self.max_skips < 0 or self.spike_sigmas < 0 or self.spike_window < 8:
            raise InputError(
                f"--guard: max-skips {self.max_skips} and spike-sigmas {self.spike_sigmas:g} start at 0, and "
                f"spike-window {self.spike_window} at 8 steps"
            )


class NonFiniteError(RuntimeError):
    """The loss or the gradient of a step was not finite; the weights are those before that step."""

    def __init__(self, step: int, what: str, skipped: int = 0) -> None:
        before = (
            f" after {skipped} updates that were skipped, all that --guard.max-skips allows"
            if skipped
            else ""
        )
        super().__init__(
            f"step {step} was stopped before its update on all ranks{before}: {what}; the weights are those of "
            f"step {step - 1}, a lower --optim.lr or --optim.clip 1.0 may help"
        )
        self.step = step


class FiniteGuard:
    """Holds back every update whose loss or gradient norm is not finite, and all updates past the limit.

    `skipped` is how many a run that goes on had left out before.
    """

    def __init__(self, config: GuardConfig, device: torch.device, skipped: int = 0) -> None:
        self._limit = config.max_skips if config.on_nonfinite == "skip" else 0
        self.skipped = skipped
        """updates left out, as far as the rows were read"""
        self._count = torch.full((), float(skipped), device=device)
        self.tripped = torch.zeros((), device=device)
        """on the device: 1 where the newest update was held back, else 0"""

    def watch(self, loss: torch.Tensor, grad_norm: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
        """Hold back `optimizer`'s coming update where a value is not finite, and past the limit in any case.

        `loss` and `grad_norm` are scalars that are the same on every rank. The optimizer must be fused.
        """
        bad = (~(torch.isfinite(loss) & torch.isfinite(grad_norm))).to(self._count.dtype)
        self._count = self._count + bad
        self.tripped = torch.maximum(bad, (self._count > self._limit).to(bad.dtype))
        optimizer.grad_scale = None
        optimizer.found_inf = self.tripped

    def read(self, rows: Sequence[Mapping[str, Any]]) -> tuple[int, NonFiniteError | None]:
        """How many of these rows, equal on all ranks, come before the step that stops the run, and what it raises.

        All of them and None where the run goes on.
        """
        for number, row in enumerate(rows):
            if "skipped" in row:
                if self.skipped >= self._limit:
                    return number, NonFiniteError(row["step"], row["skipped"], self.skipped)
                self.skipped += 1
        return len(rows), None


class SpikeGuard:
    """Tells losses and gradient norms far above those of the steps before; it changes nothing of the run."""

    WATCHED = ("loss", "grad_norm")

    def __init__(self, config: GuardConfig) -> None:
        self._sigmas, self.window = config.spike_sigmas, config.spike_window
        self._past = {name: deque[float](maxlen=self.window) for name in self.WATCHED}

    def watch(self, rows: Sequence[dict[str, Any]]) -> list[str]:
        """Note a spike in its row, and give what is to be told: a sentence for every step with one."""
        told = []
        for row in rows:
            high = [said for name in self.WATCHED if (said := self._judge(name, row.get(name)))]
            if high:
                row["spike"] = ", ".join(high)
                told.append(f"spike at step {row['step']}: {row['spike']}")
        return told

    def _judge(self, name: str, value: float | None) -> str:
        if value is None or self._sigmas <= 0:
            return ""
        past = np.array(self._past[name])
        self._past[name].append(value)
        if len(past) < self.window // 4:
            return ""
        median = float(np.median(past))
        # 1.4826 makes it the standard deviation of normal noise; values that hardly vary have none to measure by.
        sigma = max(1.4826 * float(np.median(np.abs(past - median))), 1e-3 * abs(median), 1e-12)
        if value <= median + self._sigmas * sigma:
            return ""
        high = (value - median) / sigma
        return (
            f"{name} {value:.4g} is {high:.1f} deviations above the median of {len(past)} steps, {median:.4g}"
        )


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
